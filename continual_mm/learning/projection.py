"""A linear map of vectors to fewer numbers, under which items answer one another as they did."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.losses.distillation import row_divergence
from continual_mm.system.seeds import seed_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """How the map is learned.

    Attributes:
        steps: Steps of Adam.
        items: Items in a step.
        rate: Learning rate at first; it falls to zero along a cosine.
        temperature: Of the softmax over a pair's similarities, in units of their standard
            deviation.
    """

    steps: int = 300
    items: int = 256
    rate: float = 0.003
    temperature: float = 0.35


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of some items, each of which has some of the modalities."""

    of: dict[str, Tensor] = field(default_factory=dict)  # modality -> (n_m, size)
    rows: dict[str, Tensor] = field(default_factory=dict)  # modality -> (n_m,) the items, ascending

    @property
    def items(self) -> Tensor:
        """(n,) all items, ascending."""
        found: Tensor = torch.unique(torch.cat(list(self.rows.values())))
        return found

    def select(self, rows: Tensor) -> "Vectors":
        """Those of some items."""
        chosen = {name: torch.isin(each, rows) for name, each in self.rows.items()}
        return Vectors(
            {name: each[chosen[name]] for name, each in self.of.items()},
            {name: each[chosen[name]] for name, each in self.rows.items()},
        )


class Moments:
    """The second moment of each modality's vectors, added up in blocks."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, vectors: Tensor) -> None:
        """Add a block, (n, size)."""
        wide = vectors.double()
        self._sums[name] = self._sums.get(name, 0) + wide.T @ wide
        self._counts[name] = self._counts.get(name, 0) + len(wide)

    def principal_axes(self, dim: int, factors: Mapping[str, float]) -> Tensor:
        """(size, dim) the orthonormal axes along which the second moment is largest, descending.

        Vectors count with the factor of their modality, and modalities equally, however many items
        have them. It is principal component analysis without centring: no map of this size keeps
        more of all inner products (Eckart and Young 1936).
        """
        parts = [
            factors.get(name, 1.0) ** 2 * each / self._counts[name]
            for name, each in self._sums.items()
        ]
        _, axes = torch.linalg.eigh(torch.stack(parts).sum(0))
        found: Tensor = axes[:, -dim:].flip(1).float()
        return found


def random_axes(size: int, dim: int, *, seed: int) -> Tensor:
    """(size, dim) orthonormal axes of a random subspace."""
    generator = torch.Generator().manual_seed(seed_for(seed, "random axes"))
    drawn = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    found: Tensor = torch.linalg.qr(drawn)[0].float()
    return found


def distilled_projection(
    vectors: Vectors,
    start: Tensor,
    settings: Distillation,
    *,
    seed: int,
    tell: Callable[[], None] = lambda: None,
) -> Tensor:
    r"""One map of all modalities under which queries of all pairs choose as they did.

    .. math::
        \min_{W} \sum_{a < b} \frac1n \sum_i \mathrm{KL}\big(\mathrm{softmax}(X_a X_b^\top / \tau)_i
        \,\|\, \mathrm{softmax}(X_a W (X_b W)^\top / \tau)_i\big) + \text{the other direction}

    of the vectors X of some items, drawn anew at each step
    (:func:`~continual_mm.losses.distillation.row_divergence`). It is a relation of items, for which
    the number of coordinates does not matter, and pairs that were never trained have one like all
    others.

    Args:
        vectors: Those of some items.
        start: (size, dim) where W starts.
        settings: How.
        seed: Of the order of the items.
        tell: Called after each step.

    Returns:
        W, (size, dim).
    """
    temperatures = temperatures_of(vectors, settings.temperature)
    projection = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([projection], lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.steps))
    for some in _drawn(vectors, settings, seed):
        loss = divergence(some, projection, temperatures)
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        tell()
    return projection.detach()


def temperatures_of(vectors: Vectors, factor: float) -> dict[Pair, float]:
    """A temperature for each pair, ``factor`` times the spread of its similarities."""
    return {
        each: factor * spread(vectors.of[each.first], vectors.of[each.second])
        for each in all_pairs(tuple(vectors.of))
    }


def _drawn(vectors: Vectors, settings: Distillation, seed: int) -> Iterator[Vectors]:
    """Vectors of other items at each step."""
    rows = vectors.items
    generator = torch.Generator().manual_seed(seed_for(seed, "projection"))
    for _ in range(settings.steps):
        chosen = torch.randperm(len(rows), generator=generator)[: settings.items]
        yield vectors.select(rows[chosen])


def divergence(some: Vectors, projection: Tensor, temperatures: Mapping[Pair, float]) -> Tensor:
    """How differently queries of some items choose under a map, in nats: the sum over pairs."""
    mapped = {name: each @ projection for name, each in some.of.items()}
    total = projection.new_zeros(())
    for each, temperature in temperatures.items():
        names = each.first, each.second
        # Among fewer than two items there is nothing to choose.
        if temperature and all(len(some.of.get(name, ())) > 1 for name in names):
            before, after = (of[each.first] @ of[each.second].T for of in (some.of, mapped))
            total = total + row_divergence(after, before, temperature=temperature, right_only=False)
    return total


def spread(first: Tensor, second: Tensor) -> float:
    r"""Standard deviation of the similarities of items, (n, size) and (m, size).

    What a row or a column has in common is left out, since no ranking and no plan depends on it:
    :math:`\sqrt{\operatorname{tr}(\Sigma_1 \Sigma_2)}` with their covariances.
    """
    covariances = (torch.cov(each.double().T, correction=0) for each in (first, second))
    one, two = covariances
    return float((one * two).sum().clamp(min=0).sqrt())
