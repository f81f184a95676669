"""Eleven things that go wrong silently on avalanche-lib 0.6.0; none of them may go wrong here."""

import numpy as np
import pytest
import torch
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.evaluation.pairs import Evaluation, evaluator
from continual_mm.learning.learner import Learner
from continual_mm.learning.memory import Memory
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.replay import Replay
from continual_mm.space.naming import trainable
from continual_mm.space.space import JointSpace

SPACE = SpaceSettings(dim=16, clusters=4, refresh_every=3, queue_batches=2)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((60, 6))
    arrays = {
        name: (shared @ rng.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5))
    }
    present = {"text": np.arange(60) % 5 != 0}
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [40, 10, 10]), present=present)


def scenario(**training: object) -> Scenario:
    settings = {"steps": 6, "batch_size": 12, "learning_rate": 1e-2, **training}
    return Scenario(
        name="trap",
        space=SPACE,
        training=Training(**settings),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    )


def learner_of(
    dataset: Dataset, definition: Scenario, *, joint: bool = False, **options: object
) -> tuple[Learner, Benchmark]:
    streams = benchmark(definition, plan(definition, dataset.card), dataset, seed=0, joint=joint)
    options = {"evaluator": evaluator(), **options}
    return Learner(space=JointSpace(definition.space), seed=0, **options), streams


class Spy(EWC):
    """Notes what each step looks like."""

    def __init__(self) -> None:
        super().__init__(weight=0.0)
        self.batches = []
        self.remembered = []
        self.rates = []
        self.terms = []

    def after_training_iteration(self, strategy, *args, **kwargs):
        self.batches.append(strategy.batch)
        self.remembered.append(len(strategy.remembered))
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        self.terms.append({name: float(value.detach()) for name, value in strategy.terms.items()})


def test_training_batches_are_ours_and_not_made_by_the_default_collate(dataset):
    spy = Spy()
    learner, streams = learner_of(dataset, scenario(), plugins=[spy])
    learner.learn(streams, 0)
    assert {type(batch).__name__ for batch in spy.batches} == {"Batch"}
    assert {len(batch) for batch in spy.batches} == {12}


def test_a_batch_keeps_a_modality_that_its_first_row_lacks(dataset):
    _, streams = learner_of(dataset, scenario())
    rows = dataset.rows_of(2)
    lacking = next(k for k, row in enumerate(rows) if row % 5 == 0)
    having = next(k for k, row in enumerate(rows) if row % 5)
    items = streams.test[0].dataset
    batch = items.collate_fn([items[lacking], items[having]])
    assert set(batch.modalities) == {"video", "audio", "text"}
    assert batch.present("text").tolist() == [False, True]


def test_every_batch_of_a_later_stage_has_remembered_rows(dataset):
    spy = Spy()
    memory = Memory(5)
    plugins = [Recollection(memory), Replay(rows=64), spy]
    learner, streams = learner_of(dataset, scenario(), plugins=plugins, memory=memory)
    learner.learn(streams, 0)
    assert set(spy.remembered) == {0}
    learner.learn(streams, 1)
    assert spy.remembered[6:] == [5] * 6


def test_the_optimiser_holds_exactly_what_is_trained_after_growth(dataset):
    learner, streams = learner_of(dataset, scenario())
    learner.learn(streams, 0)
    first = {id(value) for value in trainable(learner.space).values()}
    moments = {
        id(parameter): slots["exp_avg"].clone()
        for parameter, slots in learner.optimizer.state.items()
    }
    learner.stage_experience = lambda: streams.train[1]
    learner.experience = streams.train[1]
    learner.model.train()
    learner.check_model_and_optimizer()
    held = [parameter for group in learner.optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {
        id(value) for value in trainable(learner.space).values()
    }
    assert len(held) == len({id(parameter) for parameter in held}) > len(first)
    for parameter in held:
        if id(parameter) in moments:
            kept = learner.optimizer.state[parameter]["exp_avg"]
            assert torch.equal(kept, moments[id(parameter)])


class Renaming(nn.Module):
    """Stands for what adapters, compilation and data parallelism do to parameter names."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def forward(self, *values):
        return self.base_layer(*values)


def test_ewc_still_protects_weights_that_a_wrapper_renamed(dataset, weights):
    plugin = EWC(weight=1e4, batches=4, rows=8)
    learner, streams = learner_of(dataset, scenario(), plugins=[plugin])
    learner.learn(streams, 0)
    name = "encoders.video.unit.fc.weight"
    before = weights(learner)[name]
    learner.space.encoders["video"].unit = Renaming(learner.space.encoders["video"].unit)
    learner.learn(streams, 1)
    penalised = set(plugin.state())
    assert f"importance/{name}" in penalised
    assert not any("base_layer" in name for name in penalised)
    free, streams = learner_of(dataset, scenario())
    free.learn(streams, 0)
    free.learn(streams, 1)
    moved, unprotected = ((weights(each)[name] - before).norm() for each in (learner, free))
    assert moved < 0.7 * unprotected


def test_evaluating_a_future_stage_grows_nothing_and_uses_no_rng(dataset, weights, same):
    learner, streams = learner_of(dataset, scenario())
    learner.learn(streams, 0)
    before, rng = weights(learner), torch.random.get_rng_state()
    learner.eval(streams.train[1:])
    learner.evaluate(streams)
    assert [modality.name for modality in learner.space.modalities] == ["video", "audio"]
    assert torch.equal(rng, torch.random.get_rng_state())
    assert same(before, weights(learner))


def test_evaluating_often_leaves_the_weights_as_they_would_be(dataset, weights, same):
    seldom, streams = learner_of(dataset, scenario())
    observed, frequent = learner_of(dataset, scenario(evaluate_every=1))
    for learner, on in ((seldom, streams), (observed, frequent)):
        for stage in (0, 1):
            learner.learn(on, stage)
    assert same(weights(seldom), weights(observed))


def test_the_learning_rate_begins_anew_at_each_stage(dataset):
    spy = Spy()
    learner, streams = learner_of(dataset, scenario(warmup_steps=2), plugins=[spy])
    learner.learn(streams, 0)
    learner.learn(streams, 1)
    assert spy.rates[:6] == spy.rates[6:]
    assert spy.rates[0] == pytest.approx(0.005)
    assert spy.rates[5] < spy.rates[1] == pytest.approx(0.01)


def test_joint_training_trains_the_pairs_of_every_stage_on_that_stages_rows(dataset):
    spy = Spy()
    learner, streams = learner_of(dataset, scenario(), joint=True, plugins=[spy])
    learner.learn(streams, 0)
    assert len(spy.terms) == 12
    for terms, batch in zip(spy.terms, spy.batches, strict=True):
        pairs = {name for name in terms if name.startswith("contrast/")}
        assert pairs == {"contrast/audio-video", "contrast/text-video"}
        assert sorted(batch.stage.tolist()) == [0] * 6 + [1] * 6
        assert not batch.present("audio")[batch.stage == 1].any()


def test_metric_values_are_numbers_that_the_board_can_show(dataset):
    published = []

    records: list[Evaluation] = []
    listener = evaluator(lambda evaluation, _gallery: records.append(evaluation))
    publish = listener.publish_metric_value
    listener.publish_metric_value = lambda value: (published.append(value), publish(value))
    learner, streams = learner_of(dataset, scenario(), evaluator=listener)
    learner.learn(streams, 0)
    assert published
    assert {type(value.value) for value in published} == {float}
