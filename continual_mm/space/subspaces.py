"""Subspaces that later stages append to the joint space: their parts and their layout."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import Parameter
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Pair
from continual_mm.space.encoders import Encoder, GatedUnit
from continual_mm.space.naming import module_key

PartKind = Literal["adapted", "own", "head", "mapped"]
"""How a modality is mapped: by its encoder with adapters, by one more encoder, by a head, or by the
subspace's map of embeddings, which all such modalities share."""

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers that get adapters. Of just these types: what derives from them may do something else."""


class Adapters(nn.Module):
    r"""Low-rank changes of a tower's weights, which the tower itself does not see.

    The weight :math:`W` of each linear map and convolution becomes :math:`W + B A` with
    :math:`A` (r, inputs) drawn at random and :math:`B` (outputs, r) zero at first (LoRA, Hu et al.
    2021, arXiv 2106.09685, with a scale of 1). Convolutions in groups are left as they are.

    Args:
        tower: What is adapted; it is not kept.
        rank: r; a layer with fewer inputs or outputs gets the rank that W can have.
        seed: Where A comes from.
    """

    def __init__(self, tower: nn.Module, *, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed % 2**63)
        # A weight that another one makes, or that two layers share, is there once or not at all.
        weights = dict(tower.named_parameters())
        self._names: list[str] = []
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        for name, layer in tower.named_modules():
            key = f"{name}.weight" if name else "weight"
            adaptable = type(layer) in ADAPTABLE and getattr(layer, "groups", 1) == 1
            if not adaptable or key not in weights:
                continue
            weight = weights[key]
            outputs, inputs = len(weight), weight[0].numel()
            size = min(rank, outputs, inputs)
            drawn = torch.rand(size, inputs, generator=generator) * 2 - 1
            self._names.append(key)
            self.down.append(Parameter(drawn / math.sqrt(inputs)))
            self.up.append(Parameter(torch.zeros(outputs, size)))

    @property
    def names(self) -> tuple[str, ...]:
        """The tower's weights that are changed, in the order of ``down`` and ``up``."""
        return tuple(self._names)

    def forward(self, tower: nn.Module, values: Tensor, lengths: Tensor | None) -> Any:
        """What the tower gives with the changed weights."""
        weights = dict(tower.named_parameters())
        changed = {
            name: weights[name] + (up @ down).view_as(weights[name])
            for name, down, up in zip(self._names, self.down, self.up, strict=True)
        }
        return functional_call(tower, changed, (values, lengths))


class Part(nn.Module):
    """What maps one modality into one subspace: (n, ...) features to (n, heads * size).

    An adapted part and a head read what the modality's encoder pools, with adapters or as it is;
    an own encoder reads the features.
    """

    def __init__(
        self, kind: PartKind, encoder: Encoder, *, width: int, rank: int, seed: int
    ) -> None:
        super().__init__()
        self.adapters = Adapters(encoder, rank=rank, seed=seed) if kind == "adapted" else None
        # An encoder of its own has a unit already.
        self.encoder = encoder if kind == "own" else None
        self.unit = nn.Identity() if kind == "own" else GatedUnit(encoder.pooled, width)

    def forward(
        self, encoder: Encoder, values: Tensor, lengths: Tensor | None, pooled: Tensor
    ) -> Tensor:
        """(n, width) raw coordinates.

        Args:
            encoder: The modality's, in the base of the space.
            values: (n, ...) features.
            lengths: (n,) valid time steps, where the kind of signal has time.
            pooled: (n, pooled) what the encoder pools of the same features.
        """
        if self.encoder is not None:
            _, pooled = self.encoder(values, lengths)
        elif self.adapters is not None:
            pooled, _ = self.adapters(encoder, values, lengths)
        return cast(Tensor, self.unit(pooled))


@dataclass(frozen=True, slots=True)
class Block:
    """Coordinates that some modalities share: one head, each modality's with a factor."""

    head: int  # which of the subspace's heads
    # Modality -> what its unit vector is multiplied by; others have zeros here.
    factors: Mapping[str, float]


