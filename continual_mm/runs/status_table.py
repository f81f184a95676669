"""How far runs are, as rows for a table and as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime

from continual_mm.runs.status import Status, statuses

__all__ = ["as_json", "as_rows", "statuses"]


def as_rows(found: Iterable[Status]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of a table; of a finished run it shows the harmonic mean."""
    headings = ("scenario", "strategy", "seed", "R@1 %", "seconds", "last written", "state")
    return headings, [_cells(status) for status in found]


def as_json(found: Iterable[Status]) -> str:
    """A list of runs with all that :class:`Status` has; null where unknown, times in UTC."""
    values = [
        {
            **asdict(status),
            "folder": str(status.folder),
            "written": datetime.fromtimestamp(status.written, UTC).isoformat(timespec="seconds"),
        }
        for status in found
    ]
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


def _cells(status: Status) -> tuple[str, ...]:
    seed = "-" if status.seed is None else str(status.seed)
    seconds = "-" if status.seconds is None else f"{status.seconds:.0f}"
    written = datetime.fromtimestamp(status.written).strftime("%Y-%m-%d %H:%M")
    names = status.scenario or "-", status.strategy or "-"
    return (*names, seed, _told_recalls(status), seconds, written, _told_state(status))


def _told_recalls(status: Status) -> str:
    if status.harmonic_mean is not None:
        return f"harmonic mean {100 * status.harmonic_mean:.1f}"
    told = (f"{pair} {100 * value:.1f}" for pair, value in status.recalls.items())
    return ", ".join(told) or "-"


def _told_state(status: Status) -> str:
    if status.state == "finished":
        return status.state
    if status.state == "damaged":
        return f"damaged: {status.error}"
    of = f", step {status.step}" if status.step is not None else f" of {status.stages or '?'}"
    how = {"failed": f"failed: {status.error}"}
    return f"stage {status.stage}{of}, {how.get(status.state, status.state)}"
