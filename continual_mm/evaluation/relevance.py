"""Which answers are right: all that occur with a query, however many items repeat either."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from continual_mm.data.columns import Texts, digests_of
from continual_mm.data.dataset import Dataset
from continual_mm.data.schema import with_own_groups
from continual_mm.metrics.bootstrap import joined
from continual_mm.metrics.ranking import Right, paired, same

Positives: TypeAlias = Literal["paired", "label", "group", "duplicates"]
Rows = NDArray[np.int64]

_TEXTS = 256  # captions that are in memory at once
_NO_CAPTION = blake2b(b"", digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Matching:
    """What is compared of two sides, each entry once, and which entries answer one another.

    ``first`` and ``second`` are ascending places among the rows that were given, one for each
    entry: the first of the rows that repeat it. ``right`` makes the relation of entries for a
    device; ``answers`` has how many right answers each entry of either side has.
    """

    first: Rows
    second: Rows
    right: Callable[[torch.device | str], Right]
    answers: tuple[Rows, Rows]

    @property
    def chances(self) -> tuple[float, float]:
        """Recall at 1 of a random order, for queries of the first side and of the second."""
        found = []
        for answers, gallery in zip(self.answers, (self.second, self.first), strict=True):
            found.append(float(answers.mean()) / max(len(gallery), 1) if len(answers) else 0.0)
        return found[0], found[1]


class Relevance:
    """Says of the items of a dataset which answer one another.

    Items with the same features of a modality, such as the captions of one recording, are one
    query and one answer in it, as published protocols have them: of five captions each is answered
    by the one recording, and the recording by the best of its five captions. Which further answers
    are right is said by ``positives``, as in a scenario. Without a dataset every row answers itself
    alone. Features are read when they are first asked for; 16 bytes are compared in their place.
    """

    def __init__(self, dataset: Dataset | None = None, *, positives: Positives = "paired") -> None:
        self._dataset = dataset
        self._positives: Positives = positives
        self._classes = _classes(dataset, positives)
        self._numbers: dict[str, dict[bytes, int]] = {}
        self._known: dict[str, tuple[Rows, Rows]] = {}

    def entries(self, modalities: Sequence[str], rows: Rows) -> Rows:
        """(n,) a number per row, equal for rows that are one entry: those that show the same."""
        if self._dataset is None:
            return rows
        numbers = [self._of(self._dataset, name, rows) for name in modalities]
        if self._classes is not None:
            numbers.append(self._classes[rows])
        return _together(numbers)

    def matching(
        self, first: Sequence[str], second: Sequence[str], rows: Rows, others: Rows
    ) -> Matching:
        """Match two sides: ``rows`` that have the first modalities, ``others`` the second ones."""
        one, of_one = _once(self.entries(first, rows))
        other, of_other = _once(self.entries(second, others))
        if self._classes is not None:
            numbers, further = self._classes[rows[one]], self._classes[others[other]]
            left, right = torch.from_numpy(numbers), torch.from_numpy(further)
            counts = _counts(numbers, further), _counts(further, numbers)
            return Matching(one, other, lambda device: same(left, right, device), counts)
        _, here, there = np.intersect1d(rows, others, assume_unique=True, return_indices=True)
        asked, answers = (
            np.ascontiguousarray(each)
            for each in np.unique(np.stack([of_one[here], of_other[there]]), axis=1)
        )
        counts = (
            np.bincount(asked, minlength=len(one)),
            np.bincount(answers, minlength=len(other)),
        )
        left, right = torch.from_numpy(asked), torch.from_numpy(answers)
        return Matching(one, other, lambda device: paired(left, right, device), counts)

    def recordings(self, modalities: Iterable[str], rows: Rows) -> Rows:
        """(n,) a row of the dataset each, the same for rows that share a recording, not a text."""
        found = np.arange(len(rows))
        for name in modalities if self._dataset is not None else ():
            if name != "text" and self._dataset is not None:
                numbers = self._of(self._dataset, name, rows)
                lacking = numbers < 0  # each is a recording of its own
                found = joined(found, np.where(lacking, -1 - np.arange(len(rows)), numbers))
        return rows[found]

    def _of(self, dataset: Dataset, name: str, rows: Rows) -> Rows:
        """(n,) numbers of what the rows show in a modality, the same at every call; or -1."""
        present = dataset.columns[name].present[rows]
        if not present.all():
            sparse = np.full(len(rows), -1, dtype=np.int64)
            sparse[present] = self._of(dataset, name, rows[present])
            return sparse
        none = np.empty(0, dtype=np.int64)
        seen, numbers = self._known.get(name, (none, none))
        new = np.setdiff1d(rows, seen)
        if len(new):
            by_digest = self._numbers.setdefault(name, {})
            shown = self._shown(dataset, name, new)
            found = [by_digest.setdefault(digest, len(by_digest)) for digest in shown]
            order = np.argsort(every := np.concatenate([seen, new]), kind="stable")
            seen, numbers = every[order], np.concatenate([numbers, found]).astype(np.int64)[order]
            self._known[name] = seen, numbers
        return numbers[np.searchsorted(seen, rows)]

    def _shown(self, dataset: Dataset, name: str, rows: Rows) -> list[bytes]:
        """16 bytes for each row: of its caption for ``duplicates``, or of its features."""
        if self._positives != "duplicates" or name != "text" or dataset.text is None:
            return digests_of(dataset.columns[name], rows)
        captions = list(_captions(dataset.text, rows))
        unwritten = [place for place, one in enumerate(captions) if one == _NO_CAPTION]
        for place, one in zip(
            unwritten, digests_of(dataset.columns[name], rows[unwritten]), strict=True
        ):
            captions[place] = one
        return captions


def _classes(dataset: Dataset | None, positives: Positives) -> Rows | None:
    """(items,) numbers, equal for items that answer one another whatever they show."""
    if dataset is None or positives not in ("label", "group"):
        return None
    found = dataset.label if positives == "label" else dataset.group
    if found is None:
        raise ValueError(f"dataset '{dataset.card.name}' has no {positives}s")
    return with_own_groups(found)


def _captions(texts: Texts, rows: Rows) -> Iterator[bytes]:
    """16 bytes for each caption; in an array of all, each would be as long as the longest."""
    for start in range(0, len(rows), _TEXTS):
        some = texts[rows[start : start + _TEXTS]].tolist()
        written = (text.encode("utf-8", "surrogatepass") for text in some)
        yield from (blake2b(text, digest_size=16).digest() for text in written)


def _together(numbers: Sequence[Rows]) -> Rows:
    """(n,) equal where all of some numbers are."""
    if len(numbers) == 1:
        return numbers[0]
    found: Rows = np.unique(np.stack(numbers), axis=1, return_inverse=True)[1].reshape(-1)
    return found


def _once(numbers: Rows) -> tuple[Rows, Rows]:
    """Ascending places where each number occurs first, and (n,) which of these each equals."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse.reshape(-1)]


def _counts(numbers: Rows, others: Rows) -> Rows:
    """(n,) how many of the others equal each number."""
    known, counts = np.unique(others, return_counts=True)
    at = np.searchsorted(known, numbers).clip(max=max(len(known) - 1, 0))
    found: Rows = np.where(known[at] == numbers, counts[at], 0) if len(known) else 0 * numbers
    return found
