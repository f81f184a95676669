"""Ways of not forgetting: each changes training as it says, and not at all with weight 0."""

from functools import partial

import pytest
import torch

from continual_mm.definitions.scenario import Scenario
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part, contrast
from continual_mm.losses.transport import plan_distillation
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.transport import Transport
from continual_mm.space.naming import named_parameters

PLUGINS = {
    "replay": lambda weight: Replay(weight=weight, rows=16),
    "ewc": lambda weight: EWC(weight=1000 * weight, batches=4, rows=8),
    "transport": lambda weight: Transport(weight=weight, rows=16),
}


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


@pytest.fixture
def begun(begun):
    """With a memory of 24 items."""
    return partial(begun, items=24)


@pytest.mark.parametrize("name", PLUGINS)
def test_it_changes_training_and_with_weight_zero_it_does_not(name, trained, weights, same):
    naive = trained()
    with_it = trained(PLUGINS[name](1.0))
    without = trained(PLUGINS[name](0.0))
    assert not same(weights(naive), weights(with_it))
    assert same(weights(naive), weights(without))


@pytest.mark.parametrize("name", PLUGINS)
def test_it_leaves_the_first_stage_alone(name, trained, weights, same):
    naive = trained(stages=1)
    with_it = trained(PLUGINS[name](1.0), stages=1)
    assert same(weights(naive), weights(with_it))


def test_all_together_they_add_all_their_terms(trained):
    seen: set[str] = set()

    class Listener(Freeze):
        def before_train_dataset_adaptation(self, strategy, *args, **kwargs):
            pass

        def before_training_exp(self, strategy, *args, **kwargs):
            pass

        def after_training_iteration(self, strategy, *args, **kwargs):
            seen.update(strategy.terms)

    plugins = {name: make(1.0) for name, make in PLUGINS.items()} | {"listener": Listener()}
    trained(*plugins.values())
    assert {"ewc", "gauge", "transport/audio-video", "replay/contrast/audio-video"} <= seen
    assert "contrast/text-video" in seen
    assert "transport/text-video" not in seen  # nothing was remembered of a pair still to come


def test_old_pairs_keep_their_plan_better_with_transport_than_without(
    scenario, dataset, changed, begun, trained
):
    def cost(learner: Learner, rows: torch.Tensor) -> torch.Tensor:
        video, audio = (
            learner.space.encode(name, torch.from_numpy(dataset.columns[name].values)[rows])
            for name in ("video", "audio")
        )
        return 1 - video @ audio.T

    scenario = changed(scenario, steps=50)
    before, streams = begun(scenario=scenario)
    before.learn(streams, 0)
    rows = streams.train[0].items.shares[0].rows
    teacher = cost(before, rows)
    loose = trained(scenario=scenario)
    kept = trained(Transport(weight=10.0, rows=24), scenario=scenario)
    drift_of = [
        float(plan_distillation(teacher, cost(learner, rows), epsilon=0.07))
        for learner in (loose, kept)
    ]
    assert drift_of[1] < 0.5 * drift_of[0]


def test_frozen_weights_and_buffers_stay_bit_for_bit(begun):
    learner, streams = begun(Freeze(), items=None)
    learner.learn(streams, 0)
    before = {name: value.clone() for name, value in learner.space.state_dict().items()}
    learner.learn(streams, 1)
    after = learner.space.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    held = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    names = {name for name, value in named_parameters(learner.space) if id(value) in held}
    assert names
    assert all(".text." in name for name in names)


def test_frozen_modules_stay_in_evaluation_mode_while_the_new_tower_trains(trained):
    modes = {}

    class Listener(Freeze):
        def after_training_iteration(self, strategy, *args, **kwargs):
            modes[strategy.stage] = {
                name: strategy.space.tower(name).training for name in ("video", "audio")
            } | {"new": strategy.space.tower("text").training if "text" in strategy.space else None}

    trained(Listener(), items=None)
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


def test_fisher_is_the_mean_squared_gradient_of_the_contrast(begun):
    plugin = EWC(weight=1.0, batches=3, rows=10)
    learner, streams = begun(plugin, items=None)
    learner.learn(streams, 0)
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


def test_ewc_grows_with_the_space(begun):
    plugin = EWC(batches=2, rows=8)
    learner, streams = begun(plugin, items=None)
    learner.learn(streams, 0)
    assert not any(".text." in name for name in plugin.state())
    learner.learn(streams, 1)
    assert any(".text." in name for name in plugin.state())


def test_online_ewc_pulls_to_the_last_stage_and_lets_older_importances_fade(begun):
    class Kept(EWC):
        def fisher(self, learner):
            self.found = super().fisher(learner)
            return self.found

    plugin = Kept(batches=2, rows=8, online=1, decay=0.25)
    learner, streams = begun(plugin, items=None)
    learner.learn(streams, 0)
    first = {name: value.clone() for name, value in plugin.state().items()}
    learner.learn(streams, 1)
    last = plugin.state()
    for name, weight in named_parameters(learner.space):
        if name.startswith("encoders.video"):
            expected = 0.25 * first[f"importance/{name}"] + plugin.found[name]
            torch.testing.assert_close(last[f"importance/{name}"], expected)
            assert torch.equal(last[f"centre/{name}"], weight)


def test_remembered_rows_are_copies_of_what_their_stage_showed(dataset, trained):
    learner = trained()
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


def test_the_memory_is_an_avalanche_buffer_of_single_rows(trained):
    learner = trained()
    memory = next(p for p in learner.plugins if isinstance(p, Recollection))
    assert len(memory.buffer) == 24
    assert memory.buffer[3].index.tolist() == memory.batch.index[3:4].tolist()


def test_replay_needs_more_than_one_row_and_says_so():
    with pytest.raises(ValueError, match=r"replay\.rows = 1"):
        Replay(rows=1)
    with pytest.raises(ValueError, match=r"replay\.weight = -1"):
        Replay(weight=-1.0)


def test_transport_without_a_memory_is_refused(trained):
    with pytest.raises(ValueError, match="give the run a memory"):
        trained(Transport(), items=None)
