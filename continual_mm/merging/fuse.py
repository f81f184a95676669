"""Two encoders of one modality become one: their units are matched, then their weights averaged."""

from collections.abc import Iterable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from continual_mm.merging.groups import EMBEDDING, activations, carried, groups_of
from continual_mm.merging.maps import (
    incoming_map,
    outgoing_map,
    standardised_units,
    unit_plan,
)
from continual_mm.space.encoders import Encoder

Batches = Iterable[tuple[Tensor, Tensor | None]]
"""Values and lengths of one modality, some items at a time."""

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def matched(
    second: Encoder, first: Encoder, batches: Batches, rotation: Tensor
) -> dict[str, Tensor]:
    """The state of an encoder with its units in the order of another one's, as far as they agree.

    Hidden units are matched by their standardised activations on the same items.

    Args:
        second: What is carried over.
        first: An encoder of the same shape; both in evaluation mode.
        batches: Some hundred items.
        rotation: (D, D) permutation of embeddings, ``z @ rotation``.
    """
    items = list(batches)
    groups = groups_of(second)
    theirs, ours = (activations(each, items, groups) for each in (second, first))
    maps = {EMBEDDING: (rotation.T, rotation)}
    for name, values in theirs.items():
        plan = unit_plan(standardised_units(values), standardised_units(ours[name]))
        maps[name] = outgoing_map(plan), incoming_map(plan)
    return carried(second.state_dict(), groups, maps)


def averaged(first: Encoder, second: Mapping[str, Tensor], *, share: float = 0.5) -> Encoder:
    """A copy of an encoder whose weights lie between its own and others of the same names.

    Args:
        first: An encoder; it stays as it is.
        second: The other state.
        share: How far to go, in [0, 1]: 0 gives the first, 1 the second.
    """
    found = deepcopy(first)
    with torch.no_grad():
        for name, value in found.state_dict().items():
            if value.is_floating_point():
                value.lerp_(second[name].to(value), share)
    return found


@torch.no_grad()
def reestimate_norms(encoder: Encoder, batches: Batches) -> None:
    """Measure the running statistics of batch norms anew: those of averaged weights are others."""
    norms = [module for module in encoder.modules() if isinstance(module, NORMS)]
    training, momenta = encoder.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    encoder.train()
    if norms:
        for values, lengths in batches:
            encoder(values, lengths)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.train(training)
