"""Recall over optimiser steps, inside stages too, and how deep it fell. Needs no torch."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from continual_mm.metrics.stability import stability_gap, worst_score


class Scored(Protocol):
    """One direction of one pair at one moment, as a run writes it; stages count from 1."""

    @property
    def stage(self) -> int:
        """1-based stage."""

    @property
    def step(self) -> int:
        """Optimiser steps over all stages until then."""

    @property
    def final(self) -> bool:
        """Whether the stage was finished."""

    @property
    def split(self) -> str:
        """What the items were for."""

    @property
    def pair(self) -> str:
        """Such as ``audio-video``."""

    @property
    def recall_at_1(self) -> float | None:
        """A fraction; None where there was no query."""


class Point(NamedTuple):
    """A pair at one moment.

    Attributes:
        stage: 1-based stage.
        step: Optimiser steps over all stages until then.
        final: Whether the stage was finished.
        recall: R@1 as a fraction, both directions averaged.
    """

    stage: int
    step: int
    final: bool
    recall: float


class Stability(NamedTuple):
    """Old pairs during the last stage, mean over pairs; NaN unless there were looks inside it.

    Attributes:
        worst: R@1 at each pair's worst moment.
        gap: How far that lies below the end of the stage before.
    """

    worst: float
    gap: float


def curve(scores: Iterable[Scored], pair: str, *, split: str) -> list[Point]:
    """A pair at every evaluation, in order of time."""
    found: dict[tuple[int, int, bool], list[float]] = {}
    for score in scores:
        if (score.pair, score.split) == (pair, split) and score.recall_at_1 is not None:
            moment = (score.stage, score.step, score.final)
            found.setdefault(moment, []).append(score.recall_at_1)
    return [Point(*moment, float(np.mean(values))) for moment, values in sorted(found.items())]


def stability(
    scores: Sequence[Scored], pairs: Sequence[str], *, stages: int, split: str
) -> Stability:
    """How some old pairs got through the last stage.

    Args:
        scores: Every evaluation.
        pairs: The old pairs.
        stages: Number of stages.
        split: ``validation`` or ``test``.
    """
    known = [curve(scores, pair, split=split) for pair in pairs]
    before = [[p.recall for p in points if p.final and p.stage == stages - 1] for points in known]
    within = [[p.recall for p in points if p.stage == stages] for points in known]
    if not pairs or not all(before) or len({len(moments) for moments in within}) > 1:
        return Stability(np.nan, np.nan)
    table = np.array(within).T
    gap = stability_gap([ends[-1] for ends in before], table)
    return Stability(float(worst_score(table).mean()), float(gap.mean()))
