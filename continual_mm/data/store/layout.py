"""What a store is told about its modalities before the first item, and what an item may hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from numpy.typing import NDArray
from pydantic import ValidationError

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.store.fields import item_fields, recording_fields
from continual_mm.data.store.form import ModalityForm, fault_of
from continual_mm.modality import Modality

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
        source: What to call the store in complaints.
        dtype: In which features are to be stored.

    Raises:
        RefusedError: With everything that is wrong with the layout, and if the dtype is none.
    """
    complaints: list[Complaint] = []
    forms: list[ModalityForm] = []
    if dtype not in DTYPES:
        problem = f"features cannot be stored as {dtype!r}"
        complaints.append(Complaint(source, problem, f"write {' or '.join(map(repr, DTYPES))}"))
    for part in _parts(layout, source):
        modality = part if isinstance(part, Modality) else part.modality
        try:
            forms.append(_form(part, modality))
            fault = fault_of(forms[-1])
        except ValidationError as error:
            fault = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        if fault:
            complaints.append(Complaint(f"{source}, modality {modality.name!r}", fault))
    fields = (*item_fields((), forms, "float16"), *recording_fields(forms, "float16")[1:])
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        complaints.append(Complaint(source, f"columns occur twice: {', '.join(twice)}"))
    if not layout:
        complaints.append(Complaint(source, "has no modality", "give a layout"))
    if complaints:
        raise RefusedError(complaints)
    return tuple(forms)


def _parts(layout: object, source: str) -> Sequence[Modality | Words | Windows]:
    remedy = "give a tuple of Modality, Words and Windows"
    if not isinstance(layout, Sequence):
        problem = f"the layout is {type(layout).__name__}, no tuple"
        raise RefusedError(Complaint(source, problem, remedy))
    if odd := [part for part in layout if not isinstance(part, Modality | Words | Windows)]:
        problem = f"the layout has {odd[0]!r} in it, which is no modality"
        raise RefusedError(Complaint(source, problem, remedy))
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
