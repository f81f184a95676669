"""From a plugin's name to the plugin; nothing heavy is imported to say which there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import Parameter, signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from continual_mm.definitions.rules import Number, PluginRule, Range
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.imports import not_installed

if TYPE_CHECKING:
    from continual_mm.definitions.scenario import Strategy


N = TypeVar("N", int, float)

WEIGHT = Number(least=0)
POSITIVE = Number(least=0, above=True)
COUNT = Number(least=1, whole=True)
ROWS = Number(least=2, whole=True)
FRACTION = Number(least=0, most=1)
SWITCH = Number(least=0, most=1, whole=True)


@dataclass(frozen=True, slots=True)
class Known:
    """A plugin that strategy files may name.

    Attributes:
        path: ``module:class``.
        summary: One line for lists.
        rule: What a file may say of it.
        search: Parameter -> where tuning looks for its value. What trades time for quality, such as
            rows, is left out, for strategies are compared at the same cost; whatever else is left
            out is no number.
        package: What it imports beyond what is always installed.
    """

    path: str
    summary: str
    rule: PluginRule
    search: Mapping[str, Range] = field(default_factory=dict)
    package: str = ""


BUILT_IN: Mapping[str, Known] = MappingProxyType(
    {
        "agem": Known(
            "continual_mm.plugins.agem:AGEM",
            "lets no step work against remembered items",
            PluginRule({"rows": ROWS}, needs_memory=True),
        ),
        "distill": Known(
            "continual_mm.plugins.distill:Distill",
            "keeps embeddings of old modalities near those of the last stage's end",
            PluginRule(
                {"weight": WEIGHT, "current": WEIGHT, "rows": ROWS},
                needs_memory=True,
                unless="current",
            ),
            {"weight": Range(0.1, 1e3, log=True), "current": Range(0.1, 1e3, log=True)},
        ),
        "ewc": Known(
            "continual_mm.plugins.ewc:EWC",
            "pulls weights towards those of finished stages, by Fisher information",
            PluginRule(
                {
                    "weight": WEIGHT,
                    "batches": COUNT,
                    "rows": ROWS,
                    "online": SWITCH,
                    "decay": FRACTION,
                }
            ),
            {"weight": Range(10.0, 1e7, log=True)},
        ),
        "freeze": Known(
            "continual_mm.plugins.freeze:Freeze",
            "keeps everything learned bit for bit; only what arrives is trained",
            PluginRule({}),
        ),
        "interpolate": Known(
            "continual_mm.plugins.interpolate:Interpolate",
            "moves a finished stage's weights part of the way back to those before it",
            PluginRule({"towards_old": FRACTION}),
            {"towards_old": Range(0.0, 1.0)},
        ),
        "mas": Known(
            "continual_mm.plugins.mas:MAS",
            "pulls weights back that the similarities of finished stages depend on",
            PluginRule({"weight": WEIGHT, "batches": COUNT, "rows": ROWS}),
            {"weight": Range(1.0, 100000.0, log=True)},
        ),
        "pair_lora": Known(
            "continual_mm.plugins.pair_lora:PairLora",
            "lets each new pair learn small adapters of its own on frozen old towers",
            PluginRule({"rank": COUNT, "alpha": WEIGHT, "rate": WEIGHT}),
            {"alpha": Range(1.0, 256.0, log=True), "rate": Range(0.3, 30.0, log=True)},
            package="peft",
        ),
        "match": Known(
            "continual_mm.plugins.match:Match",
            "trains new pairs by their transport plan as well, where nobody is taken twice",
            PluginRule({"weight": WEIGHT, "epsilon": POSITIVE}, for_bounds=True),
            {"weight": Range(0.1, 30.0, log=True), "epsilon": Range(0.01, 0.3, log=True)},
        ),
        "relational": Known(
            "continual_mm.plugins.relational:Relational",
            "keeps the similarities within each old modality on remembered items",
            PluginRule({"weight": WEIGHT, "rows": ROWS}, needs_memory=True),
            {"weight": Range(1.0, 10000.0, log=True)},
        ),
        "nullspace": Known(
            "continual_mm.plugins.nullspace:Nullspace",
            "lets old layers change only where old inputs do not notice",
            PluginRule({"keep": FRACTION, "batches": COUNT, "rows": COUNT}),
            {"keep": Range(0.5, 1.0)},
        ),
        "realign": Known(
            "continual_mm.plugins.realign:Realign",
            "merges a finished stage's weights with those before it, then aligns them again",
            PluginRule(
                {"towards_old": FRACTION, "steps": COUNT, "rate": FRACTION, "rows": ROWS},
                needs_memory=True,
            ),
            {"towards_old": Range(0.0, 1.0), "rate": Range(0.01, 1.0, log=True)},
        ),
        "partners": Known(
            "continual_mm.plugins.partners:Partners",
            "keeps the plans of current rows with stored embeddings of absent modalities",
            PluginRule({"weight": WEIGHT, "epsilon": POSITIVE, "items": ROWS}),
            {"weight": Range(0.1, 100.0, log=True), "epsilon": Range(0.01, 0.5, log=True)},
        ),
        "prototypes": Known(
            "continual_mm.plugins.prototypes:Prototypes",
            "keeps how old modalities are shared out among the last stage's centroids",
            PluginRule({"weight": WEIGHT, "epsilon": POSITIVE, "items": COUNT}),
            {"weight": Range(0.1, 100.0, log=True), "epsilon": Range(0.01, 0.5, log=True)},
        ),
        "replay": Known(
            "continual_mm.plugins.replay:Replay",
            "trains remembered items again",
            PluginRule({"weight": WEIGHT, "rows": ROWS}, needs_memory=True),
            {"weight": Range(0.03, 30.0, log=True)},
        ),
        "row_kl": Known(
            "continual_mm.plugins.row_kl:RowKL",
            "keeps whom remembered items choose in other old modalities",
            PluginRule(
                {"weight": WEIGHT, "temperature": POSITIVE, "right_only": SWITCH, "rows": ROWS},
                needs_memory=True,
            ),
            {"weight": Range(0.03, 100.0, log=True), "temperature": Range(0.01, 0.5, log=True)},
        ),
        "rest": Known(
            "continual_mm.plugins.rest:Rest",
            "lets old towers learn only where a stage trains a pair of theirs",
            PluginRule({}),
        ),
        "si": Known(
            "continual_mm.plugins.si:SI",
            "pulls weights back that brought the loss of finished stages down",
            PluginRule({"weight": WEIGHT, "damping": POSITIVE}),
            {"weight": Range(0.01, 10000.0, log=True), "damping": Range(1e-4, 1.0, log=True)},
        ),
        "slow": Known(
            "continual_mm.plugins.slow:Slow",
            "trains old towers at a part of the learning rate",
            PluginRule({"ratio": FRACTION}),
            {"ratio": Range(1e-3, 1.0, log=True)},
        ),
        "transport": Known(
            "continual_mm.plugins.transport:Transport",
            "keeps the transport plans between old modalities on remembered items",
            PluginRule(
                {
                    "weight": WEIGHT,
                    "epsilon": POSITIVE,
                    "gauge": WEIGHT,
                    "rows": ROWS,
                    "trust": FRACTION,
                    "budget": WEIGHT,
                    "unbalanced": WEIGHT,
                    "right_only": SWITCH,
                },
                needs_memory=True,
            ),
            {
                "weight": Range(0.1, 100.0, log=True),
                "epsilon": Range(0.01, 0.5, log=True),
                "gauge": Range(1e-3, 10.0, log=True),
                "budget": Range(1e-3, 1.0, log=True),
                "unbalanced": Range(0.05, 5.0, log=True),
            },
        ),
        "warmup": Known(
            "continual_mm.plugins.warmup:Warmup",
            "lets a new tower learn alone before old ones learn as well",
            PluginRule({"share": FRACTION}),
            {"share": Range(0.0, 1.0)},
        ),
    }
)


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
        InputError: If a plugin from outside cannot be imported.
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


def checked(parameter: str, value: N) -> N:
    """A constructor's argument, if it lies in the range that strategy files have for it.

    Args:
        parameter: Names it as ``plugin.parameter``.
        value: The argument; a boolean will do where 0 and 1 are all there is.

    Raises:
        InputError: If it lies elsewhere.

    >>> checked("slow.ratio", 0.5)
    0.5
    """
    plugin, _, key = parameter.partition(".")
    number = BUILT_IN[plugin].rule.parameters[key]
    switched = number == SWITCH and isinstance(value, bool)
    if remedy := "" if switched else number.remedy(value):
        raise InputError(Problem(parameter, f"{value!r} cannot be used", remedy))
    return value


def missing(strategy: "Strategy") -> list[Problem]:
    """What a strategy needs that is not installed; nothing is imported to find out."""
    return [
        not_installed(BUILT_IN[name].package, f"strategy '{strategy.name}', [{name}]")
        for name in strategy.plugins
        if _lacks_package(name)
    ]


def build(strategy: "Strategy") -> dict[str, Any]:
    """The strategy's plugin objects by name, in the file's order.

    Raises:
        InputError: If a plugin cannot be imported, or does not take its parameters.
    """
    if lacking := missing(strategy):
        raise InputError(lacking)
    return {
        name: _made(_entry(name), f"strategy '{strategy.name}', [{name}]", parameters)
        for name, parameters in strategy.plugins.items()
    }


def defaults(name: str) -> dict[str, Any]:
    """A plugin's parameters and their defaults, those without one left out; imports the plugin.

    Raises:
        InputError: If it is not installed or cannot be imported.
    """
    if _lacks_package(name):
        raise InputError(not_installed(BUILT_IN[name].package, f"plugin '{name}'"))
    parameters = signature(_loaded(_entry(name))).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _lacks_package(name: str) -> bool:
    package = BUILT_IN[name].package if name in BUILT_IN else ""
    return bool(package) and find_spec(package) is None


def _made(entry: EntryPoint, place: str, parameters: Mapping[str, Any]) -> Any:
    plugin = _loaded(entry)
    try:
        return plugin(**parameters)
    except (TypeError, ValueError) as error:
        raise InputError(Problem(place, str(error))) from error


def _entry(name: str) -> EntryPoint:
    if name in BUILT_IN:
        return EntryPoint(name, BUILT_IN[name].path, ENTRY_POINTS)
    offered = outside()
    if name not in offered:
        remedy = "continual-mm list plugins shows what there is"
        raise InputError(Problem(f"plugin '{name}'", "is not installed", remedy))
    return offered[name]


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        place = f"plugin '{entry.name}' ({entry.value})"
        remedy = "mend or remove the package that offers it"
        raise InputError(Problem(place, f"cannot be imported: {error}", remedy)) from error
