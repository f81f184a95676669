"""Distill: old modalities' embeddings stay near the teacher's."""

import pytest
import torch

from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part
from continual_mm.plugins.distill import Distill
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


def test_in_a_third_stage_what_arrived_in_the_second_is_held_too(watched, terms_of):
    def check(strategy, old):
        held = {"audio", "text", "video"}
        assert terms_of(strategy, "distill/").keys() == {
            *(f"distill/{name}" for name in held),
            *(f"distill/current/{name}" for name in held),
        }

    watched(Distill(current=1.0, rows=24), 2, check, items=24)


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


def test_with_nothing_to_distil_from_it_is_refused_at_the_start(trained):
    with pytest.raises(ValueError, match=r"give the run a memory.*distill\.current = 1"):
        trained(Distill(), stages=1)
