"""What occurred in the records: every modality, and times how long."""

from collections.abc import Iterable, Mapping, Sequence

from continual_mm.data.store.faults import Faults
from continual_mm.data.store.form import ModalityForm


def check_occurrence(times: Mapping[str, int], items: Sequence[int], faults: Faults) -> None:
    """Complain if there are no items, or about modalities that none has.

    Args:
        times: Modality -> the longest time; 0 if no item has it.
        items: Per split.
        faults: Takes the complaints.
    """
    if faults:
        return
    if not sum(items):
        faults.about_store("has no items", "give at least one")
        return
    for name in (name for name, time in times.items() if not time):
        faults.about_store(f"no item has the modality {name!r}", "leave it out of the layout")


def with_times(
    modalities: Iterable[ModalityForm], times: Mapping[str, int]
) -> tuple[ModalityForm, ...]:
    """The modalities with the longest times that occur, or the least they have, if that is more."""
    return tuple(
        one.model_copy(update={"shape": (max(times[one.name], one.shape[0]), *one.shape[1:])})
        if one.kind.has_length
        else one
        for one in modalities
    )
