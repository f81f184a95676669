"""What a run needs at least, worked out before it begins; imports no torch."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from continual_mm.definitions.modality import DatasetCard, Modality
from continual_mm.definitions.rules import UNASKED_STEPS
from continual_mm.definitions.scenario import Strategy
from continual_mm.runs.specification import OpenedScenario
from continual_mm.space.sizes import tower_size, transformer_size
from continual_mm.system.errors import Problem
from continual_mm.system.memory import gigabytes, machine_memory

LIBRARIES = 500_000_000  # bytes that torch and Avalanche take before there is any data

_BYTES = 4  # of a float32
_COPIES = 4  # of a weight: itself, its gradient, and Adam's two moments


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run needs at least; there may be more, such as what plugins keep."""

    steps: int  # of the optimiser, all stages together; 0 while the items are not known
    data: int  # bytes of features that are held in memory
    space: int  # bytes of the space and its optimiser
    batch: int  # bytes of what one step computes
    kept: int  # bytes of embeddings of earlier steps and of evaluations

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return LIBRARIES + self.data + self.space + self.batch + self.kept

    def __str__(self) -> str:
        steps = f"{self.steps:,} steps" if self.steps else "as many steps as its epochs come to"
        return f"{steps}, at least {gigabytes(self.memory)} of memory"


def estimate(opened: OpenedScenario, strategy: Strategy | None = None) -> Estimate:
    """What one run of a scenario needs at least; with a strategy, also for its remembered rows."""
    settings, last = opened.scenario.space, opened.arrivals[-1]
    kinds = {name: said.kind for name, said in opened.scenario.towers.items()}
    sizes = {one: tower_size(kinds.get(one.name, ""), one, settings) for one in last.available}
    rows = max(one.training.batch_size for one in opened.arrivals) + _remembered(opened, strategy)
    pairs = max(len(one.trained) for one in opened.arrivals)
    made = sum(size.activations for size in sizes.values())
    tested = sum(card.items[2] for card in opened.cards)
    return Estimate(
        steps=sum(one.training.steps for one in opened.arrivals),
        data=sum(
            _in_memory(card) for card in {one.fingerprint: one for one in opened.cards}.values()
        ),
        space=_BYTES
        * (
            _COPIES * sum(size.weights for size in (*sizes.values(), transformer_size(settings)))
            + settings.clusters * settings.dim
        ),
        # Similarities of every pair, and their gradient.
        batch=_BYTES * (rows * made + 2 * pairs * rows * rows),
        kept=_BYTES
        * settings.dim
        * (rows * settings.queue_batches * bool(settings.clusters) + tested * len(sizes)),
    )


def _remembered(opened: OpenedScenario, strategy: Strategy | None) -> int:
    """Remembered rows that a batch has at most, as far as the strategy's file says."""
    if strategy is None or strategy.memory is None:
        return 0
    said = [values.get("rows", 0) for values in strategy.plugins.values()]
    most = min(strategy.memory.items, opened.card.items[0])
    return min(most, max((one for one in said if isinstance(one, int)), default=0))


def _in_memory(card: DatasetCard) -> int:
    """Bytes of a dataset; a store stays on the disk."""
    return 0 if card.on_disk else _BYTES * sum(card.items) * sum(map(_numbers, card.modalities))


def _numbers(modality: Modality) -> int:
    return prod(modality.shape)


def excesses(
    tasks: Iterable[tuple[OpenedScenario, Strategy]],
    *,
    seeds: int = 1,
    jobs: int = 1,
    accelerator: int | None = None,
) -> list[Problem]:
    """A problem for what is more than there is, of scenarios with strategies, each so often.

    ``accelerator`` is the memory, in bytes, of the device that trains; None where that is the CPU.
    """
    needed = {
        f"scenario '{opened.scenario.name}', strategy '{strategy.name}'": estimate(opened, strategy)
        for opened, strategy in tasks
    }
    memory, remedy = machine_memory(), "make it smaller, or run it all the same with --yes"
    at_once = min(jobs, len(needed) * seeds)
    problems = []
    for place, one in needed.items():
        here = one.memory if accelerator is None else LIBRARIES + one.data
        for least, most in (
            (here, memory),
            (one.memory - one.data - LIBRARIES, accelerator or sys.maxsize),
        ):
            if least * at_once > most:
                each = f", {at_once} times at once" if at_once > 1 else ""
                problem = f"needs at least {gigabytes(least)} of memory{each}"
                problems.append(Problem(place, f"{problem}; there are {gigabytes(most)}", remedy))
    steps = seeds * sum(one.steps for one in needed.values())
    if steps > UNASKED_STEPS:
        hours = steps / 100 / 3600
        problem = f"{steps:,} optimiser steps in all, at 100 a second {hours:,.0f} hours"
        problems.append(Problem("training", problem, remedy))
    return problems
