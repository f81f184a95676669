"""What the finished space made of the remembered items, beside what the space makes of them now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import StepLoader
from continual_mm.learning.objective import Part
from continual_mm.plugins.plugin import contents, extracted
from continual_mm.plugins.recollection import Recollection
from continual_mm.space.naming import module_key
from continual_mm.space.space import Embedded, JointSpace


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One modality of the step's remembered rows, as it was and as it is.

    Attributes:
        rows: (n,) ascending places among the remembered rows, on the CPU.
        old: (n, D) unit embeddings of the last stage's end.
        new: (n, D) the present ones, with their gradient.
    """

    rows: Tensor
    old: Tensor
    new: Tensor

    def at(self, rows: Tensor) -> "Compared":
        """The part of it that stands at some of its rows."""
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
        """Let the finished space embed what is remembered, in evaluation mode."""
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
        """Modality -> the step's remembered rows; those without a teacher are left out."""
        source, part = recollection(learner), learner.remembered
        if source is None or source.batch is None:
            return {}
        found = {}
        for name in sorted(self.embeddings.keys() & learner.batch.rows.keys()):
            inside = places(learner.batch, name, part)
            if inside.shape[0]:
                self.embeddings[name] = self.embeddings[name].to(learner.device)
                rows = learner.batch.rows[name][inside] - part.start
                where = source.batch.positions(name, source.drawn[rows]).to(learner.device)
                new = learner.embedded[name].direction[inside.to(learner.device)]
                found[name] = Compared(rows, self.embeddings[name][where], new)
        return found

    def state(self) -> dict[str, Tensor]:
        """The embeddings, as ``teacher/<modality>``."""
        return contents("teacher", self.embeddings)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`; what is not a teacher's is passed over."""
        self.embeddings = extracted("teacher", state)


def compared_pairs(compared: Mapping[str, Compared]) -> Iterator[tuple[Pair, Compared, Compared]]:
    """Every pair of modalities that at least two rows have, with those rows of either."""
    for pair in all_pairs(tuple(compared)):
        first, second = compared[pair.first], compared[pair.second]
        first, second = first.at(second.rows), second.at(first.rows)
        if first.rows.shape[0] > 1:
            yield pair, first, second


def places(batch: Batch, name: str, part: Part) -> Tensor:
    """Where in a modality's features the rows of a part of the batch stand."""
    rows = batch.rows[name]
    return ((rows >= part.start) & (rows < part.stop)).nonzero().squeeze(1)


def recollection(learner: Learner) -> Recollection | None:
    """The learner's recollection, if the run has a memory."""
    return next((plugin for plugin in learner.plugins if isinstance(plugin, Recollection)), None)


def need_memory(learner: Learner, plugin: str) -> None:
    """Refuse a run without a memory.

    Raises:
        ValueError: If nothing is remembered, so that the plugin would do nothing.
    """
    if recollection(learner) is None:
        problem = f"{plugin} needs past items"
        raise ValueError(f"{problem}: give the run a memory, [memory] items = 128")


def enough_rows(plugin: str, rows: int) -> int:
    """The number of remembered rows, if items can be compared in it.

    Raises:
        ValueError: If it is less than 2.
    """
    if rows < 2:
        raise ValueError(f"{plugin}.rows = {rows}: give at least 2, or there is nothing to compare")
    return rows


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
            teacher.add_modality(modality)
    weights = {name: value.to(space.log_scale.device) for name, value in towers.items()}
    teacher.encoders.load_state_dict(weights, assign=True)
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def sampled(
    learner: Learner, *, rows: int, steps: int = 1
) -> Iterator[tuple[Batch, dict[str, Embedded]]]:
    """Embed blocks of the stage's training rows, with weights as in evaluation.

    Args:
        learner: At the end of a stage.
        rows: Rows of each block and share of the stage.
        steps: Blocks; items come again only when all have come.
    """
    experience = learner.stage_experience()
    wanted = tuple(rows for _ in experience.items.shares)
    learner.space.eval()
    for block in StepLoader(experience.items, wanted, steps=steps, seed=experience.stage):
        batch = block.to(learner.device)
        with learner.precision():
            yield batch, learner.space(batch.features, batch.lengths)
    learner.space.train()
