"""SI: weights that brought the loss down are held."""

import pytest
import torch

from continual_mm.definitions.scenario import Scenario, Training
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.si import SI
from continual_mm.plugins.warmup import Warmup
from continual_mm.space.naming import named_parameters, trainable


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Features are dropped at random, so that resuming needs the generators too."""
    space = scenario.space.model_copy(update={"feature_dropout": 0.2})
    return scenario.model_copy(update={"space": space})


def kept(plugin: SI, kind: str) -> dict[str, torch.Tensor]:
    start = f"{kind}/"
    return {k.removeprefix(start): v for k, v in plugin.state().items() if k.startswith(start)}


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

    def __init__(self) -> None:
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
    found = kept(plugin, "importance")
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
        found.append(torch.cat([each.flatten() for each in kept(plugin, "importance").values()]))
    assert found[1].isfinite().all()
    assert float(found[1].norm()) == pytest.approx(float(found[0].norm()), rel=0.2)


def test_the_penalty_is_the_weighted_square_of_the_way_and_zero_at_first(trained):
    seen = []

    class Look(Plugin):
        def before_backward(self, strategy, *args, **kwargs):
            if strategy.stage == 1:
                weights, centres = dict(named_parameters(strategy.space)), kept(plugin, "centre")
                expected = sum(
                    float((each * (weights[name] - centres[name]) ** 2).double().sum())
                    for name, each in kept(plugin, "importance").items()
                )
                seen.append((float(strategy.terms["si"]), 5.0 * expected))

    plugin = SI(weight=5.0)
    trained(plugin, Look())
    assert seen[0] == (0.0, 0.0)
    assert seen[-1][0] > 0
    for found, expected in seen:
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("other", [Freeze, Warmup])
def test_towers_that_another_plugin_holds_stay_bit_for_bit_while_it_holds_them(
    other, trained, values, same
):
    frozen = values(trained(other(), stages=1))
    plugin = SI(weight=10.0)
    both = trained(Freeze() if other is Freeze else Warmup(share=1.0), plugin)
    old = {name: value for name, value in frozen.items() if "encoders." in name}
    assert same(old, {name: values(both)[name] for name in old})
    assert any(".text." in name for name in kept(plugin, "importance"))
