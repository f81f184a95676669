"""Batches in blocks: of training items step by step, of others one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.data.items import Items, Share
from continual_mm.dice import seed_for
from continual_mm.learning.orders import GroupOrder, Order, Shown


class StepLoader:
    """As many batches as there are optimiser steps, each with rows of every share.

    Args:
        items: Where rows are fetched from, a block at a time.
        rows_per_step: Rows of each share; all of a share that is smaller.
        steps: The step that ends the stage.
        first: The step to begin with.
        seed: Fixes the order.
        pin: Whether batches are put in page-locked memory.
        workers: Threads that fetch ahead; none fetches when it is asked. The batches are the same.
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
        return _ahead(self._fetch, chosen, self._workers) if self._workers else self._now(chosen)

    def _now(self, chosen: Iterable[tuple[Tensor, ...]]) -> Iterator[Batch]:
        for rows in chosen:
            yield self._fetch(rows)

    def _fetch(self, rows: tuple[Tensor, ...]) -> Batch:
        batch = self.items.block(rows)
        return batch.pin_memory() if self._pin else batch


def _order(items: Items, share: Share, rows: int, *, seed: int) -> Shown:
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
