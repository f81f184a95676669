"""A bounded sample of past items with its own generator: which items are kept."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from continual_mm.system.seeds import seed_for


class Memory:
    """At most ``items`` rows, shared equally by the stages met so far; see :func:`equal_shares`.

    When a stage arrives, the earlier ones give up a random part of their rows, so what remains of
    each is a uniform sample of its items. ``stage`` and ``row`` are (n,): stage and dataset row of
    each kept row.
    """

    def __init__(self, items: int, *, seed: int = 0) -> None:
        if items < 1:
            raise ValueError(f"a memory of {items} items holds nothing: give at least 1")
        self.items = items
        self.stage = torch.empty(0, dtype=torch.long)
        self.row = torch.empty(0, dtype=torch.long)
        self._seed = seed
        self._draws = 0

    def __len__(self) -> int:
        return self.row.shape[0]

    def offer(self, stage: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take the share of a stage that ends from its (n,) dataset rows; once for each stage.

        Returns ascending positions of earlier rows that stay, and of those in ``rows`` that enter.
        """
        kept = self._by_stage()
        if stage in kept:
            raise ValueError(f"stage {stage} is remembered already: offer each stage once")
        generator = torch.Generator().manual_seed(seed_for(self._seed, "memory", stage))
        *shares, share = equal_shares(self.items, [*map(len, kept.values()), len(rows)])
        stays = _chosen(kept.values(), shares, generator)
        enters = _some(torch.arange(len(rows)), share, generator)
        arrived = torch.full(enters.shape, stage, dtype=torch.long)
        self.stage = torch.cat([self.stage[stays], arrived])
        self.row = torch.cat([self.row[stays], rows[enters]])
        return stays, enters

    def draw(self, rows: int) -> Tensor:
        """(min(rows, n),) distinct positions; the stages' shares are the same at every draw."""
        if rows >= len(self):
            return torch.arange(len(self))
        generator = torch.Generator().manual_seed(seed_for(self._seed, "draw", self._draws))
        self._draws += 1
        kept = self._by_stage()
        return _chosen(kept.values(), equal_shares(rows, [*map(len, kept.values())]), generator)

    def _by_stage(self) -> dict[int, Tensor]:
        """Stage -> ascending positions of its rows, earlier stages first."""
        stages = sorted(set(self.stage.tolist()))
        return {stage: (self.stage == stage).nonzero().squeeze(1) for stage in stages}

    def state(self) -> dict[str, Tensor]:
        """The state to resume from."""
        draws = torch.tensor(self._draws)
        return {"stage": self.stage, "row": self.row, "draws": draws}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self.stage, self.row = state["stage"], state["row"]
        self._draws = int(state["draws"])


def equal_shares(total: int, wishes: Sequence[int]) -> list[int]:
    """Divide ``total`` as equally as wishes allow; what small wishes leave goes to the others.

    The shares add up to ``total``, or to all wishes if that is less; those that are less than was
    wished for differ by at most one.

    >>> equal_shares(11, [2, 9, 9])
    [2, 4, 5]
    """
    shares = [0] * len(wishes)
    rest = total
    for done, place in enumerate(sorted(range(len(wishes)), key=wishes.__getitem__)):
        shares[place] = min(wishes[place], rest // (len(wishes) - done))
        rest -= shares[place]
    return shares


def _chosen(parts: Iterable[Tensor], shares: Iterable[int], generator: torch.Generator) -> Tensor:
    drawn = [_some(part, share, generator) for part, share in zip(parts, shares, strict=True)]
    return torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.long)


def _some(positions: Tensor, share: int, generator: torch.Generator) -> Tensor:
    """A uniform sample without repeats, in the order given."""
    order = torch.randperm(len(positions), generator=generator)[:share]
    return positions[order.sort().values]
