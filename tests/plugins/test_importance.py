"""EWC, MAS, SI: how important a weight is, and how it is pulled back."""

import pytest
import torch

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


@pytest.mark.parametrize("online", [0, 1])
def test_ewc_sums_the_parabolas_of_all_stages_and_online_pulls_to_the_last(online, begun):
    """One importance and one centre per weight give the gradient of the fading sum over stages."""

    class Kept(EWC):
        def fisher(self, learner):
            self.found = super().fisher(learner)
            return self.found

    plugin = Kept(batches=2, rows=8, online=online, decay=0.25)
    learner, streams = begun(plugin)
    learner.learn(streams, 0)
    first = {name: value.clone() for name, value in plugin.state().items()}
    learner.learn(streams, 1)
    last = plugin.state()
    for name, weight in named_parameters(learner.space):
        if name.startswith("encoders.video"):
            before, new = 0.25 * first[f"importance/{name}"], plugin.found[name]
            importance, centre = last[f"importance/{name}"], last[f"centre/{name}"]
            torch.testing.assert_close(importance, before + new)
            if online:
                assert torch.equal(centre, weight)
            else:  # the slopes at zero
                expected = before * first[f"centre/{name}"] + new * weight
                torch.testing.assert_close(importance * centre, expected)


def energy(space, dataset):
    """Mean squared norm of the rows of similarities between all training items."""
    video, audio = (
        space.encode(name, dataset.columns[name].values[:80]).double()
        for name in ("video", "audio")
    )
    return float((video @ audio.T).square().sum(1).mean())


def test_importance_is_the_slope_of_the_similarities_energy(scenario, changed, dataset, trained):
    """One batch of all items, so its order plays no role; slopes by central differences."""
    plugin = MAS(batches=1, rows=80)
    space = trained(plugin, stages=1, scenario=changed(scenario, items="shared")).space
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


def test_the_paths_of_all_weights_add_up_to_what_the_loss_fell(scenario, changed, trained):
    """The fundamental theorem of calculus: all items in each step, small steps, whatever Adam."""
    scenario = changed(
        scenario, steps=40, batch_size=80, learning_rate=2e-4, clip_norm=0.1, clusters=0,
        items="shared",
    )  # fmt: skip
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
        self.paths, self.ends = {}, {}

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
    assert all(any(f".{part}." in name for name in found) for part in ("audio", "video", "text"))
    for name, each in found.items():
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(each, expected[name], rtol=1e-3, atol=1e-4 * largest)
    for name, centre in kept(plugin, "centre").items():
        last = ends[1] if name in ends[1] else ends[0]
        assert torch.equal(centre, last[name]), name
    assert not kept(plugin, "path")


def test_half_precision_with_its_scaled_loss_gives_nearly_the_same_importances(trained):
    found = []
    for precision in ("float32", "float16"):
        plugin = SI()
        trained(plugin, stages=1, precision=precision)
        found.append(torch.cat([each.flatten() for each in kept(plugin).values()]))
    assert found[1].isfinite().all()
    assert float(found[1].norm()) == pytest.approx(float(found[0].norm()), rel=0.2)
