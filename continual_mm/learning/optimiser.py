"""The optimiser of a stage."""

from collections.abc import Mapping

from torch.nn import Parameter
from torch.optim import Adam


def adam(
    parameters: list[Parameter], rate: float, paces: Mapping[Parameter, float] | None = None
) -> Adam:
    """Adam in one pass over all weights where the device can; otherwise a dozen per weight.

    Args:
        parameters: What it trains.
        rate: The learning rate.
        paces: Factors on it, 1 where none is given; each has a group, which keeps it as ``pace``.
    """
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault((paces or {}).get(parameter, 1.0), []).append(parameter)
    fused = parameters[0].device.type in ("cpu", "cuda")
    paced = [{"params": group, "pace": pace} for pace, group in groups.items()]
    return Adam(paced, lr=rate, fused=fused)
