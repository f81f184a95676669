"""What is in a dataset, as lines and a table that fit into 80 columns."""

from textwrap import wrap
from typing import TYPE_CHECKING

from continual_mm import terminal

if TYPE_CHECKING:
    from continual_mm.data.inspected import Inspection, ModalityReport

WIDTH = 80
"""Columns of a terminal that nobody made wider."""

PRESENT = "present"
_BULLET = "- "


def tell(found: "Inspection", *, name: str) -> None:
    """Print it.

    Args:
        found: What was found.
        name: Of the dataset, as the user gave it.
    """
    training, validation, test = found.card.items
    items = sum(found.card.items)
    terminal.out.print(
        f"{name}: {_count(items, 'item')} ({training:,} training, {validation:,} validation,"
        f" {test:,} test)"
    )
    if found.card.provenance:
        terminal.out.print(f"converted: {found.card.provenance}")
    terminal.out.print(", ".join(_extras(found, items)))
    columns = _columns(found, items)
    beside = columns.pop(PRESENT, []) if _width(columns) > WIDTH else []
    terminal.print_rows(list(columns), list(zip(*columns.values(), strict=True)))
    for one, counts in zip(found.modalities, beside, strict=bool(beside)):
        terminal.out.print(f"{one.modality.name}: {PRESENT} in {counts}")
    if found.looked_at < items:
        terminal.out.print(f"lengths, values and norms are those of {found.looked_at:,} items")
    for remark in found.remarks:
        _remark(remark)


def _extras(found: "Inspection", items: int) -> list[str]:
    captions = None if found.captions is None else found.captions.different
    return [
        f"{'all' if found.complete == items else f'{found.complete:,}'} with every modality",
        *([] if found.groups is None else [_count(found.groups, "group")]),
        *([] if captions is None else [_count(captions, "different caption")]),
        *(["labels"] if found.card.has_labels else []),
    ]


def _columns(found: "Inspection", items: int) -> dict[str, list[str]]:
    """By heading; what says nothing of any modality is left out."""
    columns = {
        "modality": [one.modality.name for one in found.modalities],
        "kind": [str(one.modality.kind) for one in found.modalities],
        "shape": [" x ".join(map(str, one.modality.shape)) for one in found.modalities],
        PRESENT: [_present(one) for one in found.modalities],
        "lengths": [_lengths(one) for one in found.modalities],
        "values": [_range(one) for one in found.modalities],
        "norm": [f"{one.sizes.norm:.3g}" for one in found.modalities],
    }
    if found.complete == items:
        del columns[PRESENT]
    if not any(columns["lengths"]):
        del columns["lengths"]
    return columns


def _width(columns: dict[str, list[str]]) -> int:
    widths = (max(map(len, (heading, *cells))) for heading, cells in columns.items())
    return sum(widths) + terminal.GAP * (len(columns) - 1)


def _present(one: "ModalityReport") -> str:
    return "/".join(f"{count:,}" for count in one.present)


def _lengths(one: "ModalityReport") -> str:
    if one.lengths is None:
        return ""
    shortest, _, longest = one.lengths
    return str(longest) if shortest == longest else f"{shortest}-{longest}"


def _range(one: "ModalityReport") -> str:
    return f"{one.sizes.smallest:.3g} to {one.sizes.largest:.3g}"


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


def _remark(remark: str) -> None:
    """A line, on a terminal as many as it takes."""
    width = terminal.out.width if terminal.out.is_terminal else terminal.UNLIMITED
    lines = wrap(remark, width, initial_indent=_BULLET, subsequent_indent=" " * len(_BULLET))
    for line in lines:
        terminal.out.print(line)
