"""Many runs as a table with a row for each: every seed by itself, without intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from continual_mm.comparison.estimates import (
    RECALL_AT_1,
    Floats,
    intransigence,
    measures,
    start,
)
from continual_mm.runs.finished import FinishedRun

MEASURES = (
    "harmonic_mean",
    "old_pairs",
    "new_pairs",
    "emergent_pairs",
    "retention",
    "forgetting",
    "intransigence",
)
"""Columns in percent or percentage points, as ``<measure>_percent``."""

HEADINGS = (
    *("scenario", "strategy", "seed"),
    *(f"{name}_percent" for name in MEASURES),
    *("stability_gap", "memory_items", "memory_bytes", "steps", "seconds", "step_seconds"),
    *("mixed_recall", "earlier_recall", "vector_size"),
)

EARLIER_HEADINGS = (HEADINGS[:-1], HEADINGS[:-3])
"""Those of exports that were written before there were vector sizes, or scores of indexes."""


def table(runs: Sequence[FinishedRun]) -> list[list[str]]:
    """A row of cells for each run, as :data:`HEADINGS` names them; empty where undefined.

    Intransigence is against the joint run of the same scenario and seed, of several the one that
    is called so. The stability gap and the recalls of indexes are fractions; they, seconds and the
    whole numbers are exact.
    """
    joint = {(run.scenario, run.seed): run for run in reversed(runs) if run.joint}
    joint |= {
        (run.scenario, run.seed): run for run in runs if run.joint and run.strategy == "joint"
    }
    rows = []
    for run in runs:
        found = measured(run, joint.get((run.scenario, run.seed)))
        gap, *recalls = (
            None if np.isnan(value) else value
            for value in (run.stability_gap, run.mixed_recall, run.earlier_recall)
        )
        exact = (gap, run.memory_items, run.memory_bytes, run.steps, run.seconds, run.step_seconds)
        rows.append(
            [
                *(run.scenario, run.strategy, str(run.seed)),
                *(_percent(found.get(name, np.nan)) for name in MEASURES),
                *("" if v is None else repr(v) for v in (*exact, *recalls, run.vector_size)),
            ]
        )
    return rows


def measured(run: FinishedRun, joint: FinishedRun | None) -> Mapping[str, float]:
    """Measure -> fraction, of a single run; none without a pair, NaN where undefined.

    Intransigence is taken to ``joint``, the joint run of the same scenario and seed.
    """
    if not run.pairs:
        return {}
    recalls = _recalls(run)
    known = measures(recalls, run.pairs, start([run]))
    found = {name: float(known[name][0]) for name in MEASURES if name in known}
    if joint is not None and not run.joint:
        found["intransigence"] = float(intransigence(recalls, _recalls(joint), run.pairs)[0])
    return found


def _recalls(run: FinishedRun) -> Floats:
    """(1, stages, pairs) R@1 with both directions averaged; NaN where nothing was ranked."""
    pairs = list(run.pairs)
    recalls = np.full((1, len(run.arrivals), len(pairs)), np.nan)
    for (stage, pair), ranked in run.ranked.items():
        values = RECALL_AT_1.values(ranked.ranks)
        recalls[0, stage, pairs.index(pair)] = np.nanmean(values, axis=1).mean()
    return recalls


def _percent(fraction: float) -> str:
    return "" if np.isnan(fraction) else f"{100 * fraction:z.3f}"
