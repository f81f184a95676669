"""The result of a protocol at a stage's end, and its record in ``scores.json``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from continual_mm.metrics.answers import Answers


@dataclass(frozen=True, slots=True)
class ProtocolScore:
    """One protocol at the end of one 1-based stage.

    ``step`` counts optimiser steps over all stages until then; ``expected`` is how many queries the
    published protocol has, more where items are missing. ``measures`` are recalls and accuracies as
    fractions and ranks from 1, NaN or infinite where undefined; for ``steps``, ``tasks`` has the
    recall and average precision of each task. ``old_path`` is the weight of the path through an
    older tower, where there is one.
    """

    name: str
    kind: str
    stage: int
    step: int
    queries: int
    expected: int
    measures: Mapping[str, float]
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    old_path: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The score as ``scores.json`` has it; null for what is not finite."""
        record = {**asdict(self), "measures": _plain(self.measures)}
        tasks = {name: _plain(measures) for name, measures in record.pop("tasks").items()}
        if self.old_path is None:
            del record["old_path"]
        return {**record, "tasks": tasks} if tasks else record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ProtocolScore":
        """Read what :meth:`as_json` wrote; what was not finite is NaN."""
        tasks = {name: _numbers(measures) for name, measures in record.get("tasks", {}).items()}
        return cls(**{**record, "measures": _numbers(record["measures"]), "tasks": tasks})


def _plain(measures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}


def _numbers(measures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in measures.items()}


@dataclass(frozen=True, slots=True)
class Judged:
    """A score, and the answers of every query that it sums up, by series."""

    score: ProtocolScore
    answers: Mapping[str, Answers]
