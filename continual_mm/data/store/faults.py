"""Faulty records: gathered to be told all at once, or left out and listed."""

from collections import Counter
from dataclasses import replace

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.store.checks import FaultError

MOST = 100
"""Faulty records after which no more are looked at."""


class Faults:
    """What was found wrong with records.

    Args:
        source: What to call the store.
        left_out: Takes the complaints if faulty records are left out; without it they end the
            writing.
    """

    def __init__(self, source: str, left_out: list[Complaint] | None) -> None:
        self.source = source
        self._left_out = left_out
        self._complaints: list[Complaint] = []
        self._records: Counter[tuple[str, str, str]] = Counter()
        self._first: dict[int, tuple[str, str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._complaints)

    def about_record(self, what: str, fault: FaultError) -> None:
        """Complain about an item or a recording; of those with the same fault the first is named.

        Raises:
            RefusedError: If there were too many before.
        """
        complaint = self.complaint(what, fault)
        if self._left_out is not None:
            self._left_out.append(complaint)
            return
        said = (fault.column, fault.problem, fault.remedy)
        if said not in self._records:
            self._first[len(self._complaints)] = said
            self._complaints.append(complaint)
        self._records[said] += 1
        if self._records.total() >= MOST:
            self.about_store(f"nothing was looked at behind {MOST} faulty records")
            self.refuse()

    def complaint(self, what: str, fault: FaultError) -> Complaint:
        """What there is to say of an item or a recording."""
        column = f", column {fault.column!r}" if fault.column else ""
        return Complaint(f"{self.source}, {what}{column}", fault.problem, fault.remedy)

    def about_store(self, problem: str, remedy: str = "") -> None:
        """Complain about the whole, which cannot be left out."""
        self._complaints.append(Complaint(self.source, problem, remedy))

    def refuse(self) -> None:
        """End here if anything was found.

        Raises:
            RefusedError: With every complaint.
        """
        if self._complaints:
            raise RefusedError(
                self._counted(place, complaint) for place, complaint in enumerate(self._complaints)
            )

    def _counted(self, place: int, complaint: Complaint) -> Complaint:
        more = self._records[self._first[place]] - 1 if place in self._first else 0
        if not more:
            return complaint
        items = "item" if more == 1 else "items"
        return replace(complaint, problem=f"{complaint.problem}, and in {more} more {items}")
