"""The command line: parse, call, print. What takes long to import waits until it is asked for."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from continual_mm import __version__, catalog, cli_results, terminal
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data import registry as datasets
from continual_mm.options import A_COUNT, A_PATH, out_option, training_options
from continual_mm.plugins import registry as plugins
from continual_mm.rules import METRICS
from continual_mm.space import registry as towers

if TYPE_CHECKING:
    from continual_mm.definitions import Strategy
    from continual_mm.runs.opening import OpenedScenario
    from continual_mm.runs.tasks import Outcome

DEMO_SCENARIO = "av_vt"
DEMO_STRATEGIES = ("naive", "freeze", "replay", "ewc", "transport", "replay_transport", "joint")
DEMO_SEEDS = 2

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C ended."""

KINDS = ("scenarios", "strategies", "plugins", "towers", "datasets")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def app() -> None:
    """Add modalities to a joint embedding space one after another; measure what is forgotten."""


for command in cli_results.COMMANDS:
    app.add_command(command)


@app.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
def list_(kind: str | None) -> None:
    """List scenarios, strategies, plugins, towers and datasets, or only one KIND of them."""
    lists = {
        "scenarios": lambda: _list_shelf("scenarios"),
        "strategies": lambda: _list_shelf("strategies"),
        "plugins": _list_plugins,
        "towers": _list_towers,
        "datasets": _list_datasets,
    }
    for number, name in enumerate([kind] if kind else lists):
        if number:
            terminal.out.print()
        lists[name]()


def _list_shelf(shelf: catalog.Shelf) -> None:
    rows = [(entry.name, entry.description) for entry in catalog.shipped(shelf)]
    terminal.print_rows((catalog.ONE_OF[shelf], "description"), rows)


def _list_plugins() -> None:
    rows = [(name, known.summary) for name, known in plugins.BUILT_IN.items()]
    rows += [(name, f"from {entry.value}") for name, entry in plugins.outside().items()]
    terminal.print_rows(("plugin", "what it does"), rows)


def _list_towers() -> None:
    rows = [(name, known.summary) for name, known in towers.BUILT_IN.items()]
    rows += [(name, f"from {entry.value}") for name, entry in towers.outside().items()]
    terminal.print_rows(("tower", "what it does to the features of a modality"), rows)


def _list_datasets() -> None:
    cards = [(name, datasets.card(name)) for name in datasets.REGISTERED]
    rows = [(name, f"{card.items}  {', '.join(card.names)}") for name, card in cards]
    terminal.print_rows(("dataset", "(train, validation, test) items, modalities"), rows)


