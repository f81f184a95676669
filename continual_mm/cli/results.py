"""Commands on runs that are there already: compare, export, status, consolidate, board."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, A_SEED, NEW_FOLDER, UNITS
from continual_mm.system.errors import InputError
from continual_mm.system.imports import check_installed

if TYPE_CHECKING:
    from rich.progress import TaskID

    from continual_mm.comparison.tables import Table

FORMATS = ("table", "json", "markdown", "latex")
SENTENCE_TRANSFORMERS = "sentence-transformers"  # what --to may say instead of a folder
METRICS = ("recall@1", "recall@5", "recall@10", "mean_reciprocal_rank")


_folders = click.argument("folders", metavar="DIR...", type=A_PATH, nargs=-1, required=True)


@click.command(short_help="Compare runs: means, intervals, differences.")
@_folders
@click.option("--baseline", default="naive", help="Strategy that differences are taken to.")
@click.option("--protocol", metavar="NAME", help="What a [[protocol]] found, stage by stage.")
@click.option("--by-task", is_flag=True, help="With --protocol: tasks of steps one by one, too.")
@click.option("--metric", type=click.Choice(METRICS), default=METRICS[0], help="What is compared.")
@click.option("--indexes", is_flag=True, help="One index for all modalities, and earlier ones.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="table")
def compare(
    folders: tuple[Path, ...],
    baseline: str,
    protocol: str | None,
    by_task: bool,
    metric: str,
    indexes: bool,
    format_: str,
) -> None:
    """Compare the runs in folders, exported or not, at any depth: means and 95 % intervals."""
    from continual_mm.comparison import tables

    _check_one_question(
        {
            "--indexes": indexes,
            "--protocol": protocol is not None,
            "--metric": metric != METRICS[0],
        }
    )
    if by_task and protocol is None:
        raise InputError.at("--by-task", "goes with --protocol", "name a protocol")
    if protocol is not None:
        from continual_mm.comparison.protocols import compare_protocol

        of_protocol = compare_protocol(folders, protocol, baseline=baseline)
        shown, notes = tables.protocol_tables(of_protocol, tasks=by_task), of_protocol.notes
        as_json = partial(tables.protocol_json, of_protocol)
    else:
        from continual_mm.comparison.compare import compare as compared

        comparison = compared(folders, baseline=baseline, metric=metric)
        lay_out = tables.index_tables if indexes else tables.scenario_tables
        shown, notes = lay_out(comparison), comparison.notes
        if not shown:
            notes = (*notes, "no run has scores of indexes: train again with this version")
        as_json = partial(tables.as_json, comparison)
    if format_ == "json":
        sys.stdout.write(as_json() + "\n")
    elif format_ == "markdown":
        sys.stdout.write(tables.as_markdown(shown, notes) + "\n")
    elif format_ == "latex":
        from continual_mm.comparison.latex import as_latex

        sys.stdout.write(as_latex(shown, notes) + "\n")
    else:
        print_tables(shown, notes)


def _check_one_question(given: Mapping[str, bool]) -> None:
    """Refuse options that ask for different tables."""
    first, *others = [name for name, wanted in given.items() if wanted] or [""]
    if others:
        raise InputError.at(first, f"does not go with {others[0]}", "ask one by one")


def print_tables(tables: "Sequence[Table]", notes: Sequence[str]) -> None:
    """Print tables, then the notes."""
    for table in tables:
        terminal.print_rows(table.headings, table.rows, title=table.title)
        terminal.out.print()
    for note in notes:
        terminal.out.print(note)


@click.command(short_help="Write runs for compare, or one for sentence-transformers.")
@_folders
@click.option(
    "--to",
    type=NEW_FOLDER,
    required=True,
    help=f"Folder that the export is added to, or {SENTENCE_TRANSFORMERS}.",
)
@click.option("--force", is_flag=True, help="Replace runs there that do not go with the new ones.")
@click.option("--out", type=NEW_FOLDER, help="New folder of the model; by default in the run's.")
@click.option("--dataset", multiple=True, help="The run's dataset, if it lies elsewhere now.")
@click.option("--vectors", type=A_PATH, help="Word vectors that its texts were made of.")
@click.option("--encoder", default="", help="SentenceTransformer that its texts were made of.")
@click.option("--pair", default="", help="A pair whose own adapters the model has, as video-text.")
def export(folders: tuple[Path, ...], to: Path, force: bool, **model: Any) -> None:
    """Write what compare needs of the finished runs in folders into a small one, without weights.

    The files are runs.csv, definitions.json and ranks.npz; equal runs give equal bytes.

    With --to sentence-transformers the space of one run becomes a model that SentenceTransformer
    loads where continual_mm is installed. A folder that is called so is ./sentence-transformers.
    """
    if str(to) == SENTENCE_TRANSFORMERS:
        _export_model(folders, force, **model)
        return
    if given := [f"--{name}" for name, value in model.items() if value]:
        remedy = f"write --to {SENTENCE_TRANSFORMERS}"
        raise InputError.at(given[0], "is for a model, not for compare", remedy)
    from continual_mm.comparison.export import export

    merged = export(folders, to, force=force)
    for note in merged.left_out:
        terminal.say(note)
    replaced = f", {merged.replaced} replaced" if merged.replaced else ""
    terminal.out.print(f"{to}: {len(merged.runs)} runs, {merged.added} of them new{replaced}")
    terminal.out.print(f"compare with: continual-mm compare {to}")


def _export_model(folders: tuple[Path, ...], force: bool, out: Path | None, **given: Any) -> None:
    if len(folders) > 1 or force:
        problem = "--force is for exports to compare" if force else f"{len(folders)} runs are given"
        raise InputError.at(
            f"--to {SENTENCE_TRANSFORMERS}", problem, "give one run, and a new --out"
        )
    check_installed("sentence_transformers", f"--to {SENTENCE_TRANSFORMERS}")
    from continual_mm.integrations.export import export_sentence_transformer

    run = folders[0]
    folder = out or run / SENTENCE_TRANSFORMERS
    found = export_sentence_transformer(run, folder, **given)
    names = ", ".join(modality.name for modality in found.modalities)
    terminal.out.print(f"{folder}: a model for {names}; {found.size} numbers, inner product")
    for note in found.notes:
        terminal.out.print(note)
    terminal.out.print(f'load with: SentenceTransformer("{folder}", trust_remote_code=True)')


@click.command(short_help="Say how far runs are.")
@_folders
@click.option("--format", "format_", type=click.Choice(FORMATS[:2]), default="table")
def status(folders: tuple[Path, ...], format_: str) -> None:
    """Say how far the runs in folders are, at any depth, finished or not."""
    from continual_mm.runs import status as runs

    found = runs.statuses(folders)
    if format_ == "json":
        sys.stdout.write(runs.as_json(found) + "\n")
    else:
        terminal.print_rows(*runs.as_rows(found))
        for line in runs.as_choices(found[0]) if len(found) == 1 else ():
            terminal.out.print(line)


@click.command(short_help="Give a grown space vectors of fewer numbers.")
@click.argument("run", metavar="DIR", type=A_PATH)
@click.option("--dim", type=UNITS, required=True, help="Numbers of a vector.")
@click.option("--to", type=NEW_FOLDER, help="New folder; beside the run, if left out.")
@click.option(
    "--dataset",
    metavar="PATH",
    multiple=True,
    help="Where the run's dataset lies, or its name.",
)
@click.option("--seed", type=A_SEED, default=0, help="Of the order of items.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 and so on.")
@click.option("--format", "format_", type=click.Choice(FORMATS[:2]), default="table")
def consolidate(run: Path, format_: str, **options: Any) -> None:
    """Give the space of the finished run in DIR vectors of fewer numbers, and say what that costs.

    The run stays as it is. What is written opens as a run does: open_run(...).encode(...).
    """
    from continual_mm.cli.progress import bars
    from continual_mm.runs import consolidation

    with bars() as shown:
        known: dict[str, TaskID] = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in known:
                known[what] = shown.add_task(what, total=of, unit="")
            shown.update(known[what], completed=done)

        found = consolidation.consolidate(run, tell=tell, **options)
    if format_ == "json":
        sys.stdout.write(consolidation.as_json(found) + "\n")
        return
    for split in consolidation.SCORED:
        title = f"{found.run}: R@1 in %, {split} items"
        terminal.print_rows(*consolidation.as_rows(found, split), title=title)
        terminal.out.print()
    changes = ", ".join(f"{kind} {value:.2g}" for kind, value in found.divergences.items())
    terminal.out.print(
        f"map: {found.kept}; it changes choices of validation items by (nats): {changes}"
    )
    terminal.out.print(f"open with: open_run({str(found.folder)!r})")


@click.command(short_help="Open TensorBoard on the runs in a folder.")
@click.argument("folder", metavar="[DIR]", type=A_PATH, default="runs")
@click.option("--port", type=click.IntRange(min=1, max=65535), help="A free one, if left out.")
@click.option("--browser/--no-browser", default=True, help="Open a browser.")
def board(folder: Path, port: int | None, browser: bool) -> None:
    """Open TensorBoard on the runs in a folder."""
    if not folder.is_dir():
        raise InputError.at(folder, "no such folder", "give the folder that runs went into")
    from continual_mm.runs.board.server import serve

    serve(folder, port=port, browser=browser, tell=terminal.out.print)


COMMANDS = (compare, export, status, consolidate, board)
