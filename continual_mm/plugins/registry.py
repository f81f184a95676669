"""From a plugin's name to the plugin; nothing heavy is imported to say which there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import Parameter, signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from continual_mm.definitions.rules import (
    MOST_ROWS,
    MOST_UNITS,
    MOST_WEIGHT,
    Number,
    PluginRule,
    Range,
    Words,
)
from continual_mm.plugins.files import FilePlugin, is_in_file
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.imports import not_installed

if TYPE_CHECKING:
    from continual_mm.definitions.scenario import Strategy


N = TypeVar("N", bound=float | str)
Entry = EntryPoint | FilePlugin
"""What a plugin that is not ours is loaded by."""

WEIGHT = Number(least=0, most=MOST_WEIGHT)
PENALTY = Number(least=0, most=1e38)  # of squared changes times importances, both of which are tiny
POSITIVE = Number(least=0, above=True, most=MOST_WEIGHT)
COUNT = Number(least=1, whole=True, most=MOST_ROWS)
ROWS = Number(least=2, whole=True, most=MOST_ROWS)
UNITS = Number(least=1, whole=True, most=MOST_UNITS)
FRACTION = Number(least=0, most=1)
SWITCH = Number(least=0, most=1, whole=True)


@dataclass(frozen=True, slots=True)
class Known:
    """A plugin that strategy files may name.

    ``source`` is ``module:class`` inside ``continual_mm.plugins``, ``package`` what it imports
    beyond what is always installed; ``needs_memory``, ``unless`` and ``for_bounds`` are those of
    :class:`PluginRule`. ``parameters`` say each one's range, and where tuning looks for its value;
    what trades time for quality, such as rows, is not tuned, for strategies are compared at the
    same cost.
    """

    source: str
    summary: str
    parameters: Mapping[str, Number | Words]
    needs_memory: bool = False
    unless: str = ""
    for_bounds: bool = False
    package: str = ""

    @property
    def path(self) -> str:
        """``module:class``, in full."""
        return f"continual_mm.plugins.{self.source}"

    @property
    def rule(self) -> PluginRule:
        """What a file may say of it."""
        return PluginRule(self.parameters, self.needs_memory, self.unless, self.for_bounds)

    @property
    def search(self) -> dict[str, Range]:
        """Parameter -> where tuning looks for its value; those that are not tuned are left out."""
        numbers = {key: n for key, n in self.parameters.items() if isinstance(n, Number)}
        return {key: each.search for key, each in numbers.items() if each.search}


BUILT_IN: Mapping[str, Known] = MappingProxyType(
    {
        "agem": Known(
            "agem:AGEM",
            "projects gradients that would raise the loss of remembered items",
            {"rows": ROWS},
            needs_memory=True,
        ),
        "cross_intra": Known(
            "cross_intra:CrossIntra",
            "fits what arrives to what is there by two views of each item, such as depth maps",
            {
                "temperature": POSITIVE.tuned(0.01, 0.5),
                "intra": SWITCH,
                "jitter": Number(least=0, most=0.5).tuned(0.02, 0.4),
            },
        ),
        "distill": Known(
            "distill:Distill",
            "keeps embeddings of old modalities near those of the last stage's end",
            {
                "weight": WEIGHT.tuned(0.1, 1000.0),
                "current": WEIGHT.tuned(0.1, 1000.0),
                "rows": ROWS,
            },
            needs_memory=True,
            unless="current",
        ),
        "ewc": Known(
            "ewc:EWC",
            "pulls weights towards those of finished stages, by Fisher information",
            {
                "weight": PENALTY.tuned(10.0, 10000000.0),
                "batches": COUNT,
                "rows": ROWS,
                "online": SWITCH,
                "decay": FRACTION,
            },
        ),
        "expand": Known(
            "expand:Expand",
            "appends coordinates at each stage; an item keeps one vector, and old ones stay valid",
            {
                "size": Number(least=0, whole=True, most=MOST_UNITS),
                "rank": UNITS,
                "rate": WEIGHT.tuned(0.3, 30.0),
                "plan": WEIGHT.tuned(0.1, 30.0),
                "epsilon": POSITIVE.tuned(0.01, 0.3),
                "held_out": Number(least=0, most=0.5),
                "old_pairs": SWITCH,
                "emergent": WEIGHT,
            },
        ),
        "freeze": Known(
            "freeze:Freeze",
            "keeps everything learned bit for bit; only new towers are trained",
            {},
        ),
        "interpolate": Known(
            "interpolate:Interpolate",
            "moves a finished stage's weights part of the way back to those before it",
            {"towards_old": FRACTION.tuned(0.0, 1.0, log=False)},
        ),
        "joint_lora": Known(
            "joint_lora:JointLora",
            "trains towers that all pairs share together with small adapters for each pair",
            {
                "rank": UNITS,
                "alpha": WEIGHT.tuned(1.0, 256.0),
                "rate": WEIGHT.tuned(0.3, 30.0),
                "bare": WEIGHT,
            },
            for_bounds=True,
            package="peft",
        ),
        "mas": Known(
            "mas:MAS",
            "pulls weights back that the similarities of finished stages depend on",
            {"weight": PENALTY.tuned(1.0, 100000.0), "batches": COUNT, "rows": ROWS},
        ),
        "pair_lora": Known(
            "pair_lora:PairLora",
            "lets each new pair learn small adapters of its own on frozen old towers",
            {"rank": UNITS, "alpha": WEIGHT.tuned(1.0, 256.0), "rate": WEIGHT.tuned(0.3, 30.0)},
            package="peft",
        ),
        "merge": Known(
            "merge:Merge",
            "trains a stage apart, as another run would, and merges the two spaces at its end",
            {
                "align": Words(("procrustes", "transport", "none")),
                "shared": Words(("keep-a", "keep-both", "average")),
                "same_start": SWITCH,
            },
        ),
        "match": Known(
            "match:Match",
            "trains new pairs by their transport plan as well, in which no item is taken twice",
            {"weight": WEIGHT.tuned(0.1, 30.0), "epsilon": POSITIVE.tuned(0.01, 0.3)},
            for_bounds=True,
        ),
        "relational": Known(
            "relational:Relational",
            "keeps the similarities within each old modality on remembered items",
            {"weight": WEIGHT.tuned(1.0, 10000.0), "rows": ROWS},
            needs_memory=True,
        ),
        "mmlora": Known(
            "mmlora:MMLora",
            "lets modalities learn classes alone, then adapters by the mean of their logits",
            {
                "rank": Number(least=0, whole=True, most=MOST_UNITS),
                "alpha": WEIGHT.tuned(1.0, 256.0),
                "rate": WEIGHT.tuned(0.3, 30.0),
            },
            package="peft",
        ),
        "nullspace": Known(
            "nullspace:Nullspace",
            "lets old layers change only where old inputs have no component",
            {"keep": FRACTION.tuned(0.5, 1.0, log=False), "batches": COUNT, "rows": COUNT},
        ),
        "realign": Known(
            "realign:Realign",
            "merges a finished stage's weights with those before it, then aligns them again",
            {
                "towards_old": FRACTION.tuned(0.0, 1.0, log=False),
                "steps": COUNT,
                "rate": FRACTION.tuned(0.01, 1.0),
                "rows": ROWS,
            },
            needs_memory=True,
        ),
        "partners": Known(
            "partners:Partners",
            "keeps the plans of current rows with stored embeddings of absent modalities",
            {
                "weight": WEIGHT.tuned(0.1, 100.0),
                "epsilon": POSITIVE.tuned(0.01, 0.5),
                "items": ROWS,
            },
        ),
        "prototypes": Known(
            "prototypes:Prototypes",
            "keeps how old modalities are assigned to the last stage's centroids",
            {
                "weight": WEIGHT.tuned(0.1, 100.0),
                "epsilon": POSITIVE.tuned(0.01, 0.5),
                "items": COUNT,
            },
        ),
        "replay": Known(
            "replay:Replay",
            "trains remembered items again",
            {"weight": WEIGHT.tuned(0.03, 30.0), "rows": ROWS},
            needs_memory=True,
        ),
        "row_kl": Known(
            "row_kl:RowKL",
            "keeps which items of other old modalities remembered items are nearest to",
            {
                "weight": WEIGHT.tuned(0.03, 100.0),
                "temperature": POSITIVE.tuned(0.01, 0.5),
                "right_only": SWITCH,
                "rows": ROWS,
            },
            needs_memory=True,
        ),
        "rest": Known(
            "rest:Rest",
            "lets old towers learn only in stages that train a pair with their modality",
            {},
        ),
        "si": Known(
            "si:SI",
            "pulls weights back that brought the loss of finished stages down",
            {"weight": PENALTY.tuned(0.01, 10000.0), "damping": POSITIVE.tuned(0.0001, 1.0)},
        ),
        "slow": Known(
            "slow:Slow",
            "trains old towers at a part of the learning rate",
            {"ratio": FRACTION.tuned(0.001, 1.0)},
        ),
        "transport": Known(
            "transport:Transport",
            "keeps the transport plans between old modalities on remembered items",
            {
                "weight": WEIGHT.tuned(0.1, 100.0),
                "epsilon": POSITIVE.tuned(0.01, 0.5),
                "gauge": WEIGHT.tuned(0.001, 10.0),
                "rows": ROWS,
                "trust": FRACTION,
                "budget": WEIGHT.tuned(0.001, 1.0),
                "unbalanced": WEIGHT.tuned(0.05, 5.0),
                "right_only": SWITCH,
            },
            needs_memory=True,
        ),
        "warmup": Known(
            "warmup:Warmup",
            "lets a new tower learn alone before old ones learn as well",
            {"share": FRACTION.tuned(0.0, 1.0, log=False)},
        ),
        "watch": Known(
            "watch:Watch",
            "warns of a stage that pulls old pairs apart, or ends it",
            {"warn_at": WEIGHT, "stop_at": WEIGHT, "every": COUNT, "items": ROWS},
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

    Of plugins from outside only those ``wanted`` are imported (an InputError if one cannot be);
    their constructors say which parameters there are.
    """
    known = {name: plugin.rule for name, plugin in BUILT_IN.items()}
    foreign = set(wanted) - known.keys()
    # Reading what is installed takes longer than everything else here, so only where it matters.
    in_files = {name for name in foreign if is_in_file(name)}
    offered = outside() if foreign - in_files else {}
    theirs = {name: offered[name] for name in foreign & offered.keys()}
    every: dict[str, Entry] = {**theirs, **{name: FilePlugin(name) for name in in_files}}
    return known | {name: _rule(every[name]) for name in sorted(every)}


