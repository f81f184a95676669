"""What goes wrong silently on avalanche-lib 0.6.0; none of it may go wrong here."""

import numpy as np
import pytest
import torch
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.replay import Replay
from continual_mm.space.naming import trainable


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((60, 6))
    arrays = {
        name: (shared @ rng.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5))
    }
    present = {"text": np.arange(60) % 5 != 0}
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [40, 10, 10]), present=present)


@pytest.fixture(scope="module")
def scenario(scenario, changed):
    """Two short stages."""
    return changed(scenario, steps=6, batch_size=12, stages=scenario.stages[:2])


class Spy(EWC):
    """Notes what each step looks like."""

    def __init__(self):
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


def test_a_batch_keeps_a_modality_that_its_first_row_lacks(dataset, begun):
    _, streams = begun()
    rows = dataset.rows_of(2)
    lacking = next(k for k, row in enumerate(rows) if row % 5 == 0)
    having = next(k for k, row in enumerate(rows) if row % 5)
    items = streams.scored[1][0].dataset
    batch = items.collate_fn([items[lacking], items[having]])
    assert set(batch.modalities) == {"video", "audio", "text"}
    assert batch.present("text").tolist() == [False, True]


def test_batches_are_our_own_and_those_of_a_later_stage_have_remembered_rows(trained):
    spy = Spy()
    trained(Replay(rows=64), spy, items=5)
    assert spy.remembered == [0] * 6 + [5] * 6
    assert {(type(batch).__name__, len(batch)) for batch in spy.batches} == {
        ("Batch", 12), ("Batch", 17),
    }  # fmt: skip


def test_the_optimiser_holds_exactly_what_is_trained_after_growth(begun):
    learner, streams = begun()
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

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer

    def forward(self, *values):
        return self.base_layer(*values)


def test_ewc_still_protects_weights_that_a_wrapper_renamed(weights, begun, trained):
    plugin = EWC(weight=1e4, batches=4, rows=8)
    learner, streams = begun(plugin)
    learner.learn(streams, 0)
    name = "encoders.video.unit.fc.weight"
    before = weights(learner)[name]
    learner.space.encoders["video"].unit = Renaming(learner.space.encoders["video"].unit)
    learner.learn(streams, 1)
    penalised = set(plugin.state())
    assert f"importance/{name}" in penalised
    assert not any("base_layer" in name for name in penalised)
    moved, free = ((weights(each)[name] - before).norm() for each in (learner, trained()))
    assert moved < 0.7 * free


def test_evaluating_a_future_stage_grows_nothing_and_uses_no_rng(weights, same, begun):
    learner, streams = begun()
    learner.learn(streams, 0)
    before, rng = weights(learner), torch.random.get_rng_state()
    learner.eval(streams.train[1:])
    learner.evaluate(streams)
    assert [modality.name for modality in learner.space.modalities] == ["video", "audio"]
    assert torch.equal(rng, torch.random.get_rng_state())
    assert same(before, weights(learner))


def test_evaluating_often_leaves_the_weights_as_they_would_be(weights, same, trained):
    assert same(weights(trained()), weights(trained(evaluate_every=1)))


def test_the_learning_rate_begins_anew_at_each_stage(trained):
    spy = Spy()
    trained(spy, warmup_steps=2)
    assert spy.rates[:6] == spy.rates[6:]
    assert spy.rates[0] == pytest.approx(0.005)
    assert spy.rates[5] < spy.rates[1] == pytest.approx(0.01)


def test_joint_training_trains_the_pairs_of_every_stage_on_that_stages_rows(trained):
    spy = Spy()
    trained(spy, stages=1, joint=True)
    assert len(spy.terms) == 12
    for terms, batch in zip(spy.terms, spy.batches, strict=True):
        pairs = {name for name in terms if name.startswith("contrast/")}
        assert pairs == {"contrast/audio-video", "contrast/text-video"}
        assert sorted(batch.stage.tolist()) == [0] * 6 + [1] * 6
        assert not batch.present("audio")[batch.stage == 1].any()


def test_metric_values_are_numbers_that_the_board_can_show(begun):
    published = []

    learner, streams = begun()
    publish = learner.evaluator.publish_metric_value
    learner.evaluator.publish_metric_value = lambda value: (published.append(value), publish(value))
    learner.learn(streams, 0)
    assert published
    assert {type(value.value) for value in published} == {float}
