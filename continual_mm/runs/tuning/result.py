"""What tuning found: as a table, as JSON, and as a strategy file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tomlkit
from tomlkit.items import Table

from continual_mm.definitions.reading import BOUNDS
from continual_mm.definitions.scenario import Strategy
from continual_mm.runs.tuning.goal import SPLIT
from continual_mm.runs.tuning.plan import Plan, valued
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write

TUNED = "# Tuned on "
"""The beginning of the line on the origin of the values; a newer one replaces it."""


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a file that is no TOML file, or is there already where ``force`` is not given."""
    if path.suffix != ".toml":
        raise InputError.at(path, "is no name of a strategy file", "end it in .toml")
    if path.exists() and not force:
        raise InputError.at(path, "is there already", "name another file, or add --force")


def rewritten(text: str, strategy: Strategy) -> str:
    r"""The text of a strategy's file with other values of its plugins; comments are kept.

    The line on an earlier tuning is left out.

    >>> ewc = Strategy(name="ewc", plugins={"ewc": {"weight": 2.5}})
    >>> print(rewritten("[ewc]  # By hand.\nweight = 1.0  # Held.\n", ewc), end="")
    [ewc]  # By hand.
    weight = 2.5  # Held.
    """
    lines = text.splitlines(keepends=True)
    document = tomlkit.parse("".join(line for line in lines if not line.startswith(TUNED)))
    for name, values in _tables(strategy).items():
        table = document.setdefault(name, tomlkit.table())
        for key, value in values.items():
            _set(table, key, value)
    return tomlkit.dumps(document)


def _set(table: Table, key: str, value: Any) -> None:
    """Set a value; a new one follows the last, before comments on the next table."""
    known = list(table)
    if key in table:
        if table[key] != value:
            table[key] = value
    elif known:
        table.value._insert_after(known[-1], key, tomlkit.item(value))
    else:
        table.append(key, value)


def as_toml(strategy: Strategy) -> str:
    """A strategy as the text of its file.

    >>> print(as_toml(Strategy(name="x", description="Two.", plugins={"ewc": {"weight": 1e-05}})))
    description = "Two."
    <BLANKLINE>
    [ewc]
    weight = 1e-05
    <BLANKLINE>
    """
    bounds = {key: True for key in BOUNDS if getattr(strategy, key)}
    return tomlkit.dumps({"description": strategy.description, **bounds, **_tables(strategy)})


def _tables(strategy: Strategy) -> dict[str, Mapping[str, Any]]:
    memory = {} if strategy.memory is None else {"memory": strategy.memory.model_dump()}
    return {**memory, **strategy.plugins}


State = Literal["finished", "pruned", "diverged"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of values that was tried; number 0 is the strategy as its file has it.

    The note says where it fell behind the median of earlier ones, or diverged. ``value`` is the
    harmonic mean of old and new pairs, mean over scenarios and seeds, None unless finished.
    ``values`` are by ``plugin.parameter``; its runs lie under ``name``.
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
    """The trials of a search until now, by number."""

    plan: Plan
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The finished trial of the largest value, the earlier one among equal ones."""
        finished = [trial for trial in self.trials if trial.value is not None]
        return max(finished, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials there are of each state."""
        known = Counter(trial.state for trial in self.trials)
        return {state: known[state] for state in get_args(State)}

    def as_json(self) -> dict[str, Any]:
        """The contents of ``tuning.json``: budget, best trial and every trial."""
        return {
            "scenarios": list(self.plan.names),
            "strategy": self.plan.strategy.name,
            "metric": self.plan.metric,
            "split": SPLIT,
            "seeds": self.plan.seeds,
            "trials": len(self.trials),
            **self.counts,
            "best": None if self.best is None else asdict(self.best),
            "tried": [asdict(trial) for trial in self.trials],
        }

    def as_rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of a table of the trials."""
        names = list(self.trials[0].values) if self.trials else []
        each = self.plan.names if len(self.plan.names) > 1 else ()
        headings = [
            "trial",
            "state",
            f"harmonic mean, {SPLIT} {self.plan.metric}",
            *each,
            *names,
            "note",
        ]
        return headings, [
            [
                str(trial.number),
                trial.state + (" (best)" if trial is self.best else ""),
                _shown(trial.value),
                *(_shown(trial.by_scenario.get(scenario)) for scenario in each),
                *(f"{trial.values[name]:.4g}" for name in names),
                trial.note,
            ]
            for trial in self.trials
        ]


def write_strategy(tuned: Tuned, path: Path, *, force: bool = False, text: str = "") -> None:
    """Write the best values as a strategy file, keeping comments in its own ``text``, if any."""
    check_target(path, force=force)
    if tuned.best is None:
        raise InputError.at(tuned.plan.folder, "no trial was finished", "try more")
    best = valued(tuned.plan.strategy, tuned.best.values)
    strategy = rewritten(text, best) if text else as_toml(best)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{provenance(tuned, tuned.best)}\n{strategy}", encoding="utf-8")


def provenance(tuned: Tuned, best: Trial) -> str:
    """The comment on where values come from, and what they gained."""
    counts = ", ".join(f"{count} {state}" for state, count in tuned.counts.items() if count)
    plan = tuned.plan
    seeds = f"{plan.seeds} seed{'s' if plan.seeds > 1 else ''}"
    first = next((trial for trial in tuned.trials if trial.number == 0), None)
    start = "diverged" if first is None or first.value is None else f"came to {first.value:.4f}"
    return (
        f"# Tuned on {' + '.join(plan.names)}: best of {len(tuned.trials)} trials of {seeds} "
        f"each ({counts}), number {best.number}, harmonic mean of {plan.metric} on {SPLIT} items "
        f"{best.value:.4f}; the values that it began with {start}."
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
