"""What the space was at the last stage's end: of remembered rows, and of current rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part, gathered
from continual_mm.plugins.recollection import FromMemory, recollection
from continual_mm.space.naming import module_key
from continual_mm.space.space import JointSpace


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One modality of the step's remembered rows, as it was and as it is.

    ``rows`` are (n,) ascending positions among the remembered rows, on the CPU; ``old`` (n, D) unit
    embeddings of the last stage's end; ``new`` the present ones, with their gradient.
    """

    rows: Tensor
    old: Tensor
    new: Tensor

    def at(self, rows: Tensor) -> "Compared":
        """Those of its rows that are among some others."""
        if torch.equal(self.rows, rows):
            return self
        kept = torch.isin(self.rows, rows)
        if bool(kept.all()):
            return self
        where = kept.nonzero().squeeze(1).to(self.new.device)
        return Compared(self.rows[kept], self.old[where], self.new[where])


class Distilled(FromMemory):
    """Base of plugins that compare remembered rows with their embeddings of the last stage's end.

    A subclass adds its terms from :meth:`compared`. With a weight of 0 nothing is kept.
    """

    saved: tuple[str, ...] = ("teacher",)

    def __init__(self, *, weight: float, rows: int) -> None:
        super().__init__()
        self.weight = weight
        self.memory_rows = rows if weight else 0
        self._teacher: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Make the finished space the next stage's teacher: embed the memory's items with it."""
        source = recollection(strategy)
        if not self.weight or source is None or source.batch is None:
            return
        remembered = source.batch.to(strategy.device)
        strategy.space.eval()
        with strategy.precision():
            embedded = strategy.space(remembered.features, remembered.lengths)
        strategy.space.train()
        self._teacher = {name: part.direction for name, part in embedded.items()}

    def compared(self, learner: Learner) -> dict[str, Compared]:
        """Old modality -> the step's remembered rows; empty until the first stage has ended."""
        source, part = recollection(learner), learner.remembered
        if source is None or source.batch is None:
            return {}
        found = {}
        for name in sorted(self._teacher.keys() & learner.batch.rows.keys()):
            inside = places(learner.batch, name, part)
            if inside.shape[0]:
                rows = learner.batch.rows[name][inside] - part.start
                where = source.batch.positions(name, source.drawn[rows])
                old = gathered(self._teacher[name], where)
                new = gathered(learner.embedded[name].direction, inside)
                found[name] = Compared(rows, old, new)
        return found


def compared_pairs(compared: Mapping[str, Compared]) -> Iterator[tuple[Pair, Compared, Compared]]:
    """Every pair of modalities that at least two rows have, with those rows of either."""
    for pair in all_pairs(tuple(compared)):
        first, second = compared[pair.first], compared[pair.second]
        first, second = first.at(second.rows), second.at(first.rows)
        if first.rows.shape[0] > 1:
            yield pair, first, second


def places(batch: Batch, name: str, part: Part) -> Tensor:
    """Positions in a modality's features of the rows in a part of the batch."""
    rows = batch.rows[name]
    return ((rows >= part.start) & (rows < part.stop)).nonzero().squeeze(1)


class OldTowers(dict[str, Tensor]):
    """A frozen copy of the towers as they were before the stage; a dictionary of its weights.

    It embeds a step's current rows, without the dropout of features that the new towers have.
    """

    def __init__(self) -> None:
        super().__init__()
        self._space: JointSpace | None = None

    def keep(self, space: JointSpace) -> None:
        """Copy a space's towers."""
        self.clear()
        self.update({name: v.clone() for name, v in space.tower_state().items()})

    def clear(self) -> None:
        """Keep nothing."""
        super().clear()
        self._space = None

    def embed(self, learner: Learner) -> dict[str, tuple[Tensor, Tensor]]:
        """Modality -> (n,) positions of current rows in its features, (n, D) old unit vectors."""
        if not self:
            return {}
        if self._space is None:
            self._space = _with_towers(learner.space, self)
        batch, inside = learner.batch, {}
        for modality in self._space.modalities:
            name = modality.name
            if name in batch.rows and len(where := places(batch, name, learner.current)):
                inside[name] = where.to(learner.device)
        features = {name: batch.features[name][where] for name, where in inside.items()}
        timed = inside.keys() & batch.lengths.keys()
        lengths = {name: batch.lengths[name][inside[name]] for name in timed}
        with torch.no_grad(), learner.precision():
            teacher = self._space(features, lengths)
        return {name: (where, teacher[name].direction) for name, where in inside.items()}


def _with_towers(space: JointSpace, towers: Mapping[str, Tensor]) -> JointSpace:
    """A space with some towers of another, with weights of their own, which never trains."""
    teacher = type(space)(space.settings, seed=space.seed, towers=space.towers)
    teacher.to(space.log_scale.device)
    known = {name.partition(".")[0] for name in towers}
    for modality in space.modalities:
        if module_key(modality.name) in known:
            teacher.add_modality(modality)
    weights = {name: value.to(space.log_scale.device) for name, value in towers.items()}
    teacher.load_tower_state(weights)
    return teacher.requires_grad_(False).eval()
