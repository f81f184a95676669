"""Which of the units of a group are kept, and what becomes of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.merging.groups import EMBEDDING
from continual_mm.merging.maps import SMALLEST, incoming_map, outgoing_map, unit_plan
from continual_mm.system.seeds import seed_for

Method = Literal["interpolative", "fusion", "magnitude", "random"]
"""What becomes of units that are not kept, see :class:`Choice`."""

ALIKE = 1e-5  # share of the length of their weights by which copies differ, at most
RIDGE = 1e-4  # of the mean second moment, added to those of the kept units

Maps = tuple[Tensor, Tensor]
"""(kept, units) what makes the new units, and (units, kept) what shares old ones out."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that write and read the units of a group."""

    rows: Sequence[Tensor]  # (units, numbers) of each tensor
    layers: Sequence[bool]  # whether it is of a linear map or a convolution
    read: Tensor  # (units,) sum of squares of what reads a unit


@dataclass(frozen=True, slots=True)
class Choice:
    r"""Chooses units, and finds the maps from all of them to those.

    - ``fusion`` (Intra-Fusion, Theus et al. 2024, arXiv 2402.07839): the most important units are
      kept. The exact transport plan from all units to these, with uniform masses, goes by how far
      apart their weights are: the L1 distance of all that writes and reads a unit, at length one.
      A new unit is the mean of those that it receives; what reads an old one is shared out, so that
      the next layer receives what it did.
    - ``magnitude``: the most important units are kept, the others left out.
    - ``interpolative`` (Chee et al., NeurIPS 2022): those units are kept that span what is
      read on items best, and a layer that read another one reads what they can make of it,
      :math:`(K + \lambda 1)^{-1} C` with their moments :math:`K` and those with the others
      :math:`C`.
    - ``random``: any, the floor of the others.

    Attributes:
        method: Which of these.
        seed: Of ``random``.
        moments: Name of a group, or of a weight that reads it in a way of its own -> (units, units)
            second moments of what is read on items.
        unit_length: Whether embeddings have length one.
    """

    method: Method
    seed: int
    moments: Mapping[str, Tensor]
    unit_length: bool

    def maps(self, name: str, weights: Weights, kept: int) -> Maps:
        """The maps of a group to so many units."""
        if self.method == "interpolative":
            if name not in self.moments:
                raise ValueError(f"no training item shows the units of {name}")
            return self._interpolation(name, weights, kept)
        features = torch.cat(list(weights.rows), dim=1)
        if self.method == "random":
            generator = torch.Generator().manual_seed(seed_for(self.seed, "units", name) % 2**63)
            return selection(torch.randperm(len(features), generator=generator)[:kept], features)
        layers = [rows for rows, one in zip(weights.rows, weights.layers, strict=True) if one]
        if self.method == "magnitude":
            return selection(
                importance(layers).argsort(descending=True, stable=True)[:kept], features
            )
        # Two copies of a unit are as important as one another, but one of them is enough.
        order = importance(layers).argsort(descending=True, stable=True)
        chosen = order[copies(features)[order].argsort(stable=True)][:kept].sort().values
        rows = normalize(features, dim=1, eps=SMALLEST)
        plan = unit_plan(rows, rows[chosen], cost="manhattan")
        return outgoing_map(plan), incoming_map(plan)

    def _interpolation(self, name: str, weights: Weights, kept: int) -> Maps:
        moments = self.moments[name]
        if name != EMBEDDING:
            outgoing = spanning_units(moments, weights.read, kept)
            return outgoing, least_squares(moments, outgoing)
        outgoing = spanning_units(moments, torch.ones_like(weights.read), kept)
        incoming = least_squares(moments, outgoing)
        if self.unit_length:
            # What is left of a vector is brought to length one again, and so is longer.
            share = (outgoing @ moments.diagonal()).sum() / moments.trace()
            incoming *= (share * len(moments) / kept).sqrt()
        return outgoing, incoming


def importance(layers: Sequence[Tensor]) -> Tensor:
    """(units,) mean over layers of the sum of absolute weights of each unit.

    ``layers`` are (units, numbers) of each linear map or convolution that writes or reads them.
    """
    return torch.stack([rows.abs().sum(1) for rows in layers]).mean(0)


def selection(chosen: Tensor, features: Tensor) -> Maps:
    """Maps that keep some of the units as they are, and leave out the others."""
    kept = chosen.sort().values
    maps = torch.eye(len(features), dtype=torch.float64)[kept]
    return maps, maps.T


def copies(features: Tensor) -> Tensor:
    """(units,) how many earlier units have the same (units, F) features, but for rounding."""
    apart = torch.cdist(features, features)
    alike: Tensor = apart <= ALIKE * features.norm(dim=1, keepdim=True)
    earlier: Tensor = alike.tril(-1).sum(1)
    return earlier


def spanning_units(moments: Tensor, read: Tensor, kept: int) -> Tensor:
    """(kept, units) ones where a unit is kept: those that span the others best, one after another.

    They are the pivots of a Cholesky decomposition, which are those of a QR decomposition of what
    was seen, each unit as long as what reads it.

    Args:
        moments: (units, units) second moments.
        read: (units,) sum of squares of the weights that read each.
        kept: How many.
    """
    left = moments * read.sqrt()[:, None] * read.sqrt()
    order: list[int] = []
    for _ in range(kept):
        diagonal = left.diagonal().clone()
        diagonal[order] = -torch.inf
        order.append(int(diagonal.argmax()))
        column = left[:, order[-1]] / diagonal[order[-1]].clamp(min=SMALLEST).sqrt()
        left.addr_(column, column, alpha=-1)
    return selection(torch.tensor(order), moments)[0]


def least_squares(moments: Tensor, outgoing: Tensor) -> Tensor:
    r"""(units, kept) how kept units make up all of them, :math:`C^T (K + \lambda 1)^{-1}`.

    Args:
        moments: (units, units) second moments.
        outgoing: (kept, units) which are kept; :math:`K` are their moments, :math:`C` those with
            all units.
    """
    across = outgoing @ moments
    among = across @ outgoing.T
    ridge = RIDGE * among.diagonal().mean() * torch.eye(len(among), dtype=moments.dtype)
    found: Tensor = torch.linalg.lstsq(among + ridge, across).solution.T
    return found
