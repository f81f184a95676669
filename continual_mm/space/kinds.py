"""The kinds of space that there are, by the ``[space] kind`` of a scenario."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.fusion import FusionSpace
from continual_mm.space.space import NO_TOWERS, JointSpace
from continual_mm.space.towers import Tower

KINDS: Mapping[str, type[JointSpace]] = MappingProxyType(
    {kind.kind: kind for kind in (JointSpace, FusionSpace)}
)


def new_space(
    settings: SpaceSettings, *, seed: int = 0, towers: Mapping[str, Tower] = NO_TOWERS
) -> JointSpace:
    """A space of the kind that its settings say, without modalities."""
    return KINDS[settings.kind](settings, seed=seed, towers=towers)


def rebuilt(description: Mapping[str, Any], towers: Mapping[str, Tower] = NO_TOWERS) -> JointSpace:
    """A space as :meth:`JointSpace.describe` described it, see :meth:`JointSpace.rebuild`."""
    kind = KINDS[SpaceSettings(**description["settings"]).kind]
    return kind.rebuild(description, towers)
