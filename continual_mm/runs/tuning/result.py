"""What tuning found: as a table, as JSON, and as a strategy file."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from continual_mm.definitions.reading import BOUNDS, read_strategy
from continual_mm.definitions.scenario import Strategy
from continual_mm.plugins.registry import rules
from continual_mm.runs.tuning.goal import SPLIT
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import atomic_write

TUNED = "# Tuned on "
"""How the line begins that says where values come from; a newer one replaces it."""

_TABLE = re.compile(r"\s*\[\s*(?P<name>[\w-]+)\s*\]\s*(#.*)?")
_KEY = re.compile(r"\s*(?P<key>[\w-]+)\s*=\s*(?P<number>[-+.\w]+(?=\s*(#|$)))?")

Tables = Mapping[str, Mapping[str, Any]]


def check_target(path: Path, *, force: bool) -> None:
    """See whether a strategy may be written there.

    Raises:
        InputError: If it is no TOML file, or is there already and ``force`` is not given.
    """
    if path.suffix != ".toml":
        raise InputError(Problem(str(path), "is no name of a strategy file", "end it in .toml"))
    if path.exists() and not force:
        remedy = "name another file, or add --force"
        raise InputError(Problem(str(path), "is there already", remedy))


def rewritten(text: str, strategy: Strategy) -> str:
    r"""A strategy in the words of the file that it had: its numbers change, all else is kept.

    The line on an earlier tuning is left out. Where numbers alone do not make the file that
    strategy, or a number is not on a line of its own, it is written from scratch.

    >>> ewc = Strategy(name="ewc", plugins={"ewc": {"weight": 2.5}})
    >>> print(rewritten("[ewc]  # By hand.\nweight = 1.0  # Held.\n", ewc), end="")
    [ewc]  # By hand.
    weight = 2.5  # Held.
    """
    lines = [line for line in text.splitlines() if not line.startswith(TUNED)]
    kept = "\n".join(_renumbered(lines, _tables(strategy))) + "\n"
    return kept if _says(kept, strategy) else as_toml(strategy)


def _renumbered(lines: Sequence[str], tables: Tables) -> list[str]:
    """Lines with the numbers of their tables; what a table lacks follows its last line."""
    found: list[str] = []
    last = 0
    left: dict[str, Any] = {}
    for line in lines:
        if head := _TABLE.fullmatch(line):
            found[last:last] = _assignments(left)
            left = dict(tables.get(head["name"], {}))
        said = _KEY.match(line)
        value = left.pop(said["key"], None) if said else None
        if said and said["number"] and value is not None:
            begin, end = said.span("number")
            found.append(f"{line[:begin]}{_toml(value)}{line[end:]}")
        else:
            found.append(line)
        if line.strip() and not line.startswith("#"):
            last = len(found)
    found[last:last] = _assignments(left)
    return found


def _says(text: str, strategy: Strategy) -> bool:
    """Whether a file with this text is that strategy."""
    try:
        document = tomllib.loads(text)
        read = read_strategy(document, name=strategy.name, file="", rules=rules(document))
    except (tomllib.TOMLDecodeError, InputError):
        return False
    return read == strategy


def as_toml(strategy: Strategy) -> str:
    """A strategy as the text of its file.

    >>> print(as_toml(Strategy(name="x", description="Two.", plugins={"ewc": {"weight": 1e-05}})))
    description = "Two."
    <BLANKLINE>
    [ewc]
    weight = 1e-05
    <BLANKLINE>
    """
    bounds = "".join(f"{key} = true\n" for key in BOUNDS if getattr(strategy, key))
    parts = [f"description = {_toml(strategy.description)}\n{bounds}"]
    for name, said in _tables(strategy).items():
        parts.append("\n".join([f"[{_key(name)}]", *_assignments(said)]) + "\n")
    return "\n".join(parts)


def _tables(strategy: Strategy) -> Tables:
    memory = {} if strategy.memory is None else {"memory": strategy.memory.model_dump()}
    return {**memory, **strategy.plugins}


def _assignments(said: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml(value)}" for key, value in said.items()]


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(v)}' for key, v in value.items())} }}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


State = Literal["finished", "pruned", "diverged"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of values that was tried.

    Attributes:
        number: From 0, which is the strategy as its file has it.
        state: ``pruned`` if it fell behind the median of earlier ones, ``diverged`` if a number
            became NaN or infinite.
        value: Harmonic mean of old and new pairs, mean over scenarios and seeds; None unless
            finished.
        values: ``plugin.parameter`` -> what was tried.
        name: Of its strategy, under which its runs lie.
        note: Where it was pruned or diverged; empty otherwise.
        by_scenario: Scenario -> what the value is the mean of.
    """

    number: int
    state: State
    value: float | None
    values: Mapping[str, float]
    name: str
    note: str = ""
    by_scenario: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tuned:
    """The trials until now.

    Attributes:
        scenarios: Names of the scenarios.
        strategy: The strategy as its file has it.
        metric: What is averaged, such as ``recall_at_1``.
        seeds: Runs of each trial on each scenario.
        trials: By number.
        folder: Where they lie.
    """

    scenarios: tuple[str, ...]
    strategy: Strategy
    metric: str
    seeds: int
    trials: tuple[Trial, ...]
    folder: Path

    @property
    def best(self) -> Trial | None:
        """The finished trial of the largest value, the earlier one among equal ones."""
        finished = [trial for trial in self.trials if trial.value is not None]
        return max(finished, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def best_strategy(self) -> Strategy:
        """The strategy with the best trial's values; as it is, if no trial was finished."""
        return self.strategy if self.best is None else valued(self.strategy, self.best.values)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials there are of each state."""
        known = Counter(trial.state for trial in self.trials)
        return {state: known[state] for state in get_args(State)}

    def as_json(self) -> dict[str, Any]:
        """What ``tuning.json`` says: budget, best trial and every trial."""
        return {
            "scenarios": list(self.scenarios),
            "strategy": self.strategy.name,
            "metric": self.metric,
            "split": SPLIT,
            "seeds": self.seeds,
            "trials": len(self.trials),
            **self.counts,
            "best": None if self.best is None else asdict(self.best),
            "tried": [asdict(trial) for trial in self.trials],
        }

    def as_rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of a table of the trials."""
        names = list(self.trials[0].values) if self.trials else []
        each = self.scenarios if len(self.scenarios) > 1 else ()
        headings = ["trial", "state", f"{SPLIT} {self.metric}", *each, *names, "note"]
        return headings, [
            [
                str(trial.number),
                trial.state + (" (best)" if trial is self.best else ""),
                _told(trial.value),
                *(_told(trial.by_scenario.get(scenario)) for scenario in each),
                *(f"{trial.values[name]:.4g}" for name in names),
                trial.note,
            ]
            for trial in self.trials
        ]


def valued(strategy: Strategy, values: Mapping[str, float], name: str = "") -> Strategy:
    """A strategy with some of its plugins' parameters set, and perhaps another name."""
    plugins = {plugin: dict(said) for plugin, said in strategy.plugins.items()}
    for path, value in values.items():
        plugin, _, key = path.partition(".")
        plugins[plugin][key] = value
    return strategy.model_copy(update={"plugins": plugins, "name": name or strategy.name})


def write_strategy(tuned: Tuned, path: Path, *, force: bool = False, text: str = "") -> None:
    """Write the best values as a strategy file, with a line that says where they come from.

    Args:
        tuned: The trials.
        path: Where to.
        force: Whether a file that is there may be replaced.
        text: That of the strategy's own file, whose comments are kept.

    Raises:
        InputError: As :func:`~continual_mm.runs.tuning.result.check_target`; or if no trial was
            finished.
    """
    check_target(path, force=force)
    if tuned.best is None:
        raise InputError(Problem(str(tuned.folder), "no trial was finished", "try more"))
    strategy = rewritten(text, tuned.best_strategy)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{provenance(tuned, tuned.best)}\n{strategy}", encoding="utf-8")


def provenance(tuned: Tuned, best: Trial) -> str:
    """The comment on where values come from, and what they gained."""
    counts = ", ".join(f"{count} {state}" for state, count in tuned.counts.items() if count)
    seeds = f"{tuned.seeds} seed{'s' if tuned.seeds > 1 else ''}"
    first = next((trial for trial in tuned.trials if trial.number == 0), None)
    start = "diverged" if first is None or first.value is None else f"came to {first.value:.4f}"
    return (
        f"# Tuned on {' + '.join(tuned.scenarios)}: best of {len(tuned.trials)} trials of {seeds} "
        f"each ({counts}), number {best.number}, harmonic mean of {tuned.metric} on {SPLIT} items "
        f"{best.value:.4f}; the values that it began with {start}."
    )


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
