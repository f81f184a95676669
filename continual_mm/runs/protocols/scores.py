"""What a protocol found at a stage's end, as it is kept."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from continual_mm.metrics.answers import Answers


@dataclass(frozen=True, slots=True)
class ProtocolScore:
    """One protocol at the end of one stage.

    Attributes:
        name: The protocol's name.
        kind: The protocol's kind.
        stage: 1-based stage.
        step: Optimiser steps over all stages until then.
        queries: Questions that were asked.
        expected: Questions that the published protocol asks; more, where items are missing.
        measures: Name -> value: recalls and accuracies as fractions, ranks counted from 1; NaN or
            infinite where undefined.
    """

    name: str
    kind: str
    stage: int
    step: int
    queries: int
    expected: int
    measures: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """The score as ``scores.json`` has it; null for what is not finite."""
        known = {
            name: value if math.isfinite(value) else None for name, value in self.measures.items()
        }
        return {**asdict(self), "measures": known}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ProtocolScore":
        """Read what :meth:`as_json` wrote; what was not finite is NaN."""
        known = {
            name: math.nan if value is None else value for name, value in record["measures"].items()
        }
        return cls(**{**record, "measures": known})


@dataclass(frozen=True, slots=True)
class Judged:
    """A score, and the answers of every query that it sums up, by series."""

    score: ProtocolScore
    answers: Mapping[str, Answers]
