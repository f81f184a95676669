"""``store.json``: what a store contains, read strictly and without opening a shard."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from continual_mm.data.cards import FORM
from continual_mm.data.findings import Findings
from continual_mm.data.provenance import ProvenanceForm
from continual_mm.data.schema import SPLIT_NUMBERS, check_counts, is_taken
from continual_mm.definitions.modality import DatasetCard, Kind, Modality, Presence
from continual_mm.definitions.tables import Table
from continual_mm.system.errors import InputError, Problem, Problems
from continual_mm.system.files import atomic_write
from continual_mm.system.reading import reads

OptionalColumn = Literal["label", "group", "text_raw"]  # null in items that have none
TableName = Literal["items", "recordings", "groups"]  # the tables, each in a folder of this name
DType = Literal["float16", "float32"]  # in which features are stored
LARGEST_FORM = 64 << 20  # bytes; means and deviations of a million features take less

DAMAGED = "the store is damaged: write it anew, or copy it whole"
"""What to do about a file that is not as it was written."""

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,99}$")]
_Size = Annotated[int, Field(ge=1, le=1 << 31)]
_Count = Annotated[int, Field(ge=0, le=1 << 62)]


class ShardForm(Table):
    """One file of a table; ``edges`` was written by earlier versions and is not used."""

    rows: _Count
    bytes: _Count
    edges: str = ""


class ModalityForm(Table):
    """One modality."""

    name: _Name
    kind: Kind
    shape: tuple[_Size, ...]  # of one item; the time is the longest that occurs
    # Whether the items hold values, rows of a table of words, or windows of recordings.
    source: Literal["values", "words", "windows"] = "values"
    # Columns of the recordings -> features per step; for windows.
    parts: dict[_Name, _Size] = Field(default_factory=dict)
    reduce: Literal["max"] | None = None  # what is computed of a window
    words: _Count = 0  # rows of the table of words
    # (features,) of the valid steps of the training items; None if none has the modality.
    mean: tuple[float, ...] | None = None
    # (features,) standard deviation of the same.
    deviation: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @property
    def modality(self) -> Modality:
        """The modality as other modules know it."""
        return Modality(self.name, self.kind, self.shape)

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns of the items; the first one is null in items that lack the modality."""
        if self.source != "windows":
            return (self.name,)
        return tuple(f"{self.name}_{each}" for each in ("recording", "begin", "end"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name[0].isdigit() or is_taken(self.name):
            raise ValueError(f"{self.name!r} names no modality")
        if not self.kind.allows(len(self.shape)):
            raise ValueError(f"items of shape {self.shape} are no {self.kind}")
        if math.prod(self.shape) > 1 << 40:
            raise ValueError(f"items of shape {self.shape} fit into no memory")
        measured = {None if one is None else len(one) for one in (self.mean, self.deviation)}
        if measured not in ({None}, {self.modality.features}):
            raise ValueError(f"means and deviations are not of {self.modality.features} features")
        return self

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        words, windows = self.source == "words", self.source == "windows"
        features = self.modality.features
        if words != bool(self.words) or (
            words and not (self.kind.has_length and len(self.shape) == 2)
        ):
            problem = f"{self.words} words and {self.source} of shape {self.shape}"
            raise ValueError(f"{problem} do not go together")
        if windows != bool(self.parts) or (self.reduce and not windows):
            raise ValueError(f"recordings and {self.source} do not go together")
        if windows and sum(self.parts.values()) != features:
            raise ValueError(f"parts of {sum(self.parts.values())} features do not make {features}")
        if windows and (self.reduce is None) != self.kind.has_length:
            raise ValueError("windows are vectors if they are reduced, and else none")
        if not self.reduce and len(self.parts) > 1:
            raise ValueError("only windows that are reduced have more than one part")
        return self


class StoreForm(Table):
    """The contents of ``store.json``."""

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=1000)]
    # SHA-256 of the content, however it is divided into shards. Means and deviations are not in
    # it, since their last bits differ between machines.
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    statistics: str = ""  # written by earlier versions; not used
    dtype: DType  # in which features are stored
    items: tuple[_Count, _Count, _Count]  # per split
    training_groups: _Count = 0  # groups of the training items; 0 if items have none
    columns: tuple[OptionalColumn, ...]  # what some items have besides their features
    modalities: Annotated[tuple[ModalityForm, ...], Field(min_length=1)]
    tables: dict[TableName, tuple[ShardForm, ...]]  # shards by the folder that they lie in
    presence: Presence | None = None  # what items have; stores of earlier versions do not say
    notes: tuple[str, ...] = ()  # what users of the store should know, in sentences
    provenance: ProvenanceForm | None = None

    @property
    def card(self) -> DatasetCard:
        """The dataset's card."""
        return DatasetCard(
            self.name,
            tuple(each.modality for each in self.modalities),
            self.items,
            self.fingerprint,
            "label" in self.columns,
            self.training_groups,
            provenance=self.provenance.provenance if self.provenance else None,
            on_disk=True,
            presence=self.presence,
        )

    def check_splits(self, findings: Findings, *, needed: Collection[str]) -> None:
        """Find splits without items, of those that are needed."""
        remedy = self.provenance.remedy if self.provenance else SPLIT_NUMBERS
        check_counts(self.items, findings, needed=needed, remedy=remedy)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) < len(names):
            raise ValueError("modalities: a name occurs twice")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: a name occurs twice")
        rows = {table: sum(shard.rows for shard in form) for table, form in self.tables.items()}
        if not rows.get("items"):
            raise ValueError("tables: there are no items")
        if rows["items"] != sum(self.items):
            raise ValueError(f"{sum(self.items)} items, but {rows['items']} rows in the shards")
        parts = {part for modality in self.modalities for part in modality.parts.items()}
        if parts and not rows.get("recordings"):
            raise ValueError("tables: there are windows, but no recordings")
        if len({name for name, _ in parts}) < len(parts):
            raise ValueError("modalities: a part of the recordings has two sizes")
        return self


