"""The command that gives a run's space fewer units: compress."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, A_SEED, NEW_FOLDER, FiniteRange

METHODS = ("interpolative", "fusion", "magnitude", "random")
UNITS = ("hidden", "embedding", "all")


@click.command(short_help="Give the space of a run fewer units, without training.")
@click.argument("run", metavar="RUN", type=A_PATH)
@click.option("--to", type=NEW_FOLDER, required=True, help="New folder of the compressed run.")
@click.option(
    "--keep",
    type=FiniteRange(min=0, max=1, min_open=True),
    default=0.5,
    help="Share of the units of each group of layers that is kept.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHODS[0],
    help="Let units that are kept stand in for the others, as training items show; fuse them by "
    "transport; leave out those with the smallest weights; or any.",
)
@click.option(
    "--units",
    type=click.Choice(UNITS),
    default=UNITS[0],
    help="Hidden units, the dimensions of the embedding of all modalities at once, or both.",
)
@click.option(
    "--dataset",
    metavar="PATH",
    multiple=True,
    help="Where the run's dataset lies; once for each, if it has several.",
)
@click.option("--seed", type=A_SEED, default=0, help="Of random.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 and so on.")
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table")
def compress(run: Path, to: Path, format_: str, **options: Any) -> None:
    """Give the space of a finished run fewer units, without training.

    RUN stays as it is. Its last stage is scored anew with the smaller encoders; compare shows both
    side by side.
    """
    from continual_mm.runs import compress as compressing

    found = compressing.compress(run, to, **options)
    if format_ == "json":
        text = json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        sys.stdout.write(f"{text}\n")
        return
    terminal.out.print(f"{found.name}: R@1 in % on the items that were scored")
    terminal.print_rows(*compressing.as_rows(found))
    terminal.out.print()
    for line in compressing.as_lines(found):
        terminal.out.print(line)
    terminal.out.print(f"open with: open_run({str(found.folder)!r})")


COMMANDS = (compress,)
