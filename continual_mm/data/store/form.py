"""``store.json``: what a store says about itself, read strictly and without opening a shard."""

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, get_args

from numpy.typing import NDArray
from pydantic import Field, ValidationError

from continual_mm.data.cards import FORM
from continual_mm.data.findings import Findings
from continual_mm.data.provenance import ProvenanceForm
from continual_mm.data.schema import SPLIT_NUMBERS, check_counts, is_taken, natural_kind
from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.definitions.tables import Table
from continual_mm.system.errors import InputError, Problem

OptionalColumn = Literal["label", "group", "text_raw"]
"""What all items have or none."""

TableName = Literal["items", "recordings", "groups"]
"""The tables, each in a folder of this name."""

LARGEST_FORM = 64 << 20
"""Bytes; a million features have their means and deviations in less."""

_EDGE = 64 << 10
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_]{0,99}$"
_Name = Annotated[str, Field(pattern=_NAME)]
_Size = Annotated[int, Field(ge=1, le=1 << 31)]
_Count = Annotated[int, Field(ge=0, le=1 << 62)]
_DAMAGED = "write the store anew, or copy it whole"


class ShardForm(Table):
    """One file of a table.

    Attributes:
        rows: In it.
        bytes: Its size.
        edges: What :func:`edges_of` gives of it, by which it is told from others of its size; empty
            if nobody knows.
    """

    rows: _Count
    bytes: _Count
    edges: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""


class ModalityForm(Table):
    """One modality.

    Attributes:
        name: An identifier.
        kind: The kind of signal.
        shape: Of one item; the time is the longest that occurs.
        source: Whether the items hold values, rows of a table of words, or windows of recordings.
        parts: Columns of the recordings -> features per step; for windows.
        reduce: What becomes of a window.
        words: How many the table of words has.
        mean: (features,) of the valid steps of the training items; None if none has the modality.
        deviation: (features,) standard deviation of the same.
    """

    name: _Name
    kind: Kind
    shape: tuple[_Size, ...]
    source: Literal["values", "words", "windows"] = "values"
    parts: dict[_Name, _Size] = Field(default_factory=dict)
    reduce: Literal["max"] | None = None
    words: _Count = 0
    mean: tuple[float, ...] | None = None
    deviation: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @property
    def modality(self) -> Modality:
        """The modality as everything else knows it."""
        return Modality(self.name, self.kind, self.shape)


class StoreForm(Table):
    """All that ``store.json`` says.

    Attributes:
        version: Of this form.
        name: The dataset's.
        fingerprint: SHA-256 of the content, however it is divided into shards.
        statistics: What :func:`digest_of_statistics` gives of the modalities; empty if nobody
            knows. Not in the fingerprint, since last bits of what is measured differ between
            machines, and the same content is to have the same fingerprint on all.
        dtype: In which features are kept.
        items: Per split.
        training_groups: Groups that training items are of; 0 if items have none.
        columns: What items have besides their features.
        modalities: In order.
        tables: Shards by the folder that they lie in.
        notes: What whoever looks at the store should know of it.
        provenance: How published files were converted into it, if they were.
    """

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=1000)]
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    statistics: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    dtype: Literal["float16", "float32"]
    items: tuple[_Count, _Count, _Count]
    training_groups: _Count = 0
    columns: tuple[OptionalColumn, ...]
    modalities: Annotated[tuple[ModalityForm, ...], Field(min_length=1)]
    tables: dict[TableName, tuple[ShardForm, ...]]
    notes: tuple[str, ...] = ()
    provenance: ProvenanceForm | None = None

    @property
    def card(self) -> DatasetCard:
        """The dataset's card."""
        modalities = tuple(each.modality for each in self.modalities)
        has_labels = "label" in self.columns
        return DatasetCard(
            self.name,
            modalities,
            self.items,
            self.fingerprint,
            has_labels,
            self.training_groups,
            provenance=self.provenance.provenance if self.provenance else None,
        )

    def check_splits(self, findings: Findings, *, needed: Collection[str]) -> None:
        """Complain about splits without items, of those that are needed."""
        remedy = self.provenance.remedy if self.provenance else SPLIT_NUMBERS
        check_counts(self.items, findings, needed=needed, remedy=remedy)


