"""The command that makes one run of two: merge."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, NEW_FOLDER

ALIGN = ("procrustes", "transport", "none")
SHARED = ("keep-a", "keep-both", "average")


@click.command(short_help="Merge two runs that share a modality.")
@click.argument("first", metavar="RUN_A", type=A_PATH)
@click.argument("second", metavar="RUN_B", type=A_PATH)
@click.option("--to", type=NEW_FOLDER, required=True, help="New folder of the merged run.")
@click.option(
    "--align",
    type=click.Choice(ALIGN),
    default=ALIGN[0],
    help="Turn RUN_B's space by a rotation, by a permutation of dimensions, or not.",
)
@click.option(
    "--shared",
    type=click.Choice(SHARED),
    default=SHARED[0],
    help="What encodes shared modalities: RUN_A's tower, both, or averaged weights.",
)
@click.option(
    "--dataset",
    "datasets",
    metavar="PATH",
    multiple=True,
    help="Where the runs' dataset lies; twice, if each has its own.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 and so on.")
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table")
def merge(first: Path, second: Path, to: Path, format_: str, **options: Any) -> None:
    """Merge the spaces of two finished runs that were trained on different pairs.

    RUN_A keeps its coordinates, RUN_B's are turned into them by the modalities that both embed, so
    that pairs which never met can be compared. Both runs stay as they are.
    """
    from continual_mm.runs import merge as merging

    found = merging.merge(first, second, to, **options)
    if format_ == "json":
        text = json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        sys.stdout.write(f"{text}\n")
        return
    terminal.out.print(f"{found.name}: R@1 in % on test items")
    terminal.print_rows(*merging.as_rows(found))
    terminal.out.print()
    terminal.out.print(str(found.alignment))
    terminal.out.print(f"open with: open_run({str(found.folder)!r})")


COMMANDS = (merge,)
