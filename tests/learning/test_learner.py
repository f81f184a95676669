"""Learning: the right rows train the right pairs, in any precision, and never to NaN."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.guard import NotFiniteError
from continual_mm.learning.loader import StepLoader
from continual_mm.learning.objective import Part, contrast, paired_rows
from continual_mm.learning.optimisation import learning_rate
from continual_mm.learning.stream import benchmark, divided
from continual_mm.losses.contrastive import masked_margin_softmax
from continual_mm.plugins.plugin import Plugin
from continual_mm.runs.run import train
from continual_mm.space.space import JointSpace

AV_VT = (Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",)))


def dataset_of(sizes, *, items=120, scale=None):
    rng = np.random.default_rng(2)
    shared = rng.standard_normal((items, 8))
    arrays = {
        name: ((scale or {}).get(name, 1.0) * shared @ rng.standard_normal((8, size))).astype(
            np.float32
        )
        for name, size in sizes.items()
    }
    ends = [items - items // 3, items // 6, items // 3 - items // 6]
    split = np.repeat([0, 1, 2], ends)
    return Dataset.from_arrays(arrays, split=split, standardise=scale is None)


def scenario_of(stages=AV_VT, **training):
    settings = {"steps": 10, "batch_size": 16, "learning_rate": 1e-2, **training}
    return Scenario(
        name="learning",
        space=SpaceSettings(dim=16, clusters=4),
        training=Training(**settings),
        stages=stages,
    )


THREE = {"video": 9, "audio": 8, "text": 6}


def streams_of(scenario, *, dataset=None, seed=0, **options):
    data = dataset or dataset_of(THREE)
    return benchmark(scenario, plan(scenario, data.card), data, seed=seed, **options)


def test_a_row_trains_the_pairs_of_its_own_stage_only():
    streams = streams_of(scenario_of(), joint=True)
    batch = next(iter(StepLoader(streams.train[0].items, (5, 7), steps=1, seed=0)))
    whole = Part(0, 12)
    assert paired_rows(batch, pair("audio", "video"), [0], whole).tolist() == list(range(5))
    assert paired_rows(batch, pair("video", "text"), [1], whole).tolist() == list(range(5, 12))
    assert paired_rows(batch, pair("video", "text"), [1], Part(0, 6)).tolist() == [5]


def test_the_contrast_is_the_loss_of_the_scaled_cosines_of_the_paired_rows():
    dataset, definition = dataset_of(THREE), scenario_of()
    streams = streams_of(definition, dataset=dataset, joint=True)
    space = JointSpace(definition.space)
    for modality in dataset.card.modalities:
        space.add_modality(modality)
    space.eval()
    batch = next(iter(StepLoader(streams.train[0].items, (5, 7), steps=1, seed=0)))
    embedded = space(batch.features, batch.lengths)
    terms = contrast(space, batch, embedded, streams.train[0].pairs, Part(0, 12))
    video = space.encode("video", batch.features["video"][5:])
    text = space.encode("text", batch.features["text"])
    similarity = 8.0 * text @ video.T
    expected = masked_margin_softmax(similarity, margin=0.001)
    torch.testing.assert_close(terms["contrast/text-video"], expected)


def test_joint_training_takes_the_same_steps_and_rows_as_the_stages_do():
    stages = (AV_VT[0].model_copy(update={"steps": 30}), AV_VT[1])
    joint = streams_of(scenario_of(stages), joint=True).train[0]
    assert joint.training.steps == 40
    assert joint.rows_per_step == (12, 4)
    trained = {str(each) for pairs in joint.pairs.values() for each in pairs}
    assert trained == {"audio-video", "text-video"}


def test_cumulative_training_trains_each_rows_own_pairs_in_every_stage(
    begun, trained, looking, terms_of
):
    pairs = [["audio-video"], ["text-video"], ["audio-depth", "depth-text", "depth-video"]]
    shares = [set(one.items.shares[0].rows.tolist()) for one in begun()[1].train]
    seen = [Counter(), Counter(), Counter()]

    def look(learner):
        batch, until_now = learner.batch, pairs[: learner.stage + 1]
        expected = {f"contrast/{name}" for names in until_now for name in names}
        assert terms_of(learner, "contrast/").keys() == expected
        for row, origin in zip(batch.index.tolist(), batch.stage.tolist(), strict=True):
            assert row in shares[origin]
            seen[learner.stage][origin] += 1
        assert not batch.present("text")[batch.stage == 0].any()

    trained(*(looking(stage, look) for stage in range(3)), stages=3, cumulative=True)
    assert seen == [{0: 240}, {0: 120, 1: 120}, {0: 84, 1: 84, 2: 72}]


def test_cumulative_training_of_a_first_stage_is_plain_training():
    dataset, definition = dataset_of(THREE), scenario_of()
    plain = train(definition, dataset, device="cpu")
    cumulative = train(definition, dataset, cumulative=True, device="cpu")
    assert cumulative.recall("audio-video", stage=1) == plain.recall("audio-video", stage=1)
    assert cumulative.matrix()[1].tolist() != plain.matrix()[1].tolist()


@given(rows=st.integers(2, 300), items=st.lists(st.integers(0, 5000), min_size=1, max_size=8))
def test_rows_are_divided_in_proportion_and_none_is_lost(rows, items):
    parts = divided(rows, items)
    assert sum(parts) == max(rows, 2 * len(items))
    assert min(parts) >= 2
    if sum(items) and min(rows * count / sum(items) for count in items) >= 2:
        for part, count in zip(parts, items, strict=True):
            assert abs(part - rows * count / sum(items)) < 1


def test_a_published_warm_up_starts_from_zero_and_ours_one_step_later():
    settings = Training(steps=10, learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(step, settings) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    published = [learning_rate(step, settings, from_zero=True) for step in range(6)]
    assert published[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert published[5] == learning_rate(5, settings)


def test_gradients_are_shortened_only_beyond_the_limit_and_never_if_it_is_zero():
    class Lengths(Plugin):
        def before_update(self, strategy, *args, **kwargs):
            kept.append([p.grad.clone() for p in parameters(strategy)])

        def after_update(self, strategy, *args, **kwargs):
            same.append(all(map(torch.equal, kept[-1], (p.grad for p in parameters(strategy)))))
            whole = torch.cat([p.grad.flatten() for p in parameters(strategy)])
            lengths.append(float(whole.norm()))

    def parameters(strategy):
        return [p for p in strategy.space.parameters() if p.grad is not None]

    found = {}
    for limit in (0.0, 0.01, 1e6):
        kept, same, lengths = [], [], []
        definition = scenario_of(steps=2, clip_norm=limit)
        train(definition, dataset_of(THREE), plugins=[Lengths()], device="cpu")
        found[limit] = (all(same), lengths[0])
    assert found[0.0] == found[1e6]
    assert found[0.0][0]
    assert found[0.0][1] > 0.1
    assert found[0.01] == (False, pytest.approx(0.01, rel=1e-3))


def test_a_lone_modality_can_be_the_first_stage():
    history = train(
        scenario_of((Stage(add=("video",)), Stage(add=("audio",)))), dataset_of(THREE), device="cpu"
    )
    assert np.isnan(history.matrix()[0]).all()
    assert history.recall("audio-video") > 1 / 20


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_stage_in_which_nothing_can_be_learned_changes_nothing(precision, changed):
    scenario = changed(
        scenario_of((Stage(add=("video",)),), steps=3, precision=precision),
        clusters=0, reconstruction_weight=0.0,
    )  # fmt: skip
    trained = train(scenario, dataset_of(THREE), device="cpu").space
    first = JointSpace(scenario.space, seed=0)
    first.add_modality(trained.modalities[0])
    for name, value in first.state_dict().items():
        assert torch.equal(trained.state_dict()[name], value), name


def test_items_that_lack_a_modality_train_the_pairs_they_have(features):
    present = {"audio": np.arange(90) % 2 == 0, "text": np.arange(90) % 3 == 0}
    split = np.repeat([0, 1, 2], 30)
    dataset = Dataset.from_arrays(features(), split=split, present=present)
    history = train(scenario_of((Stage(add=("video", "audio", "text")),)), dataset, device="cpu")
    queries = {score.pair: score.queries for score in history.scores if score.split == "test"}
    assert queries == {"audio-video": 15, "text-video": 10, "audio-text": 5}


def test_four_modalities_with_names_of_their_own():
    sizes = {"depth": 5, "touch": 4, "smell": 6, "keys": 3}
    first, second = Stage(add=("depth", "touch")), Stage(add=("smell",), pairs=("smell-touch",))
    stages = (first, second, Stage(add=("keys",)))
    history = train(scenario_of(stages), dataset_of(sizes), device="cpu")
    assert [str(p) for p in history.roles.old] == ["depth-touch", "smell-touch"]
    assert [str(p) for p in history.roles.new] == ["depth-keys", "keys-smell", "keys-touch"]
    assert [str(p) for p in history.roles.emergent] == ["depth-smell"]
    assert np.isnan(history.matrix()).sum() == 5 + 3


def test_the_same_seed_gives_the_same_scores_and_another_seed_does_not():
    dataset = dataset_of(THREE)
    first, again, other = (
        train(scenario_of(), dataset, seed=seed, device="cpu").scores for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_audio_a_thousand_times_larger_stays_finite_and_every_pair_learns(precision):
    """What broke the original experiment: raw audio beside unit features, in half precision."""
    dataset = dataset_of(THREE, items=240, scale={"audio": 1000.0, "video": 1.0, "text": 1.0})
    assert np.abs(dataset.columns["audio"].values).mean() > 500
    definition = scenario_of(
        (Stage(add=("video", "audio", "text")),), precision=precision, steps=40, batch_size=64
    )
    history = train(definition, dataset, device="cpu")
    assert all(np.isfinite(p.detach()).all() for p in history.space.parameters())
    for score in history.scores:
        assert score.recall_at_1 > 5 * score.chance


def test_a_loss_that_is_not_a_number_stops_the_run_before_it_reaches_the_weights(begun, looking):
    def spoil(strategy):
        if strategy.step == 3:
            strategy.add_term("contrast/audio-smell", torch.tensor(float("nan")), weight=1.0)

    learner, streams = begun(looking(0, spoil))
    with pytest.raises(NotFiniteError) as caught:
        learner.learn(streams, 0)
    assert (caught.value.stage, caught.value.step) == (0, 3)
    assert caught.value.term == "contrast/audio-smell"
    assert caught.value.modalities == ("audio", "smell")
    assert "stage 1, step 4" in str(caught.value)
    assert all(p.isfinite().all() for p in learner.space.parameters())


def test_the_modality_whose_features_overflow_is_named():
    dataset = dataset_of(THREE)
    dataset.columns["audio"].values[:, 0] = 3e38
    with pytest.raises(NotFiniteError) as caught:
        train(scenario_of(), dataset, device="cpu")
    assert "audio" in caught.value.modalities
    assert "video" not in caught.value.modalities


def test_a_gradient_that_is_not_finite_is_traced_to_its_modality():
    class Spoil(Plugin):
        def after_backward(self, strategy, *args, **kwargs):
            strategy.space.tower("video").unit.fc.weight.grad[0, 0] = float("inf")

    with pytest.raises(NotFiniteError) as caught:
        train(scenario_of(), dataset_of(THREE), plugins=[Spoil()], device="cpu")
    assert caught.value.term == "the gradient"
    assert caught.value.modalities == ("video",)