def read_store_card(folder: str | os.PathLike[str], *, splits: Collection[str] = ()) -> DatasetCard:
    """Read what a store contains, from ``store.json`` alone.

    Args:
        folder: The store.
        splits: Splits that must have items.

    Raises:
        InputError: With everything that is wrong with that file.
    """
    form = read_form(Path(folder))
    findings = Findings(str(folder))
    form.check_splits(findings, needed=splits)
    findings.refuse()
    return form.card


def read_form(folder: Path) -> StoreForm:
    """Read ``store.json`` and check that it does not contradict itself.

    Raises:
        InputError: With everything that is wrong with it.
    """
    path = folder / FORM
    try:
        if path.exists() and not path.is_file():
            raise InputError(Problem(str(path), "is no file", _DAMAGED))
        if path.stat().st_size > LARGEST_FORM:
            problem = f"is larger than {LARGEST_FORM >> 20} MB, which no description is"
            raise InputError(Problem(str(path), problem, _DAMAGED))
        form = StoreForm.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "a store is a folder that the store's writer made"
        problem = f"cannot be opened: {error.strerror or error}"
        raise InputError(Problem(str(path), problem, remedy)) from error
    except ValidationError as error:
        raise InputError(_problems(path, error)) from error
    if found := [Problem(f"{path}, {where}", what, _DAMAGED) for where, what in _faults(form)]:
        raise InputError(found)
    return form


def edges_of(file: BinaryIO) -> str:
    """A fingerprint of the first and last 64 KB of a file, which a large one has in no time."""
    size = file.seek(0, os.SEEK_END)
    digest = blake2b(digest_size=16)
    for start in (0, max(0, size - _EDGE)):
        file.seek(start)
        digest.update(file.read(_EDGE))
    return digest.hexdigest()


def digest_of_statistics(modalities: Iterable[ModalityForm]) -> str:
    """SHA-256 of the means and deviations of modalities, to the last bit."""
    lines = (f"{one.name} {one.mean} {one.deviation}" for one in modalities)
    return sha256("\n".join(lines).encode()).hexdigest()


