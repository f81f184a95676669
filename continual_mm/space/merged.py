"""An encoder of several encoders, each with a fixed map of its embeddings."""

from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.space.encoders import Encoder


class Merged(Encoder):
    r"""Encoders of one modality that were trained in several spaces, as one of a single space.

    .. math::
        z(x) = e(x)\, Q \quad \text{of one}, \qquad
        z(x) = \frac{1}{k} \sum_{i=1}^k \frac{e_i(x)}{\lVert e_i(x) \rVert}\, Q_i
        \quad \text{of several}

    The maps are buffers: training changes the encoders, and Q stays. What is pooled, the target of
    the reconstruction, is what the first encoder pools.

    Args:
        parts: The encoders, one or more; those of a part that is merged itself are taken out of it.
        maps: (D, D) of each.
        normalised: Whether embeddings of several have length one before they are added, as where
            a space compares unit vectors.
    """

    def __init__(
        self, parts: Sequence[Encoder], maps: Sequence[Tensor], *, normalised: bool
    ) -> None:
        super().__init__()
        flat = [
            (inner, own @ one.to(own) if own is not None else one)
            for part, one in zip(parts, maps, strict=True)
            for inner, own in _parts(part)
        ]
        self.parts = nn.ModuleList(part for part, _ in flat)
        for number, (_, one) in enumerate(flat):
            self.register_buffer(f"map_{number}", one.detach().clone())
        self.normalised = normalised
        self.pooled = flat[0][0].pooled

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        """Those of the single spaces."""
        return cast(tuple[Encoder, ...], tuple(self.parts))

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """(D, D) of each."""
        return tuple(self.get_buffer(f"map_{number}") for number in range(len(self.parts)))

    @classmethod
    def blank(cls, parts: Sequence[Encoder], dim: int, *, normalised: bool) -> Self:
        """Of encoders that are not merged themselves, with maps that change nothing."""
        return cls(parts, [torch.eye(dim)] * len(parts), normalised=normalised)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) -> (n, pooled), (n, D)."""
        found = [part(values, lengths) for part in self.encoders]
        several = self.normalised and len(found) > 1
        # A map in half precision would be no rotation.
        with torch.autocast(values.device.type, enabled=False):
            mapped = [
                (normalize(raw.float(), dim=1) if several else raw.float()) @ one
                for (_, raw), one in zip(found, self.maps, strict=True)
            ]
        return found[0][0], torch.stack(mapped).mean(0) if len(mapped) > 1 else mapped[0]


def _parts(encoder: Encoder) -> list[tuple[Encoder, Tensor | None]]:
    if isinstance(encoder, Merged):
        return list(zip(encoder.encoders, encoder.maps, strict=True))
    return [(encoder, None)]
