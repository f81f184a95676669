"""Commands on data: inspect, and those that make it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from continual_mm import cli_convert, cli_extract, cli_inspection, terminal
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.late import late
from continual_mm.options import A_COUNT, A_PATH

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset
    from continual_mm.data.inspected import Inspection
    from continual_mm.data.portrait import Drawn

PICTURES = (".png", ".pdf", ".svg")
"""Endings of pictures."""


@click.group(short_help="Look at data; make data of published files or clips.")
def data() -> None:
    """Look at data, and turn published files or clips into something scenarios can use."""


@data.command(short_help="Say what is in a dataset, and what deserves a thought.")
@click.argument("dataset")
@click.option("--picture", type=A_PATH, help="A picture of a few items: .png, .pdf or .svg.")
@click.option("--items", type=A_COUNT, default=4, show_default=True, help="Items in the picture.")
@click.option(
    "--values",
    "most",
    type=A_COUNT,
    default=5000,
    show_default=True,
    help="Items whose sizes are taken; of larger datasets every so many-th.",
)
@click.option(
    "--repeats",
    "gigabytes",
    type=click.FloatRange(min=0.0),
    default=4.0,
    show_default=True,
    help="Gigabytes of values that are searched for repeats, some seconds each; of larger datasets"
    " every so many-th item.",
)
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table")
def inspect(
    dataset: str, picture: Path | None, items: int, most: int, gigabytes: float, format_: str
) -> None:
    """Say what is in DATASET, a registered name or a path, and what deserves a thought."""
    path = None if picture is None else _checked(picture)
    loaded = late("data.registry").load(dataset, standardise=False, splits=())
    inspected = late("data.inspection").inspect
    found: Inspection = inspected(loaded, most=most, gigabytes=gigabytes)
    if format_ == "json":
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    else:
        cli_inspection.tell(found, name=dataset)
    if path is not None:
        _draw(loaded, path, items)


def _checked(picture: Path) -> Path:
    """Where a picture goes, found out before any data are read."""
    if picture.is_dir():
        remedy = f"name a file: {picture / 'items.png'}"
        raise RefusedError(Complaint(f"picture {picture}", "is a folder", remedy))
    path = picture if picture.suffix else picture.with_suffix(".png")
    place = f"picture {path}"
    if path.suffix.lower() not in PICTURES:
        problem = f"ends with {path.suffix!r}"
        raise RefusedError(Complaint(place, problem, f"the endings are {', '.join(PICTURES)}"))
    if not path.absolute().parent.is_dir():
        raise RefusedError(Complaint(place, f"there is no folder {path.parent}", "make it first"))
    return path


def _draw(dataset: "Dataset", path: Path, items: int) -> None:
    drawn: Drawn = late("data.portrait").draw(dataset, path, items=items)
    fewer = f" ({drawn.items} of {items} items: there are no more)" if drawn.items < items else ""
    terminal.err.print(f"picture: {drawn.path}{fewer}")
    if drawn.unwritten:
        terminal.err.print("some letters of its captions are boxes: no font here has them")


for _command in (cli_extract.extract, cli_convert.convert, cli_extract.vectors):
    data.add_command(_command)

COMMANDS = (data,)
