"""The latest rows of many batches, none of them ever shifted."""

import torch
from torch import Tensor


class Ring:
    """A ring buffer of rows: the oldest are overwritten.

    Its size follows from the largest batch that came: ``batches`` of those fit in. When a still
    larger one comes it starts anew.

    Args:
        batches: Batches that are kept; 0 keeps none.
    """

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._rows: Tensor | None = None
        self._pushed = 0

    @property
    def full(self) -> bool:
        """Whether every place has been written."""
        return self._rows is not None and self._pushed >= self._rows.shape[0]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Copy (n, D) rows in, behind those that came before."""
        count = rows.shape[0]
        if not self._batches:
            self._pushed += count
            return
        if self._rows is None or self._rows.shape[0] < count:
            self._rows = rows.new_zeros(self._batches * count, rows.shape[1])
            self._pushed = 0
        size = self._rows.shape[0]
        start = self._pushed % size
        head = min(count, size - start)
        self._rows[start : start + head] = rows[:head]
        self._rows[: count - head] = rows[head:]
        self._pushed += count

    def filled(self) -> tuple[Tensor, ...]:
        """The rows that have been written, in no promised order, as one tensor; or none."""
        if self._rows is None:
            return ()
        return (self._rows[: min(self._pushed, self._rows.shape[0])],)

    def latest_last(self) -> Tensor:
        """All rows of a full ring in the order in which they came.

        Raises:
            ValueError: If it is not full.
        """
        if self._rows is None or not self.full:
            raise ValueError(f"{self._pushed} rows are in the ring so far; it is not full")
        return self._rows.roll(-(self._pushed % self._rows.shape[0]), dims=0)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on."""
        counter = {"pushed": torch.tensor(self._pushed)}
        return counter if self._rows is None else {**counter, "queue": self._rows}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self._pushed = int(state["pushed"])
        self._rows = state.get("queue")
