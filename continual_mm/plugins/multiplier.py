"""A weight that finds itself: as large as keeps a drift within its budget, and no larger."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

PACE = 0.2
"""Largest change of the multiplier's logarithm in a step."""
REACH = 1e6
"""How many times larger or smaller than at its beginning a multiplier may become."""


@torch.no_grad()
def ascended(multiplier: Tensor, drift: Tensor, *, budget: float, start: float) -> Tensor:
    """The multiplier after a step of dual ascent on ``drift <= budget``.

    The step is made on the logarithm: which weight a budget needs differs by orders of magnitude
    between data sets, and a linear step that fits one of them is far too small or too large for
    the next. It is proportional to the relative excess, at most :data:`PACE`. The bounds keep a
    drift that begins at 0 from driving the multiplier so far down that it cannot come back.

    >>> float(ascended(torch.tensor(3.0), torch.tensor(0.2), budget=0.2, start=3.0))
    3.0
    """
    excess = (drift / budget - 1).clamp(-1, 1)
    return (multiplier * (PACE * excess).exp()).clamp(start / REACH, start * REACH)


class Multiplier:
    """A fixed weight, or with a budget the multiplier that dual ascent found last.

    Nothing here waits for the device.

    Args:
        start: The weight, or where it begins in each stage.
        budget: The drift allowed; 0 fixes the weight.
    """

    def __init__(self, start: float, *, budget: float) -> None:
        self._start = start
        self._budget = budget
        self._found: Tensor | None = None

    @property
    def value(self) -> float | Tensor:
        """The weight of this step; a scalar tensor once it was found."""
        return self._start if self._found is None else self._found

    def ascend(self, drifts: Iterable[Tensor]) -> None:
        """Take a step of dual ascent for the mean of a step's drifts."""
        if not self._budget:
            return
        drift = torch.stack([each.detach() for each in drifts]).mean()
        now = drift.new_tensor(self._start) if self._found is None else self._found
        self._found = ascended(now, drift, budget=self._budget, start=self._start)

    def restart(self) -> None:
        """Begin anew, for a teacher that has not been left yet."""
        self._found = None

    def state(self) -> dict[str, Tensor]:
        """What was found, if anything."""
        return {} if self._found is None else {"multiplier": self._found}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._found = state.get("multiplier")
