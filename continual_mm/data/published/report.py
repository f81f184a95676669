"""What a reader does about items that it cannot read: end, or list them and go on."""

from collections.abc import Iterator
from contextlib import contextmanager

from continual_mm.complaint import Complaint, RefusedError

Record = dict[str, object]
"""One item, by column of a feature pack: ``ids``, ``split``, ``group`` (a name), ``label``,
``text_raw``, and for each modality that it has a float array, (features,) or (time, features)."""


class Report:
    """The items that were left out.

    Attributes:
        skip: Whether to go on without an item that cannot be read.
        skipped: Everything that was wrong with items left out, in their order.
        tried: Items that were read or left out.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.skipped: list[Complaint] = []
        self.tried = 0

    @contextmanager
    def item(self) -> Iterator[None]:
        """Around the reading of one item: with ``skip``, a refusal inside is listed and ends there.

        Raises:
            RefusedError: What was raised inside, without ``skip``.
        """
        self.tried += 1
        try:
            yield
        except RefusedError as refused:
            if not self.skip:
                raise
            self.skipped.extend(refused.complaints)

    def leave_out(self, complaint: Complaint) -> None:
        """List a part of an item that is left out, where the rest of it stays.

        Raises:
            RefusedError: With the complaint, without ``skip``.
        """
        if not self.skip:
            raise RefusedError(complaint)
        self.skipped.append(complaint)
