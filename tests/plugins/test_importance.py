"""EWC, MAS, SI: how important a weight is, and how it is pulled back."""

import pytest
import torch

from continual_mm.definitions.scenario import Training
from continual_mm.learning.loader import StepLoader
from continual_mm.learning.objective import Part, contrast
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.mas import MAS
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.si import SI
from continual_mm.space.naming import named_parameters, trainable


def kept(plugin, kind="importance"):
    """A kind of the plugin's state, by parameter name."""
    start = f"{kind}/"
    return {k.removeprefix(start): v for k, v in plugin.state().items() if k.startswith(start)}


@pytest.mark.parametrize("make", [SI, lambda weight: MAS(weight=weight, batches=2, rows=8)])
def test_the_penalty_is_the_weighted_square_of_the_way_and_zero_at_first(make, trained, looking):
    seen, plugin = [], make(weight=5.0)

    def look(strategy):
        weights, centres = dict(named_parameters(strategy.space)), kept(plugin, "centre")
        expected = sum(
            float((each * (weights[name] - centres[name]) ** 2).double().sum())
            for name, each in kept(plugin).items()
        )
        seen.append((float(strategy.terms[plugin.term]), 5.0 * expected))

    trained(plugin, looking(1, look))
    assert seen[0] == (0.0, 0.0)
    assert seen[-1][0] > 0
    for found, expected in seen:
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_sum_of_parabolas_is_held_exactly():
    """One importance and one centre per weight give the gradient of the sum over stages."""
    plugin = EWC(weight=1.0)
    fishers = [torch.tensor([1.0, 0.0, 4.0]), torch.tensor([3.0, 2.0, 0.0])]
    centres = [torch.tensor([0.0, 1.0, 2.0]), torch.tensor([4.0, -1.0, 5.0])]

    class Stub(torch.nn.Module):
        def __init__(self):
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


def energy(space, dataset):
    """Mean squared norm of the rows of similarities between all training items."""
    video, audio = (
        space.encode(name, dataset.columns[name].values[:80]).double()
        for name in ("video", "audio")
    )
    return float((video @ audio.T).square().sum(1).mean())


def test_importance_is_the_slope_of_the_similarities_energy(scenario, dataset, trained):
    """One batch of all items, so its order plays no role; slopes by central differences."""
    scenario = scenario.model_copy(update={"items": "shared"})
    plugin = MAS(batches=1, rows=80)
    space = trained(plugin, stages=1, scenario=scenario).space
    for name in ("encoders.video.unit.fc.weight", "encoders.audio.unit.fc.bias"):
        found, weight = kept(plugin)[name].flatten(), dict(named_parameters(space))[name]
        for place in found.topk(3).indices.tolist():
            ends = []
            for step in (0.01, -0.02):
                weight.data.view(-1)[place] += step
                ends.append(energy(space, dataset))
            weight.data.view(-1)[place] += 0.01
            slope = abs(ends[0] - ends[1]) / 0.02
            assert float(found[place]) == pytest.approx(slope, rel=0.02)


def test_the_papers_own_functional_has_no_slope_in_a_space_of_unit_vectors(dataset, trained):
    plugin = MAS(batches=2, rows=8)
    space = trained(plugin, stages=1).space
    features = torch.from_numpy(dataset.columns["video"].values[:80])
    embedded = space({"video": features}, {})["video"].embedding
    weights = list(space.tower("video").parameters())
    loss = embedded.square().sum(1).mean()
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    largest = max(float(slope.abs().max()) for slope in slopes if slope is not None)
    assert largest < 1e-5 * max(float(each.max()) for each in kept(plugin).values())


def test_the_scale_of_similarities_and_reconstruction_heads_have_no_importance(trained):
    plugin = MAS(batches=2, rows=8)
    trained(plugin)
    assert kept(plugin)
    assert all(name.startswith("encoders.") for name in kept(plugin))


def test_importances_add_up_over_stages_around_the_last_weights(begun):
    plugin = MAS(weight=0.001, batches=2, rows=8)
    learner, streams = begun(plugin)
    name = "encoders.video.unit.fc.weight"
    learner.learn(streams, 0)
    first = kept(plugin)
    learner.learn(streams, 1)
    assert (kept(plugin)[name] > first[name]).all()
    audio = [name for name in first if ".audio." in name]
    assert audio
    assert all(torch.equal(first[each], kept(plugin)[each]) for each in audio)
    assert any(".text." in each for each in kept(plugin))
    weights = dict(named_parameters(learner.space))
    for each in kept(plugin):
        assert torch.equal(plugin.state()[f"centre/{each}"], weights[each]), each


