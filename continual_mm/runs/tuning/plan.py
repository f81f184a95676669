"""Which parameters of a strategy are searched, from where and in which range."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from continual_mm.definitions.rules import Number, Range
from continual_mm.definitions.scenario import Strategy
from continual_mm.plugins.registry import BUILT_IN, defaults
from continual_mm.runs.parallel import Task
from continual_mm.runs.reporter import Moment
from continual_mm.runs.specification import OpenedScenario, Specification
from continual_mm.runs.tuning.goal import SPLIT, Goal, Pruner, moments
from continual_mm.system.errors import InputError, Problem, Problems, suggestion

SYNTAX = (
    "write --search plugin.parameter=low:high or low:high:log, such as transport.weight=0.1:30:log"
)


@dataclass(frozen=True, slots=True)
class Searched:
    """A parameter that is searched from a value inside a range, by whole numbers if ``whole``."""

    plugin: str
    key: str
    start: float
    range: Range
    whole: bool

    def __str__(self) -> str:
        return f"{self.plugin}.{self.key}"


def searched(strategy: Strategy, texts: Iterable[str] = ()) -> tuple[Searched, ...]:
    """What to search in a strategy, in the order of its file; refused if there is nothing.

    The registry's ranges are widened to hold the file's value. A parameter that the file has
    switched off, 0 where the range is logarithmic, stays off. ``texts`` are ``--search`` options;
    they replace the registry's ranges and add others.
    """
    values: dict[str, float] = {
        f"{plugin}.{key}": value
        for plugin, given in strategy.plugins.items()
        for key, value in {**defaults(plugin), **given}.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    problems = Problems()
    own: dict[str, Range] = {}
    for text in texts:
        path, _, rest = (part.strip() for part in text.partition("="))
        with problems.collected():
            own[path] = _read(path, rest, values)
    problems.check()
    found = tuple(_all(values, own))
    if not found:
        message = "there is no number to search in it"
        remedy = "it needs no tuning, so run it as it is"
        if values:
            message = "none of its numbers is searched by itself"
            remedy = f"name one with --search: there are {', '.join(values)}"
        raise InputError.at(f"strategy '{strategy.name}'", message, remedy)
    return found


def _all(values: Mapping[str, float], own: Mapping[str, Range]) -> Iterator[Searched]:
    for path, start in values.items():
        plugin, _, key = path.partition(".")
        known = BUILT_IN[plugin].search.get(key) if plugin in BUILT_IN else None
        found = own.get(path)
        if found is None and known is not None and not (known.log and start <= 0):
            found = Range(min(known.low, start), max(known.high, start), known.log)
        if found is not None:
            rule = _rule(plugin, key)
            whole = rule.whole if rule else isinstance(start, int)
            yield Searched(plugin, key, start, found, whole)


def _rule(plugin: str, key: str) -> Number | None:
    number = BUILT_IN[plugin].rule.parameters.get(key) if plugin in BUILT_IN else None
    return number if isinstance(number, Number) else None


def _read(path: str, text: str, values: Mapping[str, float]) -> Range:
    """The range of one option; it must be well formed, allowed, and hold what the strategy has."""
    place = f"--search {path}"
    if path not in values:
        remedy = f"{suggestion(path, values)}there are {', '.join(values) or 'none'}"
        raise InputError.at(place, "the strategy has no such number", remedy)
    low_text, _, rest = text.partition(":")
    high_text, _, scale = rest.partition(":")
    try:
        low, high = float(low_text), float(high_text)
        sound = scale in ("", "log", "linear") and low < high < float("inf")
    except ValueError:
        sound = False
    if not sound:
        raise InputError.at(place, f"{text!r} is no range", SYNTAX)
    found = Range(low, high, log=scale == "log")
    for message, remedy in _faults(path, found, values[path]):
        raise InputError.at(place, message, remedy)
    return found


def _faults(path: str, found: Range, start: float) -> Iterator[tuple[str, str]]:
    """What is wrong with a range that is well formed."""
    rule = _rule(*path.split(".", 1)) or Number(least=float("-inf"))
    if found.log and found.low <= 0:
        yield f"a logarithmic range cannot begin at {found.low:g}", "begin it above 0"
    if found.low < rule.least or (rule.above and found.low == rule.least):
        bound = f"{'above' if rule.above else 'at least'} {rule.least:g}"
        yield f"it begins at {found.low:g}, but the parameter is {bound}", "begin it later"
    if rule.most is not None and found.high > rule.most:
        bound = f"but the parameter is at most {rule.most:g}"
        yield f"it ends at {found.high:g}, {bound}", "end it there"
    if rule.whole and not (found.low.is_integer() and found.high.is_integer()):
        yield "the parameter is a whole number", "give whole ends"
    if not found.low <= start <= found.high:
        problem = f"the strategy's own {start:g}, which is tried first, is not in it"
        yield problem, f"widen it, or begin elsewhere with --set {path}={found.low:g}"


def valued(strategy: Strategy, values: Mapping[str, float], name: str = "") -> Strategy:
    """A strategy with some of its plugins' parameters set, and perhaps another name."""
    plugins = {plugin: dict(given) for plugin, given in strategy.plugins.items()}
    for path, value in values.items():
        plugin, _, key = path.partition(".")
        plugins[plugin][key] = value
    return strategy.model_copy(update={"plugins": plugins, "name": name or strategy.name})


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One of the runs of every trial; ``offset`` counts the moments of the runs before it."""

    opened: OpenedScenario
    seed: int
    goal: Goal
    moments: tuple[Moment, ...]
    offset: int

    @property
    def scenario(self) -> str:
        """Name of its scenario."""
        return self.opened.scenario.name

    @property
    def end(self) -> Moment:
        """The last moment, whose value is the run's."""
        return self.moments[-1]


