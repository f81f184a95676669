"""Match: new pairs are trained by their transport plan as well."""

import math
from functools import partial

import pytest
import torch

import continual_mm as cm
from continual_mm.plugins.match import Match, matching_divergence
from continual_mm.system.errors import InputError


@pytest.fixture(scope="module")
def scenario(scenario):
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


BOTH = {"match/audio-video", "match/text-video"}


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ({}, {0: set(), 1: {"match/text-video"}}),
        ({"joint": True}, {1: BOTH}),
        ({"cumulative": True}, {0: set(), 1: BOTH}),
    ],
)
def test_it_begins_with_the_second_stage_and_joint_training_matches_every_pair(
    bound, expected, trained, looking, terms_of
):
    found = {}

    def look(learner):
        found.setdefault(learner.stage, set()).update(terms_of(learner, "match/"))

    trained(Match(), looking(0, look), looking(1, look), stages=len(expected), items=None, **bound)
    assert found == expected


def test_the_term_is_what_sinkhorns_algorithm_leaves_to_the_right_partners(trained, looking):
    def look(learner):
        video, text = (learner.embedded[name].direction.detach() for name in ("video", "text"))
        kernel = ((video @ text.T).double() / 0.2).exp()
        for _ in range(2000):  # rows and columns in turn, until both have the mass 1/n
            kernel /= kernel.sum(0, keepdim=True) * len(kernel)
            kernel /= kernel.sum(1, keepdim=True) * len(kernel)
        expected = -2.0 * (kernel.diagonal() * len(kernel)).log().mean()
        found = learner.terms["match/text-video"].double()
        torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-3)

    trained(Match(weight=2.0, epsilon=0.2), looking(1, look), items=None)


def test_two_items_have_the_plan_that_one_can_work_out_by_hand():
    cost = torch.tensor([[0.0, 0.3], [0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    value = matching_divergence(cost, epsilon=0.1)
    # Doubly stochastic 2 x 2: the odds of staying are the square root of those of the costs.
    odds = math.exp((0.3 + 0.1) / 0.1 / 2)
    assert value.item() == pytest.approx(math.log(1 + 1 / odds), rel=1e-3)


def test_its_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    divergence = partial(matching_divergence, epsilon=0.3)
    assert torch.autograd.gradcheck(divergence, (cost,), eps=0.05, atol=2e-3, rtol=0)


def test_joint_training_from_python_takes_it_and_nothing_that_protects(scenario, dataset):
    history = cm.train(scenario, dataset, plugins=[Match()], joint=True, device="cpu")
    assert history.space.modalities
    with pytest.raises(InputError, match="has nothing to protect"):
        cm.train(scenario, dataset, plugins=[cm.EWC()], joint=True, device="cpu")
