"""Commands that look at definitions: list, show, validate, copy."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import DEMO_SCENARIO, NEW_PATH, plugins_option
from continual_mm.data import registry as datasets
from continual_mm.data.cards import PUBLISHED, is_converted, missing_published, published_folder
from continual_mm.definitions import catalog
from continual_mm.plugins import registry as plugins
from continual_mm.space import registry as towers
from continual_mm.system.errors import InputError, Problems
from continual_mm.system.files import atomic_write

if TYPE_CHECKING:
    from continual_mm.runs.specification import OpenedScenario

Rows = list[tuple[str, str]]


def _definitions(kind: catalog.DefinitionKind) -> Rows:
    return [(entry.name, entry.description) for entry in catalog.shipped(kind)]


def _registered(registry: ModuleType) -> Rows:
    """What a registry knows, and what other packages add to it."""
    rows = [(name, known.summary) for name, known in registry.BUILT_IN.items()]
    return rows + [(name, f"from {entry.value}") for name, entry in registry.outside().items()]


def _datasets() -> Rows:
    cards = [(name, datasets.card(name)) for name in datasets.REGISTERED]
    rows = [(name, f"{card.items}  {', '.join(card.names)}") for name, card in cards]
    for name, card in PUBLISHED.items():
        here = f"in {published_folder(name)}" if is_converted(name) else "not here yet"
        rows.append((name, f"{here}  {', '.join(card.names)}"))
    return rows


LISTS: Mapping[str, tuple[str, str, Callable[[], Rows]]] = {
    "scenarios": ("scenario", "description", partial(_definitions, "scenarios")),
    "strategies": ("strategy", "description", partial(_definitions, "strategies")),
    "plugins": ("plugin", "what it does", partial(_registered, plugins)),
    "towers": (
        "tower",
        "what it does to the features of a modality",
        partial(_registered, towers),
    ),
    "datasets": ("dataset", "(train, validation, test) items, modalities", _datasets),
}
"""Kind -> headings and rows."""


@click.command("list", short_help="List what there is to name in definitions.")
@click.argument("kind", required=False, type=click.Choice(list(LISTS)))
def list_(kind: str | None) -> None:
    """List scenarios, strategies, plugins, towers and datasets, or only one KIND of them."""
    for number, name in enumerate([kind] if kind else LISTS):
        if number:
            terminal.out.print()
        *headings, rows = LISTS[name]
        terminal.print_rows(headings, rows())


@click.command(short_help="Show a definition, and what follows from it.")
@plugins_option
@click.argument("name")
def show(name: str) -> None:
    """Show the definition NAME, a shipped one or a file, and what follows from it."""
    entry = catalog.find_any(name)
    terminal.out.print(f"# {entry.path}")
    terminal.out.print(entry.path.read_text(encoding="utf-8-sig"))
    if opened := _opened_scenario(entry):
        terminal.print_stages(opened.arrivals)


def _opened_scenario(entry: catalog.Entry) -> "OpenedScenario | None":
    """Check a definition; what follows from it, if it is a scenario."""
    from continual_mm.runs import opening

    if entry.kind == "scenarios":
        return opening.open_scenario(entry)
    opening.open_strategy(entry)
    return None


@click.command(short_help="Check definitions and their data; train nothing.")
@plugins_option
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--quick", is_flag=True, help="Definitions alone: leave items of datasets unread.")
@click.pass_context
def validate(context: click.Context, files: tuple[str, ...], quick: bool) -> None:
    """Check definitions, and the items that they are about, without training anything."""
    wrong = False
    for name in files:
        try:
            entry = catalog.find_any(name)
            opened, notes = _checked(entry, quick=quick)
        except InputError as error:
            terminal.print_refusal(error)
            wrong = True
        else:
            terminal.out.print(f"{entry.path}: fine, a {catalog.ONE_OF[entry.kind]}")
            if opened:
                _print_items_and_notes(opened, notes)
    if wrong:
        context.exit(2)


def _checked(entry: catalog.Entry, *, quick: bool) -> "tuple[OpenedScenario | None, list[str]]":
    """A sound scenario, if it is one, and a note for each dataset too large to be read."""
    from continual_mm.runs.data_checks import data_problems, named_data_problems

    problems, notes, opened = Problems(), list[str](), None
    with problems.collected():
        opened = _opened_scenario(entry)
    if not quick and entry.kind == "scenarios":
        found, notes = data_problems(opened) if opened else (named_data_problems(entry), [])
        # What is wrong with a card is wrong with its items, too.
        problems += [one for one in dict.fromkeys(found) if one not in problems]
    problems.check()
    return opened, notes


def _print_items_and_notes(opened: "OpenedScenario", notes: Iterable[str]) -> None:
    """How many items each pair has, and what is worth knowing of a sound scenario."""
    from continual_mm.definitions.coverage import HEADINGS, coverage_notes
    from continual_mm.evaluation.checks import mode_mismatches, unordered
    from continual_mm.runs.estimate import estimate

    terminal.out.print(f"  a run takes {estimate(opened)}")
    for problem in missing_published(opened.scenario.datasets):
        terminal.out.print(f"  before it can run: {problem}")
    found = opened.coverage
    if found:
        terminal.print_rows(HEADINGS, [one.cells for one in found])
    arriving = [one.name for stage in opened.arrivals for one in stage.added]
    for note in (
        *notes,
        *coverage_notes(found),
        *mode_mismatches(opened.scenario, opened.cards),
        *unordered(opened.scenario, opened.card, arriving),
    ):
        terminal.out.print(f"  note: {note}")


@click.command(short_help="Copy a shipped definition, to change it.")
@click.argument("name")
@click.argument("to", type=NEW_PATH, default=".")
def copy(name: str, to: Path) -> None:
    """Copy the shipped definition NAME, to change it.

    TO is a folder, or a file that ends in .toml; the working folder, if left out.
    """
    entry = catalog.find_any(name)
    target = to if to.suffix == ".toml" and not to.is_dir() else to / entry.path.name
    if os.path.lexists(target):
        raise InputError.at(target, "is there already", "name another file")
    with atomic_write(target) as temporary:
        shutil.copyfile(entry.path, temporary)
    use = f"{target}" if entry.kind == "scenarios" else f"{DEMO_SCENARIO} --strategy {target}"
    terminal.out.print(f"{target}  (use it with: continual-mm run {use})")


COMMANDS = (list_, show, validate, copy)
