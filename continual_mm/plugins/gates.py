"""How much a subspace counts for each pair, decided on items that were held out of its stage."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from continual_mm.definitions.modality import Pair
from continual_mm.metrics.likelihood import fitted_log_likelihood, gain
from continual_mm.space.subspaces import Block, cliques

FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""What a head's learned weight may be multiplied by for the stage's pairs."""

OLD_WEIGHTS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""How much the subspace may count for a pair of earlier stages, relative to the stage's pairs."""

OWN_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""What the head that such pairs have for themselves may count."""

ABOVE = 0.005
"""Share of a pair's similarities that exceed its level: one in two hundred."""

FEWEST = 8
"""Held-out items that decide anything: of fewer the standard error itself is hardly known."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Similarities of a pair's held-out items; items i of both sides belong together."""

    rows: Tensor  # (n,) of the dataset
    earlier: Tensor  # (n, n) in the coordinates of earlier stages
    heads: Tensor  # (heads, n, n) in those of the subspace
    # (n, n) which items answer one another, if others than each itself do.
    right: Tensor | None = None

    def log_likelihood(self, weights: Sequence[float]) -> Tensor:
        """(n,) of the right answers, with a weight for each of the first heads."""
        factors = self.heads.new_tensor(weights)[:, None, None]
        heads = self.heads[: len(weights)]
        return fitted_log_likelihood(self.earlier + (factors * heads).sum(0), self.right)


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision, and the figures that it was made by."""

    pairs: tuple[str, ...]  # for which pairs
    weights: tuple[float, ...]  # what each head counts for them; 0 leaves it out
    default: tuple[float, ...]  # what it would count without held-out items
    items: int  # Held-out items
    # By how much the mean log-likelihood of the best weights, in nats, is above that of the
    # default.
    gain: float
    error: float  # standard error of the gain

    def as_json(self) -> dict[str, Any]:
        """The choice as ``scores.json`` has it."""
        return {
            "pairs": list(self.pairs),
            "weights": [round(each, 4) for each in self.weights],
            "default": [round(each, 4) for each in self.default],
            "items": self.items,
            "gain": round(self.gain, 4),
            "error": round(self.error, 4) if self.error != float("inf") else None,
        }


def choose(
    pairs: Iterable[Pair],
    held_out: Mapping[Pair, HeldOut],
    candidates: Iterable[tuple[float, ...]],
    default: tuple[float, ...],
) -> Choice:
    """The weights of the highest mean log-likelihood; the default, unless they are surely better.

    The default stays where the gain is not above its standard error over items, as it is where few
    items were held out (the one-standard-error rule, Breiman et al. 1984).

    Args:
        pairs: For which the choice is.
        held_out: Similarities of those of them that have held-out items.
        candidates: Weights of the heads.
        default: The weights without any evidence.
    """
    before = _log_likelihood(held_out, default)
    rows = torch.cat([each.rows for each in held_out.values()] or [torch.empty(0)])
    items, item = torch.unique(rows, return_inverse=True)
    best, above, error = default, 0.0, 0.0
    for weights in candidates if len(items) >= FEWEST else ():
        after = _log_likelihood(held_out, weights)
        found = gain(_by_item(after, item, len(items)), _by_item(before, item, len(items)))
        if found[0] > above:
            best, (above, error) = weights, found
    chosen = best if above > error else default
    return Choice(tuple(map(str, pairs)), chosen, default, len(items), above, error)


def _log_likelihood(held_out: Mapping[Pair, HeldOut], weights: Sequence[float]) -> Tensor:
    found = [each.log_likelihood(weights) for each in held_out.values()]
    return torch.cat(found or [torch.empty(0)])


def _by_item(values: Tensor, item: Tensor, items: int) -> Tensor:
    """(items,) the mean over the pairs of each item, which are not independent of one another."""
    total = torch.zeros(items, dtype=values.dtype).index_add_(0, item, values)
    return total / torch.bincount(item, minlength=items)


def choose_trained(
    pairs: Iterable[Pair], held_out: Mapping[Pair, HeldOut], learned: Sequence[float]
) -> Choice:
    """How much each head counts for the pairs that the stage trained; ``learned`` by default."""
    candidates = (
        tuple(weight * factor for weight, factor in zip(learned, factors, strict=True))
        for factors in product(FACTORS, repeat=len(learned))
        if any(factors)
    )
    return choose(pairs, held_out, candidates, tuple(learned))


def choose_old(
    held_out: Mapping[Pair, HeldOut],
    weights: Sequence[float],
    *,
    whole: bool,
    own: Collection[Pair] = (),
) -> tuple[Choice, ...]:
    """How much the subspace counts for each pair of earlier stages; not at all by default.

    Pairs that gain by the heads of the stage's pairs do so with one common share, since in one
    block they cannot differ.

    Args:
        held_out: Similarities of each pair.
        weights: What each head counts for the pairs that the stage trained.
        whole: Whether it can count as much as for those only, or not at all.
        own: Pairs that have learned one more head, for themselves alone; if there are any, its
            weight comes last. It counts beside the others only: without them, these would need
            coordinates for each pair.
    """
    none = (0.0,) * (len(weights) + bool(own))
    unlearned = (0.0,) * bool(own)  # of pairs that no step of the head has seen
    shares: tuple[float, ...] = (1.0,) if whole else OLD_WEIGHTS
    while True:
        candidates = {
            each: _old_candidates(weights, shares, OWN_WEIGHTS if each in own else unlearned)
            for each in held_out
        }
        choices = tuple(choose([k], {k: v}, candidates[k], none) for k, v in held_out.items())
        gaining = {
            each: held
            for (each, held), found in zip(held_out.items(), choices, strict=True)
            if any(found.weights[: len(weights)])
        }
        if len({found.weights[: len(weights)] for found in choices} - {none[: len(weights)]}) < 2:
            return choices
        common = choose(gaining, gaining, _old_candidates(weights, shares, unlearned), none)
        shares = (max(common.weights) / max(weights),) if any(common.weights) else ()


def _old_candidates(
    weights: Sequence[float], shares: Sequence[float], own: Sequence[float]
) -> list[tuple[float, ...]]:
    found = [tuple(share * each for each in weights) for share in shares]
    return [(*one, more) for one in found for more in own] if own else found


def mixing_factors(vectors: Mapping[str, Tensor], pairs: Iterable[Pair]) -> dict[str, float]:
    r"""One factor per modality with which similarities of different pairs have one scale.

    The level m of a pair is the similarity that :data:`ABOVE` of all its similarities exceed, so
    where items of several modalities share an index each has as many among the first answers. No
    item needs a partner. The factors c are such that :math:`c_a c_b m_{ab} = 1` for each pair; by
    least squares of logarithms, the smallest where they are not determined.

    Args:
        vectors: Modality -> (n, size) of items that no stage trained on.
        pairs: Which are to be comparable; those whose level is not positive are left out.

    >>> vectors = {"a": torch.eye(2), "b": torch.full((3, 2), 0.25)}
    >>> {name: round(c, 3) for name, c in mixing_factors(vectors, [Pair("a", "b")]).items()}
    {'a': 2.0, 'b': 2.0}
    """
    known = {}
    for each in sorted(set(pairs)):
        if not all(len(vectors.get(name, ())) for name in (each.first, each.second)):
            continue
        level = _level(vectors[each.first] @ vectors[each.second].T)
        if level > 0:
            known[each] = level
    names = sorted({name for each in known for name in (each.first, each.second)})
    if not names:
        return {}
    equations = torch.zeros(len(known), len(names), dtype=torch.float64)
    for place, each in enumerate(known):
        equations[place, names.index(each.first)] = 1
        equations[place, names.index(each.second)] = 1
    wanted = -torch.tensor(list(known.values()), dtype=torch.float64).log()
    found = torch.linalg.pinv(equations) @ wanted
    return dict(zip(names, found.exp().tolist(), strict=True))


def _level(similarities: Tensor) -> float:
    above = max(1, round(ABOVE * similarities.numel()))
    return float(similarities.flatten().topk(above).values[-1])


def layout(
    old: Sequence[str],
    arriving: Sequence[str],
    trained: Iterable[Pair],
    weights: Sequence[float],
    gates: Mapping[Pair, float],
    own: Mapping[Pair, float],
) -> tuple[Block, ...]:
    """Blocks in which trained pairs count with their weights, and old ones as their gates say.

    Modalities that must not meet have blocks of their own, in each of which the other members
    are repeated.

    Args:
        old: Members that the space had before.
        arriving: Members that arrived with the stage.
        trained: Pairs that the stage trained.
        weights: What each head counts for them.
        gates: Old pair -> how much the subspace counts for it, relative to the trained pairs: the
            same for all, or 0.
        own: Old pair -> what the head counts that follows those of the trained pairs.
    """
    edges = [(pair.first, pair.second) for pair in trained]
    edges += [(pair.first, pair.second) for pair, share in gates.items() if share]
    blocks = []
    for group in cliques([*old, *arriving], edges):
        shares = {
            share
            for pair, share in gates.items()
            if share and pair.first in group and pair.second in group
        }
        # The product of two old factors is the gate, that of an old and a new one stays 1.
        old_factor = sqrt(shares.pop()) if shares else 1.0
        for head, weight in enumerate(weights):
            if weight:
                factors = {
                    name: sqrt(weight) * (old_factor if name in old else 1 / old_factor)
                    for name in group
                }
                blocks.append(Block(head, factors))
    blocks += [
        Block(len(weights), dict.fromkeys((pair.first, pair.second), sqrt(weight)))
        for pair, weight in own.items()
        if weight
    ]
    return tuple(blocks)
