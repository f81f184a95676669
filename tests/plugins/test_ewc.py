"""EWC: one parabola per weight stands for those of all stages."""

import torch

from continual_mm.learning.loader import StepLoader
from continual_mm.learning.objective import Part, contrast
from continual_mm.plugins.ewc import EWC
from continual_mm.space.naming import named_parameters


def test_the_sum_of_parabolas_is_held_exactly():
    """One importance and one centre per weight give the gradient of the sum over stages."""
    plugin = EWC(weight=1.0)
    fishers = [torch.tensor([1.0, 0.0, 4.0]), torch.tensor([3.0, 2.0, 0.0])]
    centres = [torch.tensor([0.0, 1.0, 2.0]), torch.tensor([4.0, -1.0, 5.0])]

    class Stub(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3))

    class Strategy:
        space = Stub()

    for fisher, centre in zip(fishers, centres, strict=True):
        Strategy.space.w.data.copy_(centre)
        plugin.fisher = lambda _learner, fisher=fisher: {"w": fisher}
        plugin.after_training_exp(Strategy)
    state = plugin.state()
    at = torch.tensor([0.3, -0.7, 1.1])
    found = state["importance/w"] * (at - state["centre/w"])
    expected = sum(f * (at - c) for f, c in zip(fishers, centres, strict=True))
    torch.testing.assert_close(found, expected)


def test_fisher_is_the_mean_squared_gradient_of_the_contrast(begun):
    plugin = EWC(weight=1.0, batches=3, rows=10)
    learner, streams = begun(plugin)
    learner.learn(streams, 0)
    learner.experience = streams.train[0]
    found = plugin.fisher(learner)
    loader = StepLoader(streams.train[0].items, (10,), steps=3, seed=0)
    name = "encoders.video.unit.fc.weight"
    weight = dict(named_parameters(learner.space))[name]
    expected = torch.zeros_like(weight)
    for batch in loader:
        learner.space.zero_grad()
        embedded = learner.space(batch.features, batch.lengths)
        terms = contrast(learner.space, batch, embedded, streams.train[0].pairs, Part(0, 10))
        terms["contrast/audio-video"].backward()
        expected += 10 * weight.grad.square() / 3
    torch.testing.assert_close(found[name], expected)


def test_online_ewc_pulls_to_the_last_stage_and_lets_older_importances_fade(begun):
    class Kept(EWC):
        def fisher(self, learner):
            self.found = super().fisher(learner)
            return self.found

    plugin = Kept(batches=2, rows=8, online=1, decay=0.25)
    learner, streams = begun(plugin)
    learner.learn(streams, 0)
    first = {name: value.clone() for name, value in plugin.state().items()}
    learner.learn(streams, 1)
    last = plugin.state()
    for name, weight in named_parameters(learner.space):
        if name.startswith("encoders.video"):
            expected = 0.25 * first[f"importance/{name}"] + plugin.found[name]
            torch.testing.assert_close(last[f"importance/{name}"], expected)
            assert torch.equal(last[f"centre/{name}"], weight)