@app.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the definition NAME, a shipped one or a file, and what follows from it."""
    entry = catalog.which_shelf(name)
    terminal.out.print(f"# {entry.path}")
    terminal.out.print(entry.path.read_text(encoding="utf-8-sig"))
    opened = _checked(entry)
    if entry.shelf == "scenarios":
        terminal.print_stages(opened.arrivals)


def _checked(entry: catalog.Entry) -> Any:
    """The definition that an entry is, or a refusal."""
    opening = _late("runs.opening")
    is_scenario = entry.shelf == "scenarios"
    return opening.open_scenario(entry) if is_scenario else opening.open_strategy(entry)


@app.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.pass_context
def validate(context: click.Context, files: tuple[str, ...]) -> None:
    """Check definitions without training anything."""
    wrong = False
    for name in files:
        try:
            entry = catalog.which_shelf(name)
            _checked(entry)
        except RefusedError as error:
            terminal.print_refusal(error)
            wrong = True
        else:
            terminal.out.print(f"{entry.path}: fine, a {catalog.ONE_OF[entry.shelf]}")
    if wrong:
        context.exit(2)


@app.command()
@click.argument("name")
@click.argument("to", type=A_PATH, default=".")
def copy(name: str, to: Path) -> None:
    """Copy the shipped definition NAME, to change it.

    TO is a folder, or a file that ends in .toml; the working folder, if left out.
    """
    entry = catalog.which_shelf(name)
    target = to if to.suffix == ".toml" and not to.is_dir() else to / entry.path.name
    if target.exists():
        raise RefusedError(Complaint(str(target), "is there already", "name another file"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(entry.path, target)
    use = f"{target}" if entry.shelf == "scenarios" else f"{DEMO_SCENARIO} --strategy {target}"
    terminal.out.print(f"{target}  (use it with: continual-mm run {use})")


@app.command()
@click.argument("scenario")
@click.option("--strategy", multiple=True, default=["naive"], help="As often as you like.")
@click.option("--seeds", type=A_COUNT, default=1, show_default=True, help="Seeds 0 to N-1.")
@out_option
@training_options
def run(
    scenario: str,
    strategy: tuple[str, ...],
    seeds: int,
    out: Path,
    settings: tuple[str, ...],
    jobs: int,
    threads: int | None,
    **options: Any,
) -> None:
    """Train SCENARIO, a shipped name or a file; goes on where it stopped."""
    (opened,), chosen = _opened([scenario], strategy, settings)
    tasks = _tasks(opened, chosen, seeds, out, options)
    outcomes = _train(tasks, jobs, threads)
    if _any_finished(outcomes):
        terminal.out.print(f"compare with: continual-mm compare {out}")
    _end(outcomes)


def _opened(
    scenarios: Sequence[str], strategies: Sequence[str], settings: Sequence[str]
) -> "tuple[Sequence[OpenedScenario], Sequence[Strategy]]":
    opening = _late("runs.opening")
    given = opening.read_settings(settings)
    wanted = [catalog.find("scenarios", name) for name in scenarios]
    opened = opening.open_scenarios(wanted, given)
    entries = [catalog.find("strategies", name) for name in strategies]
    return opened, opening.open_strategies(entries, given)


def _tasks(
    opened: "OpenedScenario",
    strategies: "Sequence[Strategy]",
    seeds: int,
    out: Path,
    options: Mapping[str, Any],
) -> Sequence[Any]:
    """Every strategy with every seed; ``options`` are keyword arguments of ``runs.run.run``."""
    task = _late("runs.tasks").Task
    return [
        task(opened.scenario, strategy, out, seed, options)
        for seed in range(seeds)
        for strategy in strategies
    ]


def _train(tasks: Sequence[Any], jobs: int, threads: int | None) -> "Sequence[Outcome]":
    run_many = _late("runs.parallel").run_many
    with _late("progress_bar").RunProgress(len(tasks)) as progress:
        outcomes: Sequence[Outcome] = run_many(tasks, jobs=jobs, threads=threads, audience=progress)
    return outcomes


def _any_finished(outcomes: "Sequence[Outcome]") -> bool:
    return any(not outcome.error for outcome in outcomes)


def _end(outcomes: "Sequence[Outcome]") -> None:
    """Sum up what failed; the exit code is 2 if nothing but refused input did, else 1."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        named = ", ".join(str(outcome.folder) for outcome in failed)
        terminal.err.print(
            f"continual-mm: {len(failed)} of {len(outcomes)} runs failed ({named}); "
            "the same command tries them again"
        )
        click.get_current_context().exit(2 if all(one.refused for one in failed) else 1)


def _late(module: str) -> Any:
    """A module that takes long to import, when it is needed."""
    return import_module(f"continual_mm.{module}")


@app.command()
@out_option
@click.option("--seeds", type=A_COUNT, default=DEMO_SEEDS, show_default=True)
@training_options
def demo(
    out: Path,
    seeds: int,
    settings: tuple[str, ...],
    jobs: int,
    threads: int | None,
    **options: Any,
) -> None:
    """Run the main job: add text to a video-audio space with seven strategies, and compare."""
    (opened,), chosen = _opened([DEMO_SCENARIO], DEMO_STRATEGIES, settings)
    outcomes = _train(_tasks(opened, chosen, seeds, out, options), jobs, threads)
    if _any_finished(outcomes):
        _show_demo(out)
    _end(outcomes)


def _show_demo(out: Path) -> None:
    report = _late("runs.report")
    comparison = report.compare([out / DEMO_SCENARIO], baseline="naive")
    cli_results.print_comparison(report, comparison)
    picture = out / f"{DEMO_SCENARIO}.png"
    _late("runs.figure").draw(comparison, DEMO_SCENARIO, picture)
    terminal.out.print(
        f"picture: {picture}\n"
        f"next: continual-mm board {out}            losses, recalls and forgetting over time\n"
        f"      continual-mm list                  other scenarios and strategies\n"
        f"      continual-mm copy {DEMO_SCENARIO}           a scenario to change, then run"
    )


