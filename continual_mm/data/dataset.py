"""A dataset: one column per modality, and the split of every item."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from continual_mm.data.columns import Column, MemoryColumn, Texts
from continual_mm.data.findings import Findings
from continual_mm.data.items import Items, columns_of
from continual_mm.data.schema import (
    KIND,
    LENGTH,
    NOT_GIVEN,
    PICTURE,
    PRESENT,
    Schema,
    check_ids,
    check_split,
    count_splits,
    is_given,
    is_taken,
    presence_of,
    read_schema,
    with_own_groups,
)
from continual_mm.data.statistics import blank, measured, rows_not_finite, standardise
from continual_mm.definitions.modality import SPLITS, DatasetCard, Kind, Modality, Provenance
from continual_mm.space.statistics import Statistics
from continual_mm.system.arguments import checked_arguments, checked_class
from continual_mm.system.notebook import html_table

_SHUFFLE_SEED = 0


def gather(
    arrays: Mapping[str, ArrayLike],
    own: Mapping[str, Mapping[str, ArrayLike]],
    items: Mapping[str, ArrayLike | None],
    findings: Findings,
) -> dict[str, NDArray[Any]]:
    """Copy everything into numpy arrays under the names that a pack would use.

    ``own`` columns are by ending (``_kind``, ``_length``, ``_present``), then by modality; of
    ``items``, missing ids are the row numbers, a missing split is :func:`shuffled_split`.
    """
    reserved = [name for name in arrays if is_taken(name)]
    for name in reserved:
        findings.about(name, "is reserved and names no modality", "choose another name")
    given: dict[str, ArrayLike | None] = {
        **{name: values for name, values in arrays.items() if name not in reserved},
        **{name + end: values for end, by_name in own.items() for name, values in by_name.items()},
        **items,
    }
    made = {
        name: _array(name, values, findings) for name, values in given.items() if values is not None
    }
    columns = {name: column for name, column in made.items() if column is not None}
    rows = next((len(columns[name]) for name in arrays if np.ndim(columns.get(name, 0))), 0)
    if items["ids"] is None:
        columns["ids"] = np.arange(rows).astype(np.str_)
    if items["split"] is None:
        count = columns["ids"].size if "ids" in columns else rows
        columns["split"] = shuffled_split(count, columns.get("group"))
    return columns


def shuffled_split(rows: int, group: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """A fixed random split of items into 80 % training, 10 % validation and 10 % test.

    Groups stay whole, if there are three or more; each split has some of them.
    """
    if group is not None and group.shape == (rows,) and group.dtype.kind in "iu":
        names, number = np.unique(with_own_groups(group), return_inverse=True)
        if len(names) > len(SPLITS) - 1:
            return shuffled_split(len(names))[number.reshape(-1)]
    # RandomState, because its stream is frozen for good; that of a Generator may change.
    order = np.random.RandomState(_SHUFFLE_SEED).permutation(rows)
    share = max(1, rows // 10)
    split = np.zeros(rows, dtype=np.int64)
    split[order[:share]] = 1
    split[order[share : 2 * share]] = 2
    return split


def hashed(columns: Mapping[str, NDArray[Any]]) -> str:
    """A fingerprint of names, dtypes, shapes and every value; their order does not count."""
    total = hashlib.sha256()
    for name in sorted(columns):
        column = columns[name]
        total.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
        total.update(column.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _array(name: str, values: ArrayLike, findings: Findings) -> NDArray[Any] | None:
    """A copy as an array without Python objects; None, and a problem, if there is none."""
    problem = "holds Python objects"
    try:
        column = _filled(name, np.asarray(values).copy())
        # Numbers, and strings in an array of objects, as pandas keeps them.
        if name in ("ids", "text_raw") and (
            column.dtype.kind in "iu" or all(isinstance(word, str) for word in column.flat)
        ):
            column = column.astype(np.str_)
        if not column.dtype.hasobject:
            return column
    except (AttributeError, OverflowError, TypeError, ValueError, RuntimeError) as error:
        problem = f"is no array ({error})"
    remedy = "give numbers or strings; pad ragged rows to one shape and give their lengths"
    findings.about(name, problem, remedy)
    return None


def _filled(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """The column with what packs have where an item has no label, group or text."""
    if name not in ("label", "group", "text_raw") or column.dtype.kind not in "Of":
        return column
    there = np.array([is_given(value) for value in column.flat], dtype=np.bool_)
    if there.all() or column.ndim != 1:
        return column
    if name == "text_raw":
        return np.where(there, column, "")
    given: list[Any] = column[there].tolist()
    if not all(isinstance(one, int) or one.is_integer() for one in given):
        return column
    found = np.full(len(column), NOT_GIVEN)
    found[there] = given
    return found


Standardise = bool | Collection[str] | Mapping[str, Statistics | bool | None]
"""Whether features are standardised on the training items, or the names of the modalities whose
features are, or by what was measured on another dataset: there True measures a modality here, and
None leaves it alone, as it does what is not named."""


def _shape(modality: Modality) -> str:
    return " x ".join(map(str, modality.shape))


class Split(IntEnum):
    """What an item is for; the numbers are those of the ``split`` column of a pack."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@checked_class