@dataclass(frozen=True, slots=True)
class Plan:
    """A search, whose first trial is the strategy as it is.

    ``trials`` are recorded at most, those of earlier calls among them, each of ``seeds`` runs on
    each scenario, with seeds from 0; ``seed`` is that of the search itself. With ``pruning`` a
    trial ends where it falls below the median of earlier ones. ``options`` are keyword arguments of
    :func:`continual_mm.runs.run.run_specified` that change no number.
    """

    scenarios: tuple[OpenedScenario, ...]
    strategy: Strategy
    searched: tuple[Searched, ...]
    out: Path
    trials: int
    seeds: int = 1
    metric: str = "recall_at_1"
    pruning: bool = True
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The scenarios' names."""
        return tuple(opened.scenario.name for opened in self.scenarios)

    @property
    def folder(self) -> Path:
        """Of the search; its runs are below ``trials``. Several names are joined by +."""
        return self.out / "+".join(self.names) / self.strategy.name

    @property
    def runs(self) -> int:
        """How many runs all trials have, if none is pruned."""
        return self.trials * self.seeds * len(self.scenarios)

    def trial_runs(self) -> tuple[TrialRun, ...]:
        """The runs of a trial in order: scenario by scenario, and for each seed by seed."""
        found: list[TrialRun] = []
        offset = 0
        for opened in self.scenarios:
            goal = Goal.of(opened.arrivals, self.metric)
            evaluated = tuple(moments(opened.arrivals))
            for seed in range(self.seeds):
                found.append(TrialRun(opened, seed, goal, evaluated, offset))
                offset += len(evaluated)
        return tuple(found)

    def task(
        self,
        name: str,
        values: Mapping[str, float],
        run: TrialRun,
        least: Mapping[Moment, float] | None = None,
    ) -> Task:
        """One run of a trial, which ends where its goal is below ``least``."""
        strategy = valued(self.strategy, values, name)
        options = {**self.options, "observers": (Pruner(run.goal, least or {}),)}
        # A search must not use test items, nor what is scored on them.
        scenario = run.opened.scenario.model_copy(update={"protocols": ()})
        opened = replace(run.opened, scenario=scenario, scored={})
        specification = Specification(opened, strategy, run.seed, split=SPLIT)
        return Task(specification, self.folder / "trials", options)

    def identity(self) -> dict[str, Any]:
        """All that the search's numbers follow from, save how many trials there are."""
        known = {
            opened.scenario.name: Specification(opened, self.strategy, self.seed).identity
            for opened in self.scenarios
        }
        found = dict(known[self.names[0]])
        if len(known) > 1:
            for part in ("scenario", "data"):
                found[part] = {name: each[part] for name, each in known.items()}
        ranges = {
            str(one): [one.start, one.range.low, one.range.high, one.range.log]
            for one in self.searched
        }
        own = {"seeds": self.seeds, "metric": self.metric, "pruning": self.pruning}
        return {**found, "searched": ranges, **own}

    def check(self) -> None:
        """Check that there is something to measure on each scenario."""
        problems = Problems()
        for opened in self.scenarios:
            goal = Goal.of(opened.arrivals, self.metric)
            place = f"scenario '{opened.scenario.name}'"
            if not (goal.old[-1] and goal.new[-1]):
                lacking = "old" if not goal.old[-1] else "new"
                message = f"the last stage has no {lacking} pairs, so there is nothing to weigh"
                remedy = "tune on one in which a modality arrives"
                problems.append(Problem(place, message, remedy))
            if opened.card.items[1] < 1:
                message = f"dataset '{opened.card.name}' has no validation items"
                remedy = "tuning uses no others: split some off"
                problems.append(Problem(place, message, remedy))
        problems.check()
