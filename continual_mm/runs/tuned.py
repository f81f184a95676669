"""What tuning found: as a table, as JSON, and as a strategy file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Strategy
from continual_mm.runs.files import written
from continual_mm.runs.judging import SPLIT

State = Literal["finished", "pruned", "diverged"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of values that was tried.

    Attributes:
        number: From 0, which is the strategy as its file has it.
        state: ``pruned`` if it fell behind the median of earlier ones, ``diverged`` if a number
            became NaN or infinite.
        value: Harmonic mean of old and new pairs, mean over seeds; None unless finished.
        values: ``plugin.parameter`` -> what was tried.
        name: Of its strategy, under which its runs lie.
        note: Where it was pruned or diverged; empty otherwise.
    """

    number: int
    state: State
    value: float | None
    values: Mapping[str, float]
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The trials until now.

    Attributes:
        scenario: Name of the scenario.
        strategy: The strategy as its file has it.
        metric: What is averaged, such as ``recall_at_1``.
        seeds: Runs of each trial.
        trials: By number.
        folder: Where they lie.
    """

    scenario: str
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

    def as_json(self) -> dict[str, Any]:
        """What ``tuning.json`` says: budget, best trial and every trial."""
        count = {
            state: sum(trial.state == state for trial in self.trials)
            for state in ("finished", "pruned", "diverged")
        }
        return {
            "scenario": self.scenario,
            "strategy": self.strategy.name,
            "metric": self.metric,
            "split": SPLIT,
            "seeds": self.seeds,
            "trials": len(self.trials),
            **count,
            "best": None if self.best is None else asdict(self.best),
            "tried": [asdict(trial) for trial in self.trials],
        }

    def as_rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of a table of the trials."""
        names = list(self.trials[0].values) if self.trials else []
        headings = ["trial", "state", f"{SPLIT} {self.metric}", *names, "note"]
        return headings, [
            [
                str(trial.number),
                trial.state + (" (best)" if trial is self.best else ""),
                "-" if trial.value is None else f"{trial.value:.4f}",
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


def check_target(path: Path, *, force: bool) -> None:
    """See whether a strategy may be written there.

    Raises:
        RefusedError: If it is no TOML file, or is there already and ``force`` is not given.
    """
    if path.suffix != ".toml":
        raise RefusedError(Complaint(str(path), "is no name of a strategy file", "end it in .toml"))
    if path.exists() and not force:
        remedy = "name another file, or add --force"
        raise RefusedError(Complaint(str(path), "is there already", remedy))


def write_strategy(tuned: Tuned, path: Path, *, force: bool = False) -> None:
    """Write the best values as a strategy file, with a line that says where they come from.

    Raises:
        RefusedError: As :func:`check_target`; or if no trial was finished.
    """
    check_target(path, force=force)
    best = tuned.best
    if best is None:
        raise RefusedError(Complaint(str(tuned.folder), "no trial was finished", "try more"))
    seeds = f"{tuned.seeds} seed{'s' if tuned.seeds > 1 else ''}"
    told = (
        f"# Tuned on {tuned.scenario}: best of {len(tuned.trials)} trials of {seeds} each (number "
        f"{best.number}), harmonic mean of {tuned.metric} on {SPLIT} items {best.value:.4f}."
    )
    with written(path) as temporary:
        temporary.write_text(f"{told}\n{as_toml(tuned.best_strategy)}", encoding="utf-8")


def as_toml(strategy: Strategy) -> str:
    """A strategy as the text of its file.

    >>> print(as_toml(Strategy(name="x", description="Two.", plugins={"ewc": {"weight": 1e-05}})))
    description = "Two."
    <BLANKLINE>
    [ewc]
    weight = 1e-05
    <BLANKLINE>
    """
    parts = [f"description = {_toml(strategy.description)}\n"]
    tables: dict[str, Mapping[str, Any]] = {}
    if strategy.memory is not None:
        tables["memory"] = strategy.memory.model_dump()
    tables |= strategy.plugins
    for name, said in tables.items():
        lines = [f"[{_key(name)}]", *(f"{_key(key)} = {_toml(v)}" for key, v in said.items())]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(v)}' for key, v in value.items())} }}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
