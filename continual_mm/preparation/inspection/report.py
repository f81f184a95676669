"""What deserves a thought before a dataset is trained on, in sentences."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.columns import Column, Texts, blocks, digests
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.statistics import CONSTANT
from continual_mm.definitions.modality import SPLITS, DatasetCard, Modality
from continual_mm.system.errors import InputError, Problem

GIGABYTES = 4.0
"""Of values, as float32, that are read in search of repeats."""

MOST_COMPARED = 4_000_000
"""Items that are compared; sorting the digests of so many takes some 200 MB."""

_BYTES = 8  # of a digest
_TEXTS = 256  # read at once, since each takes as much as the longest
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing."""

Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Values that several items have; nothing but zeros, and what is not finite, count as none.

    Attributes:
        compared: Items that were compared.
        different: Different values among them.
        repeated: Items whose values another item has as well.
        leaked: Validation and test items whose values are those of a training item.
        crossed: Test items whose values are those of a validation item.
    """

    compared: int
    different: int
    repeated: int
    leaked: int
    crossed: int

    @classmethod
    def among(cls, found: Digests, split: NDArray[np.integer[Any]]) -> "Repeats":
        """Count them.

        Args:
            found: (items,) equal for items that are equal.
            split: (items,) what each is for.
        """
        _, place, counts = np.unique(found, return_inverse=True, return_counts=True)
        in_training, in_validation = (
            np.isin(np.arange(len(counts)), place[split == each])
            for each in (Split.TRAIN, Split.VALIDATION)
        )
        return cls(
            len(found),
            len(counts),
            int((counts[place] > 1).sum()),
            int((in_training[place] & (split != Split.TRAIN)).sum()),
            int((in_validation[place] & (split == Split.TEST)).sum()),
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Everything that was found to be there more than once.

    Attributes:
        rows: Items of the dataset that were compared.
        modalities: By name, among the items that have the modality.
        whole: Among items that are the same in every modality, or lack the same.
        captions: Among the captions that are not empty; None where there are none.
        classes: Whether captions are names of classes: one for each label, and as many.
    """

    rows: int
    modalities: Mapping[str, Repeats]
    whole: Repeats
    captions: Repeats | None = None
    classes: bool = False


def compare(dataset: Dataset, *, gigabytes: float = GIGABYTES) -> Compared:
    """Compare all items with each other, as far as so many gigabytes of values go.

    Of each item 8 bytes are kept for every modality, so that two of four million that differ are
    taken for the same in one of two million datasets. Values are read a few megabytes at a time.

    Args:
        dataset: The items.
        gigabytes: Of values as float32, all modalities together; of larger datasets every so
            many-th item is compared, in each split.
    """
    rows = _rows(dataset, gigabytes)
    split = dataset.split[rows]
    whole = np.zeros(len(rows), np.uint64)
    shows = np.zeros(len(rows), np.bool_)
    modalities = {}
    for name, column in dataset.columns.items():
        has = column.present[rows]
        found, empty = _digests(column, rows[has])
        modalities[name] = Repeats.among(found[~empty], split[has][~empty])
        whole *= _MIX
        whole[has] += found
        shows[has] |= ~empty
    every = Repeats.among(whole[shows], split[shows])
    if dataset.text is None:
        return Compared(len(rows), modalities, every)
    texts, said = _of_texts(dataset.text, rows)
    label = None if dataset.label is None else dataset.label[rows][said]
    captions = Repeats.among(texts[said], split[said])
    return Compared(len(rows), modalities, every, captions, _are_classes(texts[said], label))