@reads
def read_store_card(folder: str | os.PathLike[str], *, splits: Collection[str] = ()) -> DatasetCard:
    """Read what a store contains, from ``store.json`` alone; ``splits`` must have items."""
    form = read_form(Path(folder))
    findings = Findings(str(folder))
    form.check_splits(findings, needed=splits)
    findings.refuse()
    return form.card


def read_form(folder: Path) -> StoreForm:
    """Read ``store.json`` and check that it does not contradict itself."""
    path = folder / FORM
    try:
        if path.exists() and not path.is_file():
            raise InputError.at(path, "is no file", DAMAGED)
        if path.stat().st_size > LARGEST_FORM:
            problem = f"is larger than {LARGEST_FORM >> 20} MB, which no description is"
            raise InputError.at(path, problem, DAMAGED)
        return StoreForm.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "a store is a folder that the store's writer made"
        raise InputError.at(path, f"cannot be opened: {error.strerror or error}", remedy) from error
    except ValidationError as error:
        raise InputError(_problems(str(path), error)) from error


def write_form(folder: Path, form: StoreForm) -> None:
    """Write ``store.json``."""
    with atomic_write(folder / FORM) as temporary:
        text = form.model_dump_json(indent=1, exclude_defaults=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def _problems(place: str, error: ValidationError, remedy: str = DAMAGED) -> list[Problem]:
    return [
        Problem(
            ", ".join([place, *map(str, mistake["loc"])]),
            mistake["msg"].removeprefix("Value error, "),
            remedy,
        )
        for mistake in error.errors(include_url=False, include_input=False)[:5]
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A modality whose steps are words of one table; items hold the words' rows in it."""

    modality: Modality  # its shape is (time, features), as `Layout` has it
    vectors: NDArray[Any]  # (words, features) floats, memory-mapped or not
    blank: bool = False  # whether a row of zeros follows them, for items that are filled up with it

    @property
    def count(self) -> int:
        """Rows of the table."""
        return len(self.vectors) + self.blank


@dataclass(frozen=True, slots=True)
class Windows:
    """A modality that is cut out of recordings; items hold a :class:`Window` each."""

    # For `max` a vector of all the parts' features. Else its shape is (time, ...), and windows
    # are cut behind that time, which stands in the card even if none is as long.
    modality: Modality
    # Columns of the recordings -> features per step. More than one only for `max`.
    parts: Mapping[str, int]
    # `max` is HowTo100M's recipe: the largest value of each feature within the window, each
    # part then scaled to length 1 and all parts concatenated; zeros where a part's window is
    # empty. None gives the window itself.
    reduce: Literal["max"] | None = None


Layout = Sequence[Modality | Words | Windows]
"""What the items of a store have.

The time in a :class:`Modality`'s shape is the least that the card will say: 0 or 1 where it is to
be measured, more where items are to be filled up to it, as published programs do. A longer item
raises it.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Where in a recording an item lies."""

    recording: int  # the number that the writer gave the recording
    # (begin, end) in steps for each part. What reaches beyond the recording is cut.
    spans: tuple[tuple[int, int], ...]


def described(layout: Layout, source: str, dtype: str) -> tuple[ModalityForm, ...]:
    """The forms of modalities before the first item, with their least times."""
    problems = Problems()
    forms: list[ModalityForm] = []
    known = Modality | Words | Windows
    if (
        not isinstance(layout, Sequence)
        or not layout
        or not all(isinstance(part, known) for part in layout)
    ):
        remedy = "give a tuple of Modality, Words and Windows"
        raise InputError.at(source, f"the layout is {layout!r}", remedy)
    if dtype not in get_args(DType):
        remedy = f"write {' or '.join(map(repr, get_args(DType)))}"
        problems.append(Problem(source, f"features cannot be stored as {dtype!r}", remedy))
    for part in layout:
        try:
            forms.append(_form(part))
        except ValidationError as error:
            problems += _problems(f"{source}, modality {_modality(part).name!r}", error, "")
    names = ["ids", *dict.fromkeys(part for form in forms for part in form.parts)]
    names += [column for form in forms for column in form.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem(source, f"columns occur twice: {', '.join(twice)}"))
    problems.check()
    return tuple(forms)


def _modality(part: Modality | Words | Windows) -> Modality:
    return part if isinstance(part, Modality) else part.modality


def _form(part: Modality | Words | Windows) -> ModalityForm:
    modality = _modality(part)
    form: dict[str, Any] = {"name": modality.name, "kind": modality.kind, "shape": modality.shape}
    if modality.kind.has_length:
        form["shape"] = (max(1, *modality.shape[:1]), *modality.shape[1:])
    if isinstance(part, Words):
        form |= {"source": "words", "words": part.count}
    elif isinstance(part, Windows):
        form |= {"source": "windows", "parts": dict(part.parts), "reduce": part.reduce}
    return ModalityForm.model_validate(form)
