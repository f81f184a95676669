"""Commands that look at definitions: list, show, validate, copy."""

import shutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, DEMO_SCENARIO
from continual_mm.data import registry as datasets
from continual_mm.data.cards import PUBLISHED, is_converted, missing_published, published_folder
from continual_mm.definitions import catalog
from continual_mm.plugins import registry as plugins
from continual_mm.space import registry as towers
from continual_mm.system.errors import InputError, Problem

if TYPE_CHECKING:
    from continual_mm.runs.specification import OpenedScenario

KINDS = ("scenarios", "strategies", "plugins", "towers", "datasets")


@click.command("list", short_help="List what there is to name in definitions.")
@click.argument("kind", required=False, type=click.Choice(KINDS))
def list_(kind: str | None) -> None:
    """List scenarios, strategies, plugins, towers and datasets, or only one KIND of them."""
    lists = {
        "scenarios": lambda: _list_definitions("scenarios"),
        "strategies": lambda: _list_definitions("strategies"),
        "plugins": _list_plugins,
        "towers": _list_towers,
        "datasets": _list_datasets,
    }
    for number, name in enumerate([kind] if kind else lists):
        if number:
            terminal.out.print()
        lists[name]()


def _list_definitions(kind: catalog.DefinitionKind) -> None:
    rows = [(entry.name, entry.description) for entry in catalog.shipped(kind)]
    terminal.print_rows((catalog.ONE_OF[kind], "description"), rows)


def _list_plugins() -> None:
    rows = [(name, known.summary) for name, known in plugins.BUILT_IN.items()]
    terminal.print_rows(("plugin", "what it does"), [*rows, *_others(plugins.outside())])


def _list_towers() -> None:
    rows = [(name, known.summary) for name, known in towers.BUILT_IN.items()]
    headings = ("tower", "what it does to the features of a modality")
    terminal.print_rows(headings, [*rows, *_others(towers.outside())])


def _others(entries: Mapping[str, EntryPoint]) -> list[tuple[str, str]]:
    """Rows of what other packages offer."""
    return [(name, f"from {entry.value}") for name, entry in entries.items()]


def _list_datasets() -> None:
    cards = [(name, datasets.card(name)) for name in datasets.REGISTERED]
    rows = [(name, f"{card.items}  {', '.join(card.names)}") for name, card in cards]
    for name, card in PUBLISHED.items():
        here = f"in {published_folder(name)}" if is_converted(name) else "not here yet"
        rows.append((name, f"{here}  {', '.join(card.names)}"))
    terminal.print_rows(("dataset", "(train, validation, test) items, modalities"), rows)


@click.command(short_help="Show a definition, and what follows from it.")
@click.argument("name")
def show(name: str) -> None:
    """Show the definition NAME, a shipped one or a file, and what follows from it."""
    entry = catalog.find_any(name)
    terminal.out.print(f"# {entry.path}")
    terminal.out.print(entry.path.read_text(encoding="utf-8-sig"))
    opened = _opened_scenario(entry)
    if opened is not None:
        terminal.print_stages(opened.arrivals)


def _opened_scenario(entry: catalog.Entry) -> "OpenedScenario | None":
    """Check a definition; what follows from it, if it is a scenario."""
    from continual_mm.runs import opening

    if entry.kind == "scenarios":
        return opening.open_scenario(entry)
    opening.open_strategy(entry)
    return None


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.pass_context
def validate(context: click.Context, files: tuple[str, ...]) -> None:
    """Check definitions without training anything."""
    wrong = False
    for name in files:
        try:
            entry = catalog.find_any(name)
            opened = _opened_scenario(entry)
        except InputError as error:
            terminal.print_refusal(error)
            wrong = True
        else:
            terminal.out.print(f"{entry.path}: fine, a {catalog.ONE_OF[entry.kind]}")
            if opened is not None:
                _print_notes(opened)
    if wrong:
        context.exit(2)


def _print_notes(opened: "OpenedScenario") -> None:
    from continual_mm.evaluation.checks import mode_mismatches

    for problem in missing_published(opened.scenario.datasets):
        terminal.out.print(f"  before it can run: {problem}")
    for mismatch in mode_mismatches(opened.scenario, opened.cards):
        terminal.out.print(f"  note: {mismatch}")


@click.command(short_help="Copy a shipped definition, to change it.")
@click.argument("name")
@click.argument("to", type=A_PATH, default=".")
def copy(name: str, to: Path) -> None:
    """Copy the shipped definition NAME, to change it.

    TO is a folder, or a file that ends in .toml; the working folder, if left out.
    """
    entry = catalog.find_any(name)
    target = to if to.suffix == ".toml" and not to.is_dir() else to / entry.path.name
    if target.exists():
        raise InputError(Problem(str(target), "is there already", "name another file"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(entry.path, target)
    use = f"{target}" if entry.kind == "scenarios" else f"{DEMO_SCENARIO} --strategy {target}"
    terminal.out.print(f"{target}  (use it with: continual-mm run {use})")


COMMANDS = (list_, show, validate, copy)