class Subspace(nn.Module):
    """Coordinates that one stage appends, so that similarities of its pairs get a further term.

    Each member has ``heads`` unit vectors of ``size`` numbers. What is appended to the vector of an
    item has, for each block of the layout, one head's unit vector times a factor, or zeros.

    Args:
        size: Numbers of one head.
        heads: How many heads there are.
        rank: Of adapters.
        noise: Length of the Gaussian noise that is added to embeddings, which have length one,
            before they are mapped in training.

    Attributes:
        kinds: Modality -> how it is mapped; it has a part as soon as the space has the modality.
        parts: Modality (as a module key) -> what maps it, unless the map does.
        map: (n, D) embeddings -> (n, heads * size), where a member has it.
        log_scale: Logarithm of the scale of its similarities in training.
        log_weights: (heads,) logarithm of how much each head counts beside earlier coordinates.
        layout: The blocks.
    """

    map: nn.Module | None

    def __init__(self, size: int, *, heads: int, rank: int, noise: float = 0.0) -> None:
        super().__init__()
        self.size, self.heads, self.rank, self.noise = size, heads, rank, noise
        self.kinds: dict[str, PartKind] = {}
        self.parts = nn.ModuleDict()
        self.map = None
        self.log_scale = Parameter(torch.zeros(()))
        self.log_weights = Parameter(torch.zeros(heads))
        self.layout: tuple[Block, ...] = tuple(Block(head, {}) for head in range(heads))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        mapped = self.map is not None and self.kinds.get(name) == "mapped"
        return mapped or module_key(name) in self.parts

    @property
    def width(self) -> int:
        """Numbers that it adds to every vector."""
        return self.size * len(self.layout)

    def part(self, name: str) -> nn.Module:
        """What maps a modality: a :class:`Part`, or the map."""
        if self.kinds[name] == "mapped" and self.map is not None:
            return self.map
        return self.parts[module_key(name)]

    def join(self, name: str, kind: PartKind, partners: Iterable[str] | None = None) -> None:
        """Make a modality a member, with the factor 1 in the blocks of some members, or in all."""
        self.kinds[name] = kind
        wanted = None if partners is None else set(partners)
        self.layout = tuple(
            Block(one.head, {**one.factors, name: 1.0})
            if wanted is None or wanted & one.factors.keys()
            else one
            for one in self.layout
        )

    def meets(self, partners: Iterable[str]) -> bool:
        """Whether one of some modalities has coordinates that another may share."""
        wanted = set(partners)
        return any(wanted & one.factors.keys() for one in self.layout)

    def units(self, raw: Tensor) -> Tensor:
        """(n, heads * size) raw coordinates -> (n, heads, size) unit vectors."""
        return normalize(raw.float().reshape(len(raw), self.heads, self.size), dim=2)

    def coordinates(self, name: str, units: Tensor | None, like: Tensor) -> Tensor:
        """(n, width) what is appended to vectors.

        Args:
            name: The modality.
            units: (n, heads, size) of it; None where it has none, which gives zeros.
            like: (n, ...) says how many there are, and where.
        """
        found = like.new_zeros(like.shape[0], len(self.layout), self.size)
        if units is not None:
            for place, block in enumerate(self.layout):
                if name in block.factors:
                    found[:, place] = block.factors[name] * units[:, block.head]
        return found.flatten(1)

    def describe(self) -> dict[str, Any]:
        """All that :meth:`of` needs besides the weights, as JSON values."""
        return {
            "size": self.size,
            "heads": self.heads,
            "rank": self.rank,
            **({"noise": self.noise} if self.noise else {}),
            "kinds": dict(self.kinds),
            "layout": [{"head": one.head, "factors": dict(one.factors)} for one in self.layout],
        }

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """A subspace of the described sizes, kinds and layout, without parts."""
        found = cls(
            description["size"],
            heads=description["heads"],
            rank=description["rank"],
            noise=description.get("noise", 0.0),
        )
        found.kinds = dict(description["kinds"])
        found.layout = tuple(
            Block(one["head"], dict(one["factors"])) for one in description["layout"]
        )
        return found


def embedding_map(dim: int, width: int) -> nn.Sequential:
    """(n, dim) embeddings -> (n, width) raw coordinates."""
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, width))


def connected(names: Iterable[str], pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """Modality -> those that a chain of pairs connects it with, itself among them.

    >>> known = connected(["a", "b", "c", "d"], [Pair("a", "b"), Pair("b", "c")])
    >>> sorted(known["a"]), sorted(known["d"])
    (['a', 'b', 'c'], ['d'])
    """
    found = {name: {name} for name in names}
    for each in pairs:
        joined = found[each.first] | found[each.second]
        found |= dict.fromkeys(joined, joined)
    return found


def cliques(
    members: Sequence[str], edges: Iterable[tuple[str, str]]
) -> tuple[tuple[str, ...], ...]:
    """Groups of modalities such that each edge lies in exactly one group, and no other pair in any.

    Greedy: it is exact for the few modalities of a stage, if not always the fewest groups.

    >>> cliques(["audio", "text", "video"], [("audio", "text"), ("text", "video")])
    (('audio', 'text'), ('text', 'video'))
    >>> cliques(["a", "b", "c"], [("a", "b"), ("a", "c"), ("b", "c")])
    (('a', 'b', 'c'),)
    """
    left = {frozenset(edge) for edge in edges}
    found = []
    while left:
        group = sorted(min(left, key=sorted))
        for name in members:
            if name not in group and all(frozenset((name, each)) in left for each in group):
                group.append(name)
        group.sort(key=list(members).index)
        left -= {frozenset((one, two)) for one in group for two in group if one != two}
        found.append(tuple(group))
    return tuple(found)
