"""Batches in blocks: of training items step by step, of others one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from continual_mm.data.batch import Batch, Items, Share
from continual_mm.system.seeds import seed_for


class Order:
    """Shuffled passes over ``items`` items, ``rows`` at a time, none twice within a batch.

    What remains at the end of a pass is shuffled into the next. Any step can be asked for.
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
            generator = torch.Generator().manual_seed(seed_for(self._seed, "pass", number))
            self._pass, self._shuffled = number, torch.randperm(self.items, generator=generator)
        return self._shuffled[place * self.rows : (place + 1) * self.rows]


class GroupOrder:
    """Shuffled passes over groups of items (the videos that clips are of), some items of each.

    Rows of one group, of equal numbers in the (items,) ``groups``, stand side by side in a batch:
    ``rows // each`` groups, one at least, with ``each`` items of every one. What groups remain at
    the end of a pass are left out of it. With ``replace`` items are drawn independently, as the
    published reader does, so that one can be there twice; else that happens only where a group has
    fewer than ``each``.
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
        generator = torch.Generator().manual_seed(seed_for(self._seed, "members", step))
        drawn = self._drawn if self._replace else self._dealt
        return drawn(chosen, generator).reshape(-1)

    def _drawn(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """(groups, each) members, each drawn by itself."""
        counts = self._counts[chosen, None]
        share = torch.rand(len(chosen), self._each, generator=generator, dtype=torch.float64)
        place = (share * counts).long().minimum(counts - 1)
        members: Tensor = self._members[self._starts[chosen, None] + place]
        return members

    def _dealt(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """(groups, each) members of shuffled groups, from the beginning again where they end."""
        counts = self._counts[chosen]
        first = counts.cumsum(0) - counts
        place = torch.arange(len(chosen)).repeat_interleave(counts)
        inside = torch.arange(int(counts.sum())) - first[place]
        keys = place + torch.rand(len(place), generator=generator, dtype=torch.float64)
        members = self._members[(self._starts[chosen][place] + inside)[keys.argsort()]]
        dealt: Tensor = members[first[:, None] + torch.arange(self._each) % counts[:, None]]
        return dealt


class StepLoader:
    """As many batches as there are optimiser steps, each with rows of every share.

    Of a share smaller than its ``rows_per_step`` all rows are shown. The steps are those from
    ``first`` on, before ``steps``. With ``pin`` batches are put in page-locked memory. ``workers``
    are threads that fetch ahead; the batches are the same with any number.
    """

    def __init__(
        self,
        items: Items,
        rows_per_step: tuple[int, ...],
        *,
        steps: int,
        first: int = 0,
        seed: int,
        pin: bool = False,
        workers: int = 0,
    ) -> None:
        self.items = items
        self.steps = range(first, steps)
        self._pin = pin
        self._workers = workers
        self._orders = tuple(
            _order(items, share, rows, seed=seed_for(seed, "share", share.stage))
            for share, rows in zip(items.shares, rows_per_step, strict=True)
        )

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def steps_per_pass(self) -> int:
        """Steps of a pass over the share that takes the longest; at least 1."""
        return max([1, *(order.steps_per_pass for order in self._orders)])

    def __iter__(self) -> Iterator[Batch]:
        chosen = (tuple(order[step] for order in self._orders) for step in self.steps)
        if not self._workers:
            return map(self._fetch, chosen)
        return _ahead(self._fetch, chosen, self._workers)

    def _fetch(self, rows: tuple[Tensor, ...]) -> Batch:
        batch = self.items.block(rows)
        return batch.pin_memory() if self._pin else batch


def _order(items: Items, share: Share, rows: int, *, seed: int) -> Order | GroupOrder:
    """Items of a share one by one, or some of each of their groups."""
    if items.clips == 1 or items.dataset.group is None:
        return Order(share.rows.shape[0], rows, seed=seed)
    groups = torch.from_numpy(items.dataset.group)[share.rows]
    return GroupOrder(groups, rows, each=items.clips, replace=items.replace, seed=seed)


def _ahead(
    fetch: Callable[[tuple[Tensor, ...]], Batch],
    chosen: Iterable[tuple[Tensor, ...]],
    workers: int,
) -> Iterator[Batch]:
    """Fetch in threads, at most two batches per thread too early, and give in order."""
    # Threads of torch's own in each of them would fight over the cores with those of a step.
    threads = torch.get_num_threads()
    alone = partial(torch.set_num_threads, 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader", initializer=alone)
    try:
        waiting: deque[Future[Batch]] = deque()
        for rows in chosen:
            waiting.append(pool.submit(fetch, rows))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        # What other threads begin with; each of those that are there keeps its own number.
        torch.set_num_threads(threads)


class BlockLoader:
    """All items once, in order, a block at a time; for evaluation."""

    def __init__(self, items: Items, *, rows: int) -> None:
        self.items = items
        self.rows = rows

    def __len__(self) -> int:
        return sum(-(-share.rows.shape[0] // self.rows) for share in self.items.shares)

    def __iter__(self) -> Iterator[Batch]:
        nothing = torch.empty(0, dtype=torch.long)
        for number, share in enumerate(self.items.shares):
            for block in torch.split(torch.arange(share.rows.shape[0]), self.rows):
                chosen = [nothing] * len(self.items.shares)
                chosen[number] = block
                yield self.items.block(tuple(chosen))
