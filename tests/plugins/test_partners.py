"""Partners: current rows keep their plan with stored embeddings."""

from copy import deepcopy

import pytest
import torch
from safetensors.torch import load, save

from continual_mm.definitions.scenario import Scenario
from continual_mm.losses.transport import plan_distillation
from continual_mm.plugins.partners import Partners


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


def test_it_changes_training_and_with_no_weight_it_does_not(trained, values, same):
    naive = values(trained())
    none = Partners(weight=0.0)
    assert same(naive, values(trained(none)))
    assert none.state() == {}
    assert not same(naive, values(trained(Partners(weight=3.0))))


def test_it_leaves_the_first_stage_alone(trained, values, same):
    naive = values(trained(stages=1))
    assert same(naive, values(trained(Partners(), stages=1)))


def test_at_the_teacher_there_is_no_divergence_and_no_pull(trained, looking, terms_of):
    def check(strategy):
        if strategy.step:
            return
        found = terms_of(strategy, "partners")
        assert found.keys() == {"partners/video-audio"}
        loss = torch.stack(list(found.values())).sum()
        weights = list(strategy.space.tower("video").parameters())
        pulls = torch.autograd.grad(loss, weights, retain_graph=True)
        assert abs(float(loss)) < 1e-4
        assert max(float(pull.abs().max()) for pull in pulls) < 2e-3

    trained(Partners(weight=1.0), look := looking(1, check))
    assert look.calls == 12


def test_a_fresh_plugin_with_a_state_from_inside_a_stage_gives_the_same_terms(
    trained, looking, terms_of, same
):
    plugin = Partners()

    def check(strategy):
        before = terms_of(strategy, "partners")
        fresh = Partners()
        fresh.load_state(load(save(plugin.state())))
        strategy.terms = {}
        fresh.before_backward(strategy)
        assert before.keys() == strategy.terms.keys() == {"partners/video-audio"}
        assert same(before, strategy.terms)

    trained(plugin, look := looking(1, check))
    assert look.calls == 12


def test_the_old_tower_s_output_moves_less_the_stronger_it_is(scenario, dataset, changed, trained):
    video = dataset.columns["video"].values[80:]
    before = trained(stages=1, scenario=changed(scenario, steps=40)).space.encode("video", video)
    drifts = []
    for weight in (0.0, 3.0, 100.0):
        learner = trained(Partners(weight=weight), scenario=changed(scenario, steps=40))
        drifts.append(float((learner.space.encode("video", video) - before).square().sum(1).mean()))
    assert drifts[0] > drifts[1] > drifts[2]


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"epsilon": 0.0}, {"items": 0}):
        with pytest.raises(ValueError, match=rf"partners\.{next(iter(wrong))} = "):
            Partners(**wrong)


def test_the_term_is_the_divergence_of_plans_with_what_the_finished_space_stored(begun, looking):
    plugin = Partners(weight=2.0)
    learner, streams = begun(plugin, look := looking(1, lambda strategy: check(strategy)))
    learner.learn(streams, 0)
    old = deepcopy(learner.space)
    partners = plugin.state()["partners/audio"]

    def check(strategy):
        assert torch.equal(plugin.state()["partners/audio"], partners)
        teacher = old.encode("video", strategy.batch.features["video"])
        student = strategy.embedded["video"].direction
        expected = plan_distillation(
            1 - teacher @ partners.T, 1 - student @ partners.T, epsilon=0.07
        )
        found = strategy.terms["partners/video-audio"]
        torch.testing.assert_close(found, 2 * expected, rtol=2e-2, atol=1e-4)

    learner.learn(streams, 1)
    assert look.calls == 12


def test_what_is_stored_are_embeddings_of_the_stage_s_items_and_nothing_else(dataset, trained):
    plugin = Partners(items=30)
    learner = trained(plugin, stages=1)
    state = plugin.state()
    assert state.keys() == {"partners/video", "partners/audio"}
    for name in ("video", "audio"):
        all_of_them = learner.space.encode(name, dataset.columns[name].values[:80])
        stored = state[f"partners/{name}"]
        assert stored.shape == (30, 16)
        nearest = (stored @ all_of_them.T).max(1).values
        torch.testing.assert_close(nearest, torch.ones(30))
