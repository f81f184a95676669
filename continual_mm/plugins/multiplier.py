"""A weight that finds itself: as large as keeps a drift within its budget, and no larger."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

PACE = 0.2
"""Largest change of the multiplier's logarithm in a step."""
RESPONSE = 3.0
"""Largest logarithm of the factor by which a step's own drift bends the weight."""
REACH = 1e3
"""How many times larger or smaller than at a budget of 0 the weight may become."""


@torch.no_grad()
def ascended(multiplier: Tensor, excess: Tensor, *, scale: float) -> Tensor:
    """The multiplier after a step of dual ascent on ``excess <= 0``.

    The step is made on the logarithm: which weight a budget needs differs by orders of magnitude
    between data sets, and a linear step that fits one of them is far too small or too large for
    the next. The lower bound keeps a drift that begins at 0 from driving the multiplier so far down
    that it comes back late; the upper one is for budgets that no weight can keep.

    >>> float(ascended(torch.tensor(2.0), torch.tensor(0.0), scale=3.0))
    2.0
    """
    return (multiplier * (PACE * excess).exp()).clamp(scale / REACH, scale * REACH)


@torch.no_grad()
def force(multiplier: Tensor, excess: Tensor, *, scale: float) -> Tensor:
    """The weight in a step: the multiplier, larger above the budget and smaller below it.

    As the quadratic part of an augmented Lagrangian does, this damps: the multiplier alone lags
    behind the drift and overshoots. At its lower bound, where it is until a budget is exceeded for
    the first time, there is no force at all.

    >>> float(force(torch.tensor(0.003), torch.tensor(-0.5), scale=3.0))
    0.0
    """
    weight = multiplier * (RESPONSE * excess).exp()
    return torch.where(multiplier > 1.001 * scale / REACH, weight, 0.0)


class Multiplier:
    """A fixed weight, or with a budget the one that a method of multipliers finds.

    The drift of a stage's first step counts as none: there the space is its teacher still, and what
    is seen is what dropout does. Nothing here waits for the device.

    Args:
        weight: The fixed weight; with a budget, the scale of what is found.
        budget: The drift allowed; 0 fixes the weight.

    Attributes:
        value: The weight of the last step; a scalar tensor once it was found.
    """

    def __init__(self, weight: float, *, budget: float) -> None:
        self._scale = weight
        self._budget = budget
        self._found: Tensor | None = None
        self._first: Tensor | None = None
        self.value: float | Tensor = weight

    def weigh(self, drifts: Iterable[Tensor]) -> float | Tensor:
        """The weight of a step with these drifts, of which the mean counts."""
        if not self._budget:
            return self.value
        drift = torch.stack([each.detach() for each in drifts]).mean()
        if self._found is None or self._first is None:
            self._found, self._first = drift.new_tensor(self._scale / REACH), drift
        excess = ((drift - self._first) / self._budget - 1).clamp(-1, 1)
        self._found = ascended(self._found, excess, scale=self._scale)
        self.value = force(self._found, excess, scale=self._scale)
        return self.value

    def restart(self) -> None:
        """Begin anew, for a teacher that has not been left yet."""
        self._found = self._first = None
        self.value = self._scale

    def state(self) -> dict[str, Tensor]:
        """What was found, if anything."""
        if self._found is None or self._first is None:
            return {}
        return {"multiplier": self._found, "first drift": self._first}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._found, self._first = state.get("multiplier"), state.get("first drift")
