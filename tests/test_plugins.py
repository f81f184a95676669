"""Ways of not forgetting: each changes training as it says, and not at all with weight 0."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part, contrast
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.losses.transport import plan_distillation
from continual_mm.memory import Memory
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.transport import Transport
from continual_mm.space.naming import named_parameters
from continual_mm.space.space import JointSpace

PLUGINS = {
    "replay": lambda weight: Replay(weight=weight, rows=16),
    "ewc": lambda weight: EWC(weight=1000 * weight, batches=4, rows=8),
    "transport": lambda weight: Transport(weight=weight, rows=16),
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    dice = np.random.default_rng(1)
    shared = dice.standard_normal((120, 6))
    arrays = {
        name: (shared @ dice.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(
        name="protected",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
        training=Training(steps=12, batch_size=20, learning_rate=1e-2),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    )


def trained(
    scenario: Scenario,
    dataset: Dataset,
    plugins: Mapping[str, object] = {},
    *,
    items: int | None = 24,
    stages: int = 2,
) -> tuple[Learner, Benchmark]:
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    memory = None if items is None else Memory(items)
    first = [] if memory is None else [Recollection(memory)]
    learner = Learner(
        space=JointSpace(scenario.space), seed=0, plugins=[*first, *plugins.values()], memory=memory
    )
    for stage in range(stages):
        learner.learn(streams, stage)
    return learner, streams


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in named_parameters(learner.space)}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("name", PLUGINS)
def test_it_changes_training_and_with_weight_zero_it_does_not(name, scenario, dataset):
    naive, _ = trained(scenario, dataset)
    with_it, _ = trained(scenario, dataset, {name: PLUGINS[name](1.0)})
    without, _ = trained(scenario, dataset, {name: PLUGINS[name](0.0)})
    assert not same(weights(naive), weights(with_it))
    assert same(weights(naive), weights(without))


@pytest.mark.parametrize("name", PLUGINS)
def test_it_leaves_the_first_stage_alone(name, scenario, dataset):
    naive, _ = trained(scenario, dataset, stages=1)
    with_it, _ = trained(scenario, dataset, {name: PLUGINS[name](1.0)}, stages=1)
    assert same(weights(naive), weights(with_it))


def test_all_together_they_add_all_their_terms(scenario, dataset):
    seen: set[str] = set()

    class Listener(Freeze):
        def before_train_dataset_adaptation(self, strategy, *args, **kwargs):
            pass

        def before_training_exp(self, strategy, *args, **kwargs):
            pass

        def after_training_iteration(self, strategy, *args, **kwargs):
            seen.update(strategy.terms)

    plugins = {name: make(1.0) for name, make in PLUGINS.items()} | {"listener": Listener()}
    trained(scenario, dataset, plugins)
    assert {"ewc", "gauge", "transport/audio-video", "replay/contrast/audio-video"} <= seen
    assert "contrast/text-video" in seen
    assert "transport/text-video" not in seen  # nothing was remembered of a pair still to come


def test_old_pairs_keep_their_plan_better_with_transport_than_without(scenario, dataset):
    def cost(learner: Learner, rows: torch.Tensor) -> torch.Tensor:
        video, audio = (
            learner.space.encode(name, torch.from_numpy(dataset.columns[name].values)[rows])
            for name in ("video", "audio")
        )
        return 1 - video @ audio.T

    longer = scenario.training.model_copy(update={"steps": 50})
    scenario = scenario.model_copy(update={"training": longer})
    before, streams = trained(scenario, dataset, stages=1)
    rows = streams.train[0].items.shares[0].rows
    teacher = cost(before, rows)
    loose, _ = trained(scenario, dataset)
    kept, _ = trained(scenario, dataset, {"transport": Transport(weight=10.0, rows=24)})
    drift_of = [
        float(plan_distillation(teacher, cost(learner, rows), epsilon=0.07))
        for learner in (loose, kept)
    ]
    assert drift_of[1] < 0.5 * drift_of[0]


def test_frozen_weights_and_buffers_stay_bit_for_bit(scenario, dataset):
    learner, streams = trained(scenario, dataset, {"freeze": Freeze()}, items=None, stages=1)
    before = {name: value.clone() for name, value in learner.space.state_dict().items()}
    learner.learn(streams, 1)
    after = learner.space.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    held = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    names = {name for name, value in named_parameters(learner.space) if id(value) in held}
    assert names
    assert all(".text." in name for name in names)


def test_frozen_modules_stay_in_evaluation_mode_while_the_new_tower_trains(scenario, dataset):
    modes = {}

    class Listener(Freeze):
        def after_training_iteration(self, strategy, *args, **kwargs):
            modes[strategy.stage] = {
                name: strategy.space.tower(name).training for name in ("video", "audio")
            } | {"new": strategy.space.tower("text").training if "text" in strategy.space else None}

    trained(scenario, dataset, {"freeze": Listener()}, items=None)
    assert modes[0] == {"video": True, "audio": True, "new": None}
    assert modes[1] == {"video": False, "audio": False, "new": True}


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


def test_fisher_is_the_mean_squared_gradient_of_the_contrast(scenario, dataset):
    plugin = EWC(weight=1.0, batches=3, rows=10)
    learner, streams = trained(scenario, dataset, {"ewc": plugin}, items=None, stages=1)
    learner.experience = streams.train[0]
    found = plugin.fisher(learner)
    from continual_mm.learning.loader import StepLoader

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


def test_ewc_grows_with_the_space(scenario, dataset):
    plugin = EWC(batches=2, rows=8)
    learner, streams = trained(scenario, dataset, {"ewc": plugin}, items=None, stages=1)
    assert not any(".text." in name for name in plugin.state())
    learner.learn(streams, 1)
    assert any(".text." in name for name in plugin.state())


def test_online_ewc_pulls_to_the_last_stage_and_lets_older_importances_fade(scenario, dataset):
    class Kept(EWC):
        def fisher(self, learner):
            self.found = super().fisher(learner)
            return self.found

    plugin = Kept(batches=2, rows=8, online=1, decay=0.25)
    learner, streams = trained(scenario, dataset, {"ewc": plugin}, items=None, stages=1)
    first = {name: value.clone() for name, value in plugin.state().items()}
    learner.learn(streams, 1)
    last = plugin.state()
    for name, weight in named_parameters(learner.space):
        if name.startswith("encoders.video"):
            expected = 0.25 * first[f"importance/{name}"] + plugin.found[name]
            torch.testing.assert_close(last[f"importance/{name}"], expected)
            assert torch.equal(last[f"centre/{name}"], weight)


def test_remembered_rows_are_copies_of_what_their_stage_showed(scenario, dataset):
    learner, _ = trained(scenario, dataset)
    memory = next(p for p in learner.plugins if isinstance(p, Recollection))
    batch = memory.batch
    assert len(batch) == 24
    assert batch.stage.bincount().tolist() == [12, 12]
    assert not batch.present("audio")[batch.stage == 1].any()
    for name in ("video", "audio", "text"):
        column = torch.from_numpy(dataset.columns[name].values)
        source = column[batch.index[batch.rows[name]]]
        assert torch.equal(source, batch.features[name])
        assert batch.features[name].data_ptr() != column.data_ptr()


def test_the_memory_is_an_avalanche_buffer_of_single_rows(scenario, dataset):
    learner, _ = trained(scenario, dataset)
    memory = next(p for p in learner.plugins if isinstance(p, Recollection))
    assert len(memory.buffer) == 24
    assert memory.buffer[3].index.tolist() == memory.batch.index[3:4].tolist()


def test_replay_needs_more_than_one_row_and_says_so():
    with pytest.raises(ValueError, match=r"replay\.rows = 1"):
        Replay(rows=1)
    with pytest.raises(ValueError, match=r"replay\.weight = -1"):
        Replay(weight=-1.0)


def test_transport_without_a_memory_is_refused(scenario, dataset):
    with pytest.raises(ValueError, match="give the run a memory"):
        trained(scenario, dataset, {"transport": Transport()}, items=None)