def spread(split: NDArray[np.integer[Any]], most: int) -> NDArray[np.int64]:
    """Up to so many rows, of every split its share, evenly spread over it."""
    if len(split) <= most:
        return np.arange(len(split))
    chosen = []
    for each in Split:
        rows = np.flatnonzero(split == each)
        count = min(len(rows), -(-most * len(rows) // len(split)))
        chosen.append(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def _rows(dataset: Dataset, gigabytes: float) -> NDArray[np.int64]:
    columns = dataset.columns.values()
    size = 4 * sum(int(one.valid.sum()) * one.modality.features for one in columns)
    share = min(1.0, gigabytes * 1e9 / max(size, 1))
    return spread(dataset.split, min(MOST_COMPARED, max(1, int(share * len(dataset)))))


def _digests(column: Column, rows: NDArray[np.int64]) -> tuple[Digests, NDArray[np.bool_]]:
    """(rows,) a digest of each, and whether it shows nothing: only zeros, or what is not finite."""
    found, empty = np.empty(len(rows), np.uint64), np.empty(len(rows), np.bool_)
    start = 0
    for steps, valid in blocks(column, rows):
        here = slice(start, start := start + len(steps))
        found[here] = _numbers(digests(steps, valid))
        peaks = np.abs(steps).max(axis=(1, 2), initial=0.0)
        empty[here] = (peaks == 0) | ~np.isfinite(peaks)
    return found, empty


def _of_texts(texts: Texts, rows: NDArray[np.int64]) -> tuple[Digests, NDArray[np.bool_]]:
    """(rows,) a digest of each, and whether it says anything."""
    found, said = np.empty(len(rows), np.uint64), np.empty(len(rows), np.bool_)
    for start in range(0, len(rows), _TEXTS):
        block = texts[rows[start : start + _TEXTS]].tolist()
        here = slice(start, start + len(block))
        found[here] = _numbers(blake2b(text.encode()).digest() for text in block)
        said[here] = [bool(text.strip()) for text in block]
    return found, said


def _numbers(digests_of_items: Iterable[bytes]) -> Digests:
    first = b"".join(digest[:_BYTES] for digest in digests_of_items)
    return np.frombuffer(first, dtype=np.uint64)


def _are_classes(captions: Digests, label: NDArray[np.int64] | None) -> bool:
    if label is None or not len(label):
        return False
    both = np.stack([captions, label.view(np.uint64)])
    names, classes, pairs = (len(np.unique(each, axis=-1).T) for each in (*both, both))
    return names == classes == pairs < len(label)


FAR = 100.0
"""Times that values may be larger than others before it is told."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the items that were looked at, as they are in the file.

    A norm is the Euclidean length of a time step, over an item its mean.

    Attributes:
        smallest: Of all values.
        largest: Of all values.
        rms: Root mean square of all values.
        norm: Median of the items' norms, without items of nothing but zeros.
        norms: The same for each split; None for a split without items.
        usual: Norm divided by the square root of the features: a value of usual size.
        furthest: The value farthest from 0, without its sign.
        furthest_row: The item that has it, as a row of the dataset; None if there is none.
        loud: Items with more than :data:`FAR` times the norm.
        faint: Items, not all zero, with less than a part in :data:`FAR` of it.
        constant: Features that never change, of two items or more.
        zero: Items of which every value is 0.
        broken: Items with values that are not finite, which count for none of the sizes.
    """

    smallest: float = 0.0
    largest: float = 0.0
    rms: float = 0.0
    norm: float = 0.0
    norms: tuple[float | None, float | None, float | None] = (None, None, None)
    usual: float = 0.0
    furthest: float = 0.0
    furthest_row: int | None = None
    loud: int = 0
    faint: int = 0
    constant: int = 0
    zero: int = 0
    broken: int = 0


class Totals:
    """What is gathered of one modality.

    Args:
        features: Per step.
    """

    def __init__(self, features: int) -> None:
        self._low = np.full(features, np.inf)
        self._high = np.full(features, -np.inf)
        self._squares, self._values = 0.0, 0
        self._norms: list[NDArray[np.float64]] = [np.empty(0)]
        self._splits: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._zero = self._broken = 0
        self._furthest: tuple[float, int | None] = (0.0, None)

    def add(
        self,
        steps: NDArray[np.float32],
        valid: NDArray[np.int64],
        rows: NDArray[np.int64],
        split: NDArray[np.int64],
    ) -> None:
        """Take a block.

        Args:
            steps: (n, time, features), zero behind the valid steps.
            valid: (n,) valid steps.
            rows: (n,) of the dataset.
            split: (n,) of each.
        """
        finite = np.isfinite(steps).all(axis=(1, 2))
        self._broken += int((~finite).sum())
        if not finite.all():
            steps, valid, rows, split = steps[finite], valid[finite], rows[finite], split[finite]
        if not len(steps):
            return
        shown = np.arange(steps.shape[1]) < valid[:, None]
        real = steps[shown].astype(np.float64)
        self._low = np.minimum(self._low, real.min(axis=0))
        self._high = np.maximum(self._high, real.max(axis=0))
        self._squares += float((real**2).sum())
        self._values += real.size
        lengths = np.zeros(shown.shape)
        lengths[shown] = np.linalg.norm(real, axis=1)
        self._norms.append(lengths.sum(axis=1) / valid)
        self._splits.append(split)
        self._zero += int((~steps.any(axis=(1, 2))).sum())
        peaks = np.abs(steps).max(axis=(1, 2))
        place = int(peaks.argmax())
        if peaks[place] > self._furthest[0]:
            self._furthest = float(peaks[place]), int(rows[place])

    def sizes(self) -> Sizes:
        """What all blocks have in common."""
        if not self._values:
            return Sizes(broken=self._broken)
        every, splits = np.concatenate(self._norms), np.concatenate(self._splits)
        norms, splits = every[every > 0], splits[every > 0]
        norm = _median(norms) or 0.0
        training, validation, test = (_median(norms[splits == each]) for each in range(3))
        furthest, row = self._furthest
        # As for standardising: less than rounding leaves of a spread is none.
        edge = CONSTANT * np.maximum(abs(self._high), abs(self._low))
        flat = int((self._high - self._low <= edge).sum())
        return Sizes(
            smallest=float(self._low.min()),
            largest=float(self._high.max()),
            rms=float(np.sqrt(self._squares / self._values)),
            norm=norm,
            norms=(training, validation, test),
            usual=norm / len(self._low) ** 0.5,
            furthest=furthest,
            furthest_row=row,
            loud=int((norms > FAR * norm).sum()),
            faint=int((norms < norm / FAR).sum()),
            constant=flat if len(every) > 1 else 0,
            zero=self._zero,
            broken=self._broken,
        )


def _median(norms: NDArray[np.float64]) -> float | None:
    return float(np.median(norms)) if len(norms) else None


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """One modality.

    Attributes:
        modality: Name, kind of signal and shape.
        present: Items of the whole dataset that have it: training, validation, test.
        lengths: Shortest, median and longest valid time steps; None for a vector.
        sizes: Of the items that were looked at, not standardised.
        furthest: The name of the item with the value farthest from 0; empty if there is none.
        repeats: What several items have.
    """

    modality: Modality
    present: tuple[int, int, int]
    lengths: tuple[int, int, int] | None
    sizes: Sizes
    furthest: str
    repeats: Repeats


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a dataset.

    Attributes:
        card: Names, kinds, sizes.
        looked_at: Items whose sizes were taken.
        compared: Items that were searched for repeats.
        modalities: One report each, in the dataset's order.
        complete: Items of the whole dataset that have every modality.
        whole: Repeats of items in everything they have.
        groups: Groups (long videos, speakers); None where the dataset has none.
        straddling: Groups with items in more than one split.
        captions: Repeats among captions; None where there are none.
        classes: Whether the captions are names of classes, one for each label.
        remarks: What deserves a thought before training, in sentences.
    """

    card: DatasetCard
    looked_at: int
    compared: int
    modalities: tuple[ModalityReport, ...]
    complete: int
    whole: Repeats
    groups: int | None
    straddling: int
    captions: Repeats | None
    classes: bool
    remarks: tuple[str, ...] = ()


SHIFTED = 10.0
"""Times that norms in a split may differ from those in training before it is told."""

_OUTLYING = 10.0
"""Times that a value may be larger than a whole step usually is, if it has many features."""


def remarks(found: Inspection) -> Iterator[str]:
    """Give them, what concerns the whole first."""
    empty = [split for split, items in zip(SPLITS, found.card.items, strict=True) if not items]
    yield from (f"there is no {split} item" for split in empty)
    yield from _magnitudes(found, trained="training" not in empty)
    for one in found.modalities:
        yield from _on_presence(one, empty)
        yield from _on_sizes(one)
    yield from _on_repeats(found)
    yield from _on_groups(found)


def _magnitudes(found: Inspection, *, trained: bool) -> Iterator[str]:
    sized = sorted(
        (one for one in found.modalities if one.sizes.usual), key=lambda one: one.sizes.usual
    )
    if not sized or sized[-1].sizes.usual <= FAR * sized[0].sizes.usual:
        return
    small, large = sized[0], sized[-1]
    advice = ": keep standardise = true, or one of them has no say" if trained else ""
    yield (
        f"values of {large.modality.name} are"
        f" {large.sizes.usual / small.sizes.usual:,.0f} times as large as those of"
        f" {small.modality.name} (usually {large.sizes.usual:.3g} and"
        f" {small.sizes.usual:.3g}){advice}"
    )


def _on_presence(one: ModalityReport, empty: list[str]) -> Iterator[str]:
    name = one.modality.name
    for split, count in zip(SPLITS, one.present, strict=True):
        if not count and split not in empty:
            yield f"no {split} item has {name}"


def _on_sizes(one: ModalityReport) -> Iterator[str]:
    name, sizes = one.modality.name, one.sizes
    if sizes.broken:
        items = _items(sizes.broken)
        yield f"{items} {_have(sizes.broken)} values of {name} that are not finite: it is damaged"
    if sizes.constant:
        features = one.modality.features
        verb = "changes" if sizes.constant == 1 else "change"
        yield f"{sizes.constant:,} of {features:,} features of {name} never {verb}"
    if sizes.zero:
        items = _items(sizes.zero)
        yield (
            f"{items} {_have(sizes.zero)} nothing but zeros as {name}: is that a missing {name}?"
        )
    yield from _shifts(name, sizes) if _shifted(sizes) else _outliers(one)


def _shifted(sizes: Sizes) -> dict[str, float]:
    """How many times the norm of training items it is in other splits, where that is far off."""
    training, *others = sizes.norms
    if not training:
        return {}
    ratios = {
        split: norm / training for split, norm in zip(SPLITS[1:], others, strict=True) if norm
    }
    return {split: r for split, r in ratios.items() if not 1 / SHIFTED <= r <= SHIFTED}


def _shifts(name: str, sizes: Sizes) -> Iterator[str]:
    for split, ratio in _shifted(sizes).items():
        yield (
            f"the norm of {name} in {split} is {_times(ratio)} that in training: standardising by"
            " training items does not mend that"
        )


def _outliers(one: ModalityReport) -> Iterator[str]:
    name, sizes = one.modality.name, one.sizes
    if sizes.faint > 1:
        yield (
            f"{_items(sizes.faint)} have less than a {FAR:.0f}th of the usual norm of {name}: are"
            " they silent, or in other units?"
        )
    if sizes.loud > 1:
        yield (
            f"{_items(sizes.loud)} have more than {FAR:.0f} times the usual norm of {name}: are"
            " they in other units?"
        )
    elif sizes.furthest > max(FAR * sizes.usual, _OUTLYING * sizes.norm) > 0:
        ratio = sizes.furthest / sizes.usual
        yield (
            f"the largest value of {name}, {sizes.furthest:.3g} in item {one.furthest!r}, is"
            f" {ratio:,.0f} times as large as usual: is it damaged?"
        )


def _on_repeats(found: Inspection) -> Iterator[str]:
    whole, rows = found.whole, sum(found.card.items)
    least = "at least " if found.compared < rows else ""
    several = len(found.modalities) > 1
    if several:
        where = " in every modality"
        yield from _on_leaks(whole, "the same as", where, least)
        if whole.repeated:
            yield (
                f"{least}{_items(whole.repeated)} {_are(whole.repeated)} there more than once, the"
                f" same{where}"
            )
    for one in found.modalities:
        yield from _on_modality(found, one, least, whole if several else Repeats(0, 0, 0, 0, 0))
    yield from _on_captions(found, least)
    if least:
        yield f"repeats were looked for among {found.compared:,} of {rows:,} items"


def _on_modality(
    found: Inspection, one: ModalityReport, least: str, told: Repeats
) -> Iterator[str]:
    """What is repeated in one modality and was not told of whole items."""
    name, repeats = one.modality.name, one.repeats
    if _few(repeats):
        if repeats.different == 1:
            yield f"all {_items(repeats.compared)} have the same {name}"
        elif not _captions_tell(found, name):
            yield (
                f"{name} has only {repeats.different:,} different values in"
                f" {_items(repeats.compared)}: as a query, {_advice(found)}"
            )
        return
    if (repeats.leaked, repeats.crossed) != (told.leaked, told.crossed):
        yield from _on_leaks(repeats, f"the {name} of", "", least)
    elif repeats.repeated > told.repeated and not _captions_tell(found, name):
        items = _items(repeats.repeated)
        yield f"{least}{items} {_have(repeats.repeated)} the {name} of another item"


def _on_leaks(repeats: Repeats, same: str, where: str, least: str) -> Iterator[str]:
    verb = _are if same == "the same as" else _have
    if repeats.leaked:
        items = _items(repeats.leaked, "validation or test item")
        yield f"{least}{items} {verb(repeats.leaked)} {same} a training item{where}"
    if repeats.crossed:
        items = _items(repeats.crossed, "test item")
        yield f"{least}{items} {verb(repeats.crossed)} {same} a validation item{where}"


def _on_captions(found: Inspection, least: str) -> Iterator[str]:
    captions = found.captions
    if captions is None or not captions.repeated:
        return
    if captions.different == 1:
        yield f"all {_items(captions.compared)} have the same caption"
    elif found.classes:
        yield (
            f"captions are the names of {captions.different:,} classes, one for each label: set"
            ' positives = "label", or most right answers count as wrong'
        )
    else:
        yield (
            f"{least}{_items(captions.repeated)} {_have(captions.repeated)} the caption of another"
            ' item: set positives = "duplicates", or right answers count as wrong'
        )


def _on_groups(found: Inspection) -> Iterator[str]:
    if found.straddling and found.groups == 1:
        yield "the only group has items in more than one split: nothing shows how others would do"
    elif found.straddling:
        groups = "1 group has" if found.straddling == 1 else f"{found.straddling:,} groups have"
        yield f"{groups} items in more than one split: scores may be too good"


def _captions_tell(found: Inspection, name: str) -> bool:
    """Whether what is repeated in a modality is told of the captions that it was made of."""
    return name == "text" and found.captions is not None and found.captions.repeated > 0


def _few(repeats: Repeats) -> bool:
    """Whether values are those of classes rather than of items: ten items for each, or more."""
    return 0 < 10 * repeats.different <= repeats.compared


def _advice(found: Inspection) -> str:
    positives = "label" if found.card.has_labels else "duplicates"
    return f'set positives = "{positives}"'


def _items(count: int, what: str = "item") -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _times(ratio: float) -> str:
    """As a factor, or a part where it is below one."""
    return f"{ratio:,.0f} times" if ratio > 1 else f"1/{1 / ratio:,.0f} of"


MOST = 5000
"""Items whose sizes are taken; of larger datasets every so many-th of each split."""


def inspect(dataset: Dataset, *, most: int = MOST, gigabytes: float = GIGABYTES) -> Inspection:
    """Look at a dataset as it is; load it with ``standardise=False``.

    Args:
        dataset: The items.
        most: Items whose sizes are taken, of each modality.
        gigabytes: Of values that are searched for repeats.

    Raises:
        InputError: If it has no items.
    """
    if not len(dataset):
        raise InputError(Problem(f"dataset {dataset.card.name!r}", "has no items"))
    found = compare(dataset, gigabytes=gigabytes)
    reports = tuple(_report(dataset, one, most, found) for one in dataset.columns.values())
    having = np.all([column.present for column in dataset.columns.values()], axis=0)
    inspection = Inspection(
        dataset.card,
        min(most, len(dataset)),
        found.rows,
        reports,
        int(having.sum()),
        found.whole,
        *_groups(dataset),
        found.captions,
        found.classes,
    )
    return replace(inspection, remarks=(*dataset.notes, *remarks(inspection)))


def _report(dataset: Dataset, column: Column, most: int, found: Compared) -> ModalityReport:
    modality, present = column.modality, np.flatnonzero(column.present)
    rows = present[spread(dataset.split[present], most)]
    totals, lengths, start = Totals(modality.features), [np.empty(0, dtype=np.int64)], 0
    for steps, valid in blocks(column, rows):
        here = rows[start : start + len(steps)]
        totals.add(steps, valid, here, dataset.split[here].astype(np.int64))
        lengths.append(valid)
        start += len(steps)
    sizes = totals.sizes()
    place = sizes.furthest_row
    furthest = "" if place is None else str(dataset.ids[np.array([place])][0])
    return ModalityReport(
        modality,
        _per_split(dataset.split[present]),
        _lengths(np.concatenate(lengths)) if modality.kind.has_length else None,
        sizes,
        furthest,
        found.modalities[modality.name],
    )


def _lengths(valid: NDArray[np.int64]) -> tuple[int, int, int]:
    """Shortest, median and longest; zeros if there are none."""
    found = valid if len(valid) else np.zeros(1)
    return int(found.min()), int(np.median(found)), int(found.max())


def _per_split(split: NDArray[np.integer[Any]]) -> tuple[int, int, int]:
    training, validation, test = (int((split == each).sum()) for each in Split)
    return training, validation, test


def _groups(dataset: Dataset) -> tuple[int | None, int]:
    if dataset.group is None:
        return None, 0
    pairs = np.unique(np.stack([dataset.group, dataset.split]), axis=1)
    groups, splits = np.unique(pairs[0], return_counts=True)
    return len(groups), int((splits > 1).sum())
