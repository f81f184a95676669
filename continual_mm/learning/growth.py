"""Growing a space under Avalanche, and the views of pairs with towers of their own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import Parameter

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.terms import Side, trained_terms
from continual_mm.learning.avalanche import DynamicModule
from continual_mm.learning.stream import StageExperience
from continual_mm.space.naming import canonical, named_parameters
from continual_mm.space.space import Embedded, JointSpace


@dataclass(frozen=True, slots=True)
class Together:
    """What a space makes of several modalities of some rows together."""

    rows: Tensor  # (n,) ascending rows of a batch, or of a dataset, on the CPU
    embedding: Tensor  # (n, D)


class Views(dict[str, Embedded]):
    """What the space makes of a batch, by modality.

    ``own`` is what pairs' own towers make of it, ``together`` what the space makes of several
    modalities, by their names, of the rows that have all of them, where it fuses them.
    """

    def __init__(self, embedded: Mapping[str, Embedded]) -> None:
        super().__init__(embedded)
        self.own: dict[Pair, dict[str, Embedded]] = {}
        self.together: dict[Side, Together] = {}


def of_pair(embedded: Mapping[str, Embedded], pair: Pair) -> Mapping[str, Embedded]:
    """What a pair sees: through its own towers where it has some, else through the space's."""
    own = embedded.own.get(pair) if isinstance(embedded, Views) else None
    return {**embedded, **own} if own else embedded


def own_of(embedded: Mapping[str, Embedded], name: str) -> list[dict[str, Embedded]]:
    """What pairs see that have towers of their own for a modality, in order of the pairs."""
    own = embedded.own if isinstance(embedded, Views) else {}
    return [own[pair] for pair in sorted(own) if name in own[pair]]


def together_of(embedded: Mapping[str, Embedded]) -> dict[Side, Together]:
    """What the space makes of several modalities together."""
    return embedded.together if isinstance(embedded, Views) else {}


class GrowingSpace(DynamicModule):
    """Lets Avalanche grow a space: before a stage is trained, never while one is evaluated.

    ``pairs`` are, by stage, those that its rows train, of every stage met so far. ``own`` is pair
    -> modality -> a tower that a plugin gives the pair in the place of the space's. It may share
    parameters with the space, and the plugin sets its training mode. ``extra`` is name -> what else
    a plugin learns.
    """

    def __init__(self, space: JointSpace, pairs: Mapping[int, tuple[Pair, ...]]) -> None:
        super().__init__()
        self.space = space
        self.own: dict[Pair, dict[str, nn.Module]] = {}
        self.extra: dict[str, Parameter] = {}
        self._pairs = pairs

    def adaptation(self, experience: StageExperience) -> None:
        """Add the modalities that arrive with a stage."""
        if self.training:
            for modality in experience.added:
                self.space.add_modality(modality)

    def all_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The space's by canonical name, and of pairs' towers as ``own/pair/modality/name``."""
        yield from named_parameters(self.space)
        yield from self.extra.items()
        shared = set(self.space.parameters())
        for pair, towers in self.own.items():
            for modality, tower in towers.items():
                for name, parameter in tower.named_parameters():
                    if parameter not in shared:
                        yield f"own/{pair}/{modality}/{canonical(name)}", parameter

    def forward(self, batch: Batch) -> Views:
        """Embed a batch; towers that are trained see it with feature dropout."""
        views = Views(self.space(batch.features, batch.lengths))
        for pair in self._seeing(batch):
            views.own[pair] = {
                name: self.space.embed(
                    name,
                    tower,
                    batch.features[name],
                    batch.lengths.get(name),
                    hiding=self.space.training and any(p.requires_grad for p in tower.parameters()),
                )
                for name, tower in self.own[pair].items()
                if name in views
            }
        for side in self._sides(batch):
            rows = batch.having(side)
            if rows.shape[0]:
                places = {name: batch.positions(name, rows) for name in side}
                views.together[side] = Together(rows, self.space.fused(side, views, places))
        return views

    def _sides(self, batch: Batch) -> list[Side]:
        """Modalities that are embedded together in training: those that terms of rows compare."""
        if not (self.space.fuses and self.training):
            return []
        stages = set(batch.stage.tolist())
        pairs = {stage: known for stage, known in self._pairs.items() if stage in stages}
        found = trained_terms(pairs, self.space.settings)
        several = (side for term in found for side in term.sides if len(side) > 1)
        return list(dict.fromkeys(several))

    def _seeing(self, batch: Batch) -> list[Pair]:
        """Pairs with towers of their own: in training those that rows of the batch train."""
        if not self.own or not self.training:
            return list(self.own)
        trained = {
            pair for stage in set(batch.stage.tolist()) for pair in self._pairs.get(stage, ())
        }
        return [pair for pair in self.own if pair in trained]
