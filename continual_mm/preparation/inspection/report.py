"""What a dataset contains, and warnings about what to check before training on it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.columns import Column, blocks, digests
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.schema import NOT_GIVEN, count_splits
from continual_mm.definitions.modality import SPLITS, DatasetCard, Kind, Modality
from continual_mm.space.statistics import CONSTANT
from continual_mm.system.errors import InputError

MOST = 5000  # items whose sizes are measured; of larger datasets an even sample of each split
GIGABYTES = 4.0  # of values, as float32, that are read in search of duplicates
MOST_COMPARED = 4_000_000  # items; sorting the digests of so many takes some 200 MB

FAR = 100.0  # factor between sizes from which on there is a warning
SHIFTED = 10.0  # factor between norms in training and in another split that is warned of
_OUTLYING = 10.0  # factor between a value and the usual norm of a whole step
_BYTES = 8  # of a digest
_TEXTS = 256  # read at once, since each takes as much memory as the longest
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing

Digests = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Values that several items have; all zeros, and what is not finite, count as no value."""

    compared: int = 0  # items
    different: int = 0  # values among them
    repeated: int = 0  # items whose values another item has as well
    leaked: int = 0  # validation and test items whose values are those of a training item
    crossed: int = 0  # test items whose values are those of a validation item

    @classmethod
    def among(cls, found: Digests, split: NDArray[np.integer[Any]]) -> "Duplicates":
        """Count them: (items,) digests, equal for items that are equal, and their splits."""
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
class Sizes:
    """Sizes of measured items; a norm is the mean length of steps, ``broken`` items have none."""

    smallest: float = 0.0
    largest: float = 0.0
    rms: float = 0.0  # of all values
    norm: float = 0.0  # median of the items' norms, without items of nothing but zeros
    norms: tuple[float | None, float | None, float | None] = (None, None, None)  # of each split
    usual: float = 0.0  # a value of usual size: the norm divided by the root of the features
    furthest: float = 0.0  # the largest absolute value
    furthest_row: int | None = None  # of the dataset; None if there is no such value
    loud: int = 0  # items with more than FAR times the norm
    faint: int = 0  # items, not all zero, with less than a part in FAR of it
    constant: int = 0  # features that never change, of two items or more
    zero: int = 0  # items of which every value is 0
    broken: int = 0


