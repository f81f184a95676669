"""Merge: a stage is trained apart, as if by another run, and then joins what there was."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from continual_mm.data.batch import Batch, Items, Share
from continual_mm.learning.clusters import clusters_of
from continual_mm.learning.learner import EVALUATION_ROWS, Learner
from continual_mm.learning.loader import BlockLoader
from continual_mm.merging.spaces import Align, Alignment, Own, Shared, merge_into, problem_of
from continual_mm.plugins.freeze import eval_frozen, freeze, unfreeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError
from continual_mm.system.seeds import seed_for

MOST = 8192  # items of a stage that the spaces are aligned by, at most


class Merge(Plugin):
    r"""Two models that were trained on different pairs become one (Singh and Jaggi 2020).

    A stage in which a modality arrives beside pairs that were trained is trained apart: the old
    modalities in its pairs begin anew, with fresh towers, heads, centroids and scale, and all else
    of the old space is set aside. At its end the two spaces, which share these modalities and no
    coordinates, are merged (:func:`~continual_mm.merging.spaces.merge_into`): what both make of
    the stage's items of the shared modalities says how the new space is to be turned. Embeddings
    of the pair that never met can then be compared.

    Stages in which nothing arrives train the merged space as it is. Evaluations inside a stage that
    is trained apart see the new towers, so that old pairs are at chance there.

    Args:
        align: ``procrustes`` turns the new space by a rotation, ``transport`` by a permutation of
            its dimensions (OTFusion, arXiv 1910.05653), ``none`` leaves it.
        shared: What encodes a shared modality from then on: ``keep-a`` the old tower, so that old
            pairs keep every bit; ``keep-both`` the mean of both towers' embeddings; ``average``
            one tower of averaged weights, whose units were matched by transport.
        same_start: Whether fresh towers begin with the weights that the old ones began with.
    """

    def __init__(
        self,
        *,
        align: Align = "procrustes",
        shared: Shared = "keep-a",
        same_start: int | bool = 0,
    ) -> None:
        super().__init__()
        self.align = checked("merge.align", align)
        self.shared = checked("merge.shared", shared)
        self.same_start = bool(checked("merge.same_start", same_start))
        if shared == "average" and align == "procrustes":
            message = "'average' does not go with align = 'procrustes'"
            remedy = "give align = 'transport', or shared = 'keep-both'"
            raise InputError.at("merge.shared", message, remedy)
        self._aside: dict[str, Own] = {}
        self._numbers: dict[str, Tensor] = {}
        self._frozen: tuple[Parameter, ...] = ()
        self._found: Alignment | None = None

    @property
    def choices(self) -> tuple[dict[str, Any], ...]:
        """How well the stage's space could be turned into the old one."""
        return () if self._found is None else (self._found.as_json(),)

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set the old space aside, before the new modality arrives."""
        self._found = None
        self._aside.clear()
        space, experience = strategy.space, strategy.stage_experience()
        pairs = {each for some in experience.pairs.values() for each in some}
        shared = [m for m in space.modalities if any(m.name in each for each in pairs)]
        earlier = any(strategy.pairs.values())
        if not (earlier and shared and experience.added and experience.training.steps):
            return
        self._check(strategy, [modality.name for modality in shared])
        self._numbers = {
            "log_scale": space.log_scale.detach().clone(),
            "centroids": space.centroids.clone(),
        }
        for modality in shared:
            name = modality.name
            self._aside[name] = space.tower(name), space.head(name)
            purpose = "weights" if self.same_start else "merge"
            own = () if self.same_start else (experience.stage,)
            seed = seed_for(space.seed, purpose, *own, name)
            space.replace_encoder(name, *space.new_encoder(modality, seed=seed))
        rest = [m.name for m in space.modalities if m.name not in self._aside]
        self._frozen = freeze(_parameters(space, rest))
        with torch.no_grad():
            space.log_scale.fill_(math.log(space.settings.scale))
        space.centroids = torch.zeros_like(space.centroids)
        _forget(strategy)

    def _check(self, learner: Learner, shared: Iterable[str]) -> None:
        """Refuse what cannot be merged before it is trained."""
        for plugin in learner.plugins:
            if getattr(plugin, "own_towers", False) or getattr(plugin, "needs_memory", False):
                message = f"a stage that is trained apart has no place for {type(plugin).__name__}"
                raise InputError.at("[merge]", message, "leave the other plugin out")
        space = learner.space
        problem = problem_of(space, list(shared), self.align, self.shared)
        if problem or space.projection is not None:
            message = problem or "a space whose vectors were reduced cannot learn more"
            remedy = 'take another strategy, or kind = "mcn"'
            raise InputError.at(
                "[merge]", message, remedy if space.fuses else 'give shared = "keep-a"'
            )

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Keep what was set aside as it is; clusters know of no older modality."""
        if self._aside:
            eval_frozen(strategy.space)
            strategy.clusters.established = frozenset()

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Merge the stage's space into the old one."""
        if not self._aside:
            return
        space, experience = strategy.space, strategy.stage_experience()
        names = [*self._aside, *(modality.name for modality in experience.added)]
        others = {name: (space.tower(name), space.head(name)) for name in names}
        for name, own in self._aside.items():
            space.replace_encoder(name, *own)
        with torch.no_grad():
            space.log_scale.copy_(self._numbers["log_scale"])
        space.centroids = self._numbers["centroids"].clone()
        shared = tuple(self._aside)
        self._found = merge_into(
            space,
            others,
            shared,
            lambda: _batches(strategy, shared),
            align=self.align,
            how=self.shared,
        )
        unfreeze(space, self._frozen)
        self._frozen = ()
        self._aside.clear()
        self._numbers = {}
        _forget(strategy)

    def state(self) -> dict[str, Tensor]:
        """What is set aside while a stage is trained apart."""
        return {**self._numbers, **dict(_tensors(self._aside))}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state` of the stage in progress."""
        self._numbers = {name: state[name] for name in self._numbers}
        for name, value in _tensors(self._aside):
            value.copy_(state[name])


def _tensors(aside: Mapping[str, Own]) -> Iterator[tuple[str, Tensor]]:
    for name, parts in aside.items():
        for kind, part in zip(("encoder", "head"), parts, strict=True):
            for key, value in part.state_dict().items():
                yield f"aside/{name}/{kind}/{key}", value


def _parameters(space: JointSpace, names: Iterable[str]) -> Iterator[Parameter]:
    for name in names:
        for module in (space.tower(name), space.head(name)):
            yield from module.parameters()


def _forget(learner: Learner) -> None:
    """Begin clusters and the optimiser's state anew; both are of another space."""
    seed = seed_for(learner.space.seed, "merge clusters", learner.stage_experience().stage)
    fixed, learner.clusters = learner.clusters.fixed, clusters_of(learner.space, seed=seed)
    learner.clusters.fixed = fixed
    learner.optimizer.state.clear()


def _batches(learner: Learner, names: Iterable[str]) -> Iterator[Batch]:
    """The stage's items of some modalities, in order."""
    items = learner.stage_experience().items
    shares = (Share(one.stage, one.rows[:MOST], tuple(names)) for one in items.shares)
    return iter(BlockLoader(Items(items.dataset, tuple(shares)), rows=EVALUATION_ROWS))
