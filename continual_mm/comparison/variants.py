"""Runs of one name and several definitions: told apart by what differs in these."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from continual_mm.runs.finished import FinishedRun
from continual_mm.system import files
from continual_mm.system.errors import Problem, Problems, first_few

SHOWN = 4
"""Settings in a name; where more differ the name has the folder instead."""

Flat = Mapping[str, Any]  # dotted key -> value
_LONGEST = 30  # characters of a setting in a name, on average
_ABSENT = "default"  # what a setting is called that a definition lacks
_USED = ("used",)  # stands for a plugin among settings


def named_apart(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs, with what differs behind names of scenarios and strategies that say too little.

    Two values of one number become ``transport weight=1`` and ``transport weight=10``. Scenarios
    whose data or pairs differ are refused, for nothing of theirs can be compared.
    """
    problems = Problems()
    named: list[FinishedRun] = []
    for one in _by(runs, lambda run: run.scenario):
        variants = _by(one, task_of)
        for problem in _of_other_data(variants):
            problems.append(problem)
        settings = [_settings(variant[0].task) for variant in variants]
        for name, variant in zip(_names(variants, settings, ""), variants, strict=True):
            for strategy in _by(variant, lambda run: run.strategy):
                kinds = _by(strategy, protection_of)
                said = [_parameters(kind[0].protection) for kind in kinds]
                own = _names(kinds, said, f"{strategy[0].strategy}.")
                for label, kind in zip(own, kinds, strict=True):
                    named += [replace(run, scenario=name, strategy=label) for run in kind]
    problems.check()
    return named


def task_of(run: FinishedRun) -> str:
    """Text that is equal for runs of the same task: scenario, data and pairs."""
    return _canonical(run.task, off=("scenario",))


def protection_of(run: FinishedRun) -> str:
    """Text that is equal for runs whose strategy is defined in the same way."""
    return _canonical(run.protection)


def definition_of(run: FinishedRun) -> tuple[str, str]:
    """Equal for runs that only differ in their seed."""
    return task_of(run), protection_of(run)


def same_numbers(first: FinishedRun, second: FinishedRun) -> bool:
    """Whether two runs found the same, rank by rank and answer by answer."""
    return (
        first.memory_bytes == second.memory_bytes
        and _equal(first.ranked, second.ranked, "rows", "ranks")
        and _equal(first.judged, second.judged, "units", "values")
    )


def _equal(first: Mapping[Any, Any], second: Mapping[Any, Any], *arrays: str) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(getattr(first[key], name), getattr(second[key], name), equal_nan=True)
        for key in first
        for name in arrays
    )


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys below which two definitions differ."""
    yield from (where for where, *_ in files.differing(first, second, off=("scenario",)))


def _canonical(value: Any, off: Sequence[str] = ()) -> str:
    """JSON without what is as good as missing, as :func:`files.differing` takes it."""

    def lean(inner: Any, empty: bool) -> Any:
        if isinstance(inner, Mapping):
            found = {k: lean(v, empty or k in off) for k, v in sorted(inner.items())}
            return {k: v for k, v in found.items() if v is not None and not (empty and not v)}
        return [lean(v, empty) for v in inner] if isinstance(inner, list | tuple) else inner

    return json.dumps(lean(value, False))


def _by(runs: Sequence[FinishedRun], key: Callable[[FinishedRun], str]) -> list[list[FinishedRun]]:
    found: dict[str, list[FinishedRun]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return list(found.values())


def _of_other_data(variants: Sequence[Sequence[FinishedRun]]) -> Iterator[Problem]:
    (first, *_), *others = variants
    for other, *_ in others:
        keys = [key for key in differing(first.task, other.task) if key.partition(".")[0] in _FIXED]
        if keys:
            message = f"scenario '{other.scenario}' is not that of {first.folder}"
            problem = f"{message}: {first_few(keys)} differ"
            yield Problem(str(other.folder), problem, "compare them separately")


_FIXED = ("data", "pairs")


def _settings(task: Mapping[str, Any]) -> Flat:
    """A scenario's settings as ``--set`` names them, and the split that was ranked."""
    scenario = dict(task["scenario"])
    stages = dict(enumerate(scenario.pop("stages", None) or (), start=1))
    towers = scenario.pop("towers", None) or {}
    split = task.get("split", "test")
    return dict(_flat({**scenario, "stage": stages, "tower": towers, "split": split}))


def _parameters(protection: Mapping[str, Any]) -> Flat:
    """A strategy's settings as ``--set`` names them, and each plugin that it has."""
    plugins = protection.get("plugins") or {}
    given = {key: value for key, value in protection.items() if key != "plugins"}
    return dict.fromkeys(plugins, _USED) | dict(_flat(given)) | dict(_flat(plugins))


def _flat(value: Mapping[Any, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{start}{key}.")
        elif inner is not None:
            yield f"{start}{key}", list(inner) if isinstance(inner, tuple) else inner


def _names(variants: Sequence[Sequence[FinishedRun]], given: Sequence[Flat], own: str) -> list[str]:
    """A name for each variant; ``own`` is where settings lie that go without their table's name."""
    first = variants[0][0]
    name = first.strategy if own else first.scenario
    if len(variants) == 1:
        return [name]
    keys = [
        key for key in dict.fromkeys(key for one in given for key in one) if _varies(key, given)
    ]
    labels = [" ".join([name, *_said(one, keys, given, own)]) for one in given]
    brief = len(keys) <= SHOWN and max(map(len, labels)) <= len(name) + SHOWN * _LONGEST
    if brief and len(set(labels)) == len(labels):
        return labels
    return [f"{name} ({one[0].folder.parents[0 if own else 1]})" for one in variants]


def _varies(key: str, given: Sequence[Flat]) -> bool:
    """Whether a setting differs; one that is off is as good as missing."""
    return any(one.get(key) != given[0].get(key) for one in given) and any(map(_on(key), given))


def _on(key: str) -> Callable[[Flat], bool]:
    return lambda given: bool(given.get(key))


def _said(given: Flat, keys: Sequence[str], every: Sequence[Flat], own: str) -> Iterator[str]:
    """What differs in one definition."""
    for key in keys:
        plugin = key.rpartition(".")[0]
        if any(one.get(key) == _USED for one in every):
            yield f"{'with' if key in given else 'without'} {key}"
        elif plugin not in keys or plugin in given:
            yield f"{key.removeprefix(own)}={_shown(given.get(key, _ABSENT))}"


def _shown(value: Any) -> str:
    """A value as a definition has it.

    >>> _shown(1.0), _shown(0.1), _shown(True), _shown(["audio", "video"])
    ('1', '0.1', 'true', 'audio+video')
    """
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    if isinstance(value, list):
        return "+".join(map(_shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
