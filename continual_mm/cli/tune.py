"""The command that searches: tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_COUNT, A_SEED, NEW_FILE, NEW_FOLDER, SEEDS, training_options
from continual_mm.cli.train import KEPT, check_affordable, definitions, end_after
from continual_mm.definitions import catalog
from continual_mm.definitions.rules import METRICS
from continual_mm.system.imports import optional_import

if TYPE_CHECKING:
    from continual_mm.runs.tuning.result import Tuned


@click.command(short_help="Search a strategy's numbers on validation items.")
@click.argument("scenarios", metavar="SCENARIO...", nargs=-1, required=True)
@click.option("--strategy", required=True, help="Whose numbers are searched; the first trial.")
@click.option(
    "--trials", type=A_COUNT, required=True, help="Trials at most, earlier ones included."
)
@click.option("--seeds", type=SEEDS, default=1, help="Runs of each trial on each scenario.")
@click.option(
    "--search",
    multiple=True,
    metavar="PLUGIN.PARAMETER=LOW:HIGH[:log]",
    help="Search here instead, or this parameter too.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default=METRICS[0],
    help="What is averaged; mean_reciprocal_rank is the steadiest on few validation items, and on "
    "several scenarios.",
)
@click.option(
    "--pruning/--no-pruning",
    default=True,
    help="End trials that fall behind the median of earlier ones.",
)
@click.option("--seed", type=A_SEED, default=0, help="Of the search itself.")
@click.option("--write", type=NEW_FILE, help="A file for the strategy with the best values.")
@click.option("--force", is_flag=True, help="Let --write overwrite.")
@click.option("--out", type=NEW_FOLDER, default="tuning", help="Folder for the trials.")
@training_options
def tune(
    scenarios: tuple[str, ...],
    strategy: str,
    settings: tuple[str, ...],
    search: tuple[str, ...],
    write: Path | None,
    force: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Search the numbers of a strategy on validation items; goes on where it stopped.

    The value of a trial is its mean over the SCENARIOs, shipped names or files, and over seeds.
    """
    from continual_mm.cli.progress import RunProgress
    from continual_mm.runs.tuning.plan import Plan, searched

    with optional_import("tune"):
        from continual_mm.runs.tuning import result
        from continual_mm.runs.tuning.search import tune as tuned
    if write is not None:
        result.check_target(write, force=force)
    text = catalog.find("strategies", strategy).path.read_text(encoding="utf-8-sig")
    opened, (chosen,) = definitions(scenarios, [strategy], settings)
    own = {key: options.pop(key) for key in ("out", "trials", "seeds", "metric", "pruning", "seed")}
    how = {key: options.pop(key) for key in ("jobs", "threads")}
    if not yes:
        wanted, runs = [(one, chosen) for one in opened], own["trials"] * own["seeds"]
        check_affordable(wanted, seeds=runs, jobs=how["jobs"], device=options["device"])
    plan = Plan(tuple(opened), chosen, searched(chosen, search), **own, options=options)
    with terminal.stoppable(KEPT), RunProgress(plan.runs, split="validation") as progress:
        found, failed = tuned(plan, **how, reporter=progress)
    _show_tuned(found)
    if write is not None and not failed:
        result.write_strategy(found, write, force=force, text=text)
        use = f"run {scenarios[0]} --strategy {write}"
        terminal.out.print(f"written: {write}  (use it with: {use})")
    end_after(failed)


def _show_tuned(found: "Tuned") -> None:
    terminal.print_rows(
        *found.as_rows(), title=f"{' + '.join(found.plan.names)}, {found.plan.strategy.name}"
    )
    if found.best is None:
        terminal.out.print("no trial was finished")
        return
    best = "  ".join(f"{path} = {value:.4g}" for path, value in found.best.values.items())
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    terminal.out.print(
        f"best of {len(found.trials)} trials ({counts}), number {found.best.number}: {best}"
    )
    terminal.out.print(f"trials: {found.plan.folder}  (compare and board take this folder)")


COMMANDS = (tune,)
