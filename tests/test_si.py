"""SI: weights that brought the loss down are held."""

from pathlib import Path

import numpy as np
import pytest
import torch

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.si import SI
from continual_mm.plugins.warmup import Warmup
from continual_mm.runs.checkpoint import restore, save, welcome
from continual_mm.space.naming import named_parameters, trainable
from continual_mm.space.space import JointSpace


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    dice = np.random.default_rng(1)
    shared = dice.standard_normal((120, 6))
    arrays = {
        name: (shared @ dice.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5), ("depth", 4))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(
        name="si",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.2),
        training=Training(steps=10, batch_size=20, learning_rate=1e-2),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",)),
            Stage(add=("depth",), pairs=("depth-text",)),
        ),
    )


def begun(scenario: Scenario, dataset: Dataset, *plugins: Plugin) -> tuple[Learner, Benchmark]:
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    return Learner(space=JointSpace(scenario.space), seed=0, plugins=plugins), streams


def trained(scenario: Scenario, dataset: Dataset, *plugins: Plugin, stages: int = 2) -> Learner:
    learner, streams = begun(scenario, dataset, *plugins)
    for stage in range(stages):
        learner.learn(streams, stage)
    return learner


def values(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.space.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def kept(plugin: SI, kind: str) -> dict[str, torch.Tensor]:
    start = f"{kind}/"
    return {k.removeprefix(start): v for k, v in plugin.state().items() if k.startswith(start)}


def test_the_paths_of_all_weights_add_up_to_what_the_loss_fell(scenario, dataset):
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
    trained(scenario, dataset, plugin, Look(), stages=1)
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


def test_importances_are_paths_over_squared_ways_added_up_and_never_negative(scenario, dataset):
    plugin, integral = SI(weight=0.5, damping=0.01), Integral()
    trained(scenario, dataset, plugin, integral)
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


def test_half_precision_with_its_scaled_loss_gives_nearly_the_same_importances(scenario, dataset):
    found = []
    for precision in ("float32", "float16"):
        training = scenario.training.model_copy(update={"precision": precision})
        plugin = SI()
        trained(scenario.model_copy(update={"training": training}), dataset, plugin, stages=1)
        found.append(torch.cat([each.flatten() for each in kept(plugin, "importance").values()]))
    assert found[1].isfinite().all()
    assert float(found[1].norm()) == pytest.approx(float(found[0].norm()), rel=0.2)


def test_the_penalty_is_the_weighted_square_of_the_way_and_zero_at_first(scenario, dataset):
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
    trained(scenario, dataset, plugin, Look())
    assert seen[0] == (0.0, 0.0)
    assert seen[-1][0] > 0
    for found, expected in seen:
        assert found == pytest.approx(expected, rel=1e-4)


def test_old_embeddings_move_less_the_stronger_it_is(scenario, dataset):
    video = dataset.columns["video"].values[80:]
    before = trained(scenario, dataset, stages=1).space.encode("video", video)
    ways = []
    for weight in (0.0, 1.0, 100.0):
        after = trained(scenario, dataset, SI(weight=weight)).space.encode("video", video)
        ways.append(float((after - before).square().sum(1).mean()))
    assert ways[0] > ways[1] > ways[2]


@pytest.mark.parametrize("other", [Freeze, Warmup])
def test_towers_that_another_plugin_holds_stay_bit_for_bit_while_it_holds_them(
    other, scenario, dataset
):
    frozen = values(trained(scenario, dataset, other(), stages=1))
    plugin = SI(weight=10.0)
    both = trained(scenario, dataset, Freeze() if other is Freeze else Warmup(share=1.0), plugin)
    old = {name: value for name, value in frozen.items() if "encoders." in name}
    assert same(old, {name: values(both)[name] for name in old})
    assert any(".text." in name for name in kept(plugin, "importance"))


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"damping": 0.0}):
        with pytest.raises(ValueError, match=rf"si\.{next(iter(wrong))} = "):
            SI(**wrong)


def test_a_run_that_goes_on_inside_a_stage_ends_with_the_same_bits(scenario, dataset, tmp_path):
    def keepers(learner: Learner) -> dict[str, Plugin]:
        return {type(plugin).__name__: plugin for plugin in learner.plugins[:1]}

    def keep() -> None:
        if (whole.stage, whole.step) == (1, 6):
            save(tmp_path / "inside", whole, keepers(whole), {})

    whole, streams = begun(scenario, dataset, SI(weight=10.0))
    whole.after_step = keep
    for stage in range(3):
        whole.learn(streams, stage)
        if not stage:
            save(tmp_path / "first", whole, keepers(whole), {})
    parts, streams = begun(scenario, dataset, SI(weight=10.0))
    welcome(tmp_path / "first", parts)
    restore(tmp_path / "first", parts, keepers(parts))
    parts.pass_over(streams, 1)
    there: Path = tmp_path / "inside"
    parts.learn(streams, 1, step=6, jump=lambda: restore(there, parts, keepers(parts)) and None)
    parts.learn(streams, 2)
    assert same(values(whole), values(parts))
    for first, second in zip(keepers(whole).values(), keepers(parts).values(), strict=True):
        assert same(first.state(), second.state())


def test_it_changes_training_and_with_no_weight_it_does_not(scenario, dataset):
    naive = values(trained(scenario, dataset))
    assert not same(naive, values(trained(scenario, dataset, SI(weight=10.0))))
    none = SI(weight=0.0)
    assert same(naive, values(trained(scenario, dataset, none)))
    assert none.state() == {}


def test_it_leaves_the_first_stage_alone(scenario, dataset):
    naive = values(trained(scenario, dataset, stages=1))
    assert same(naive, values(trained(scenario, dataset, SI(weight=10.0), stages=1)))
