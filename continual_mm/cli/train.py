"""Commands that train: run, and demo, which compares as well."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from continual_mm.cli import results as cli_results
from continual_mm.cli import terminal
from continual_mm.cli.options import (
    DEMO_SCENARIO,
    NEW_FILE,
    SEEDS,
    out_option,
    training_options,
)
from continual_mm.data.cards import missing_published
from continual_mm.definitions import catalog
from continual_mm.system.errors import InputError

if TYPE_CHECKING:
    from continual_mm.definitions.scenario import Strategy
    from continual_mm.runs.parallel import Outcome
    from continual_mm.runs.specification import OpenedScenario

DEMO_STRATEGIES = (
    *("naive", "freeze", "replay", "ewc", "transport", "partners_match", "recommended"),
    "joint",
)
DEMO_SEEDS = 2
KEPT = "finished stages are kept, the same command goes on from there"
"""What Ctrl-C leaves of training."""


@click.command(short_help="Train a scenario with strategies and seeds.")
@click.argument("scenario")
@click.option("--strategy", multiple=True, default=["naive"], help="As often as you like.")
@click.option("--seeds", type=SEEDS, default=1, help="Seeds 0 to N-1.")
@click.option("--name", default="", help="Another name for the strategy, of its folder and rows.")
@click.option("--picture", type=NEW_FILE, help="A .png, .svg or .pdf file of scores over stages.")
@out_option
@training_options
def run(
    scenario: str,
    strategy: tuple[str, ...],
    seeds: int,
    name: str,
    picture: Path | None,
    out: Path,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Train SCENARIO, a shipped name or a file; goes on where it stopped."""
    from continual_mm.runs import opening

    if picture is not None:
        cli_results.check_picture(picture)
    (opened,), chosen = definitions([scenario], strategy, settings)
    if name:
        chosen = opening.renamed(chosen, name)
    outcomes = _train(opened, chosen, seeds, out, **options)
    if not all(outcome.error for outcome in outcomes):
        if picture is not None:
            from continual_mm.comparison.compare import compare

            cli_results.draw(compare([out / opened.scenario.name]), picture)
        terminal.out.print(f"compare with: continual-mm compare {out}")
    end_after(outcomes)


def definitions(
    scenarios: Sequence[str], strategies: Sequence[str], settings: Sequence[str]
) -> "tuple[Sequence[OpenedScenario], Sequence[Strategy]]":
    """Open scenarios and strategies by name or file, ``settings`` overriding what the files say."""
    from continual_mm.evaluation.checks import mode_mismatches
    from continual_mm.runs import opening

    given = opening.read_settings(settings)
    wanted = [catalog.find("scenarios", name) for name in scenarios]
    opened = opening.open_scenarios(wanted, given)
    entries = [catalog.find("strategies", name) for name in strategies]
    chosen = opening.open_strategies(entries, given)
    if lacking := missing_published(name for one in opened for name in one.scenario.datasets):
        raise InputError(lacking)
    for one in opened:
        for mismatch in mode_mismatches(one.scenario, one.cards):
            terminal.err.print(f"continual-mm: note: {mismatch}")
    return opened, chosen


def ready(strategies: "Sequence[Strategy]") -> "Sequence[Strategy]":
    """Those whose packages are installed; for the others a line says what is missing."""
    from continual_mm.plugins.registry import missing

    lacking = {strategy.name: missing(strategy) for strategy in strategies}
    for problem in (one for found in lacking.values() for one in found):
        terminal.err.print(f"continual-mm: left out: {problem}")
    return [strategy for strategy in strategies if not lacking[strategy.name]]


def check_affordable(
    wanted: "Sequence[tuple[OpenedScenario, Strategy]]", *, seeds: int, jobs: int, device: str
) -> None:
    """Refuse what needs more memory than there is, or very many steps."""
    from continual_mm.runs.estimate import excesses

    accelerator = None
    if device != "cpu" and (device != "auto" or excesses(wanted, seeds=seeds, jobs=jobs)):
        accelerator = _accelerator_memory(device)
    if problems := excesses(wanted, seeds=seeds, jobs=jobs, accelerator=accelerator):
        raise InputError(problems)


def _accelerator_memory(device: str) -> int | None:
    """Bytes of memory of the device that trains; None where that is the CPU."""
    import torch

    from continual_mm.runs.run import choose_device

    chosen = choose_device(device)
    return torch.cuda.get_device_properties(chosen).total_memory if chosen.type == "cuda" else None


def _train(
    opened: "OpenedScenario",
    strategies: "Sequence[Strategy]",
    seeds: int,
    out: Path,
    *,
    jobs: int,
    threads: int | None,
    yes: bool,
    **options: Any,
) -> "Sequence[Outcome]":
    """Train every strategy with every seed; ``options`` are those of ``runs.run.run``."""
    from continual_mm.cli.progress import RunProgress
    from continual_mm.definitions.coverage import coverage_notes
    from continual_mm.runs.parallel import Task, run_many
    from continual_mm.runs.specification import Specification

    if not yes:
        wanted = [(opened, strategy) for strategy in strategies]
        check_affordable(wanted, seeds=seeds, jobs=jobs, device=options["device"])
    for note in coverage_notes(opened.coverage):
        terminal.err.print(f"continual-mm: note: {note}")
    tasks = [
        Task(Specification(opened, strategy, seed), out, options)
        for seed in range(seeds)
        for strategy in strategies
    ]
    with terminal.stoppable(KEPT), RunProgress(len(tasks)) as progress:
        return run_many(tasks, jobs=jobs, threads=threads, reporter=progress)


def end_after(outcomes: "Sequence[Outcome]") -> None:
    """Sum up what failed; the exit code is 2 if nothing but refused input did, else 1."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        named = ", ".join(str(outcome.folder) for outcome in failed)
        terminal.err.print(
            f"continual-mm: {len(failed)} of {len(outcomes)} runs failed ({named}); "
            "the same command tries them again"
        )
        click.get_current_context().exit(2 if all(one.refused for one in failed) else 1)


@click.command(short_help="Train the main job with eight strategies; compare.")
@out_option
@click.option("--seeds", type=SEEDS, default=DEMO_SEEDS)
@training_options
def demo(out: Path, seeds: int, settings: tuple[str, ...], **options: Any) -> None:
    """Run the main job: add text to a video-audio space with eight strategies, and compare."""
    (opened,), chosen = definitions([DEMO_SCENARIO], DEMO_STRATEGIES, settings)
    outcomes = _train(opened, ready(chosen), seeds, out, **options)
    if not all(outcome.error for outcome in outcomes):
        _show_demo(out)
    end_after(outcomes)


def _show_demo(out: Path) -> None:
    from continual_mm.comparison.compare import compare
    from continual_mm.comparison.figure import draw
    from continual_mm.comparison.tables import scenario_tables

    comparison = compare([out / DEMO_SCENARIO], baseline="naive")
    cli_results.print_tables(scenario_tables(comparison), comparison.notes)
    for name in comparison.reports:  # several, if other settings were run in the folder
        picture = out / f"{name.replace('/', '_')}.png"
        draw(comparison, name, picture)
        terminal.out.print(f"picture: {picture}")
    terminal.out.print(
        f"next: continual-mm board {out}            losses, recalls and forgetting over time\n"
        f"      continual-mm list                  other scenarios and strategies\n"
        f"      continual-mm copy {DEMO_SCENARIO}           a scenario to change, then run"
    )


COMMANDS = (run, demo)
