"""Commands on runs that are there already: compare, export, status, consolidate, board."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, A_SEED, NEW_FILE, NEW_FOLDER, UNITS
from continual_mm.system.errors import InputError
from continual_mm.system.imports import check_installed

if TYPE_CHECKING:
    from rich.progress import TaskID

    from continual_mm.comparison.compare import Comparison
    from continual_mm.comparison.tables import Table

FORMATS = ("table", "json", "markdown", "latex", "csv")
BY = ("pair", "stage", "direction")
SENTENCE_TRANSFORMERS = "sentence-transformers"  # what --to may say instead of a folder

_folders = click.argument("folders", metavar="DIR...", type=A_PATH, nargs=-1, required=True)


@click.command(short_help="Compare runs: means, intervals, differences.")
@_folders
@click.option("--baseline", default="naive", help="Strategy that differences are taken to.")
@click.option("--protocol", metavar="NAME", help="What a [[protocol]] found, stage by stage.")
@click.option("--by-task", is_flag=True, help="With --protocol: tasks of steps one by one, too.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=["r@1"],
    help="r@1, r@5, r@10, mrr or medr; as often as you like.",
)
@click.option("--by", type=click.Choice(BY), help="Pairs, stages or directions one by one.")
@click.option("--indexes", is_flag=True, help="One index for all modalities, and earlier ones.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="table")
@click.option("--picture", type=NEW_FILE, help="A .png, .svg or .pdf file of scores over stages.")
def compare(
    folders: tuple[Path, ...],
    protocol: str | None,
    metrics: tuple[str, ...],
    by: str | None,
    indexes: bool,
    format_: str,
    picture: Path | None,
    **options: Any,
) -> None:
    """Compare the runs in folders, exported or not, at any depth: means and 95 % intervals."""
    other = protocol is not None
    _check_one_question(
        {"--indexes": indexes, "--protocol": other, "--metric": metrics != ("r@1",)}
    )
    _check_one_question({"--indexes": indexes, "--protocol": other, "--by": by is not None})
    _check_one_question({"--protocol": other, "--picture": picture is not None})
    if options["by_task"] and not other:
        raise InputError.at("--by-task", "goes with --protocol", "name a protocol")
    if protocol is not None:
        said = _of_protocol(folders, protocol, format_, **options)
    else:
        layout = by or ("indexes" if indexes else "strategy")
        said = _of_pairs(folders, metrics, layout, format_, picture, options["baseline"])
    if said:
        sys.stdout.write(said + "\n")


def _of_protocol(
    folders: tuple[Path, ...], protocol: str, format_: str, *, baseline: str, by_task: bool
) -> str:
    from continual_mm.comparison import tables
    from continual_mm.comparison.protocols import compare_protocol

    if format_ == "csv":
        raise InputError.at("--format csv", "does not go with --protocol", "give --format json")
    found = compare_protocol(folders, protocol, baseline=baseline)
    if format_ == "json":
        return tables.protocol_json(found)
    return _laid_out(tables.protocol_tables(found, tasks=by_task), found.notes, format_)


def _of_pairs(
    folders: tuple[Path, ...],
    metrics: tuple[str, ...],
    layout: str,
    format_: str,
    picture: Path | None,
    baseline: str,
) -> str:
    from continual_mm.comparison import tables
    from continual_mm.comparison.breakdown import BY as BREAKDOWNS
    from continual_mm.comparison.breakdown import tables_by
    from continual_mm.comparison.compare import compare_by
    from continual_mm.comparison.tidy import as_csv

    if picture is not None:
        check_picture(picture)
    found = compare_by(folders, metrics, baseline=baseline, directions=layout == "direction")
    if picture is not None:
        draw(found[0], picture)
    rows = layout if layout in BREAKDOWNS else "strategy"
    if format_ == "csv":
        return as_csv(found, rows).rstrip("\n")
    if format_ == "json":
        return tables.as_json(*found, by=rows)
    notes = list(dict.fromkeys(note for each in found for note in each.notes))
    if layout in BREAKDOWNS:
        shown = [table for each in found for table in tables_by(each, layout)]
    else:
        lay_out = tables.index_tables if layout == "indexes" else tables.scenario_tables
        shown = [table for each in found for table in lay_out(each)]
    if not shown and layout == "indexes":
        notes.append("no run has scores of indexes: train again with this version")
    return _laid_out(shown, notes, format_)


def check_picture(picture: Path) -> None:
    """Refuse a file name that says no format of pictures, before any work."""
    from continual_mm.comparison.figure import check_picture as check

    check(picture)


def draw(comparison: "Comparison", picture: Path) -> None:
    """Draw scores over stages, and say on standard error where they are."""
    from continual_mm.comparison.figure import pictures

    for path in pictures(comparison, picture):
        terminal.err.print(f"picture: {path}")


def _laid_out(shown: "Sequence[Table]", notes: Sequence[str], format_: str) -> str:
    """As text of a format; tables of a terminal are printed."""
    from continual_mm.comparison import tables

    if format_ == "markdown":
        return tables.as_markdown(shown, notes)
    if format_ == "latex":
        from continual_mm.comparison.latex import as_latex

        return as_latex(shown, notes)
    print_tables(shown, notes)
    return ""


def _check_one_question(given: Mapping[str, bool]) -> None:
    """Refuse options that ask for different tables."""
    first, *others = [name for name, wanted in given.items() if wanted] or [""]
    if others:
        raise InputError.at(first, f"does not go with {others[0]}", "ask one by one")


def print_tables(tables: "Sequence[Table]", notes: Sequence[str]) -> None:
    """Print tables, then the notes; on a terminal the columns that have room."""
    from continual_mm.comparison.tables import fitted

    for table in tables:
        shown, left = fitted(table, terminal.out.width) if terminal.out.is_terminal else (table, ())
        broken = 0 if left else -1
        terminal.print_rows(shown.headings, shown.rows, title=table.title, broken=broken)
        if left:
            terminal.print_text(f"no room for: {', '.join(left)} (widen it, or --format csv)")
        terminal.out.print()
    for note in notes:
        terminal.print_text(note)


@click.command(short_help="Write a page of runs for a reader, and figures.")
@_folders
@click.option("--to", type=NEW_FILE, default="report.html", help="The page, one file.")
@click.option("--figures", type=NEW_FOLDER, help="Folder that figures for a paper go into.")
@click.option("--figures-format", type=click.Choice(("svg", "pdf", "png")), default="svg")
@click.option("--metric", default="r@1", help="r@1, r@5, r@10, mrr or medr.")
@click.option("--baseline", default="naive", help="Strategy that differences are taken to.")
@click.option("--examples/--no-examples", default=True, help="Pictures, captions and sound.")
@click.option(
    "--dataset", "datasets", metavar="PATH", multiple=True, help="Where runs' datasets lie."
)
def report(folders: tuple[Path, ...], to: Path, figures_format: str, **options: Any) -> None:
    """Write a page of the runs in folders, at any depth, that needs no network and no other file.

    It has the comparison, figures, why old pairs were forgotten, queries that broke with what they
    find now, and the definitions.
    """
    for package in ("altair", "vl_convert"):
        check_installed(package, "report")
    from continual_mm.reporting.report import write_report

    for path in write_report(folders, to, figure_format=figures_format, **options):
        terminal.out.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


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


@click.command(short_help="Say why the old pairs of a run forgot.")
@click.argument("run", metavar="RUN", type=A_PATH)
@click.option("--stage", type=click.IntRange(min=2), help="Of which stage; by default the last.")
@click.option("--queries", is_flag=True, help="List the queries that broke worst as well.")
@click.option("--format", "format_", type=click.Choice(FORMATS[:2]), default="table")
def why(run: Path, stage: int | None, queries: bool, format_: str) -> None:
    """Say what became of the old pairs of a run in a stage, and what moved."""
    from continual_mm.runs import why as reasons

    found = reasons.reasons_of(run, stage)
    if format_ == "json":
        sys.stdout.write(reasons.as_json(found) + "\n")
        return
    for line in reasons.as_lines(found):
        terminal.print_text(line)
    rows = list(reasons.broken_rows(found))
    if queries and rows:
        terminal.out.print()
        terminal.print_rows(("pair", "asks", "query", "rank", "finds"), rows)
    elif rows:
        terminal.out.print(f"\nqueries that broke: continual-mm why {run} --queries")


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


COMMANDS = (compare, report, export, status, why, consolidate, board)
