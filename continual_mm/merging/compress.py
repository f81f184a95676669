"""A space with fewer units, whose groups are compressed one after another, without training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.data.batch import Batch
from continual_mm.merging.groups import EMBEDDING, Group, Place, carry
from continual_mm.merging.norms import BatchNorm, State, batch_norms
from continual_mm.merging.space_groups import embedding_group, hidden_groups
from continual_mm.merging.units import Choice, Method, Weights, least_squares
from continual_mm.space.space import JointSpace

Units = Literal["hidden", "embedding", "all"]
"""Which units: inside encoders and subspaces, the dimensions of the embedding, or both."""

ROUNDING = 1e-9  # below which a share of units is taken for the whole number above it


@dataclass(frozen=True, slots=True)
class Compressed:
    """What became of a space.

    Attributes:
        groups: Name of a group of units -> how many there were, and are.
        weights: Numbers of its encoders and subspaces, before and after.
        notes: A line for each encoder whose units are unknown and stayed.
    """

    groups: dict[str, tuple[int, int]]
    weights: tuple[int, int]
    notes: tuple[str, ...]


@torch.no_grad()
def compress_space(
    space: JointSpace,
    keep: float,
    *,
    method: Method,
    units: Units,
    batches: Iterable[Batch] = (),
    seed: int = 0,
) -> Compressed:
    r"""Leave a space only a share of its units, without any training.

    From the last group of units to the first one, :math:`k = \lfloor n \cdot keep \rfloor` (at
    least one; two dimensions) of its :math:`n` units are chosen, and what reads the others reads
    these instead, see :class:`~continual_mm.merging.units.Choice`. Batch norms are folded into
    their layers, with their epsilon, and taken out again. Where all are kept, every bit stays.

    Args:
        space: It becomes the compressed one, in evaluation mode.
        keep: Share of the units of each group that is kept, in (0, 1].
        method: How they are chosen, and what becomes of the others.
        units: Which groups. The dimensions of the embedding are one group of all modalities, with
            reconstruction heads, centroids and what subspaces read of it.
        batches: Items with all modalities, for ``interpolative``.
        seed: Of ``random``.

    Raises:
        ValueError: If the units asked for are none, or cannot be compressed so.
    """
    space.eval()
    groups, notes = hidden_groups(space) if units != "embedding" else ([], [])
    if units != "hidden":
        groups = [*groups, embedding_group(space)]
    if not groups:
        raise ValueError("has no hidden units")
    moments = read_moments(space, groups, batches) if method == "interpolative" else {}
    how = Choice(method, seed, moments, space.form.normalised)
    before = {name: value.clone() for name, value in space.state_dict().items()}
    state = {
        name: value.cpu().double() if value.is_floating_point() else value
        for name, value in before.items()
    }
    sizes, dim = {}, None
    for group in reversed(groups):
        count = len(group.writers[0].rows(state))
        kept = kept_units(count, keep, least=2 if group.name == EMBEDDING else 1)
        sizes[group.name] = count, kept
        if kept < count:
            _shrink(state, group, kept, how, batch_norms(space, group))
            dim = kept if group.name == EMBEDDING else dim
    if space.form.normalised and dim is not None:
        state["centroids"] = normalize(state["centroids"], dim=1)
    changed = {name for name, value in state.items() if value.shape != before[name].shape}
    weighed = _weights(space)
    space.resize({name: tuple(state[name].shape) for name in changed}, dim=dim)
    # What no group touched keeps its bits: it went to float64 and back.
    space.load_state_dict({name: value.to(before[name]) for name, value in state.items()})
    return Compressed(dict(reversed(sizes.items())), (weighed, _weights(space)), tuple(notes))


def kept_units(count: int, keep: float, *, least: int = 1) -> int:
    """How many of some units a share is, rounded down, but ``least`` if there are as many.

    >>> kept_units(10, 0.35), kept_units(100, 0.29), kept_units(3, 0.1)
    (3, 29, 1)
    """
    return min(count, max(least, math.floor(count * keep + ROUNDING)))


def _shrink(state: State, group: Group, kept: int, how: Choice, norms: list[BatchNorm]) -> None:
    """Leave a group so many units."""
    for norm in norms:
        norm.fold(state)
    inside = {name for norm in norms for name in norm.statistics}
    writers, readers = (
        [each for each in places if each.tensor not in inside]
        for places in (group.writers, group.readers)
    )
    weights = Weights(
        [each.rows(state) for each in (*writers, *readers)],
        [state[each.tensor].dim() > 1 for each in (*writers, *readers)],
        torch.cat([each.rows(state) for each in readers], dim=1).square().sum(1),
    )
    outgoing, incoming = how.maps(group.name, weights, kept)
    own = {
        each.tensor: least_squares(how.moments[each.tensor], outgoing)
        for each in readers
        if each.tensor in how.moments
    }
    carry(state, group, outgoing, incoming, own)
    for norm in norms:
        norm.unfold(state)


@torch.no_grad()
def read_moments(
    space: JointSpace, groups: Iterable[Group], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """Second moments of units as they are read: name of a group -> (units, units), float64.

    Summed over items, and over their time steps where they have a value at each; of an encoder with
    adapters as it is, and with these. The embedding is read by whoever compares items; the gates
    that read its dimensions before have moments of their own, by the names of their weights.
    """
    found: dict[str, Tensor] = {}
    handles = []
    for group in groups:
        gates = [each for each in group.readers if each.tensor.startswith("encoders.")]
        places = {each.tensor: each for each in gates}
        if group.name != EMBEDDING:
            places = {group.name: group.readers[0]}
        handles += [_listen(space, place, name, found) for name, place in places.items()]
    try:
        for batch in batches:
            own = batch.to(space.log_scale.device)
            for embedded in space(own.features, own.lengths).values():
                _add(found, EMBEDDING, embedded.embedding)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _listen(
    space: JointSpace, place: Place, name: str, into: dict[str, Tensor]
) -> torch.utils.hooks.RemovableHandle:
    """Add what the layer of a weight reads to the moments of a name."""
    reader = space.get_submodule(place.tensor.removesuffix(".weight"))
    axis = 1 if isinstance(reader, nn.Conv1d) else -1

    def note(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].movedim(axis, -1)
        _add(into, name, values.reshape(-1, values.shape[-1] // place.blocks))

    return reader.register_forward_pre_hook(note)


def _add(moments: dict[str, Tensor], name: str, rows: Tensor) -> None:
    seen = rows.double()
    found = (seen.T @ seen).cpu()
    moments[name] = moments[name] + found if name in moments else found


def _weights(space: JointSpace) -> int:
    return sum(
        each.numel() for part in (space.encoders, space.subspaces) for each in part.parameters()
    )
