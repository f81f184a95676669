"""What a run measured: scores by stage and pair, and what follows from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from continual_mm.definitions.arrivals import Arrival, Roles, births, roles
from continual_mm.definitions.coverage import HANDFUL
from continual_mm.definitions.modality import Pair
from continual_mm.metrics import forgetting
from continual_mm.metrics.forgetting import stability_gap, worst_score
from continual_mm.runs import records
from continual_mm.runs.reporter import percent
from continual_mm.system.arguments import checked_class
from continual_mm.system.notebook import html_table

if TYPE_CHECKING:
    from continual_mm.evaluation.diagnosis import Diagnosis
    from continual_mm.evaluation.drift import Geometry
    from continual_mm.evaluation.indexes import IndexScore
    from continual_mm.evaluation.pairs import Evaluation
    from continual_mm.evaluation.scores import ProtocolScore
    from continual_mm.space.space import JointSpace

Floats = NDArray[np.float64]
Cost = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Score:
    """One direction of one pair at one moment; recalls are fractions.

    ``stage`` and ``median_rank`` count from 1, ``step`` over all stages; ``final`` says that the
    stage was finished. ``split`` is ``validation`` or ``test``, ``pair`` ``audio-video``,
    ``direction`` ``audio to video`` (query, gallery); ``gallery`` is how many answers there are,
    ``chance`` R@1 of a random order.
    """

    stage: int
    step: int
    final: bool
    split: str
    pair: str
    direction: str
    queries: int
    chance: float
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    mean_reciprocal_rank: float
    gallery: int = 0  # 0 where it is as large as there are queries

    def as_json(self) -> dict[str, Any]:
        """The score as ``scores.json`` has it: ``recall@1`` and so on."""
        record = {key.replace("recall_at_", "recall@"): v for key, v in asdict(self).items()}
        return record if self.gallery else {k: v for k, v in record.items() if k != "gallery"}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Score":
        """Read what :meth:`as_json` wrote."""
        return cls(**{key.replace("recall@", "recall_at_"): v for key, v in record.items()})


Scored = Score | records.Score
"""A score of this process, or one read from a file."""


class Point(NamedTuple):
    """R@1 of a pair at one moment, both directions averaged; the stage counts from 1."""

    stage: int
    step: int
    final: bool
    recall: float


class Stability(NamedTuple):
    """Old pairs' R@1 in the last stage at their worst moment, and how far below the stage before.

    Both are means over pairs, and NaN without an evaluation inside the stage.
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
    """How some old pairs got through the last of some stages."""
    known = [curve(scores, pair, split=split) for pair in pairs]
    before = [[p.recall for p in points if p.final and p.stage == stages - 1] for points in known]
    within = [[p.recall for p in points if p.stage == stages] for points in known]
    if not pairs or not all(before) or len({len(moments) for moments in within}) > 1:
        return Stability(np.nan, np.nan)
    table = np.array(within).T
    gap = stability_gap([ends[-1] for ends in before], table)
    return Stability(float(worst_score(table).mean()), float(gap.mean()))


NEAR_CHANCE = 0.4
"""Share of the list behind which a median right answer counts as near chance, which is half."""


def near_chance(scores: Iterable[Scored], pairs: Iterable[str], stage: int) -> dict[str, float]:
    """Pairs that are near chance on validation items at the end of a 1-based stage.

    With each comes where its median right answer stands, as a share of the list, both directions
    averaged; 0.5 is chance, also where a query has several right answers.
    """
    places: dict[str, list[float]] = {pair: [] for pair in pairs}
    for score in scores:
        here = score.final and score.stage == stage and score.split == "validation"
        if here and score.pair in places and score.queries >= HANDFUL and score.median_rank:
            listed = score.gallery or score.queries
            # Of r right answers in a random order the best one stands before this share of the
            # list in half of all cases.
            right = max(1.0, round(score.chance * listed, 6))
            half = 1 - 0.5 ** (1 / right)
            places[score.pair].append((score.median_rank - 0.5) / listed * (0.5 / half))
    means = {pair: float(np.mean(found)) for pair, found in places.items() if found}
    return {pair: mean for pair, mean in means.items() if mean > NEAR_CHANCE}


