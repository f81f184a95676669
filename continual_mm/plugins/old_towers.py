"""A frozen copy of the towers that a stage begins with, the teacher of its current rows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.plugins.teacher import places
from continual_mm.space.naming import module_key
from continual_mm.space.space import JointSpace

PREFIX = "towers/"
"""Where in a plugin's state the weights of the towers are."""


class OldTowers:
    """Says where the old towers put a step's current rows.

    They see what the new towers see before features are hidden from them.
    """

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}
        self._space: JointSpace | None = None

    def keep(self, space: JointSpace) -> None:
        """Copy a space's towers."""
        weights = space.encoders.state_dict()
        self._weights = {name: value.clone() for name, value in weights.items()}
        self._space = None

    def embed(self, learner: Learner) -> dict[str, tuple[Tensor, Tensor]]:
        """Embed the current rows of every modality that has an old tower.

        Returns:
            Modality -> where its current rows stand in its features, (n,), and the unit embeddings
            that the old tower gives them, (n, D).
        """
        if not self._weights:
            return {}
        if self._space is None:
            self._space = _with_towers(learner.space, self._weights)
        batch, old = learner.batch, [modality.name for modality in self._space.modalities]
        inside = {
            name: places(batch, name, learner.current).to(learner.device)
            for name in old
            if name in batch.rows
        }
        inside = {name: where for name, where in inside.items() if where.shape[0]}
        features = {name: batch.features[name][where] for name, where in inside.items()}
        timed = inside.keys() & batch.lengths.keys()
        lengths = {name: batch.lengths[name][inside[name]] for name in timed}
        with torch.no_grad(), learner.precision():
            teacher = self._space(features, lengths)
        return {name: (where, teacher[name].direction) for name, where in inside.items()}

    def state(self) -> dict[str, Tensor]:
        """The weights by name, each behind :data:`PREFIX`."""
        return {f"{PREFIX}{name}": value for name, value in self._weights.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights from a state that may hold more."""
        self._space = None
        self._weights = {
            key.removeprefix(PREFIX): value
            for key, value in state.items()
            if key.startswith(PREFIX)
        }


def _with_towers(space: JointSpace, towers: Mapping[str, Tensor]) -> JointSpace:
    """A space that has some towers of another, with weights of their own, and never trains."""
    teacher = JointSpace(space.settings, seed=space.seed, towers=space.towers)
    teacher.to(space.log_scale.device)
    known = {name.partition(".")[0] for name in towers}
    for modality in space.modalities:
        if module_key(modality.name) in known:
            teacher.welcome(modality)
    weights = {name: value.to(space.log_scale.device) for name, value in towers.items()}
    teacher.encoders.load_state_dict(weights, assign=True)
    return teacher.requires_grad_(False).eval()
