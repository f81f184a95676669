"""From a plugin's name to the plugin; nothing heavy is imported to say which there are."""

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.plugins.built_in import BUILT_IN
from continual_mm.rules import PluginRule

if TYPE_CHECKING:
    from continual_mm.definitions import Strategy

ENTRY_POINTS = "continual_mm.plugins"
"""Entry-point group under which another package offers plugin classes by name."""


def outside() -> dict[str, EntryPoint]:
    """Plugins that other installed packages offer, by name, not imported."""
    found = entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in found if entry.name not in BUILT_IN}


def rules(wanted: Iterable[str]) -> dict[str, PluginRule]:
    """What strategy files may say of each plugin.

    Args:
        wanted: Names that a file uses. Only these are imported, and only if they come from outside;
            their constructors then say which parameters there are.

    Raises:
        RefusedError: If a plugin from outside cannot be imported.
    """
    known = {name: plugin.rule for name, plugin in BUILT_IN.items()}
    foreign = set(wanted) - known.keys()
    # Reading what is installed takes longer than everything else here, so only where it matters.
    offered = outside() if foreign else {}
    return known | {name: _rule(offered[name]) for name in sorted(foreign & offered.keys())}


def _rule(entry: EntryPoint) -> PluginRule:
    plugin = _loaded(entry)
    named = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p.name for p in signature(plugin).parameters.values() if p.kind in named]
    return PluginRule(
        dict.fromkeys(parameters, Any),
        needs_memory=bool(getattr(plugin, "needs_memory", False)),
        for_bounds=bool(getattr(plugin, "for_bounds", False)),
    )


def missing(strategy: "Strategy") -> list[Complaint]:
    """What a strategy needs that is not installed; nothing is imported to find out."""
    return [
        _not_installed(name, f"strategy '{strategy.name}', [{name}]")
        for name in strategy.plugins
        if _lacks_package(name)
    ]


def build(strategy: "Strategy") -> dict[str, Any]:
    """The strategy's plugin objects by name, in the file's order.

    Raises:
        RefusedError: If a plugin cannot be imported, or does not take its parameters.
    """
    if lacking := missing(strategy):
        raise RefusedError(lacking)
    return {
        name: _made(_entry(name), f"strategy '{strategy.name}', [{name}]", parameters)
        for name, parameters in strategy.plugins.items()
    }


def defaults(name: str) -> dict[str, Any]:
    """A plugin's parameters and their defaults, those without one left out; imports the plugin.

    Raises:
        RefusedError: If it is not installed or cannot be imported.
    """
    if _lacks_package(name):
        raise RefusedError(_not_installed(name, f"plugin '{name}'"))
    parameters = signature(_loaded(_entry(name))).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _lacks_package(name: str) -> bool:
    package = BUILT_IN[name].package if name in BUILT_IN else ""
    return bool(package) and find_spec(package) is None


def _not_installed(name: str, place: str) -> Complaint:
    known = BUILT_IN[name]
    remedy = f"pip install 'continual-mm[{known.extra}]'"
    return Complaint(place, f"{known.package} is not installed", remedy)


def _made(entry: EntryPoint, place: str, parameters: Mapping[str, Any]) -> Any:
    plugin = _loaded(entry)
    try:
        return plugin(**parameters)
    except (TypeError, ValueError) as error:
        raise RefusedError(Complaint(place, str(error))) from error


def _entry(name: str) -> EntryPoint:
    if name in BUILT_IN:
        return EntryPoint(name, BUILT_IN[name].path, ENTRY_POINTS)
    offered = outside()
    if name not in offered:
        remedy = "continual-mm list plugins shows what there is"
        raise RefusedError(Complaint(f"plugin '{name}'", "is not installed", remedy))
    return offered[name]


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        place = f"plugin '{entry.name}' ({entry.value})"
        remedy = "mend or remove the package that offers it"
        raise RefusedError(Complaint(place, f"cannot be imported: {error}", remedy)) from error
