"""Which items are one query or one answer, and which answer one another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from continual_mm.data import columns
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.evaluation.indexes import mixed_ranks
from continual_mm.evaluation.pairs import Gallery, score_pair
from continual_mm.evaluation.relevance import Relevance

ROWS = np.arange(6)
WORDS = np.array(
    [[[1.0], [0.0]], [[1.0], [0.0]], [[1.0], [0.0]], [[2.0], [3.0]], [[2.0], [3.0]], [[0.0], [1.0]]]
)


def dataset(**more):
    sight = np.array([[1.0, 2], [3, 4], [1, 2], [1, 3], [3, 4], [2, 1]])
    arrays = {"sight": sight, "words": WORDS, "text": np.arange(6.0)[:, None]}
    lengths = {"words": [1, 2, 1, 2, 2, 2]}
    return Dataset.from_arrays(arrays, lengths=lengths, standardise=False, **more)


def sets(groups, rows=ROWS):
    assert groups is not None
    assert groups.shape == rows.shape
    return {frozenset(rows[groups == group].tolist()) for group in groups}


def asked(source, modality, positives="paired"):
    return Relevance(source, positives=positives).entries((modality,), ROWS)


def answers(relevance, first, second, rows=ROWS):
    """(n, n) which rows answer which, in the direction from first to second."""
    found = relevance.matching((first,), (second,), rows, rows)
    whole = slice(0, len(found.first)), slice(0, len(found.second))
    right = found.right("cpu")(*whole)
    assert right.sum(1).tolist() == found.answers[0].tolist()
    assert right.sum(0).tolist() == found.answers[1].tolist()
    return {
        int(rows[query]): set(rows[found.second[of]].tolist())
        for query, of in zip(found.first, right.numpy(), strict=True)
    }


def test_without_a_dataset_every_row_answers_itself():
    assert answers(Relevance(), "sight", "words") == {row: {row} for row in ROWS}


def test_what_is_the_same_is_asked_once_and_listed_once():
    """Sights 0 and 2 are the same, and so are 1 and 4; words 0 and 2, and 3 and 4."""
    relevance = Relevance(dataset())
    assert answers(relevance, "sight", "words") == {0: {0}, 1: {1, 3}, 3: {3}, 5: {5}}
    assert answers(relevance, "words", "sight") == {0: {0}, 1: {1}, 3: {1, 3}, 5: {5}}
    assert answers(relevance, "sight", "text")[0] == {0, 2}


@pytest.mark.parametrize("second", ["words", "text"])
def test_items_of_a_label_or_a_group_answer_one_another(second):
    numbers = [7, -3, 7, 7, -3, 0]
    alike = {0: {0, 2, 3}, 1: {1, 4}, 2: {0, 2, 3}, 3: {0, 2, 3}, 4: {1, 4}, 5: {5}}
    source = dataset(label=numbers, group=numbers)
    for positives in ("label", "group"):
        found = answers(Relevance(source, positives=positives), "sight", second)
        # Sights 0 and 2, and 1 and 4, are the same: each is asked once, as rows 0 and 1 are.
        listed = {0, 1, 3, 4, 5} if second == "words" else {*range(6)}
        assert found == {row: alike[row] & (listed | {0}) for row in (0, 1, 3, 5)}


def test_an_item_without_a_label_or_a_caption_is_like_no_other_for_that():
    found = answers(
        Relevance(dataset(label=[7, -1, 7, -1, 0, -1]), positives="label"), "sight", "text"
    )
    assert found == {0: {0, 2}, 1: {1}, 3: {3}, 4: {4}, 5: {5}}
    # Without captions, what the modality itself shows decides.
    source = dataset(text=["a", "a", "", "", "", ""])
    assert sets(asked(source, "text", "duplicates")) == {
        frozenset({0, 1}), *(frozenset({row}) for row in (2, 3, 4, 5))
    }  # fmt: skip


def test_labels_that_are_not_there_are_an_error():
    with pytest.raises(ValueError, match="dataset 'arrays' has no labels"):
        asked(dataset(), "sight", "label")


CAPTIONS = ["a ball", "a cube", "a ball", "a Ball", "a cube", "a ball "]


@pytest.mark.parametrize(
    ("modality", "text", "expected"),
    [
        ("sight", None, [{0, 2}, {1, 4}, {3}, {5}]),
        ("words", None, [{0, 2}, {1}, {3, 4}, {5}]),  # a zero of an item is no padding
        ("text", CAPTIONS, [{0, 2}, {1, 4}, {3}, {5}]),
        ("text", None, [{0}, {1}, {2}, {3}, {4}, {5}]),
    ],
)
def test_captions_are_the_same_where_duplicates_are_asked_for(modality, text, expected):
    found = sets(asked(dataset(text=text), modality, "duplicates"))
    assert found == set(map(frozenset, expected))


def test_items_are_the_same_whether_they_are_looked_at_at_once_or_one_by_one(monkeypatch):
    zeros = {"sight": np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]] * 2), "words": WORDS}
    source = Dataset.from_arrays(zeros, standardise=False, lengths={"words": [1, 2, 1, 2, 2, 2]})
    for most in (1 << 23, 1):
        monkeypatch.setattr(columns, "_BLOCK_VALUES", most)
        assert sets(asked(source, "sight", "duplicates")) == {
            frozenset({0, 1, 3, 4}),
            frozenset({2, 5}),
        }
        assert frozenset({0, 2}) in sets(asked(source, "words", "duplicates"))


def test_only_the_rows_asked_for_count_in_their_order():
    rows = np.array([4, 2, 1])
    groups = Relevance(dataset()).entries(("sight",), rows)
    assert sets(groups, rows) == {frozenset({1, 4}), frozenset({2})}


def test_no_rows_have_no_groups():
    none = np.array([], dtype=np.int64)
    for modality in ("sight", "words", "text"):
        groups = Relevance(dataset()).entries((modality,), none)
        assert groups is not None
        assert groups.shape == (0,)


def test_captions_are_looked_at_some_at_a_time_and_never_all_as_long_as_the_longest():
    class Captions:
        """Texts for every item, which note how many characters were in one array."""

        most = 0

        def __len__(self):
            return 1950

        def __getitem__(self, rows):
            texts = ["x" * 200_000 if row == 7 else f"grüße {row % 900}" for row in rows.tolist()]
            found = np.array(texts)
            self.most = max(self.most, found.nbytes // 4)
            return found

    rows, captions = np.arange(1950), Captions()
    whole = Dataset.from_arrays({"text": np.zeros((1950, 1))}, standardise=False)
    source = replace(whole, text=captions)
    groups = Relevance(source, positives="duplicates").entries(("text",), rows)
    assert sets(groups, rows) == {
        frozenset({7}),
        *(frozenset(range(first, 1950, 900)) - {7} for first in range(900)),
    }
    assert captions.most <= 256 * 200_000


def test_a_caption_of_half_a_character_is_a_caption():
    source = dataset(text=["\ud83d", "b", "\ud83d", "c", "d", "e"])
    assert frozenset({0, 2}) in sets(asked(source, "text", "duplicates"))


def captioned(clips=30, per=5, *, noise=0.05, uneven=False, seed=0):
    """Sounds with some captions each, one item a caption; embeddings are the features."""
    rng = np.random.default_rng(seed)
    topic = rng.standard_normal((clips, 16)).astype(np.float32)
    topic /= np.linalg.norm(topic, axis=1, keepdims=True)
    clip = np.repeat(np.arange(clips), np.arange(clips) % per + 1 if uneven else per)
    clip = rng.permutation(clip)
    text = topic[clip] + noise * rng.standard_normal((len(clip), 16)).astype(np.float32)
    arrays = {"audio": topic[clip], "text": text}
    split = np.r_[0, 1, np.full(len(clip) - 2, 2)]
    found = Dataset.from_arrays(arrays, split=split, standardise=False)
    vectors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    return found, vectors, clip


def scored(source, vectors, **options):
    rows = dict.fromkeys(vectors, torch.arange(len(source)))
    return score_pair(pair("audio", "text"), vectors, rows, Relevance(source, **options))


@pytest.mark.parametrize("positives", ["paired", "duplicates"])
@pytest.mark.parametrize("per", [5, 20])
def test_a_space_that_is_right_finds_all_captions_of_a_sound_and_its_sound(per, positives):
    source, vectors, clip = captioned(per=per)
    found = scored(source, vectors, positives=positives)
    assert found.scores(("text", "audio"))["recall@1"] == 1.0
    assert found.scores(("audio", "text"))["recall@1"] == 1.0
    assert len(found.asked(("audio", "text"))) == 30
    assert len(found.asked(("text", "audio"))) == len(clip)
    assert found.gallery == {("audio", "text"): 30 * per, ("text", "audio"): 30}
    assert set(found.chance.values()) == {per / (30 * per)}


def test_recalls_are_those_of_the_published_protocols():
    """A caption is answered by its one sound, a sound by the best of its captions."""
    source, vectors, clip = captioned(40, 6, noise=0.7, uneven=True)
    found = scored(source, vectors)
    similarity = (vectors["text"] @ vectors["audio"].T).numpy()
    sounds = [np.flatnonzero(clip == each)[0] for each in np.unique(clip)]
    for k in (1, 5, 10):
        to_sound = [
            clip[caption] in clip[sounds][np.argsort(-row[sounds])[:k]]
            for caption, row in enumerate(similarity)
        ]
        to_caption = [clip[s] in clip[np.argsort(-similarity[:, s])[:k]] for s in sounds]
        assert found.scores(("text", "audio"))[f"recall@{k}"] == np.mean(to_sound)
        assert found.scores(("audio", "text"))[f"recall@{k}"] == np.mean(to_caption)
    assert 0.1 < np.mean(to_caption) < 1
    assert found.recordings is not None
    assert (clip[found.recordings] == clip).all()


def test_chance_is_that_of_a_random_order_among_sounds_and_among_captions():
    source, vectors, _ = captioned(12, 4)
    found = [
        scored(source, {name: torch.randn(each.shape, generator=rng) for name, each in
                        vectors.items()})
        for rng in [torch.Generator().manual_seed(3)]
        for _ in range(400)
    ]  # fmt: skip
    for direction, chance in found[0].chance.items():
        drawn = [one.scores(direction)["recall@1"] for one in found]
        assert chance == 4 / 48
        assert np.mean(drawn) == pytest.approx(chance, abs=5 * np.std(drawn) / 20)


def test_in_an_index_of_all_modalities_a_sound_is_there_once_and_any_caption_answers():
    source, vectors, clip = captioned(8, 3, noise=0.01)
    rows = dict.fromkeys(("audio", "text", "video"), torch.arange(len(clip)))
    vectors["text"] = torch.nn.functional.normalize(vectors["text"])
    here = Gallery({**vectors, "video": vectors["audio"]}, rows)
    columns = {**source.columns, "video": source.columns["audio"]}
    found = mixed_ranks(here, "video", Relevance(replace(source, columns=columns)))
    # Each of 8 videos finds its sound, once, and the nearest of its captions right behind.
    assert found.tolist() == [1] * 8


def test_what_rows_lack_is_the_same_in_all_but_no_recording():
    lacking = np.array([True, False, True, False, True, True])
    source = dataset(split=[2] * 6, splits=["test"], present={"sight": lacking})
    found = Relevance(source)
    # Rows 0 and 2 show the same; 1 and 3 have no sight.
    assert sets(found.entries(("sight",), ROWS)) == {
        frozenset(each) for each in ({0, 2}, {1, 3}, {4}, {5})
    }
    assert sets(found.recordings(("sight",), ROWS)) == {
        frozenset(each) for each in ({0, 2}, {1}, {3}, {4}, {5})
    }
