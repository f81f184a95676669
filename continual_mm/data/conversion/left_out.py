"""The list of what a conversion left out."""

import csv
from collections.abc import Iterable
from pathlib import Path

from continual_mm.complaint import Complaint

_COLUMNS = ("place", "problem", "remedy")


def write(complaints: Iterable[Complaint], path: Path) -> None:
    """Write a CSV with a row for each thing left out: where it was, what is wrong, what to do."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows([getattr(one, column) for column in _COLUMNS] for one in complaints)
