"""Commands that look at runs which are there already: compare, export, status, board."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH
from continual_mm.system.errors import InputError, Problem

if TYPE_CHECKING:
    from continual_mm.comparison.compare import Comparison

FORMATS = ("table", "json", "markdown", "latex")


_folders = click.argument("folders", metavar="DIR...", type=A_PATH, nargs=-1, required=True)


@click.command(short_help="Compare runs: means, intervals, differences.")
@_folders
@click.option(
    "--baseline", default="naive", show_default=True, help="Strategy that differences are taken to."
)
@click.option("--protocol", metavar="NAME", help="What a [[protocol]] found, stage by stage.")
@click.option("--by-task", is_flag=True, help="With --protocol: tasks of steps one by one, too.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="table", show_default=True)
def compare(
    folders: tuple[Path, ...], baseline: str, protocol: str | None, by_task: bool, format_: str
) -> None:
    """Compare the runs in folders, exported or not, at any depth: means and 95 % intervals."""
    if protocol is not None:
        _compare_protocol(folders, protocol, baseline, format_, by_task=by_task)
        return
    if by_task:
        raise InputError(Problem("--by-task", "goes with --protocol", "name a protocol"))
    from continual_mm.comparison import tables
    from continual_mm.comparison.compare import compare as compared

    comparison = compared(folders, baseline=baseline)
    if format_ == "json":
        sys.stdout.write(tables.as_json(comparison) + "\n")
    elif format_ == "markdown":
        sys.stdout.write(tables.as_markdown(comparison) + "\n")
    elif format_ == "latex":
        from continual_mm.comparison.latex import as_latex

        sys.stdout.write(as_latex(comparison) + "\n")
    else:
        print_comparison(comparison)


def _compare_protocol(
    folders: tuple[Path, ...], protocol: str, baseline: str, format_: str, *, by_task: bool
) -> None:
    from continual_mm.comparison import tables
    from continual_mm.comparison.protocols import compare_protocol

    comparison = compare_protocol(folders, protocol, baseline=baseline)
    if format_ == "json":
        sys.stdout.write(tables.protocol_json(comparison) + "\n")
    elif format_ == "markdown":
        sys.stdout.write(tables.protocol_markdown(comparison, tasks=by_task) + "\n")
    elif format_ == "latex":
        from continual_mm.comparison.latex import protocol_latex

        sys.stdout.write(protocol_latex(comparison, tasks=by_task) + "\n")
    else:
        for table in comparison.tables:
            heading = tables.title(comparison, table)
            terminal.print_rows(*tables.protocol_rows(comparison, table), title=heading)
            terminal.out.print()
            if by_task and (found := tables.by_task(comparison, table)) is not None:
                heading, headings, cells = found
                terminal.print_rows(headings, cells, title=heading)
                terminal.out.print()
        for note in comparison.notes:
            terminal.out.print(note)


def print_comparison(comparison: "Comparison") -> None:
    """Print a table for each scenario, then the notes."""
    from continual_mm.comparison import tables

    for scenario in comparison.scenarios:
        headings, rows = tables.as_rows(comparison, scenario)
        terminal.print_rows(headings, rows, title=f"{scenario}: R@1 in %, mean and 95 % interval")
        terminal.out.print()
    for note in comparison.notes:
        terminal.out.print(note)


@click.command(short_help="Write what compare needs into one small folder.")
@_folders
@click.option("--to", type=A_PATH, required=True, help="Folder that the export is added to.")
@click.option("--force", is_flag=True, help="Replace runs there that do not go with the new ones.")
def export(folders: tuple[Path, ...], to: Path, force: bool) -> None:
    """Write what compare needs of the finished runs in folders into a small one, without weights.

    The files are runs.csv, definitions.json and ranks.npz; equal runs give equal bytes.
    """
    from continual_mm.comparison.export import export

    merged = export(folders, to, force=force)
    replaced = f", {merged.replaced} replaced" if merged.replaced else ""
    terminal.out.print(f"{to}: {len(merged.runs)} runs, {merged.added} of them new{replaced}")
    terminal.out.print(f"compare with: continual-mm compare {to}")


@click.command(short_help="Say how far runs are.")
@_folders
@click.option(
    "--format", "format_", type=click.Choice(FORMATS[:2]), default="table", show_default=True
)
def status(folders: tuple[Path, ...], format_: str) -> None:
    """Say how far the runs in folders are, at any depth, finished or not."""
    from continual_mm.runs import status as runs

    found = runs.statuses(folders)
    if format_ == "json":
        sys.stdout.write(runs.as_json(found) + "\n")
    else:
        terminal.print_rows(*runs.as_rows(found))


@click.command()
@click.argument("folder", metavar="[DIR]", type=A_PATH, default="runs")
@click.option("--port", type=int, help="A free one, if left out.")
@click.option("--browser/--no-browser", default=True, help="Open a browser.")
def board(folder: Path, port: int | None, browser: bool) -> None:
    """Open TensorBoard on the runs in a folder."""
    if not folder.is_dir():
        remedy = "give the folder that runs went into"
        raise InputError(Problem(str(folder), "no such folder", remedy))
    from continual_mm.runs.board.server import serve

    serve(folder, port=port, browser=browser, tell=terminal.out.print)


COMMANDS = (compare, export, status, board)
