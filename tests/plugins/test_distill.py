"""Distill: old modalities' embeddings stay near the teacher's."""

import pytest
import torch
from safetensors.torch import load, save

from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part
from continual_mm.plugins.distill import Distill
from continual_mm.plugins.freeze import Freeze
from continual_mm.space.space import JointSpace


def teacher_of(space: JointSpace, strategy: Learner, name: str, part: Part) -> torch.Tensor:
    """What a finished space makes of the part's rows, straight from the features."""
    batch = strategy.batch.select(torch.arange(part.start, part.stop))
    return space.encode(name, batch.features[name])


def student_of(strategy: Learner, name: str, part: Part) -> torch.Tensor:
    rows = strategy.batch.rows[name]
    return strategy.embedded[name].direction[(rows >= part.start) & (rows < part.stop)]


def test_the_term_of_remembered_rows_is_their_mean_squared_distance_to_the_old_space(
    watched, terms_of
):
    def check(strategy, old):
        found = terms_of(strategy, "distill/")
        assert found.keys() == {"distill/audio", "distill/video"}
        for name in ("audio", "video"):
            teacher = teacher_of(old, strategy, name, strategy.remembered)
            student = student_of(strategy, name, strategy.remembered)
            cosine = (teacher * student).sum(1)
            expected = 3.0 / 2 * (2 - 2 * cosine).mean()
            torch.testing.assert_close(found[f"distill/{name}"], expected, rtol=1e-4, atol=2e-6)

    watched(Distill(weight=3.0, rows=16), 1, check, items=24)


def test_the_term_of_current_rows_compares_with_the_old_towers_on_whole_features(
    scenario, watched, terms_of
):
    space = scenario.space.model_copy(update={"feature_dropout": 0.5})
    scenario = scenario.model_copy(update={"space": space})

    def check(strategy, old):
        found = terms_of(strategy, "distill/current/")
        assert found.keys() == {"distill/current/video"}
        teacher = teacher_of(old, strategy, "video", strategy.current)
        student = student_of(strategy, "video", strategy.current)
        expected = 0.5 * (2 - 2 * (teacher * student).sum(1)).mean()
        torch.testing.assert_close(found["distill/current/video"], expected, rtol=1e-4, atol=2e-6)
        assert expected > 0.01

    plugin = Distill(current=0.5, rows=16)
    watched(plugin, 1, check, scenario=scenario)
    watched(Distill(current=0.5), 1, check, items=None, scenario=scenario)


def test_at_the_teacher_there_is_no_distance_and_no_pull(watched, terms_of):
    def check(strategy, old):
        if strategy.step:
            return
        found = terms_of(strategy, "distill/")
        assert len(found) == 3
        weights = list(strategy.space.tower("video").parameters())
        loss = torch.stack(list(found.values())).sum()
        pulls = torch.autograd.grad(loss, weights, retain_graph=True)
        assert float(loss) < 1e-9
        assert max(float(pull.abs().max()) for pull in pulls) < 1e-5

    watched(Distill(current=1.0, rows=16), 1, check, items=24)


def test_in_a_third_stage_what_arrived_in_the_second_is_held_too(watched, terms_of):
    def check(strategy, old):
        held = {"audio", "text", "video"}
        assert terms_of(strategy, "distill/").keys() == {
            *(f"distill/{name}" for name in held),
            *(f"distill/current/{name}" for name in held),
        }

    watched(Distill(current=1.0, rows=24), 2, check, items=24)


def test_it_changes_training_and_with_no_weight_it_does_not(trained, values, same):
    naive = values(trained(items=24))
    none = Distill(weight=0.0)
    assert same(naive, values(trained(none, items=24)))
    assert none.state() == {}
    for plugin in (Distill(rows=16), Distill(weight=0.0, current=1.0)):
        assert not same(naive, values(trained(plugin, items=24)))


def test_it_leaves_the_first_stage_alone(trained, values, same):
    naive = values(trained(stages=1, items=24))
    plugin = Distill(current=1.0)
    assert same(naive, values(trained(plugin, stages=1, items=24)))


def test_old_embeddings_move_less_the_stronger_it_is(scenario, dataset, changed, trained):
    scenario = changed(scenario, steps=40)
    video = dataset.columns["video"].values[80:]
    before = trained(stages=1, scenario=scenario).space.encode("video", video)
    drifts = []
    for weight in (0.0, 3.0, 100.0):
        learner = trained(Distill(weight=weight, rows=24), items=24, scenario=scenario)
        after = learner.space.encode("video", video)
        drifts.append(float((after - before).square().sum(1).mean()))
    assert drifts[0] > drifts[1] > 2 * drifts[2]


def test_only_a_weight_on_current_rows_keeps_a_copy_of_the_towers(trained):
    lean, full = Distill(rows=16), Distill(rows=16, current=1.0)
    for plugin in (lean, full):
        trained(plugin, items=24)
    kinds = [{key.split("/")[0] for key in plugin.state()} for plugin in (lean, full)]
    assert kinds == [{"teacher"}, {"teacher", "towers"}]
    space = trained(stages=1).space
    size = sum(value.nbytes for value in space.encoders.state_dict().values())
    towers = [value for key, value in full.state().items() if key.startswith("towers/")]
    assert sum(value.nbytes for value in towers) == size


def test_a_fresh_plugin_with_a_saved_state_gives_the_same_next_terms(watched, terms_of, same):
    plugin = Distill(rows=16, current=1.0)

    def check(strategy, old):
        before = terms_of(strategy, "distill/")
        assert len(before) == 3
        fresh = Distill(rows=16, current=1.0)
        fresh.load_state(load(save(plugin.state())))
        strategy.terms = {}
        fresh.before_backward(strategy)
        assert before.keys() == strategy.terms.keys()
        assert same(before, strategy.terms)

    watched(plugin, 1, check, items=24)


def test_its_teacher_is_not_trained_along(watched, same):
    copies = []

    def check(strategy, old):
        plugin = next(p for p in strategy.plugins if isinstance(p, Distill))
        copies.append({key: value.clone() for key, value in plugin.state().items()})

    watched(Distill(current=1.0, rows=16), 1, check, items=24)
    assert same(copies[0], copies[-1])


def test_with_nothing_to_distil_from_it_is_refused_at_the_start(trained):
    with pytest.raises(ValueError, match=r"give the run a memory.*distill\.current = 1"):
        trained(Distill(), stages=1)


def test_frozen_towers_stay_bit_for_bit_beside_it(trained, values, contained):
    frozen = values(trained(Freeze(), items=24))
    both = values(trained(Freeze(), Distill(current=1.0), items=24))
    old = {name: value for name, value in frozen.items() if ".text." not in name}
    assert contained(old, both)


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"current": float("nan")}, {"rows": 1}):
        with pytest.raises(ValueError, match=rf"distill\.{next(iter(wrong))} = "):
            Distill(**wrong)