@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Items with one or more modalities, in memory or in a store.

    Attributes:
        card: Names, kinds and sizes.
        columns: By modality, in the order of the card.
        ids: (items,) unique names.
        split: (items,) a :class:`Split` each.
        label: (items,) class of each item, if there are classes; -1 of an item without one.
        group: (items,) what an item belongs to (a speaker, a long video), if known; an item of
            which it is not known is a group by itself.
        text: (items,) the caption or transcript to show to people, if there is one, else empty.
        picture: (items, height, width) grey or (items, height, width, 3) RGB thumbnails to show to
            people, if there are any.
        statistics: Of the modalities that were standardised, by what.
        notes: What is worth knowing of how the dataset came about.
    """

    card: DatasetCard
    columns: Mapping[str, Column]
    ids: Texts
    split: NDArray[np.signedinteger[Any]]
    label: NDArray[np.int64] | None = None
    group: NDArray[np.int64] | None = None
    text: Texts | None = None
    picture: NDArray[np.uint8] | None = None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        """Its name, its items by split, and its modalities."""
        shapes = [f"{one.name} {one.kind} {_shape(one)}" for one in self.card.modalities]
        return f"Dataset({self.card.name!r}, {self._items()}; {', '.join(shapes)})"

    def _repr_html_(self) -> str:
        rows = [
            (one.name, str(one.kind), _shape(one), f"{int(self.columns[one.name].present.sum()):,}")
            for one in self.card.modalities
        ]
        headings = ("modality", "kind", "shape", "items")
        return html_table(f"{self.card.name}: {self._items()}", headings, rows)

    def _items(self) -> str:
        counts = np.bincount(self.split, minlength=len(Split)).tolist()
        return ", ".join(
            f"{count:,} {name}"
            for count, name in zip(counts, ("training", "validation", "test"), strict=False)
        )

    def rows_of(self, split: Split, corpus: str = "") -> NDArray[np.int64]:
        """The items of one split, ascending; of several datasets those of all, or of one."""
        rows, begin = np.flatnonzero(self.split == split), 0
        for name, card in self.card.corpora:
            end = begin + sum(card.items)
            if name == corpus:
                return rows[(rows >= begin) & (rows < end)]
            begin = end
        return rows

    @classmethod
    @checked_arguments
    def from_items(
        cls, items: Items, *, modalities: Sequence[str] | None = None, **options: Any
    ) -> "Dataset":
        """Make a dataset of items, each a dict, such as those of a ``torch.utils.data.Dataset``.

        All are in memory at once; for more than that there is ``write_store``.

        Args:
            items: Each has the features of its modalities, a tensor or an array of one shape for
                all items, and if there are such ``ids``, ``split``, ``label``, ``group``
                and ``text_raw``, its caption. What an item lacks may be missing or None.
            modalities: Names of those that are features; without them, all but the above.
            options: Those of :meth:`from_arrays` besides columns, such as ``kinds``.

        Raises:
            InputError: With everything that is wrong, items named by their numbers.
        """
        return cls.from_arrays(**columns_of(items, modalities), **options)

    @classmethod
    @checked_arguments
    def from_arrays(  # noqa: PLR0913 - one argument per column of a pack, all but one by name
        cls,
        arrays: Mapping[str, ArrayLike],
        *,
        split: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        kinds: Mapping[str, str | Kind] | None = None,
        lengths: Mapping[str, ArrayLike] | None = None,
        present: Mapping[str, ArrayLike] | None = None,
        label: ArrayLike | None = None,
        group: ArrayLike | None = None,
        text: ArrayLike | None = None,
        picture: ArrayLike | None = None,
        name: str = "arrays",
        standardise: Standardise = True,
        splits: Collection[str] = SPLITS,
    ) -> "Dataset":
        """Make a dataset of arrays in memory; they are checked as a feature pack is, and copied.

        Args:
            arrays: By modality: (items, features), (items, time, features) or
                (items, time, ...); floats, or uint8 for raw pixels.
            split: (items,) 0 for training, 1 for validation, 2 for test. Without it a fixed
                shuffle puts a tenth of the items, at least one, into validation and as many into
                test: the same items on every machine and for every dataset of this size. Where
                there is a ``group``, whole groups are shuffled.
            ids: (items,) unique names; without them the row numbers.
            kinds: By modality; without one, an item of one axis is a vector, of two axes tokens,
                of more frames.
            lengths: By modality, (items,) valid time steps; without one all steps are valid.
            present: By modality, (items,) whether an item has it; rows that lack it may hold
                anything.
            label: (items,) integers; -1, None or NaN for an item without one.
            group: (items,) integers; the same.
            text: (items,) strings; empty, None or NaN for an item without one.
            picture: (items, height, width) grey or (items, height, width, 3) RGB, uint8.
            name: The dataset's name on its card and in problems.
            standardise: Whether each feature gets mean 0 and standard deviation 1 over the
                training items, or the names of the modalities whose features do, or what was
                measured on another dataset with the same features.
            splits: Splits that must have items; ``["test"]`` for items that only score.

        Raises:
            InputError: With everything that is wrong, rows named.
        """
        findings = Findings(name)
        items = {
            "ids": ids,
            "split": split,
            "label": label,
            "group": group,
            "text_raw": text,
            PICTURE: picture,
        }
        own = {KIND: kinds or {}, LENGTH: lengths or {}, PRESENT: present or {}}
        columns = gather(arrays, own, items, findings)
        texts = {key: str(column) for key, column in columns.items() if key.endswith(KIND)}
        schema = read_schema(columns, texts, findings, claimed=frozenset(arrays))
        return assemble(
            columns,
            schema,
            findings,
            name=name,
            fingerprint=hashed(columns),
            standardised=standardise,
            splits=splits,
        )


def make_card(
    schema: Schema,
    split: NDArray[np.int64],
    group: NDArray[np.int64] | None,
    present: Mapping[str, NDArray[np.bool_]],
    *,
    name: str,
    fingerprint: str,
    provenance: Provenance | None,
) -> DatasetCard:
    """The card of a source without problems; ``present`` says which items have a modality."""
    every = np.ones(len(split), dtype=np.bool_)
    having = {one.name: present.get(one.name, every) for one in schema.modalities}
    groups = 0 if group is None else len(np.unique(with_own_groups(group)[split == Split.TRAIN]))
    return DatasetCard(
        name,
        schema.modalities,
        count_splits(split),
        fingerprint,
        "label" in schema.used,
        groups,
        provenance,
        schema.all_rows,
        presence=presence_of(split, having),
    )


def assemble(
    columns: Mapping[str, NDArray[Any]],
    schema: Schema,
    findings: Findings,
    *,
    name: str,
    fingerprint: str,
    standardised: Standardise,
    splits: Collection[str] = SPLITS,
    provenance: Provenance | None = None,
) -> Dataset:
    """Make a dataset of sound columns, checked row by row; float32 arrays are changed in place."""
    sound = {key: columns[key] for key in schema.used if key in columns}
    check_ids(sound.get("ids"), findings)
    split = check_split(sound.get("split"), findings, needed=splits)
    made = {
        modality.name: _column(modality, sound, findings)
        for modality in schema.modalities
        if modality.name in sound
    }
    training = split == Split.TRAIN
    for column in made.values():
        _check_values(column, training, findings)
    findings.refuse()

    def measure(modality: str) -> Statistics | None:
        column = made[modality]
        return measured(column.steps, column.valid, training) if training.any() else None

    statistics = statistics_by(standardised, schema.modalities, measure, findings)
    findings.refuse()
    for modality, by in statistics.items():
        column = made[modality]
        standardise(column.steps, column.valid, by)
        problem = "too far from the training items to be standardised (beyond float32)"
        findings.about_rows(modality, problem, rows_not_finite(column.steps))
    findings.refuse()
    whole = {key: sound[key].astype(np.int64) for key in ("label", "group") if key in sound}
    group = with_own_groups(whole["group"]) if "group" in whole else None
    present = {modality: column.present for modality, column in made.items()}
    return Dataset(
        make_card(
            *(schema, split, group, present),
            name=name,
            fingerprint=fingerprint,
            provenance=provenance,
        ),
        made,
        sound["ids"],
        split,
        whole.get("label"),
        group,
        sound.get("text_raw"),
        sound.get(PICTURE),
        statistics,
        schema.notes,
    )


def statistics_by(
    wanted: Standardise,
    modalities: Sequence[Modality],
    measure: Callable[[str], Statistics | None],
    findings: Findings,
) -> dict[str, Statistics]:
    """What each modality that is wanted is standardised by.

    ``measure`` gives the statistics of the training items; None if no training item has the
    modality, which is a problem, as are unknown names and statistics that do not fit.
    """
    names = [one.name for one in modalities]
    found: dict[str, Statistics] = {}
    if isinstance(wanted, Mapping):
        given = {name: each for name, each in wanted.items() if isinstance(each, Statistics)}
        found = _fitting(given, modalities, findings)
        chosen = {name for name, each in wanted.items() if each is True}
    else:
        chosen = set(names if wanted is True else wanted or ())
    for unknown in sorted(chosen.difference(names)):
        remedy = f"what can be standardised is {', '.join(names)}"
        findings.about(unknown, "cannot be standardised: there is no such modality", remedy)
    for name in (name for name in names if name in chosen):
        if here := measure(name):
            found[name] = here
        else:
            remedy = "give the statistics of the dataset trained on, or standardise = false"
            findings.about(name, "cannot be standardised: no training item has it", remedy)
    return found


def _fitting(
    given: Mapping[str, Statistics], modalities: Sequence[Modality], findings: Findings
) -> dict[str, Statistics]:
    """Of the statistics of another dataset those of the modalities; others are left alone."""
    for one in modalities:
        known = len(given[one.name].mean) if one.name in given else one.features
        if known != one.features:
            problem = f"has {one.features} features, but {known} were standardised"
            findings.about(one.name, problem, "take features of the same kind")
    return {one.name: given[one.name] for one in modalities if one.name in given}


def _column(
    modality: Modality, sound: Mapping[str, NDArray[Any]], findings: Findings
) -> MemoryColumn:
    # What float32 cannot hold becomes an infinity, which is refused as one.
    with np.errstate(over="ignore"):
        values = np.asarray(sound[modality.name], dtype=np.float32, order="C")
    present = sound.get(modality.name + PRESENT, np.ones(len(values), dtype=np.bool_))
    if not modality.kind.has_length:
        return MemoryColumn(modality, values, present, None)
    time = modality.shape[0]
    given = sound.get(modality.name + LENGTH, np.full(len(values), time))
    wrong = present & ((given < 1) | (given > time))
    findings.about_rows(modality.name + LENGTH, f"not within 1..{time}", np.flatnonzero(wrong))
    return MemoryColumn(modality, values, present, np.where(present, given, 0).astype(np.int64))


def _check_values(column: MemoryColumn, training: NDArray[np.bool_], findings: Findings) -> None:
    name = column.modality.name
    if findings.faulty & {name + PRESENT, name + LENGTH}:
        return
    blank(column.steps, column.valid)
    remedy = f"mend them, or say in {name}{PRESENT} that they lack it"
    findings.about_rows(name, "not finite in float32", rows_not_finite(column.steps), remedy)
    if training.any() and not column.present[training].any():
        findings.about(name + PRESENT, "no training item has it", "nothing could be learnt of it")
