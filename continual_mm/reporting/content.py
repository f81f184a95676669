"""What a report shows: a comparison, and of each strategy its runs, why it forgot, what it is."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual_mm.comparison.collect import collect, grouped
from continual_mm.comparison.compare import Comparison, compared
from continual_mm.comparison.estimates import metric_named
from continual_mm.runs.finished import FinishedRun
from continual_mm.runs.folder import DEFINITION, VERSIONS
from continual_mm.runs.why import Reasons, reasons_of
from continual_mm.system.errors import InputError
from continual_mm.system.files import read_json


@dataclass(frozen=True, slots=True)
class StrategyContent:
    """A strategy of a scenario: the folders of its runs, and of the first one what is known more.

    ``reasons`` are None where nothing is recorded of old pairs, ``definition`` and ``versions``
    empty where runs were exported.
    """

    folders: tuple[Path, ...]
    seed: int
    reasons: Reasons | None
    definition: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Content:
    """Everything in a report; strategies by scenario and name."""

    comparison: Comparison
    strategies: Mapping[str, Mapping[str, StrategyContent]]


def content_of(folders: Iterable[Path], *, metric: str, baseline: str) -> Content:
    """Read the finished runs at or below some folders.

    Raises:
        InputError: If there is no finished run, or runs do not go together.
    """
    runs, left_out = collect(folders)
    groups = grouped(runs)
    name = metric_named(metric)
    found = compared(groups, name, baseline=baseline, directions=False, left_out=left_out)
    return Content(
        found,
        {
            scenario: {strategy: _strategy(of) for strategy, of in strategies.items()}
            for scenario, strategies in groups.items()
            if scenario in found.reports
        },
    )


def _strategy(runs: Sequence[FinishedRun]) -> StrategyContent:
    first = runs[0]
    reasons, definition, versions = None, {}, {}
    with suppress(InputError):
        reasons = reasons_of(first.folder)
    with suppress(InputError, OSError):
        definition = read_json(first.folder / DEFINITION)
        versions = read_json(first.folder / VERSIONS)
    folders = tuple(run.folder for run in runs)
    return StrategyContent(folders, first.seed, reasons, definition, versions)
