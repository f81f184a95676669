"""Which items each step shows: a function of seed and step alone."""

from typing import Protocol

import torch
from torch import Tensor

from continual_mm.dice import seed_for


class Shown(Protocol):
    """Positions within a share, step by step; any step can be asked for without those before it."""

    @property
    def steps_per_pass(self) -> int:
        """Steps of a pass over the share; 0 without items."""

    def __getitem__(self, step: int) -> Tensor:
        """(rows,) positions for a step."""


class Order:
    """Shuffled passes over ``items`` items, ``rows`` at a time, none twice within a batch.

    What remains at the end of a pass is left out of it and shuffled into the next. Any step can be
    asked for without the steps before it.
    """

    def __init__(self, items: int, rows: int, *, seed: int) -> None:
        self.rows = min(rows, items)
        self.items = items
        self._seed = seed
        self._pass = -1
        self._shuffled = torch.empty(0, dtype=torch.long)

    @property
    def steps_per_pass(self) -> int:
        """Steps in which every item is shown once, save what is left out; 0 without items."""
        return self.items // self.rows if self.rows else 0

    def __getitem__(self, step: int) -> Tensor:
        """(rows,) positions for a step."""
        if not self.rows:
            return torch.empty(0, dtype=torch.long)
        number, place = divmod(step, self.steps_per_pass)
        if number != self._pass:
            dice = torch.Generator().manual_seed(seed_for(self._seed, "pass", number))
            self._pass, self._shuffled = number, torch.randperm(self.items, generator=dice)
        return self._shuffled[place * self.rows : (place + 1) * self.rows]


class GroupOrder:
    """Shuffled passes over groups of items (the videos that clips are of), some items of each.

    Rows of one group stand side by side in a batch. What groups remain at the end of a pass are
    left out of it.

    Args:
        groups: (items,) a number for each item, equal for those of one group.
        rows: Of a step; ``rows // each`` groups, one at least.
        each: Items of a group that are shown at once.
        replace: Whether items are drawn independently, as the published reader does, so that one
            can be there twice; else that happens only where a group has fewer than ``each``.
        seed: Fixes the order.
    """

    def __init__(
        self, groups: Tensor, rows: int, *, each: int, replace: bool = False, seed: int
    ) -> None:
        _, number, counts = torch.unique(groups, return_inverse=True, return_counts=True)
        self._members = number.argsort(stable=True)
        self._counts = counts
        self._starts = counts.cumsum(0) - counts
        self._each = min(each, rows)
        self._replace = replace
        self._seed = seed
        self._passes = Order(len(counts), max(1, rows // max(self._each, 1)), seed=seed)

    @property
    def steps_per_pass(self) -> int:
        """Steps in which every group is shown once, save what is left out; 0 without items."""
        return self._passes.steps_per_pass

    def __getitem__(self, step: int) -> Tensor:
        """(rows,) positions for a step, group by group."""
        chosen = self._passes[step]
        if not len(chosen):
            return chosen
        dice = torch.Generator().manual_seed(seed_for(self._seed, "members", step))
        drawn = self._drawn if self._replace else self._dealt
        return drawn(chosen, dice).reshape(-1)

    def _drawn(self, chosen: Tensor, dice: torch.Generator) -> Tensor:
        """(groups, each) members, each drawn by itself."""
        counts = self._counts[chosen, None]
        share = torch.rand(len(chosen), self._each, generator=dice, dtype=torch.float64)
        place = (share * counts).long().minimum(counts - 1)
        members: Tensor = self._members[self._starts[chosen, None] + place]
        return members

    def _dealt(self, chosen: Tensor, dice: torch.Generator) -> Tensor:
        """(groups, each) members of shuffled groups, from the beginning again where they end."""
        counts = self._counts[chosen]
        first = counts.cumsum(0) - counts
        place = torch.arange(len(chosen)).repeat_interleave(counts)
        inside = torch.arange(int(counts.sum())) - first[place]
        keys = place + torch.rand(len(place), generator=dice, dtype=torch.float64)
        members = self._members[(self._starts[chosen][place] + inside)[keys.argsort()]]
        dealt: Tensor = members[first[:, None] + torch.arange(self._each) % counts[:, None]]
        return dealt