def write_form(folder: Path, form: StoreForm) -> None:
    """Write ``store.json``."""
    with (folder / FORM).open("w", encoding="utf-8") as file:
        file.write(form.model_dump_json(indent=1, exclude_defaults=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def fault_of(modality: ModalityForm) -> str:
    """What is wrong with a modality in itself; empty if nothing is."""
    if modality.name[0].isdigit() or is_taken(modality.name):
        return f"{modality.name!r} names no modality"
    axes = len(modality.shape)
    if (axes == 1) != (modality.kind is Kind.VECTOR) or (
        modality.kind is not Kind.FRAMES and natural_kind(axes) is Kind.FRAMES
    ):
        return f"items of shape {modality.shape} are no {modality.kind}"
    if math.prod(modality.shape) > 1 << 40:
        return f"items of shape {modality.shape} fit into no memory"
    return _fault_of_source(modality) or _fault_of_statistics(modality)


def _fault_of_source(one: ModalityForm) -> str:
    windows = one.source == "windows"
    if windows != bool(one.parts) or (one.reduce and not windows):
        return f"recordings and {one.source} do not go together"
    features = one.modality.features
    if windows and sum(one.parts.values()) != features:
        return f"parts of {sum(one.parts.values())} features do not make {features}"
    if windows and not one.reduce and len(one.parts) > 1:
        return "only windows that are reduced have more than one part"
    if windows and (one.reduce is None) != one.kind.has_length:
        return "windows are vectors if they are reduced, and else none"
    words = one.source == "words"
    if words != bool(one.words) or (words and (not one.kind.has_length or len(one.shape) != 2)):
        return f"{one.words} words and {one.source} of shape {one.shape} do not go together"
    return ""


def _fault_of_statistics(one: ModalityForm) -> str:
    sizes = {len(each) for each in (one.mean, one.deviation) if each is not None}
    if (one.mean is None) != (one.deviation is None) or sizes - {one.modality.features}:
        return f"means and deviations are not of {one.modality.features} features"
    return ""


def _faults(form: StoreForm) -> list[tuple[str, str]]:
    found = [
        (f"modalities, {place}", fault)
        for place, modality in enumerate(form.modalities)
        if (fault := fault_of(modality))
    ]
    names = [modality.name for modality in form.modalities]
    if len(set(names)) < len(names):
        found.append(("modalities", "a name occurs twice"))
    rows = {table: sum(shard.rows for shard in shards) for table, shards in form.tables.items()}
    if not rows.get("items"):
        found.append(("tables", "there are no items"))
    elif rows["items"] != sum(form.items):
        problem = f"{sum(form.items)} items, but {rows['items']} rows in the shards"
        found.append(("items", problem))
    if len(set(form.columns)) < len(form.columns):
        found.append(("columns", "a name occurs twice"))
    if form.statistics and form.statistics != digest_of_statistics(form.modalities):
        found.append(("modalities", "means and deviations are not those that were measured"))
    if any(modality.parts for modality in form.modalities) and not rows.get("recordings"):
        found.append(("tables", "there are windows, but no recordings"))
    return found + _faults_of_parts(form)


def _faults_of_parts(form: StoreForm) -> list[tuple[str, str]]:
    sizes: dict[str, int] = {}
    for modality in form.modalities:
        for part, features in modality.parts.items():
            if sizes.setdefault(part, features) != features:
                return [("modalities", f"part {part!r} has both {sizes[part]} and {features}")]
    return []


def _problems(path: Path, error: ValidationError) -> list[Problem]:
    def told(mistake: Any) -> Problem:
        place = ", ".join([str(path), *map(str, mistake["loc"])])
        return Problem(place, str(mistake["msg"]), _DAMAGED)

    return [told(mistake) for mistake in error.errors(include_url=False, include_input=False)[:5]]


ITEM_FIELDS = {"ids": "string", "split": "int8"}
"""What every item has."""
OPTIONAL_FIELDS = {"label": "int64", "group": "int64", "text_raw": "string"}
"""What all items have or none."""


@dataclass(frozen=True, slots=True)
class ArrowField:
    """A column.

    Attributes:
        name: Of the column.
        dtype: Of a value, by Arrow's and numpy's name; ``string`` is UTF-8.
        width: Values per row; 0 if rows differ, None if there is one and no list.
    """

    name: str
    dtype: str
    width: int | None = None


def item_fields(
    columns: Iterable[str], modalities: Iterable[ModalityForm], dtype: str
) -> tuple[ArrowField, ...]:
    """The columns of the items: what all items have, the optional ones given, the modalities'."""
    plain = {**ITEM_FIELDS, **{name: OPTIONAL_FIELDS[name] for name in columns}}
    own = (field for modality in modalities for field in modality_fields(modality, dtype))
    return (*(ArrowField(name, kind) for name, kind in plain.items()), *own)


def modality_fields(modality: ModalityForm, dtype: str) -> Iterator[ArrowField]:
    """The columns of one modality; in an item that lacks it, the first of them is null."""
    if modality.source == "windows":
        yield ArrowField(f"{modality.name}_recording", "int64")
        for bound in ("begin", "end"):
            yield ArrowField(f"{modality.name}_{bound}", "int32", len(modality.parts))
    elif modality.source == "words":
        yield ArrowField(modality.name, "int32", 0)
    else:
        width = 0 if modality.kind.has_length else modality.modality.features
        yield ArrowField(modality.name, dtype, width)


def recording_fields(modalities: Iterable[ModalityForm], dtype: str) -> tuple[ArrowField, ...]:
    """The columns of the recordings: a name, and every part that windows are cut out of."""
    parts = dict.fromkeys(part for modality in modalities for part in modality.parts)
    return (ArrowField("ids", "string"), *(ArrowField(part, dtype, 0) for part in parts))


GROUP_FIELDS = (ArrowField("ids", "string"),)
"""The columns of the groups: a name, for the number that items hold."""


DType = Literal["float16", "float32"]
"""In which features are stored."""

DTYPES: tuple[DType, ...] = get_args(DType)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A modality whose steps are words of one table; items hold the words' rows in it.

    Attributes:
        modality: Its shape is (time, features), as :data:`Layout` has it.
        vectors: (words, features) floats, memory-mapped or not.
        blank: Whether a row of zeros stands behind them, for items that are filled up with it.
    """

    modality: Modality
    vectors: NDArray[Any]
    blank: bool = False

    @property
    def count(self) -> int:
        """Rows of the table."""
        return len(self.vectors) + self.blank


@dataclass(frozen=True, slots=True)
class Windows:
    """A modality that is cut out of recordings; items hold a :class:`Window` each.

    Attributes:
        modality: For ``max`` a vector of all the parts' features. Else its shape is (time, ...),
            and windows are cut behind that time, which stands in the card even if none is as long.
        parts: Columns of the recordings -> features per step. More than one only for ``max``.
        reduce: ``max`` is HowTo100M's recipe: the largest value of each feature within the window,
            each part then brought to length 1 and put behind the other; zeros where a part's
            window is empty. None gives the window itself.
    """

    modality: Modality
    parts: Mapping[str, int]
    reduce: Literal["max"] | None = None


Layout = tuple[Modality | Words | Windows, ...]
"""What the items of a store have.

The time in a :class:`Modality`'s shape is the least that the card will say: 0 or 1 where it is to
be worked out, more where items are to be filled up to it, as published programs do. A longer item
raises it.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Where in a recording an item lies.

    Attributes:
        recording: The number that the writer gave the recording.
        spans: (begin, end) in steps for each part. What reaches beyond the recording is cut.
    """

    recording: int
    spans: tuple[tuple[int, int], ...]


def described(layout: Layout, source: str, dtype: str) -> tuple[ModalityForm, ...]:
    """What is known of the modalities before the first item; their times are the least.

    Args:
        layout: What the items have.
        source: What to call the store in problems.
        dtype: In which features are to be stored.

    Raises:
        InputError: With everything that is wrong with the layout, and if the dtype is none.
    """
    problems: list[Problem] = []
    forms: list[ModalityForm] = []
    if dtype not in DTYPES:
        problem = f"features cannot be stored as {dtype!r}"
        problems.append(Problem(source, problem, f"write {' or '.join(map(repr, DTYPES))}"))
    for part in _parts(layout, source):
        modality = part if isinstance(part, Modality) else part.modality
        try:
            forms.append(_form(part, modality))
            fault = fault_of(forms[-1])
        except ValidationError as error:
            fault = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        if fault:
            problems.append(Problem(f"{source}, modality {modality.name!r}", fault))
    fields = (*item_fields((), forms, "float16"), *recording_fields(forms, "float16")[1:])
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem(source, f"columns occur twice: {', '.join(twice)}"))
    if not layout:
        problems.append(Problem(source, "has no modality", "give a layout"))
    if problems:
        raise InputError(problems)
    return tuple(forms)


def _parts(layout: object, source: str) -> Sequence[Modality | Words | Windows]:
    remedy = "give a tuple of Modality, Words and Windows"
    if not isinstance(layout, Sequence):
        problem = f"the layout is {type(layout).__name__}, no tuple"
        raise InputError(Problem(source, problem, remedy))
    if odd := [part for part in layout if not isinstance(part, Modality | Words | Windows)]:
        problem = f"the layout has {odd[0]!r} in it, which is no modality"
        raise InputError(Problem(source, problem, remedy))
    return layout


def _form(part: Modality | Words | Windows, modality: Modality) -> ModalityForm:
    shape = modality.shape
    if modality.kind.has_length:
        shape = (max(1, *modality.shape[:1]), *modality.shape[1:])
    if isinstance(part, Words):
        return ModalityForm(
            name=modality.name, kind=modality.kind, shape=shape, source="words", words=part.count
        )
    if isinstance(part, Windows):
        return ModalityForm(
            name=modality.name,
            kind=modality.kind,
            shape=shape,
            source="windows",
            parts=dict(part.parts),
            reduce=part.reduce,
        )
    return ModalityForm(name=modality.name, kind=modality.kind, shape=shape)
