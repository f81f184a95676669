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
from continual_mm.plugins.plugin import Plugin, contents, extracted
from continual_mm.plugins.recollection import recollection, required_memory
from continual_mm.space.naming import module_key
from continual_mm.space.space import JointSpace


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One modality of the step's remembered rows, as it was and as it is.

    Attributes:
        rows: (n,) ascending positions among the remembered rows, on the CPU.
        old: (n, D) unit embeddings of the last stage's end.
        new: (n, D) the present ones, with their gradient.
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


class Teacher:
    """Unit embeddings of the memory's items, taken at a stage's end.

    Attributes:
        embeddings: Modality -> (n, D) embeddings of the items that have it, in the memory's order.
    """

    def __init__(self) -> None:
        self.embeddings: dict[str, Tensor] = {}

    @torch.no_grad()
    def embed(self, learner: Learner) -> None:
        """Embed the memory's items, in evaluation mode and the stage's precision."""
        source = recollection(learner)
        if source is None or source.batch is None:
            return
        remembered = source.batch.to(learner.device)
        learner.space.eval()
        with learner.precision():
            embedded = learner.space(remembered.features, remembered.lengths)
        learner.space.train()
        self.embeddings = {name: part.direction for name, part in embedded.items()}

    def compare(self, learner: Learner) -> dict[str, Compared]:
        """Modality -> the step's remembered rows; modalities without a teacher are left out."""
        source, part = recollection(learner), learner.remembered
        if source is None or source.batch is None:
            return {}
        found = {}
        for name in sorted(self.embeddings.keys() & learner.batch.rows.keys()):
            inside = places(learner.batch, name, part)
            if inside.shape[0]:
                rows = learner.batch.rows[name][inside] - part.start
                where = source.batch.positions(name, source.drawn[rows])
                old = gathered(self.embeddings[name], where)
                new = gathered(learner.embedded[name].direction, inside)
                found[name] = Compared(rows, old, new)
        return found

    def state(self) -> dict[str, Tensor]:
        """The embeddings, as ``teacher/<modality>``."""
        return contents("teacher", self.embeddings)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`; other entries are ignored."""
        self.embeddings = extracted("teacher", state)


class Distilled(Plugin):
    """Base of plugins that compare remembered rows with their embeddings of the last stage's end.

    A subclass adds its terms in ``before_backward``, from ``self._teacher.compare(strategy)``,
    which is empty until the first stage has ended.

    Args:
        weight: Weight of the terms; 0 keeps no teacher and asks for no rows.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    needs_memory = True

    def __init__(self, *, weight: float, rows: int) -> None:
        super().__init__()
        self.weight = weight
        self.memory_rows = rows if weight else 0
        self._teacher = Teacher()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Refuse a run without a memory."""
        if self.weight:
            required_memory(strategy, self)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Make the finished space the next stage's teacher."""
        if self.weight:
            self._teacher.embed(strategy)

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings."""
        return self._teacher.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._teacher.load_state(state)


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


class OldTowers:
    """A frozen copy of the towers as they were before the stage, for a step's current rows.

    It sees features before any are dropped, as the new towers do before their dropout.
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
            Modality -> positions of its current rows in its features, (n,), and the unit embeddings
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
        """The weights, as ``towers/<name>``."""
        return contents("towers", self._weights)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`; other entries are ignored."""
        self._space = None
        self._weights = extracted("towers", state)


def _with_towers(space: JointSpace, towers: Mapping[str, Tensor]) -> JointSpace:
    """A space with some towers of another, with weights of their own, which never trains."""
    teacher = JointSpace(space.settings, seed=space.seed, towers=space.towers)
    teacher.to(space.log_scale.device)
    known = {name.partition(".")[0] for name in towers}
    for modality in space.modalities:
        if module_key(modality.name) in known:
            teacher.add_modality(modality)
    weights = {name: value.to(space.log_scale.device) for name, value in towers.items()}
    teacher.encoders.load_state_dict(weights, assign=True)
    return teacher.requires_grad_(False).eval()