# The names of these fields are the keys of ``data inspect --format json``.
@dataclass(frozen=True, slots=True)
class ModalityReport:
    """One modality: as it is in the whole dataset, and sizes of the items that were measured."""

    modality: Modality
    present: tuple[int, int, int]  # training, validation and test items that have it
    lengths: tuple[int, int, int] | None  # shortest, median and longest; None for a vector
    sizes: Sizes
    furthest: str  # the item with the largest absolute value; empty if there is none
    repeats: Duplicates  # among the items that have the modality


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a dataset."""

    card: DatasetCard
    looked_at: int  # items whose sizes were measured
    compared: int  # items that were searched for duplicates
    modalities: tuple[ModalityReport, ...]
    complete: int  # items of the whole dataset that have every modality
    whole: Duplicates  # of items in everything they have
    groups: int | None  # long videos, speakers; None where the dataset has none
    straddling: int  # groups with items in more than one split
    captions: Duplicates | None  # among captions that are not empty; None where there are none
    classes: bool  # whether captions are names of classes: one for each label, and as many
    remarks: tuple[str, ...] = ()  # what to check before training, in sentences


def inspect(dataset: Dataset, *, most: int = MOST, gigabytes: float = GIGABYTES) -> Inspection:
    """Measure a dataset as it is; load it with ``standardise=False``.

    Sizes are those of at most so many items of each modality. Duplicates are searched among so many
    gigabytes of values as float32; of larger datasets every so many-th item of each split. An item
    keeps 8 bytes for every modality: of four million, two that differ are taken for the same in one
    of two million datasets.
    """
    if not len(dataset):
        raise InputError.at(f"dataset {dataset.card.name!r}", "has no items")
    columns = dataset.columns.values()
    size = 4 * sum(int(one.valid.sum()) * one.modality.features for one in columns)
    share = min(1.0, gigabytes * 1e9 / max(size, 1))
    rows = _spread(dataset.split, min(MOST_COMPARED, max(1, int(share * len(dataset)))))
    duplicates, whole = _duplicates(dataset, rows)
    captions, classes = _caption_duplicates(dataset, rows)
    groups, straddling = _groups(dataset)
    found = Inspection(
        card=dataset.card,
        looked_at=min(most, len(dataset)),
        compared=len(rows),
        modalities=tuple(
            _report(dataset, column, most, repeats)
            for column, repeats in zip(columns, duplicates, strict=True)
        ),
        complete=int(np.all([column.present for column in columns], axis=0).sum()),
        whole=whole,
        groups=groups,
        straddling=straddling,
        captions=captions,
        classes=classes,
    )
    return replace(found, remarks=(*dataset.notes, *_warnings(found)))


def _spread(split: NDArray[np.integer[Any]], most: int) -> Rows:
    """Up to so many rows, a proportional share of every split, evenly spread over it."""
    if len(split) <= most:
        return np.arange(len(split))
    chosen = []
    for each in Split:
        rows = np.flatnonzero(split == each)
        count = min(len(rows), -(-most * len(rows) // len(split)))
        chosen.append(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def _duplicates(dataset: Dataset, rows: Rows) -> tuple[list[Duplicates], Duplicates]:
    """Of each modality, and of items that are the same in every modality or lack the same."""
    split = dataset.split[rows]
    whole, not_empty = np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.bool_)
    of_modalities = []
    for column in dataset.columns.values():
        has = column.present[rows]
        found, empty = _digests(column, rows[has])
        of_modalities.append(Duplicates.among(found[~empty], split[has][~empty]))
        whole *= _MIX
        whole[has] += found
        not_empty[has] |= ~empty
    return of_modalities, Duplicates.among(whole[not_empty], split[not_empty])


def _digests(column: Column, rows: Rows) -> tuple[Digests, Flags]:
    """(rows,) a digest of each, and whether all values are zero or one is not finite."""
    found, empty = [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
    for steps, valid in blocks(column, rows):
        found.append(_numbers(digests(steps, valid)))
        peaks = np.abs(steps).max(axis=(1, 2), initial=0.0)
        empty.append((peaks == 0) | ~np.isfinite(peaks))
    return np.concatenate(found), np.concatenate(empty)


def _numbers(digests_of_items: Iterable[bytes]) -> Digests:
    first = b"".join(digest[:_BYTES] for digest in digests_of_items)
    return np.frombuffer(first, dtype=np.uint64)


def _caption_duplicates(dataset: Dataset, rows: Rows) -> tuple[Duplicates | None, bool]:
    """Duplicates among captions, and whether these are names of classes."""
    if dataset.text is None:
        return None, False
    digested, written = [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
    for start in range(0, len(rows), _TEXTS):
        texts = dataset.text[rows[start : start + _TEXTS]].tolist()
        digested.append(_numbers(blake2b(text.encode()).digest() for text in texts))
        written.append(np.array([bool(text.strip()) for text in texts]))
    found, filled = np.concatenate(digested), np.concatenate(written)
    captions, label = found[filled], dataset.label
    duplicates = Duplicates.among(captions, dataset.split[rows][filled])
    if label is None or not len(captions):
        return duplicates, False
    label = label[rows][filled]
    both = np.stack([captions, label.view(np.uint64)])[:, label != NOT_GIVEN]
    names, classes, pairs = (len(np.unique(each, axis=-1).T) for each in (*both, both))
    return duplicates, 0 < names == classes == pairs < both.shape[1]


def _groups(dataset: Dataset) -> tuple[int | None, int]:
    """How many there are, and how many have items in more than one split."""
    if dataset.group is None:
        return None, 0
    pairs = np.unique(np.stack([dataset.group, dataset.split]), axis=1)
    groups, splits = np.unique(pairs[0], return_counts=True)
    return len(groups), int((splits > 1).sum())


def _report(dataset: Dataset, column: Column, most: int, repeats: Duplicates) -> ModalityReport:
    present = np.flatnonzero(column.present)
    rows = present[_spread(dataset.split[present], most)]
    sizes, valid = _measured(column, rows, dataset.split.astype(np.int64))
    place = sizes.furthest_row
    return ModalityReport(
        modality=column.modality,
        present=count_splits(dataset.split[present].astype(np.int64)),
        lengths=(int(valid.min()), int(np.median(valid)), int(valid.max()))
        if column.modality.kind.has_length
        else None,
        sizes=sizes,
        furthest="" if place is None else str(dataset.ids[np.array([place])][0]),
        repeats=repeats,
    )


def _measured(column: Column, rows: Rows, split: Rows) -> tuple[Sizes, Rows]:
    """Sizes of some items, and their valid steps; a single 0 if there are no items."""
    features = column.modality.features
    low, high = np.full(features, np.inf), np.full(features, -np.inf)
    squares, values = 0.0, 0
    lengths = [np.empty(0, np.int64)]
    finite: list[Flags] = [np.empty(0, np.bool_)]
    norms, peaks = [np.empty(0)], [np.empty(0, np.float32)]
    for steps, valid in blocks(column, rows):
        lengths.append(valid)
        whole = np.asarray(np.isfinite(steps).all(axis=(1, 2)))
        finite.append(whole)
        if not whole.any():
            continue
        steps, valid = steps[whole], valid[whole]
        shown = np.arange(steps.shape[1]) < valid[:, None]
        real = steps[shown].astype(np.float64)
        low, high = np.minimum(low, real.min(axis=0)), np.maximum(high, real.max(axis=0))
        squares += float((real**2).sum())
        values += real.size
        of_steps = np.zeros(shown.shape)
        of_steps[shown] = np.linalg.norm(real, axis=1)
        norms.append(of_steps.sum(axis=1) / valid)
        peaks.append(np.abs(steps).max(axis=(1, 2)))
    measured = np.concatenate(finite)
    items, broken = rows[measured], int((~measured).sum())
    steps_of_items = np.concatenate(lengths) if len(rows) else np.zeros(1, np.int64)
    if not values:
        return Sizes(broken=broken), steps_of_items
    # As for standardising: a spread below what rounding leaves is none.
    constant = high - low <= CONSTANT * np.maximum(abs(high), abs(low))
    largest, every = np.concatenate(peaks), np.concatenate(norms)
    furthest = int(largest.argmax())
    used, split = every[every > 0], split[items][every > 0]
    norm = _median(used) or 0.0
    training, validation, test = (_median(used[split == each]) for each in Split)
    sizes = Sizes(
        smallest=float(low.min()),
        largest=float(high.max()),
        rms=float(np.sqrt(squares / values)),
        norm=norm,
        norms=(training, validation, test),
        usual=norm / features**0.5,
        furthest=float(largest[furthest]),
        furthest_row=int(items[furthest]) if largest[furthest] > 0 else None,
        loud=int((used > FAR * norm).sum()),
        faint=int((used < norm / FAR).sum()),
        constant=int(constant.sum()) if len(items) > 1 else 0,
        zero=int((largest == 0).sum()),
        broken=broken,
    )
    return sizes, steps_of_items


def _median(norms: NDArray[np.float64]) -> float | None:
    return float(np.median(norms)) if len(norms) else None


def _warnings(found: Inspection) -> Iterator[str]:
    """Sentences, first those about the dataset as a whole."""
    empty = [split for split, items in zip(SPLITS, found.card.items, strict=True) if not items]
    yield from (f"there is no {split} item" for split in empty)
    yield from _on_magnitudes(found.modalities, trained="training" not in empty)
    for one in found.modalities:
        for split, count in zip(SPLITS, one.present, strict=True):
            if not count and split not in empty:
                yield f"no {split} item has {one.modality.name}"
        yield from _on_sizes(one)
        yield from _on_order(one)
    least = "at least " if found.compared < sum(found.card.items) else ""
    yield from _on_duplicates(found, least)
    yield from _on_captions(found, least)
    if least:
        rows = sum(found.card.items)
        yield f"repeats were looked for among {found.compared:,} of {rows:,} items"
    if found.straddling and found.groups == 1:
        yield "the only group has items in more than one split: nothing shows how others would do"
    elif found.straddling:
        groups = _count(found.straddling, "group", "has", "have")
        yield f"{groups} items in more than one split: scores may be too good"


def _on_magnitudes(modalities: Sequence[ModalityReport], *, trained: bool) -> Iterator[str]:
    sized = sorted((one.sizes.usual, one.modality.name) for one in modalities if one.sizes.usual)
    if not sized or sized[-1][0] <= FAR * sized[0][0]:
        return
    (small, small_name), (large, large_name) = sized[0], sized[-1]
    advice = ": keep standardise = true, or one of them has no say" if trained else ""
    yield (
        f"values of {large_name} are {large / small:,.0f} times as large as those of"
        f" {small_name} (usually {large:.3g} and {small:.3g}){advice}"
    )


def _on_order(one: ModalityReport) -> Iterator[str]:
    """What has as many rows in every item may be an image or a clip, and no sentence."""
    steps = one.modality.shape[0]
    if one.modality.kind is Kind.TOKENS and one.lengths == (steps,) * 3 and steps > 1:
        yield one.modality.about_order


def _on_sizes(one: ModalityReport) -> Iterator[str]:
    name, sizes = one.modality.name, one.sizes
    if sizes.broken:
        yield f"{_have(sizes.broken)} values of {name} that are not finite: it is damaged"
    if sizes.constant:
        verb = "changes" if sizes.constant == 1 else "change"
        yield f"{sizes.constant:,} of {one.modality.features:,} features of {name} never {verb}"
    if sizes.zero:
        yield f"{_have(sizes.zero)} nothing but zeros as {name}: is that a missing {name}?"
    shifts = [*_on_shifts(one)]
    yield from shifts or _on_outliers(one)


def _on_shifts(one: ModalityReport) -> Iterator[str]:
    """Splits whose norms are far from that of training items."""
    training, *others = one.sizes.norms
    for split, norm in zip(SPLITS[1:], others, strict=True):
        ratio = norm / training if norm and training else 1.0
        if not 1 / SHIFTED <= ratio <= SHIFTED:
            times = f"{ratio:,.0f} times" if ratio > 1 else f"1/{1 / ratio:,.0f} of"
            yield (
                f"the norm of {one.modality.name} in {split} is {times} that in training:"
                " standardising by training items does not mend that"
            )


def _on_outliers(one: ModalityReport) -> Iterator[str]:
    name, sizes = one.modality.name, one.sizes
    usual = f"the usual norm of {name}: are they"
    if sizes.faint > 1:
        less = f"{sizes.faint:,} items have less than a {FAR:.0f}th of"
        yield f"{less} {usual} silent, or in other units?"
    if sizes.loud > 1:
        yield f"{sizes.loud:,} items have more than {FAR:.0f} times {usual} in other units?"
    elif sizes.furthest > max(FAR * sizes.usual, _OUTLYING * sizes.norm) > 0:
        ratio = sizes.furthest / sizes.usual
        yield (
            f"the largest value of {name}, {sizes.furthest:.3g} in item {one.furthest!r}, is"
            f" {ratio:,.0f} times as large as usual: is it damaged?"
        )


def _on_duplicates(found: Inspection, least: str) -> Iterator[str]:
    whole = Duplicates()
    if len(found.modalities) > 1:
        whole, everywhere = found.whole, " in every modality"
        yield from _on_leaks(whole, ("is", "are"), "the same as", everywhere, least)
        if whole.repeated:
            items = _count(whole.repeated, "item", "is", "are")
            yield f"{least}{items} there more than once, the same{everywhere}"
    for one in found.modalities:
        yield from _on_modality(found, one, whole, least)


_ONCE = ": what is the same is asked and listed once, and all items that have it answer"


def _on_modality(
    found: Inspection, one: ModalityReport, whole: Duplicates, least: str
) -> Iterator[str]:
    """Duplicates in one modality that are no duplicates of whole items."""
    name, own = one.modality.name, one.repeats
    # Duplicates of a modality that was made of captions are those of the captions.
    of_captions = name == "text" and found.captions is not None and found.captions.repeated > 0
    if 0 < 10 * own.different <= own.compared:  # classes rather than items
        items = _count(own.compared, "item")
        if own.different == 1:
            yield f"all {items} have the same {name}"
        elif not of_captions:
            yield f"{name} has only {own.different:,} different values in {items}{_ONCE}"
    elif (own.leaked, own.crossed) != (whole.leaked, whole.crossed):
        yield from _on_leaks(own, ("has", "have"), f"the {name} of", "", least)
    elif own.repeated > whole.repeated and not of_captions:
        yield f"{least}{_have(own.repeated)} the {name} of another item{_ONCE}"


def _on_leaks(
    duplicates: Duplicates, verbs: tuple[str, str], same: str, where: str, least: str
) -> Iterator[str]:
    for number, items, split in (
        (duplicates.leaked, "validation or test item", "training"),
        (duplicates.crossed, "test item", "validation"),
    ):
        if number:
            yield f"{least}{_count(number, items, *verbs)} {same} a {split} item{where}"


def _on_captions(found: Inspection, least: str) -> Iterator[str]:
    captions = found.captions
    if captions is None or not captions.repeated:
        return
    if captions.different == 1:
        yield f"all {_count(captions.compared, 'item')} have the same caption"
    elif found.classes:
        yield (
            f"captions are the names of {captions.different:,} classes, one for each label: set"
            ' positives = "label" if all items of a class answer one another'
        )
    else:
        features = next((m.repeats for m in found.modalities if m.modality.name == "text"), None)
        advice = _ONCE
        if features is not None and features.repeated < captions.repeated:
            advice = ' and other features: set positives = "duplicates", or they count as different'
        yield f"{least}{_have(captions.repeated)} the caption of another item{advice}"


def _have(items: int) -> str:
    return _count(items, "item", "has", "have")


def _count(number: int, what: str, *verbs: str) -> str:
    """``1 item has`` or ``2 items have``, with the verbs ``("has", "have")``."""
    noun = what if number == 1 else f"{what}s"
    return " ".join([f"{number:,}", noun, *verbs[number != 1 :][:1]])
