"""The geometry of the space on the board."""

from collections.abc import Iterator

from avalanche.logging import BaseLogger

from continual_mm.learning.drift import Geometry


class GeometryCurves:
    """Tells a logger of the geometry, at the global step.

    Args:
        logger: Gets ``geometry/rotation``, ``geometry/modality gap/<pair>`` and so on.
    """

    def __init__(self, logger: BaseLogger) -> None:
        self._logger = logger

    def __call__(self, geometry: Geometry) -> None:
        """Log what is defined."""
        for name, value in _curves(geometry):
            if value == value:
                self._logger.log_single_metric(f"geometry/{name}", value, geometry.step)


def _curves(geometry: Geometry) -> Iterator[tuple[str, float]]:
    yield "rotation", geometry.rotation
    for title, values in (
        ("modality gap", geometry.modality_gap),
        ("moved", geometry.moved),
        ("residual", geometry.residual),
        ("plan drift", geometry.plan_drift),
    ):
        for name, value in values.items():
            yield f"{title}/{name}", value
