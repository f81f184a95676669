"""What a conversion left out, and what it kept."""

import csv
from collections.abc import Iterable
from pathlib import Path

from continual_mm.complaint import Complaint
from continual_mm.data import registry
from continual_mm.data.published.report import Report
from continual_mm.data.store.form import read_form

_COLUMNS = ("place", "problem", "remedy")


def write(complaints: Iterable[Complaint], path: Path) -> None:
    """Write a CSV with a row for each thing left out: where it was, what is wrong, what to do."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows([getattr(one, column) for column in _COLUMNS] for one in complaints)


def balance(target: Path, report: Report, *, videos: int | None = None) -> tuple[int, int]:
    """How much was kept and how much left out: long videos where there are such, else items.

    Args:
        target: What was written.
        report: Of the reader.
        videos: How many there were to read, where the report counts more than videos.
    """
    if target.is_dir() and (recordings := read_form(target).tables.get("recordings")):
        kept = sum(shard.rows for shard in recordings)
        return kept, (report.tried if videos is None else videos) - kept
    return sum(registry.card(str(target.absolute()), splits=()).items), len(report.skipped)