def _rule(entry: Entry) -> PluginRule:
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

    ``parameter`` is ``plugin.parameter``. A boolean will do where 0 and 1 are all there is.

    >>> checked("slow.ratio", 0.5)
    0.5
    """
    plugin, _, key = parameter.partition(".")
    rule = BUILT_IN[plugin].rule.parameters[key]
    switched = rule == SWITCH and isinstance(value, bool)
    if remedy := "" if switched else rule.remedy(value):
        raise InputError.at(parameter, f"{value!r} cannot be used", remedy)
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

    An InputError if a plugin cannot be imported or does not take its parameters.
    """
    if lacking := missing(strategy):
        raise InputError(lacking)
    return {
        name: _made(_entry(name), f"strategy '{strategy.name}', [{name}]", parameters)
        for name, parameters in strategy.plugins.items()
    }


def defaults(name: str) -> dict[str, Any]:
    """A plugin's parameters and their defaults, those without one left out; imports the plugin."""
    if _lacks_package(name):
        raise InputError(not_installed(BUILT_IN[name].package, f"plugin '{name}'"))
    parameters = signature(_loaded(_entry(name))).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _lacks_package(name: str) -> bool:
    package = BUILT_IN[name].package if name in BUILT_IN else ""
    return bool(package) and find_spec(package) is None


def _made(entry: Entry, place: str, parameters: Mapping[str, Any]) -> Any:
    plugin = _loaded(entry)
    try:
        return plugin(**parameters)
    except (TypeError, ValueError) as error:
        raise InputError.at(place, str(error)) from error


def _entry(name: str) -> Entry:
    if is_in_file(name):
        return FilePlugin(name)
    if name in BUILT_IN:
        return EntryPoint(name, BUILT_IN[name].path, ENTRY_POINTS)
    offered = outside()
    if name not in offered:
        remedy = "continual-mm list plugins shows what there is"
        raise InputError.at(f"plugin '{name}'", "is not installed", remedy)
    return offered[name]


def _loaded(entry: Entry) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        place = f"plugin '{entry.name}' ({entry.value})"
        remedy = "mend or remove the package that offers it"
        raise InputError.at(place, f"cannot be imported: {error}", remedy) from error