@app.command()
@click.argument("scenarios", metavar="SCENARIO...", nargs=-1, required=True)
@click.option("--strategy", required=True, help="Whose numbers are searched; the first trial.")
@click.option(
    "--trials", type=A_COUNT, required=True, help="Trials at most, earlier ones included."
)
@click.option(
    "--seeds",
    type=A_COUNT,
    default=1,
    show_default=True,
    help="Runs of each trial on each scenario.",
)
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
    show_default=True,
    help="What is averaged; mean_reciprocal_rank is the steadiest on few validation items, and on "
    "several scenarios.",
)
@click.option(
    "--pruning/--no-pruning",
    default=True,
    show_default=True,
    help="End trials that fall behind the median of earlier ones.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the search itself.")
@click.option("--write", type=A_PATH, help="A file for the strategy with the best values.")
@click.option("--force", is_flag=True, help="Let --write overwrite.")
@click.option(
    "--out", type=A_PATH, default="tuning", show_default=True, help="Folder for the trials."
)
@training_options
def tune(
    scenarios: tuple[str, ...],
    strategy: str,
    settings: tuple[str, ...],
    search: tuple[str, ...],
    jobs: int,
    threads: int | None,
    write: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Search the numbers of a strategy on validation items; goes on where it stopped.

    The value of a trial is its mean over the SCENARIOs, shipped names or files, and over seeds.
    """
    files = _late("runs.strategy_file")
    if write is not None:
        files.check_target(write, force=force)
    text = catalog.find("strategies", strategy).path.read_text(encoding="utf-8-sig")
    opened, (chosen,) = _opened(scenarios, [strategy], settings)
    own = {key: options.pop(key) for key in ("out", "trials", "seeds", "metric", "pruning", "seed")}
    tuning = _tuning()
    searched = _late("runs.searching").searched(chosen, search)
    plan = tuning.Plan(opened, chosen, searched, **own, options=options)
    with _late("progress_bar").RunProgress(plan.runs) as progress:
        found, failed = tuning.tune(plan, jobs=jobs, threads=threads, audience=progress)
    _show_tuned(found)
    if write is not None and not failed:
        _late("runs.tuned").write_strategy(found, write, force=force, text=text)
        use = f"run {scenarios[0]} --strategy {write}"
        terminal.out.print(f"written: {write}  (use it with: {use})")
    _end(failed)


def _tuning() -> Any:
    try:
        return _late("runs.tuning")
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        remedy = "pip install 'continual-mm[tune]'"
        raise RefusedError(Complaint("tune", "Optuna is not installed", remedy)) from error


def _show_tuned(found: Any) -> None:
    terminal.print_rows(
        *found.as_rows(), title=f"{' + '.join(found.scenarios)}, {found.strategy.name}"
    )
    if found.best is None:
        terminal.out.print("no trial was finished")
        return
    best = "  ".join(f"{path} = {value:.4g}" for path, value in found.best.values.items())
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    terminal.out.print(
        f"best of {len(found.trials)} trials ({counts}), number {found.best.number}: {best}"
    )
    terminal.out.print(f"trials: {found.folder}  (compare and board take this folder)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are one line each, without traceback.

    Args:
        arguments: What follows the program's name; as the process was given, if left out.

    Raises:
        SystemExit: Always. The code is 0, 1 if something went wrong on the way, 2 if the input
            cannot be used, 130 after Ctrl-C.
    """
    code: int | None = None
    try:
        code = app.main(arguments, prog_name="continual-mm", standalone_mode=False)
    except RefusedError as error:
        terminal.print_refusal(error)
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (FloatingPointError, OSError) as error:
        terminal.err.print(f"continual-mm: {error}")
        code = 1
    except click.Abort:
        terminal.err.print(
            "continual-mm: stopped; finished stages are kept, the same command goes on from there"
        )
        code = INTERRUPTED
    sys.exit(code or 0)