def scores_of(evaluation: "Evaluation") -> list[Score]:
    """The scores of an evaluation, pair by pair and direction by direction."""
    return [
        Score(
            stage=evaluation.stage + 1,
            step=evaluation.step,
            final=evaluation.final,
            split=evaluation.split,
            pair=str(found.pair),
            direction=" to ".join(direction),
            queries=len(found.asked(direction)),
            gallery=found.gallery.get(direction, 0),
            chance=found.chance[direction],
            **{k.replace("@", "_at_"): v for k, v in found.scores(direction).items()},
        )
        for found in evaluation.pairs
        for direction in found.pair.directions
    ]


@checked_class
@dataclass(slots=True)
class History:
    """The scores of a run, and the space that it trained.

    Attributes:
        arrivals: The stages.
        space: The trained space.
        scores: Every evaluation, in order of time.
        split: Whose scores the results are, ``test``; in a search, which must not look at test
            items, ``validation``. The methods below take it if none is named.
        geometry: How the space moved, at every evaluation of these items.
        diagnosis: What became of old pairs, and why, at each of these after the first stage.
        protocols: What the scenario's protocols found at stage ends.
        choices: What plugins decided at stage ends, and the figures behind it.
        indexes: How queries fare in an index of all modalities, and in one of the stage before.
        cost: What the run has taken, as ``cost.json`` has it: ``seconds`` of all processes,
            ``steps``, ``step_seconds`` (median of the last stage), ``memory_items`` and
            ``memory_bytes`` kept of the past, ``recalled_rows`` trained again, ``parameters``,
            ``peak_memory_bytes`` of the process or accelerator while it was at the run, None where
            the system does not tell it, ``device``, and ``vector_size``, the numbers of an item.
        items: 0-based stage -> pair that it trains -> its training items that have both modalities.
    """

    arrivals: Sequence[Arrival]
    space: "JointSpace"
    scores: list[Score] = field(default_factory=list)
    split: str = "test"
    geometry: "list[Geometry]" = field(default_factory=list)
    diagnosis: "list[Diagnosis]" = field(default_factory=list)
    protocols: "list[ProtocolScore]" = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    indexes: "list[IndexScore]" = field(default_factory=list)
    cost: Cost = field(default_factory=dict)
    items: Mapping[int, Mapping[Pair, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Its stages, and R@1 of every pair after the last one."""
        stages = " then ".join("+".join(one.name for one in each.added) for each in self.arrivals)
        last = zip(self.births, self.matrix()[-1].tolist(), strict=True)
        scores = ", ".join(f"{pair} {percent(value)}" for pair, value in last)
        return f"History({stages}; R@1 in % on {self.split} items: {scores})"

    def _repr_html_(self) -> str:
        table = self.matrix()
        roles = self.roles.by_pair
        headings = ("pair", "role", *(f"stage {each.stage + 1}" for each in self.arrivals))
        rows = [
            (pair, roles.get(pair, ""), *map(percent, column))
            for pair, column in zip(self.births, table.T.tolist(), strict=True)
        ]
        told = ", ".join(f"{name} {percent(value)}" for name, value in self.headline().items())
        return html_table(f"R@1 in %, {self.split} items", headings, rows, below=told)

    @property
    def unscored(self) -> tuple[Pair, ...]:
        """Pairs that no stage trains and no item scored has both modalities of."""
        return self.arrivals[-1].unscored

    @property
    def roles(self) -> Roles:
        """Old, new and emergent pairs of the scenario."""
        return roles(self.arrivals)

    @property
    def births(self) -> dict[Pair, int]:
        """Pair -> 0-based stage at which both its modalities were there."""
        return births(self.arrivals)

    def matrix(self, *, split: str = "", metric: str = "recall_at_1") -> Floats:
        """(stages, pairs) a score at stage ends, directions averaged; NaN where there is none.

        Pairs are in the order of :attr:`births`.
        """
        columns = {str(pair): column for column, pair in enumerate(self.births)}
        both: dict[tuple[int, int], list[float]] = {}
        for score in self.scores:
            if score.final and score.split == (split or self.split) and score.pair in columns:
                cell = (score.stage - 1, columns[score.pair])
                both.setdefault(cell, []).append(getattr(score, metric))
        table = np.full((len(self.arrivals), len(columns)), np.nan)
        for cell, values in both.items():
            table[cell] = np.mean(values)
        return table

    def recall(self, pair: str, *, stage: int | None = None, split: str = "") -> float:
        """R@1 of a pair as a fraction after a 1-based stage, the last one if left out.

        Raises:
            KeyError: If the run has no such pair.
            IndexError: If it has no such stage.
        """
        column = list(self.births).index(self._known(pair))
        last = len(self.arrivals)
        number = last if stage is None else stage
        if not 1 <= number <= last:
            raise IndexError(f"no stage {number} in this run; it has stages 1 to {last}")
        return float(self.matrix(split=split)[number - 1, column])

    def curve(self, pair: str, *, split: str = "") -> tuple[NDArray[np.int64], Floats]:
        """R@1 of a pair, both directions averaged, at every evaluation.

        Returns:
            (moments,) optimiser steps over all stages until then, ascending, and (moments,)
            fractions.
        """
        points = curve(self.scores, str(self._known(pair)), split=split or self.split)
        steps = np.array([point.step for point in points], dtype=np.int64)
        return steps, np.array([point.recall for point in points], dtype=np.float64)

    def _known(self, pair: str) -> Pair:
        """The pair of a name.

        Raises:
            KeyError: If the run has no such pair.
        """
        wanted = Pair.parse(pair)
        if wanted not in self.births:
            names = ", ".join(map(str, self.births))
            raise KeyError(f"no pair {pair!r} in this run; it has {names}")
        return wanted

    def headline(self, *, split: str = "") -> dict[str, float]:
        """Old, new and emergent pairs' mean R@1 after the last stage, and what follows.

        ``worst_old_pairs`` is the old pairs' lowest R@1 in the last stage, ``stability_gap`` how
        far that lies below the end of the stage before, both mean over old pairs and as fractions.
        With ``evaluate_every = 0`` only the stage's end is known, and both are NaN.
        """
        table = self.matrix(split=split)
        pairs = list(self.births)
        birth = np.array(list(self.births.values()))

        def mean(some: Iterable[Pair], values: Floats) -> float:
            chosen = np.array([values[pairs.index(pair)] for pair in some])
            # Pairs that are never trained may have items of one split only.
            chosen = chosen[~np.isnan(table[-1, [pairs.index(pair) for pair in some]])]
            return float(np.mean(chosen)) if len(chosen) else float("nan")

        known = self.roles
        lost = np.full(len(pairs), np.nan)
        whole = ~np.isnan(table[birth, np.arange(len(pairs))])
        if whole.any():
            lost[whole] = forgetting.forgetting(table[:, whole], birth[whole])
        old, new = mean(known.old, table[-1]), mean(known.new, table[-1])
        fall = stability(
            self.scores,
            [str(pair) for pair in known.old],
            stages=len(self.arrivals),
            split=split or self.split,
        )
        return {
            "old_pairs": old,
            "new_pairs": new,
            "emergent_pairs": mean(known.emergent, table[-1]),
            "harmonic_mean": float(forgetting.harmonic_mean(old, new)),
            "forgetting": mean(known.old, lost),
            "worst_old_pairs": fall.worst,
            "stability_gap": fall.gap,
        }
