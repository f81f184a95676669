"""Commands on data: inspect, and those that make it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from continual_mm.cli import convert as cli_convert
from continual_mm.cli import extract as cli_extract
from continual_mm.cli import filter as cli_filter
from continual_mm.cli import terminal
from continual_mm.cli.options import A_COUNT, NEW_PATH, FiniteRange
from continual_mm.system.errors import InputError

if TYPE_CHECKING:
    from continual_mm.preparation.inspection.report import Inspection, ModalityReport


WIDTH = 80  # columns that a terminal has by default
PICTURES = (".png", ".pdf", ".svg")  # endings of pictures

_PRESENT = "present"


def print_report(found: "Inspection", *, name: str) -> None:
    """Print what was found in a dataset that the user gave by this name."""
    training, validation, test = found.card.items
    items = sum(found.card.items)
    terminal.out.print(
        f"{name}: {_count(items, 'item')} ({training:,} training, {validation:,} validation,"
        f" {test:,} test)"
    )
    if found.card.provenance:
        terminal.out.print(f"converted: {found.card.provenance}")
    extras = [f"{'all' if found.complete == items else f'{found.complete:,}'} with every modality"]
    if found.groups is not None:
        extras.append(_count(found.groups, "group"))
    if found.captions is not None:
        extras.append(_count(found.captions.different, "different caption"))
    if found.card.has_labels:
        extras.append("labels")
    terminal.out.print(", ".join(extras))
    _print_modalities(found, all_present=found.complete == items)
    if found.looked_at < items:
        terminal.out.print(f"lengths, values and norms are those of {found.looked_at:,} items")
    width = terminal.out.width if terminal.out.is_terminal else terminal.UNLIMITED
    for remark in found.remarks:
        for line in wrap(remark, width, initial_indent="- ", subsequent_indent="  "):
            terminal.out.print(line)


def _print_modalities(found: "Inspection", *, all_present: bool) -> None:
    """A table without columns that say nothing; what makes it too wide is printed below it."""
    columns = {
        "modality": [one.modality.name for one in found.modalities],
        "kind": [str(one.modality.kind) for one in found.modalities],
        "shape": [" x ".join(map(str, one.modality.shape)) for one in found.modalities],
        _PRESENT: ["/".join(f"{count:,}" for count in one.present) for one in found.modalities],
        "lengths": [_lengths(one) for one in found.modalities],
        "values": [
            f"{one.sizes.smallest:.3g} to {one.sizes.largest:.3g}" for one in found.modalities
        ],
        "norm": [f"{one.sizes.norm:.3g}" for one in found.modalities],
    }
    if all_present:
        del columns[_PRESENT]
    if not any(columns["lengths"]):
        del columns["lengths"]
    widths = (max(map(len, (heading, *cells))) for heading, cells in columns.items())
    too_wide = sum(widths) + terminal.GAP * (len(columns) - 1) > WIDTH
    below = columns.pop(_PRESENT, []) if too_wide else []
    terminal.print_rows(list(columns), zip(*columns.values(), strict=True))
    for one, counts in zip(found.modalities, below, strict=bool(below)):
        terminal.out.print(f"{one.modality.name}: {_PRESENT} in {counts}")


def _lengths(one: "ModalityReport") -> str:
    if one.lengths is None:
        return ""
    shortest, _, longest = one.lengths
    return str(longest) if shortest == longest else f"{shortest}-{longest}"


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


@click.group(short_help="Look at data; make data of published files or clips.")
def data() -> None:
    """Look at data, and turn published files or clips into something scenarios can use."""


@data.command(short_help="Say what is in a dataset, and what deserves a thought.")
@click.argument("dataset")
@click.option("--picture", type=NEW_PATH, help="A picture of a few items: .png, .pdf or .svg.")
@click.option("--items", type=A_COUNT, default=4, help="Items in the picture.")
@click.option(
    "--values",
    "most",
    type=A_COUNT,
    default=5000,
    help="Items whose sizes are taken; of larger datasets every so many-th.",
)
@click.option(
    "--repeats",
    "gigabytes",
    type=FiniteRange(min=0.0, max=1e6),
    default=4.0,
    help="Gigabytes of values that are searched for repeats, some seconds each; of larger datasets"
    " every so many-th item.",
)
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table")
def inspect(
    dataset: str, picture: Path | None, items: int, most: int, gigabytes: float, format_: str
) -> None:
    """Say what is in DATASET, a registered name or a path, and what deserves a thought."""
    from continual_mm.data.registry import load
    from continual_mm.preparation.inspection.report import inspect

    path = None if picture is None else _checked(picture)
    loaded = load(dataset, standardise=False, splits=())
    found = inspect(loaded, most=most, gigabytes=gigabytes)
    if format_ == "json":
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    else:
        print_report(found, name=dataset)
    if path is not None:
        from continual_mm.preparation.inspection.picture import draw

        count, unwritten = draw(loaded, path, items=items)
        fewer = f" ({count} of {items} items: there are no more)" if count < items else ""
        terminal.err.print(f"picture: {path}{fewer}")
        if unwritten:
            terminal.err.print("some letters of its captions are boxes: no font here has them")


def _checked(picture: Path) -> Path:
    """Where a picture goes, found out before any data are read."""
    if picture.is_dir():
        remedy = f"name a file: {picture / 'items.png'}"
        raise InputError.at(f"picture {picture}", "is a folder", remedy)
    path = picture if picture.suffix else picture.with_suffix(".png")
    place = f"picture {path}"
    if path.suffix.lower() not in PICTURES:
        problem = f"ends with {path.suffix!r}"
        raise InputError.at(place, problem, f"the endings are {', '.join(PICTURES)}")
    if not path.absolute().parent.is_dir():
        raise InputError.at(place, f"there is no folder {path.parent}", "make it first")
    return path


for _command in (
    cli_extract.extract,
    cli_convert.convert,
    cli_extract.vectors,
    cli_filter.filter_,
):
    data.add_command(_command)

COMMANDS = (data,)
