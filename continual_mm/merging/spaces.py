"""A second space's encoders join a first space: aligned by what both see, then put side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from continual_mm.data.batch import Batch
from continual_mm.merging.fuse import averaged, matched, reestimate_norms
from continual_mm.merging.groups import groups_of
from continual_mm.merging.maps import (
    incoming_map,
    orthogonal_map,
    residual,
    standardised_units,
    unit_plan,
)
from continual_mm.space.encoders import Encoder
from continual_mm.space.merged import Merged
from continual_mm.space.space import JointSpace

Align = Literal["procrustes", "transport", "none"]
"""How the second space is turned: by a rotation, by a permutation of its dimensions, not at all."""

Shared = Literal["keep-a", "keep-both", "average"]
"""What encodes a modality of both: the first encoder, the mean of the embeddings, or of the
weights."""

Own = tuple[Encoder, nn.Module]
"""An encoder and its reconstruction head."""

Batches = Callable[[], Iterable[Batch]]
"""Gives the items that spaces are aligned by, some at a time, whenever it is called."""

UNITS_SEEN = 512  # items by which hidden units are matched, at most


@dataclass(frozen=True, slots=True)
class Alignment:
    """How well the second space could be turned into the first.

    Distances are root mean squares over the items' embeddings, which have length one: 0 if the
    spaces agree, 1.41 if embeddings have nothing to do with one another.
    """

    align: str
    shared: str
    modalities: tuple[str, ...]  # those that both have
    items: int  # embeddings of them that the map was found by
    dim: int
    before: float  # distance as they were
    after: float  # distance behind the map

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {**asdict(self), "modalities": list(self.modalities), "note": str(self)}

    def __str__(self) -> str:
        few = f", fewer than the {self.dim} dimensions" if self.items < self.dim else ""
        return (
            f"aligned by {self.align} on {self.items} embeddings of "
            f"{' and '.join(self.modalities)}{few}: distance {self.before:.3f} before, "
            f"{self.after:.3f} after; {self.shared}; the second run's centroids, logit scale and "
            "optimiser state were not carried over"
        )


def problem_of(space: JointSpace, shared: Sequence[str], align: Align, how: Shared) -> str:
    """Why a space's encoders of some modalities cannot be merged with others; empty if they can."""
    if space.fuses:
        return "modalities share a transformer, so that no encoder can be taken over alone"
    if how == "average" and align == "procrustes":
        return "weights of rotated encoders cannot be averaged: the gates do not turn with them"
    if how == "average" and space.resized:
        return "a compressed space has fewer units than there are to average"
    if space.subspaces and how != "keep-a":
        return f"a grown space reads its own encoders, which {how} would change"
    for name in shared if how == "average" else ():
        try:
            groups_of(space.tower(name))
        except ValueError as error:
            return str(error)
    return ""


def embedding_map(source: Tensor, target: Tensor, align: Align) -> Tensor:
    """(D, D) what brings (n, D) embeddings near to others, ``source @ map``."""
    if align == "procrustes":
        return orthogonal_map(source, target)
    if align == "transport":
        plan = unit_plan(standardised_units(source), standardised_units(target))
        return incoming_map(plan).to(source)
    return torch.eye(source.shape[1]).to(source)


def turned_head(head: nn.Module, rotation: Tensor) -> nn.Module:
    """A copy of a reconstruction head that reads turned embeddings and gives what it gave."""
    found = deepcopy(head)
    first = next(module for module in found.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        weight = first.weight.double() @ rotation.to(first.weight.device).double()
        first.weight.copy_(weight)
    return found


@torch.no_grad()
def merge_into(
    space: JointSpace,
    others: Mapping[str, Own],
    shared: Sequence[str],
    batches: Batches,
    *,
    align: Align,
    how: Shared,
) -> Alignment:
    r"""Let encoders of a second space join a space.

    The map :math:`Q` is found by the shared modalities, whose items both spaces embed. Encoders
    of modalities that only the second space has become :math:`e(x)\,Q`, with heads that follow
    exactly, :math:`W' = W Q`. The centroids, the scale and, of shared modalities, the head stay
    those of the first space. Everything of the first space keeps its bits where ``how`` is
    ``keep-a``.

    Args:
        space: The first, which has all the modalities; what it has for those that only the second
            space knows is replaced.
        others: Modality -> encoder and reconstruction head in the second space.
        shared: Modalities that both have; at least one.
        batches: Gives items with at least one of them; called for each modality.
        align: How the second space is turned.
        how: What becomes of shared modalities.

    Raises:
        ValueError: If no item has one of the shared modalities, or :func:`problem_of` finds one.
    """
    if problem := problem_of(space, shared, align, how):
        raise ValueError(problem)
    training = space.training
    space.eval()
    for encoder, _ in others.values():
        encoder.eval()
    sides = [each for name in shared for each in _directions(space, others, name, batches())]
    if not sides:
        raise ValueError(f"no item has {' or '.join(shared)}, which the spaces are aligned by")
    first, second = (torch.cat([each[k] for each in sides]) for k in (0, 1))
    rotation = embedding_map(second, first, align)
    for name, (encoder, head) in others.items():
        if name not in shared:
            turned = _merged(space, [encoder], [rotation])
            space.replace_encoder(name, turned, turned_head(head, rotation))
        elif how != "keep-a":
            both = _both(space, name, encoder, rotation, batches, align=align, how=how)
            space.replace_encoder(name, both, space.head(name))
    space.train(training)
    return Alignment(
        align,
        how,
        tuple(shared),
        len(first),
        first.shape[1],
        residual(second, first),
        residual(second @ rotation, first),
    )


def _directions(
    space: JointSpace, others: Mapping[str, Own], name: str, batches: Iterable[Batch]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Unit embeddings of a modality's items in both spaces."""
    for values, lengths in _items(space, name, batches):
        first, second = (
            space.embed(name, encoder, values, lengths, hiding=False).direction
            for encoder in (space.tower(name), others[name][0])
        )
        yield first, second


def _items(
    space: JointSpace, name: str, batches: Iterable[Batch], most: int | None = None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    left = most
    for batch in batches:
        if left == 0:
            return
        values = batch.features.get(name)
        if values is None or not len(values):
            continue
        lengths = batch.lengths.get(name)
        if left is not None:
            values, lengths = values[:left], None if lengths is None else lengths[:left]
            left -= len(values)
        device = space.log_scale.device
        yield values.to(device), None if lengths is None else lengths.to(device)


def _both(
    space: JointSpace,
    name: str,
    second: Encoder,
    rotation: Tensor,
    batches: Batches,
    *,
    align: Align,
    how: Shared,
) -> Encoder:
    first = space.tower(name)
    if how == "keep-both":
        return _merged(space, [first, second], [torch.eye(len(rotation)).to(rotation), rotation])
    state = dict(second.state_dict())
    if align == "transport":
        some = _items(space, name, batches(), UNITS_SEEN)
        state = matched(second, first, some, rotation)
    found = averaged(first, state)
    reestimate_norms(found, _items(space, name, batches()))
    return found


def _merged(space: JointSpace, parts: Sequence[Encoder], maps: Sequence[Tensor]) -> Merged:
    found = Merged(parts, maps, normalised=space.form.normalised)
    return found.to(space.log_scale.device)
