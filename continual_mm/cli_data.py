"""Commands on data: inspect, and those that make it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from continual_mm import cli_convert, cli_extract, terminal
from continual_mm.late import late
from continual_mm.options import A_COUNT, A_PATH

if TYPE_CHECKING:
    from continual_mm.data.inspection import Inspection, ModalityReport

HEADINGS = (
    *("modality", "kind", "shape", "training", "validation", "test", "lengths", "values", "rms"),
    *("norm", "constant", "zero", "repeated", "leaked"),
)


@click.group(short_help="Look at data; make data of published files or clips.")
def data() -> None:
    """Look at data, and turn published files or clips into something scenarios can use."""


@data.command(short_help="Say what is in a dataset, and what deserves a thought.")
@click.argument("dataset")
@click.option("--picture", type=A_PATH, help="A PNG of a few items.")
@click.option("--items", type=A_COUNT, default=4, show_default=True, help="Items in the picture.")
@click.option(
    "--values",
    "most",
    type=A_COUNT,
    default=5000,
    show_default=True,
    help="Items whose values are read; of larger datasets every so many-th.",
)
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table")
def inspect(dataset: str, picture: Path | None, items: int, most: int, format_: str) -> None:
    """Say what is in DATASET, a registered name or a path, and what deserves a thought."""
    loaded = late("data.registry").load(dataset, standardise=False, splits=())
    found: Inspection = late("data.inspection").inspect(loaded, most=most)
    if format_ == "json":
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(found)
    if picture is not None:
        late("data.portrait").draw(loaded, picture, items=items)
        terminal.err.print(f"picture: {picture}")


def _print(found: "Inspection") -> None:
    card = found.card
    training, validation, test = card.items
    terminal.out.print(
        f"{card.name}: {sum(card.items):,} items ({training:,} training, {validation:,} validation,"
        f" {test:,} test), {found.complete:,} with every modality;"
        f" values of {found.looked_at:,} were looked at"
    )
    if card.provenance:
        terminal.out.print(f"converted: {card.provenance}")
    extras = [
        *([] if found.groups is None else [_count(found.groups, "group")]),
        *([] if found.captions is None else [_count(found.captions, "different caption")]),
        *(["labels"] if card.has_labels else []),
    ]
    if extras:
        terminal.out.print(", ".join(extras))
    terminal.print_rows(HEADINGS, [_row(one) for one in found.modalities])
    for remark in found.remarks:
        terminal.out.print(f"- {remark}")


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


def _row(one: "ModalityReport") -> tuple[str, ...]:
    lengths = "" if one.lengths is None else "{} to {}, median {}".format(*_order(one.lengths))
    return (
        one.modality.name,
        one.modality.kind,
        " x ".join(map(str, one.modality.shape)),
        *(f"{count:,}" for count in one.present),
        lengths,
        f"{one.smallest:.3g} to {one.largest:.3g}",
        f"{one.rms:.3g}",
        f"{one.norm:.3g}",
        *(f"{count:,}" for count in (one.constant, one.zero, one.repeated, one.leaked)),
    )


def _order(lengths: tuple[int, int, int]) -> tuple[int, int, int]:
    shortest, median, longest = lengths
    return shortest, longest, median


for _command in (cli_extract.extract, cli_convert.convert, cli_extract.vectors):
    data.add_command(_command)

COMMANDS = (data,)
