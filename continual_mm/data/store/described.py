"""From a layout to what ``store.json`` says of each modality."""

from pydantic import ValidationError

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.store.fields import item_fields, recording_fields
from continual_mm.data.store.form import ModalityForm, fault_of
from continual_mm.data.store.layout import Layout, Windows, Words
from continual_mm.modality import Modality


def described(layout: Layout, source: str) -> tuple[ModalityForm, ...]:
    """What is known of the modalities before the first item; times are 1 until more is known.

    Args:
        layout: What the items have.
        source: What to call the store in complaints.

    Raises:
        RefusedError: With everything that is wrong with the layout.
    """
    complaints: list[Complaint] = []
    forms: list[ModalityForm] = []
    for part in layout:
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


def _form(part: Modality | Words | Windows, modality: Modality) -> ModalityForm:
    shape = (1, *modality.shape[1:]) if modality.kind.has_length else modality.shape
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
