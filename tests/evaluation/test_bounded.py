"""Whatever is scored, no matrix of all similarities is ever in memory."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation import indexes, judges
from continual_mm.evaluation.composite import similarity
from continual_mm.evaluation.indexes import mixed_ranks
from continual_mm.evaluation.judges import Classes, Retrieval, VideoRetrieval
from continual_mm.evaluation.pairs import Gallery, score_pair
from continual_mm.evaluation.relevance import Relevance

ITEMS = 2600
NAMES = ("audio", "text", "video")


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operator returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def gallery(seed=0):
    rng = torch.Generator().manual_seed(seed)
    rows = {name: torch.arange(ITEMS) for name in NAMES}
    # Few levels, so that there are ties within and across blocks.
    found = {name: torch.randn(ITEMS, 3, generator=rng).round() for name in NAMES}
    return Gallery(found, rows)


def by_class():
    features = {name: np.arange(2.0 * ITEMS).reshape(ITEMS, 2) for name in NAMES}
    items = Dataset.from_arrays(features, label=np.arange(ITEMS) % 40, standardise=False)
    return Relevance(items, positives="label")


@pytest.mark.parametrize("classes", [False, True])
def test_a_pair_is_scored_in_blocks_to_the_numbers_of_the_whole(classes):
    seen, relevance = gallery(), by_class() if classes else Relevance()
    with Largest() as largest:
        found = score_pair(pair("audio", "video"), seen.embeddings, seen.rows, relevance)
    assert largest.elements <= 1 << 20
    label = np.arange(ITEMS) % 40 if classes else np.arange(ITEMS)
    whole = (seen.embeddings["audio"] @ seen.embeddings["video"].T).numpy()
    for query in (0, 866, 867, 2000, ITEMS - 1):
        right = label == label[query]
        for direction, row in zip(found.ranks, (whole[query], whole[:, query]), strict=True):
            best = row[right].max()
            expected = (row[~right] > best).sum() + (row[~right] == best).sum() / 2
            assert found.ranks[direction][query] == expected
    assert set(found.chance.values()) == {(ITEMS / 40 if classes else 1) / ITEMS}


def test_published_lists_of_ties_are_counted_in_blocks():
    seen = gallery()
    found = score_pair(pair("audio", "video"), seen.embeddings, seen.rows, by_class(),
                       listing_ties=True)  # fmt: skip
    whole = seen.embeddings["audio"] @ seen.embeddings["video"].T
    partner = whole.diagonal()
    for direction, axis in (("audio", "video"), 1), (("video", "audio"), 0):
        level = partner.unsqueeze(axis)
        first, as_similar = (whole > level).sum(axis), (whole == level).sum(axis)
        expected = [np.arange(a, a + b) for a, b in zip(first, as_similar, strict=True)]
        np.testing.assert_array_equal(found.listed[direction], np.concatenate(expected))


@pytest.mark.parametrize("kind", ["retrieval", "video_retrieval", "classes"])
def test_protocols_are_scored_in_blocks(kind, monkeypatch):
    monkeypatch.setattr(judges, "_ELEMENTS_AT_ONCE", 1 << 19)
    named = np.arange(ITEMS) < 900
    classes = {"present": {"text": named, "video": ~named}, "label": np.arange(ITEMS) % 900}
    items = Dataset.from_arrays(
        {name: np.arange(ITEMS)[:, None] / 8 for name in ("text", "video")},
        split=np.full(ITEMS, 2), splits=["test"], standardise=False, group=np.arange(ITEMS) // 3,
        **(classes if kind == "classes" else {}),
    )  # fmt: skip
    kinds = {"retrieval": Retrieval, "video_retrieval": VideoRetrieval, "classes": Classes}
    protocol = Protocol(name="p", query=("text",), gallery=("video",), kind=kind)
    compare = partial(similarity, gallery(), ("text",), ("video",))
    with Largest() as largest:
        kinds[kind](protocol, items, "p").answers(compare, reference=False)
    assert largest.elements <= 1 << 20 < 900 * (ITEMS - 900)


def test_an_index_of_all_modalities_is_searched_in_blocks(monkeypatch):
    monkeypatch.setattr(indexes, "_ELEMENTS_AT_ONCE", 1 << 19)
    with Largest() as largest:
        mixed_ranks(gallery(), "video", Relevance())
    assert largest.elements <= 1 << 19
