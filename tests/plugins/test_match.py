"""Match: new pairs are trained by their transport plan as well."""

import math

import pytest
import torch
from torch import Tensor

import continual_mm as cm
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.evaluation.pairs import evaluator
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import benchmark
from continual_mm.plugins.match import Match
from continual_mm.plugins.plugin import Plugin
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError

SCENARIO = Scenario(
    name="match",
    space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
    training=Training(steps=12, batch_size=20, learning_rate=1e-2),
    stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
)


class Look(Plugin):
    """Takes down the terms of each step and the embeddings that they were made of."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, dict[str, Tensor], dict[str, Tensor]]] = []

    def before_backward(self, strategy: Learner, *args: object, **kwargs: object) -> None:
        terms = {name: value.detach() for name, value in strategy.terms.items()}
        made = {name: part.direction.detach() for name, part in strategy.embedded.items()}
        self.seen.append((strategy.stage, terms, made))


def looked_at(dataset: Dataset, *plugins: Plugin, **kwargs: bool) -> Look:
    """What a run over both stages looks like inside."""
    look = Look()
    streams = benchmark(SCENARIO, plan(SCENARIO, dataset.card), dataset, seed=0, **kwargs)
    learner = Learner(
        space=JointSpace(SCENARIO.space), seed=0, evaluator=evaluator(), plugins=[*plugins, look]
    )
    for stage in range(len(streams.train)):
        learner.learn(streams, stage)
    return look


def terms_by_stage(look: Look) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for stage, terms, _ in look.seen:
        found.setdefault(stage, set()).update(name for name in terms if name.startswith("match"))
    return found


def test_it_begins_with_the_second_stage_and_its_pair(dataset: Dataset) -> None:
    assert terms_by_stage(looked_at(dataset, Match())) == {0: set(), 1: {"match/text-video"}}


def test_joint_training_matches_every_pair(dataset: Dataset) -> None:
    (found,) = terms_by_stage(looked_at(dataset, Match(), joint=True)).values()
    assert found == {"match/audio-video", "match/text-video"}


def test_cumulative_training_matches_every_pair_from_its_second_stage_on(
    dataset: Dataset,
) -> None:
    found = terms_by_stage(looked_at(dataset, Match(), cumulative=True))
    assert found == {0: set(), 1: {"match/audio-video", "match/text-video"}}


def test_the_term_is_what_sinkhorns_algorithm_leaves_to_the_right_partners(
    dataset: Dataset,
) -> None:
    look = looked_at(dataset, Match(weight=2.0, epsilon=0.2))
    _, terms, made = look.seen[-1]
    kernel = ((made["video"] @ made["text"].T).double() / 0.2).exp()
    for _ in range(2000):  # rows and columns in turn, until both have the mass 1/n
        kernel /= kernel.sum(0, keepdim=True) * len(kernel)
        kernel /= kernel.sum(1, keepdim=True) * len(kernel)
    right = kernel.diagonal() * len(kernel)
    expected = -2.0 * right.log().mean()
    torch.testing.assert_close(terms["match/text-video"].double(), expected, rtol=0.01, atol=1e-3)


def test_two_items_have_the_plan_that_one_can_work_out_by_hand() -> None:
    cost = torch.tensor([[0.0, 0.3], [0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    value = Match(epsilon=0.1)._divergence(cost)
    # Doubly stochastic 2 x 2: the odds of staying are the square root of those of the costs.
    odds = math.exp((0.3 + 0.1) / 0.1 / 2)
    assert value.item() == pytest.approx(math.log(1 + 1 / odds), rel=1e-3)


def test_its_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    match = Match(epsilon=0.3)
    (found,) = torch.autograd.grad(match._divergence(cost), cost)
    step = 0.05
    for row, column in ((0, 0), (1, 3), (4, 2)):
        ends = []
        for sign in (1, -1):
            moved = cost.detach().clone()
            moved[row, column] += sign * step
            ends.append(match._divergence(moved).item())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert found[row, column].item() == pytest.approx(slope, abs=2e-3)


def test_joint_training_from_python_takes_it_and_nothing_that_protects(dataset: Dataset) -> None:
    history = cm.train(SCENARIO, dataset, plugins=[Match()], joint=True, device="cpu")
    assert history.space.modalities
    with pytest.raises(InputError, match="has nothing to protect"):
        cm.train(SCENARIO, dataset, plugins=[cm.EWC()], joint=True, device="cpu")
