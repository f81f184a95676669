"""The run's one memory at work: keeps copies of past items and puts some into each batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from continual_mm.data.batch import Batch, join
from continual_mm.learning.avalanche import AvalancheDataset, ExemplarsBuffer
from continual_mm.learning.learner import Learner
from continual_mm.learning.memory import Memory
from continual_mm.plugins.plugin import Plugin


class Exemplars(TorchDataset[Batch]):
    """Remembered items, one row each."""

    def __init__(self, batch: Batch | None) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 0 if self.batch is None else len(self.batch)

    def __getitem__(self, position: int) -> Batch:
        if self.batch is None or not 0 <= position < len(self.batch):
            raise IndexError(f"exemplar {position} of {len(self)}")
        return self.batch.select(torch.tensor([position]))


class Recollection(Plugin, ExemplarsBuffer):
    """Copies of the memory's items, an Avalanche buffer that frees what it no longer holds.

    Copies, because a buffer of indices would keep the whole old dataset alive and its size would
    say nothing about bytes. Of an item only what its stage showed is kept.

    Args:
        memory: Decides which items are kept and which are drawn.

    Attributes:
        batch: The items, or None before the first stage ends.
        drawn: Positions of the step's remembered rows among them.
        recalled: The step's remembered rows; ``batch`` itself where all are drawn.
    """

    on_device = False

    def __init__(self, memory: Memory) -> None:
        ExemplarsBuffer.__init__(self, memory.items)
        self.memory = memory
        self.batch: Batch | None = None
        self.drawn = torch.empty(0, dtype=torch.long)
        self.recalled = Batch({}, {}, {}, self.drawn, self.drawn)
        self.recalled_rows = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return 0 if self.batch is None else self.batch.nbytes

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Ask the other plugins how many rows they want."""
        wishes = [plugin.recalled_rows for plugin in strategy.plugins if isinstance(plugin, Plugin)]
        self.recalled_rows = max(wishes) if self.batch is not None else 0

    def before_forward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put remembered rows behind the current ones."""
        if self.batch is None or not self.recalled_rows:
            return
        self.drawn = self.memory.draw(self.recalled_rows)
        whole = len(self.drawn) == len(self.batch)
        self.recalled = self.batch if whole else self.batch.select(self.drawn)
        strategy.recall(self.recalled)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Take in the stage's share."""
        self.post_adapt(strategy, strategy.experience)

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Avalanche's name for taking in a stage; see :class:`Memory` for which items stay."""
        for number, share in enumerate(exp.items.shares):
            stays, enters = self.memory.offer(share.stage, share.rows)
            nothing = torch.empty(0, dtype=torch.long)
            chosen = [nothing] * len(exp.items.shares)
            chosen[number] = enters
            arrived = exp.items.block(tuple(chosen))
            kept = [] if self.batch is None else [self.batch.select(stays)]
            self.batch = _by_name(join([*kept, arrived]))
        self.buffer = AvalancheDataset([Exemplars(self.batch)], collate_fn=join)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Refuse: the size of the memory is part of the run's definition."""
        raise ValueError(f"a memory of {self.memory.items} items cannot become one of {new_size}")

    def state(self) -> dict[str, Tensor]:
        """The memory's choice and the copies."""
        state = {f"memory/{key}": value for key, value in self.memory.state().items()}
        if self.batch is None:
            return state
        state |= {"index": self.batch.index, "stage": self.batch.stage}
        for kind in ("features", "lengths", "rows"):
            for name, value in getattr(self.batch, kind).items():
                state[f"{kind}/{name}"] = value
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""

        def part(kind: str) -> dict[str, Tensor]:
            start = f"{kind}/"
            return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}

        self.memory.load_state(part("memory"))
        if "index" in state:
            contents = (part("features"), part("lengths"), part("rows"))
            self.batch = _by_name(Batch(*contents, state["index"], state["stage"]))
            self.buffer = AvalancheDataset([Exemplars(self.batch)], collate_fn=join)


def _by_name(batch: Batch) -> Batch:
    """The batch with its modalities in order of name, whichever a file gives them back in.

    Sums over modalities are taken in the batch's order, and so have the same last bits in a run
    that goes on.
    """
    features, lengths, rows = (
        dict(sorted(each.items())) for each in (batch.features, batch.lengths, batch.rows)
    )
    return Batch(features, lengths, rows, batch.index, batch.stage)
