"""Commands that look at definitions: list, show, validate, copy."""

import shutil
from pathlib import Path
from typing import Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, DEMO_SCENARIO
from continual_mm.data import registry as datasets
from continual_mm.data.cards import PUBLISHED, is_converted, missing_published, published_folder
from continual_mm.definitions import catalog
from continual_mm.plugins import registry as built_in
from continual_mm.plugins import registry as plugins
from continual_mm.space import registry as towers
from continual_mm.system.errors import InputError, Problem

KINDS = ("scenarios", "strategies", "plugins", "towers", "datasets")


@click.command("list", short_help="List what there is to name in definitions.")
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
    rows = [(name, known.summary) for name, known in built_in.BUILT_IN.items()]
    rows += [(name, f"from {entry.value}") for name, entry in plugins.outside().items()]
    terminal.print_rows(("plugin", "what it does"), rows)


def _list_towers() -> None:
    rows = [(name, known.summary) for name, known in towers.BUILT_IN.items()]
    rows += [(name, f"from {entry.value}") for name, entry in towers.outside().items()]
    terminal.print_rows(("tower", "what it does to the features of a modality"), rows)


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
    entry = catalog.which_shelf(name)
    terminal.out.print(f"# {entry.path}")
    terminal.out.print(entry.path.read_text(encoding="utf-8-sig"))
    opened = _checked(entry)
    if entry.shelf == "scenarios":
        terminal.print_stages(opened.arrivals)


def _checked(entry: catalog.Entry) -> Any:
    """The definition that an entry is, or a refusal."""
    from continual_mm.runs import opening

    is_scenario = entry.shelf == "scenarios"
    return opening.open_scenario(entry) if is_scenario else opening.open_strategy(entry)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.pass_context
def validate(context: click.Context, files: tuple[str, ...]) -> None:
    """Check definitions without training anything."""
    wrong = False
    for name in files:
        try:
            entry = catalog.which_shelf(name)
            checked = _checked(entry)
        except InputError as error:
            terminal.print_refusal(error)
            wrong = True
        else:
            terminal.out.print(f"{entry.path}: fine, a {catalog.ONE_OF[entry.shelf]}")
            if entry.shelf == "scenarios":
                for lacking in missing_published(checked.scenario.datasets):
                    terminal.out.print(f"  before it can run: {lacking}")
                from continual_mm.evaluation.checks import mode_mismatches

                for mismatch in mode_mismatches(checked.scenario, checked.cards):
                    terminal.out.print(f"  note: {mismatch}")
    if wrong:
        context.exit(2)


@click.command(short_help="Copy a shipped definition, to change it.")
@click.argument("name")
@click.argument("to", type=A_PATH, default=".")
def copy(name: str, to: Path) -> None:
    """Copy the shipped definition NAME, to change it.

    TO is a folder, or a file that ends in .toml; the working folder, if left out.
    """
    entry = catalog.which_shelf(name)
    target = to if to.suffix == ".toml" and not to.is_dir() else to / entry.path.name
    if target.exists():
        raise InputError(Problem(str(target), "is there already", "name another file"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(entry.path, target)
    use = f"{target}" if entry.shelf == "scenarios" else f"{DEMO_SCENARIO} --strategy {target}"
    terminal.out.print(f"{target}  (use it with: continual-mm run {use})")


COMMANDS = (list_, show, validate, copy)
