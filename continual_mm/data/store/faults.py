"""Faulty records: gathered to be told all at once, or left out and listed."""

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

    def __bool__(self) -> bool:
        return bool(self._complaints)

    def about_record(self, what: str, fault: FaultError) -> None:
        """Complain about an item or a recording.

        Raises:
            RefusedError: If there were too many before.
        """
        complaint = self.complaint(what, fault)
        if self._left_out is not None:
            self._left_out.append(complaint)
            return
        self._complaints.append(complaint)
        if len(self._complaints) >= MOST:
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
            raise RefusedError(self._complaints)
