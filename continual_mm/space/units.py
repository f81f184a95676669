"""Small parts of the encoders: the gated unit and pooling over valid time steps only."""

import torch
from torch import Tensor, nn


class GatedUnit(nn.Module):
    """Gated embedding unit: ``h = norm(W1 x + b1); y = h * sigmoid(W2 h + b2)``.

    The published unit (Miech et al. 2018, without its final normalisation, as in MCN) has no norm.
    With one, the gate cannot saturate however large the input is.

    Args:
        inputs: Size of x.
        outputs: Size of y.
        norm: Whether h is layer-normalised.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.norm: nn.Module = nn.LayerNorm(outputs) if norm else nn.Identity()
        self.gate = nn.Linear(outputs, outputs)

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        hidden = self.norm(self.fc(values))
        return torch.mul(hidden, self.gate(hidden).sigmoid())


def valid_steps(lengths: Tensor, time: int) -> Tensor:
    """(n, time) mask of the steps before each length."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid steps: (n, time, c), (n, time) -> (n, c); zeros where none is valid."""
    weight = valid.to(values.dtype)[:, :, None]
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def masked_max(values: Tensor, valid: Tensor) -> Tensor:
    """Maximum over the valid steps: (n, time, c), (n, time) -> (n, c).

    A row without any valid step gives zeros rather than minus infinity. ``max`` rather than
    ``amax``, whose gradient costs twice as much.
    """
    lowest = torch.finfo(values.dtype).min
    largest = values.masked_fill(~valid[:, :, None], lowest).max(1).values
    return torch.where(valid.any(1)[:, None], largest, torch.zeros_like(largest))


def first_for_padding(values: Tensor, valid: Tensor) -> Tensor:
    """Put a row's first step where it has none: no maximum over its steps notices.

    Cheaper than masking what a wide layer makes of the steps: (n, time, c), (n, time) -> same.
    """
    return torch.where(valid[:, :, None], values, values[:, :1])
