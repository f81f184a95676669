"""Partners: current rows keep their plan with stored embeddings."""

from copy import deepcopy

import pytest
import torch

from continual_mm.definitions.scenario import Scenario
from continual_mm.losses.transport import plan_distillation
from continual_mm.plugins.partners import Partners


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


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