def test_the_paths_of_all_weights_add_up_to_what_the_loss_fell(scenario, trained):
    """The fundamental theorem of calculus: all items in each step, small steps, whatever Adam."""
    training = Training(steps=40, batch_size=80, learning_rate=2e-4, clip_norm=0.1)
    space = scenario.space.model_copy(update={"clusters": 0, "feature_dropout": 0.0})
    scenario = scenario.model_copy(update={"training": training, "space": space, "items": "shared"})
    losses, paths = [], []

    class Look(Plugin):
        def before_backward(self, strategy, *args, **kwargs):
            paths.append(sum(float(each.double().sum()) for each in kept(plugin, "path").values()))
            losses.append(float(strategy.loss))

    plugin = SI()
    trained(plugin, Look(), stages=1, scenario=scenario)
    fallen = losses[0] - losses[-1]
    assert fallen > 0.05
    assert paths[-1] == pytest.approx(fallen, rel=0.02)


class Integral(Plugin):
    """The path integral on its own: the loss without the penalty differentiated once more."""

    def __init__(self):
        super().__init__()
        self.paths: dict[int, dict[str, torch.Tensor]] = {}
        self.ends: dict[int, dict[str, torch.Tensor]] = {}

    def before_backward(self, strategy, *args, **kwargs):
        weights = trainable(strategy.space)
        loss = strategy.loss.sum() - strategy.terms.get("si", torch.tensor(0.0))
        found = torch.autograd.grad(
            loss, list(weights.values()), retain_graph=True, allow_unused=True
        )
        self.before = {
            name: (slope, weights[name].detach().clone())
            for name, slope in zip(weights, found, strict=True)
            if slope is not None
        }
        self.ends.setdefault(-1, {}).update(
            {name: w for name, (_, w) in self.before.items() if name not in self.ends.get(-1, {})}
        )

    def after_update(self, strategy, *args, **kwargs):
        paths = self.paths.setdefault(strategy.stage, {})
        for name, value in trainable(strategy.space).items():
            if name in self.before:
                slope, before = self.before[name]
                paths[name] = paths.get(name, 0.0) - slope * (value.detach() - before)

    def after_training_exp(self, strategy, *args, **kwargs):
        weights = trainable(strategy.space).items()
        self.ends[strategy.stage] = {name: value.detach().clone() for name, value in weights}


def test_importances_are_paths_over_squared_ways_added_up_and_never_negative(trained):
    plugin, integral = SI(weight=0.5, damping=0.01), Integral()
    trained(plugin, integral)
    first, ends = integral.ends[-1], integral.ends
    expected = {}
    for stage, paths in sorted(integral.paths.items()):
        for name, path in paths.items():
            begun_at = ends[0][name] if stage and name in ends[0] else first[name]
            gained = path / ((ends[stage][name] - begun_at) ** 2 + 0.01)
            expected[name] = (expected.get(name, 0.0) + gained).clamp(min=0)
    found = kept(plugin)
    assert found.keys() == expected.keys()
    assert {".audio.", ".video.", ".text."} <= {
        part for part in (".audio.", ".video.", ".text.") if any(part in name for name in found)
    }
    for name, each in found.items():
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(each, expected[name], rtol=1e-3, atol=1e-4 * largest)
    for name, centre in kept(plugin, "centre").items():
        last = ends[1] if name in ends[1] else ends[0]
        assert torch.equal(centre, last[name]), name
    assert not kept(plugin, "path")


def test_half_precision_with_its_scaled_loss_gives_nearly_the_same_importances(scenario, trained):
    found = []
    for precision in ("float32", "float16"):
        training = scenario.training.model_copy(update={"precision": precision})
        plugin = SI()
        trained(plugin, stages=1, scenario=scenario.model_copy(update={"training": training}))
        found.append(torch.cat([each.flatten() for each in kept(plugin).values()]))
    assert found[1].isfinite().all()
    assert float(found[1].norm()) == pytest.approx(float(found[0].norm()), rel=0.2)
