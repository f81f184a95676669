"""Replay: remembered items are trained again, with the pairs of their own stage."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.plugins.recollection import FromMemory
from continual_mm.plugins.registry import checked


class Replay(FromMemory):
    """MCN's losses on remembered rows beside those on the current ones.

    Remembered rows are each other's negatives, not the current rows': they come from another stage,
    and telling stages apart is easier than telling items apart.

    Args:
        weight: Weight of the remembered rows' objective.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    def __init__(self, *, weight: float = 1.0, rows: int = 128) -> None:
        super().__init__()
        self.weight = checked("replay.weight", weight)
        rows = checked("replay.rows", rows)
        self.memory_rows = rows if self.weight else 0

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the remembered rows' terms."""
        if self.weight and len(strategy.remembered):
            for name, value in strategy.objective(strategy.remembered).items():
                strategy.add_term(f"replay/{name}", value, weight=self.weight)
