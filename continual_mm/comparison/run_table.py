"""Many runs as a table with a row for each: every seed by itself, without intervals."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from continual_mm.comparison.estimates import Floats, intransigence, measures
from continual_mm.comparison.finished import FinishedRun

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
)


def table(runs: Sequence[FinishedRun]) -> list[list[str]]:
    """A row of cells for each run, as :data:`HEADINGS` names them; empty where undefined.

    Intransigence is against the joint run of the same scenario and seed. The stability gap is a
    fraction; it, seconds and the whole numbers are exact.
    """
    joint = _joint(runs)
    return [_row(run, joint.get((run.scenario, run.seed))) for run in runs]


def _row(run: FinishedRun, joint: FinishedRun | None) -> list[str]:
    found = measured(run, joint)
    exact = (run.memory_items, run.memory_bytes, run.steps, run.seconds, run.step_seconds)
    return [
        *(run.scenario, run.strategy, str(run.seed)),
        *(_percent(found.get(name, np.nan)) for name in MEASURES),
        "" if np.isnan(run.stability_gap) else repr(run.stability_gap),
        *("" if value is None else repr(value) for value in exact),
    ]


def measured(run: FinishedRun, joint: FinishedRun | None) -> Mapping[str, float]:
    """Measure -> fraction, of a single run; none without a pair, NaN where undefined.

    Intransigence is taken to ``joint``, the joint run of the same scenario and seed.
    """
    if not run.pairs:
        return {}
    recalls = _recalls(run)
    found = {name: float(values[0]) for name, values in measures(recalls, run.pairs).items()}
    if joint is not None and not run.joint:
        found["intransigence"] = float(intransigence(recalls, _recalls(joint), run.pairs)[0])
    return found


def _recalls(run: FinishedRun) -> Floats:
    """(1, stages, pairs) R@1 with both directions averaged; NaN where nothing was ranked."""
    recalls = np.full((1, len(run.arrivals), len(run.pairs)), np.nan)
    places = {pair: place for place, pair in enumerate(run.pairs)}
    for (stage, pair), ranked in run.ranked.items():
        recalls[0, stage, places[pair]] = (ranked.ranks < 1).mean()
    return recalls


def _joint(runs: Iterable[FinishedRun]) -> dict[tuple[str, int], FinishedRun]:
    """(scenario, seed) -> its joint run; of several the one that is called so."""
    known: dict[tuple[str, int], FinishedRun] = {}
    for run in runs:
        if run.joint and (run.strategy == "joint" or (run.scenario, run.seed) not in known):
            known[run.scenario, run.seed] = run
    return known


def _percent(fraction: float) -> str:
    return "" if np.isnan(fraction) else f"{100 * fraction:z.3f}"
