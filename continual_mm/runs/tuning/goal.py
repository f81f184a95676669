"""The goal of a search, on validation items only, and a pruner of runs that fall behind.

Imports no torch: a task carries its pruner from process to process.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from continual_mm.definitions.arrivals import Arrival, roles
from continual_mm.metrics.forgetting import harmonic_mean
from continual_mm.runs.history import Score, scores_of
from continual_mm.runs.reporter import Halt, HaltedError, Moment

if TYPE_CHECKING:
    from continual_mm.evaluation.pairs import Evaluation

SPLIT: Final = "validation"
"""The only items that choose numbers; those of the test split are for comparisons."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be large: the harmonic mean of old and new pairs, on validation items.

    ``metric`` is an attribute of a :class:`~continual_mm.runs.history.Score`; ``old`` and ``new``
    have the pairs of each 0-based stage that were trained before it, and first in it.
    """

    metric: str
    old: tuple[tuple[str, ...], ...]
    new: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, arrivals: Sequence[Arrival], metric: str) -> "Goal":
        """The goal on some stages; that of the last one is the run's."""
        known = [roles(arrivals[: stage + 1]) for stage in range(len(arrivals))]
        return cls(
            metric,
            old=tuple(tuple(map(str, one.old)) for one in known),
            new=tuple(tuple(map(str, one.new)) for one in known),
        )

    def values(self, scores: Iterable[Score]) -> dict[Moment, float]:
        """Moment -> value, as if its stage were the last one, for moments with a trained pair.

        Without old or new pairs it is the others' mean. Scores of other splits are ignored.
        """
        moments: dict[Moment, dict[str, list[float]]] = {}
        for score in scores:
            if score.split == SPLIT:
                by_pair = moments.setdefault((score.stage - 1, score.step), {})
                by_pair.setdefault(score.pair, []).append(getattr(score, self.metric))
        found = {moment: self._value(moment[0], pairs) for moment, pairs in moments.items()}
        return {moment: value for moment, value in found.items() if value is not None}

    def _value(self, stage: int, pairs: Mapping[str, Sequence[float]]) -> float | None:
        means = [
            fmean(fmean(pairs[pair]) for pair in chosen)
            for chosen in (self.old[stage], self.new[stage])
            if chosen
        ]
        return harmonic_mean(*means) if len(means) > 1 else next(iter(means), None)


def moments(arrivals: Sequence[Arrival]) -> list[Moment]:
    """When a run that trains stage by stage is evaluated, in order."""
    found: list[Moment] = []
    begun = 0
    for arrival in arrivals:
        every, steps = arrival.training.evaluate_every, arrival.training.steps
        inside = range(every, steps, every) if every else ()
        found += [(arrival.stage, begun + step) for step in (*inside, steps)]
        begun += steps
    return found


@dataclass(frozen=True, slots=True)
class Pruner:
    """Observer of a run that ends it where the goal falls below the least value of a moment."""

    goal: Goal
    least: Mapping[Moment, float] = field(default_factory=dict)

    def __call__(self, evaluation: "Evaluation", _gallery: Any) -> None:
        """End a run that fell behind with a :class:`~continual_mm.runs.reporter.HaltedError`."""
        if evaluation.split != SPLIT:
            return
        for moment, value in self.goal.values(scores_of(evaluation)).items():
            if value < self.least.get(moment, value):
                raise HaltedError(Halt(moment, value), self.least[moment])
