"""The run's memory in training: copies of past items, some of which join each batch."""

from collections.abc import Mapping
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from continual_mm.data.batch import Batch, join, marked
from continual_mm.learning.learner import Learner
from continual_mm.learning.memory import Memory
from continual_mm.plugins.plugin import Plugin, contents, extracted


class Recollection(Plugin):
    """Copies of the memory's items, and rows of them in each batch.

    Copies, because indices (as in Avalanche's buffers) would keep the whole old dataset alive. Of
    an item only the modalities of its stage are kept. ``batch`` has the items, None before the
    first stage ends; ``drawn`` are the positions of the step's remembered rows among them.
    """

    on_device = False

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory
        self.batch: Batch | None = None
        self.drawn = torch.empty(0, dtype=torch.long)
        self.memory_rows = 0

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Find out how many rows the other plugins need."""
        needed = max(_rows_for(plugin) for plugin in strategy.plugins if isinstance(plugin, Plugin))
        self.memory_rows = needed if self.batch is not None else 0

    def before_forward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put remembered rows behind the current ones."""
        if self.batch is None or not self.memory_rows:
            return
        if not (self.batch.marks or strategy.space.settings.reference):
            self.batch = marked(self.batch)
        self.drawn = self.memory.draw(self.memory_rows)
        whole = len(self.drawn) == len(self.batch)
        strategy.recall(self.batch if whole else self.batch.select(self.drawn))

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the stage's items; see :class:`Memory` for which of them and of earlier ones stay."""
        items = strategy.stage_experience().items
        nothing = torch.empty(0, dtype=torch.long)
        for number, share in enumerate(items.shares):
            stays, enters = self.memory.offer(share.stage, share.rows)
            chosen = [nothing] * len(items.shares)
            chosen[number] = enters
            arrived = items.block(tuple(chosen))
            kept = [] if self.batch is None else [self.batch.select(stays)]
            self.batch = _by_name(join([*kept, arrived]))

    def state(self) -> dict[str, Tensor]:
        """Which items the memory holds, and the copies."""
        state = contents("memory", self.memory.state())
        if self.batch is None:
            return state
        return {
            **state,
            "index": self.batch.index,
            "stage": self.batch.stage,
            **contents("features", self.batch.features),
            **contents("lengths", self.batch.lengths),
            **contents("rows", self.batch.rows),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self.memory.load_state(extracted("memory", state))
        if "index" in state:
            features, lengths, rows = (extracted(k, state) for k in ("features", "lengths", "rows"))
            self.batch = _by_name(Batch(features, lengths, rows, state["index"], state["stage"]))


class FromMemory(Plugin):
    """Base of plugins that do nothing without a memory."""

    needs_memory = True

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Refuse a run without a memory."""
        if self.memory_rows:
            required_memory(strategy, self)


def recollection(learner: Learner) -> Recollection | None:
    """The learner's recollection, if the run has a memory."""
    return next((plugin for plugin in learner.plugins if isinstance(plugin, Recollection)), None)


def required_memory(learner: Learner, plugin: Plugin) -> Recollection:
    """The learner's recollection; a ValueError without one, for the plugin would do nothing."""
    found = recollection(learner)
    if found is None:
        problem = f"{type(plugin).__name__} needs past items"
        raise ValueError(f"{problem}: give the run a memory, [memory] items = 128")
    return found


def _rows_for(plugin: Plugin) -> int:
    """Rows of the memory that a plugin needs in each batch."""
    former = getattr(plugin, "recalled_rows", 0)
    if former:
        message = "Plugin.recalled_rows is now called Plugin.memory_rows"
        warn(message, DeprecationWarning, stacklevel=2)
    return max(plugin.memory_rows, former)


def _by_name(batch: Batch) -> Batch:
    """The batch with modalities in order of name, on which the last bits of sums depend."""
    features, lengths, rows = (
        dict(sorted(each.items())) for each in (batch.features, batch.lengths, batch.rows)
    )
    return Batch(features, lengths, rows, batch.index, batch.stage, batch.marks)
