"""Expand: each stage appends coordinates to the space, and whatever was learned stays as it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_mm.data.batch import Items, Share, answering
from continual_mm.data.columns import digests_of
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.learning.learner import EVALUATION_ROWS, Learner
from continual_mm.learning.loader import BlockLoader
from continual_mm.learning.objective import gathered, paired_rows, right_answers
from continual_mm.learning.stream import StageExperience
from continual_mm.losses.contrastive import masked_margin_softmax
from continual_mm.metrics.bootstrap import joined
from continual_mm.plugins.freeze import eval_frozen, freeze
from continual_mm.plugins.gates import (
    Choice,
    HeldOut,
    choose_old,
    choose_trained,
    layout,
    mixing_factors,
)
from continual_mm.plugins.match import matching_divergence
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.space.space import LARGEST_SCALE, JointSpace
from continual_mm.space.subspaces import Block, Subspace, cliques, connected
from continual_mm.system.errors import InputError
from continual_mm.system.seeds import seed_for

HEADS = 2  # of the stage's pairs: one has their contrast alone, the other their plan as well
MOST = 512  # items that are held out of a stage at most
NOISE = 1.5  # length of the noise that mapped embeddings get, in terms of their own
READ = 1_000_000_000  # bytes of a stage's items that are read in search of what is the same
GROUPS = 20  # groups, such as videos, from which on whole ones are held out


class Expand(Plugin):
    r"""A space that grows: one vector per item, and nothing that was learned changes.

    Once a pair was trained, the space is frozen as by
    :class:`~continual_mm.plugins.freeze.Freeze`, and the new modality is aligned with what there
    is. Besides, the stage appends a subspace: old modalities get coordinates in it from their
    towers with low-rank adapters, new ones from one more tower. The vector of an item is what it
    was, with the new coordinates behind, and the similarity of two items stays an inner product,

    .. math::
        s(x, y) = \langle x^0, y^0\rangle
                + \sum_{k} \sum_h w_{k h} \langle x^{k h}, y^{k h}\rangle .

    Representations that grow by a part per task, trained on what earlier parts leave over, are DER
    (Yan et al. 2021, arXiv 2103.16788) and FOSTER (Wang et al. 2022, arXiv 2204.04662) in
    class-incremental learning; that vectors of earlier stages can be compared with later ones is
    backward compatibility (Shen et al. 2020, arXiv 2003.11942).

    Each subspace has two heads for the stage's pairs. Both learn the contrast of the sum of earlier
    similarities, which take no gradient, and of their own; the second is trained by its transport
    plan as well, as
    :class:`~continual_mm.plugins.match.Match` does. Old pairs that the stage does not name, though
    pairs that it names have both modalities, learn a third head, for themselves. At the end of the
    stage, items that were held out of it decide by their likelihood
    (:mod:`~continual_mm.plugins.gates`) how much each head counts for the pairs of the stage, and
    whether an old pair, both modalities of which have coordinates in the subspace, gains by them;
    else it does not see them.

    A new modality never meets those old ones with which no pair is given. Where their first
    coordinates are aligned with those of its partners, a map that is learned for these serves them
    as well: :math:`g`, which noise keeps from relying on what only the partners have there,

    .. math::
        s(x, y) \mathrel{+}= w \, \langle g(x^0), y^g\rangle , \qquad
        \text{learned on} \quad \langle g(p^0 + \sigma n), y^g\rangle

    with a head :math:`y^g` of the new modality's first tower and items p of its partners. The noise
    stands for what separates modalities that were aligned by their contrast (Nukrai et al. 2022,
    arXiv 2211.00575, who train a decoder of texts so and give it images).

    Args:
        size: Numbers of each head; 0 takes half of the space's dimension.
        rank: Rank of an adapter; in a layer with fewer inputs or outputs, their number.
        rate: Learning rate of old modalities' parts in terms of the stage's.
        plan: Weight of the plan's divergence in the second head.
        epsilon: Entropic temperature of the plan, in units of one minus the cosine.
        held_out: Share of a stage's items that are not trained on, at most 512 items.
        old_pairs: Whether pairs of earlier stages, both modalities of which are in pairs of the
            stage, are trained in the subspace as well where the stage does not name them.
        emergent: w, how much mapped embeddings count for pairs that are never trained; 0 appends
            none.
    """

    def __init__(
        self,
        *,
        size: int = 0,
        rank: int = 32,
        rate: float = 3.0,
        plan: float = 3.0,
        epsilon: float = 0.05,
        held_out: float = 0.1,
        old_pairs: int | bool = 1,
        emergent: float = 2.0,
    ) -> None:
        super().__init__()
        self.size = checked("expand.size", size)
        self.rank = checked("expand.rank", rank)
        self.rate = checked("expand.rate", rate)
        self.plan = checked("expand.plan", plan)
        self.epsilon = checked("expand.epsilon", epsilon)
        self.held_out = checked("expand.held_out", held_out)
        self.old_pairs = bool(checked("expand.old_pairs", old_pairs))
        self.emergent = checked("expand.emergent", emergent)
        self._number: int | None = None
        self._old: tuple[str, ...] = ()
        self._trained: tuple[Pair, ...] = ()
        self._known: tuple[Pair, ...] = ()
        self._again: tuple[Pair, ...] = ()
        self._items: Items | None = None
        self._choices: tuple[Choice, ...] = ()

    @property
    def choices(self) -> tuple[dict[str, Any], ...]:
        """What was decided at the end of the stage, and the figures that it was decided by."""
        return tuple(choice.as_json() for choice in self._choices)

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze the space before it grows, append a subspace, and hold items out."""
        space, experience = strategy.space, strategy.stage_experience()
        self._number, self._items, self._choices = None, None, ()
        if any(getattr(plugin, "own_towers", False) for plugin in strategy.plugins):
            message = "with towers of their own for pairs an item has no single vector"
            raise InputError.at("[expand]", message, "take either expand or pair_lora")
        if space.settings.reference:
            message = "a space in reference mode cannot grow: its embeddings are no unit vectors"
            raise InputError.at("[expand]", message, 'take another strategy, or mode = "robust"')
        earlier = _pairs(*_earlier(experience))
        if not space.modalities or not earlier:  # there is nothing to keep yet
            return
        freeze(space.parameters())
        strategy.clusters.fixed = True
        trained = tuple(sorted(_pairs(experience)))
        members = dict.fromkeys(name for each in trained for name in (each.first, each.second))
        self._old = tuple(name for name in members if name in space)
        if not experience.training.steps or not self._old:
            return
        self._trained = trained
        self._known = tuple(each for each in all_pairs(self._old) if each not in trained)
        self._again = tuple(each for each in self._known if self.old_pairs and each in earlier)
        for name in members:
            if name not in space:
                self._join_earlier(strategy, name)
        self._number = len(space.subspaces)
        subspace = space.append_subspace(
            self.size or max(1, space.settings.dim // HEADS),
            members,
            heads=HEADS + bool(self._again),
            rank=self.rank,
        )
        # Until held-out items have decided, old pairs do not see it.
        subspace.layout = self._layout(subspace, (1.0,) * HEADS, {}, {})
        slow = {id(value) for name in self._old for value in subspace.part(name).parameters()}
        names = [name for name, value in strategy.parameters().items() if id(value) in slow]
        strategy.lr_scale |= dict.fromkeys(names, self.rate)
        self._append_map(strategy)
        self._hold_out(strategy, experience)

    def _join_earlier(self, learner: Learner, name: str) -> None:
        """Give a modality that arrives coordinates in the earlier subspaces of its partners."""
        for subspace in learner.space.grown:
            partners = self._partners(name)
            if subspace.meets(partners):
                subspace.join(name, "head", partners)

    def _partners(self, name: str) -> set[str]:
        return {
            partner
            for each in self._trained
            for partner in (each.first, each.second)
            if name in (each.first, each.second) and partner != name
        }

    def _append_map(self, learner: Learner) -> None:
        """Append coordinates that old modalities share with new ones which they never meet."""
        space = learner.space
        aligned = connected(_names(space), _first_aligned(learner.stage_experience()))
        emergent: list[tuple[str, str]] = []
        members: dict[str, None] = {}
        for name in {one: None for each in self._trained for one in (each.first, each.second)}:
            partners = self._partners(name) & set(self._old)
            others = [old for old in aligned if old not in partners and aligned[old] & partners]
            if name not in space and partners and others:
                emergent += [(old, name) for old in others]
                members |= dict.fromkeys([*sorted(partners), *others, name])
        if not emergent or not self.emergent:
            return
        size = max(1, space.settings.dim // 4)
        subspace = space.append_subspace(size, members, mapped=True, noise=NOISE)
        factor = sqrt(self.emergent)
        subspace.layout = tuple(
            Block(0, dict.fromkeys(group, factor)) for group in cliques([*members], emergent)
        )

    def _hold_out(self, learner: Learner, experience: StageExperience) -> None:
        """Leave some of the stage's items to its end; clips shown together stay together."""
        items, generator = experience.items, torch.Generator()
        trained, held_out = [], []
        for share in items.shares:
            generator.manual_seed(seed_for(learner.space.seed, "held out", share.stage))
            count = len(share.rows)
            group = _recordings(items.dataset, share) if items.marked else torch.arange(count)
            if items.dataset.group is not None:
                names = torch.from_numpy(items.dataset.group)[share.rows]
                found = torch.unique(names, return_inverse=True)[1]
                if items.clips > 1 or int(found.max()) + 1 >= GROUPS:
                    group = found
            groups = int(group.max()) + 1 if count else 0
            wanted = min(int(self.held_out * groups), MOST * groups // max(count, 1))
            chosen = torch.isin(group, torch.randperm(groups, generator=generator)[:wanted])
            trained.append(Share(share.stage, share.rows[~chosen], share.modalities))
            held_out.append(Share(share.stage, share.rows[chosen], share.modalities))
        experience.items = Items(
            items.dataset,
            tuple(trained),
            clips=items.clips,
            replace=items.replace,
            marked=items.marked,
        )
        self._items = Items(items.dataset, tuple(held_out))

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set frozen modules to evaluation mode, which ``train()`` has just undone."""
        eval_frozen(strategy.space)

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the terms of every pair that is trained in the subspace."""
        if self._number is None:
            return
        for each in (*self._trained, *self._again):
            rows = paired_rows(strategy.batch, each, strategy.pairs, strategy.current)
            if rows.shape[0] >= 2:  # a row without negatives says nothing
                self._train_pair(strategy, each, rows)

    def _train_pair(self, learner: Learner, trained: Pair, rows: Tensor) -> None:
        space, number = learner.space, self._number
        sides = [
            (name, learner.embedded[name], learner.batch.positions(name, rows))
            for name in (trained.first, trained.second)
        ]
        common = set(sides[0][1].units) & set(sides[1][1].units)
        units = {
            each: [gathered(found.units[each], where) for _, found, where in sides]
            for each in common
        }
        earlier = [
            gathered(space.vectors(name, found, until=number), where).detach()
            for name, found, where in sides
        ]
        before = earlier[0] @ earlier[1].T
        right = right_answers(learner.batch, trained, rows)
        margin = space.settings.margin
        for each, (first, second) in units.items():
            subspace = space.grown[each]
            similarity = torch.einsum("ihd,jhd->hij", first, second)
            scale = subspace.log_scale.exp().clamp(1.0, LARGEST_SCALE)
            for head in self._heads(subspace, each, trained):
                logits = similarity[head]
                if each == number:
                    logits = before + subspace.log_weights[head].exp() * logits
                value = masked_margin_softmax(scale * logits, margin=margin, right=right)
                learner.add_term(f"expand/{each + 1}-{head + 1}/{trained}", value, weight=1.0)
        if number in units and self.plan:
            planned = HEADS if trained in self._again else HEADS - 1
            first, second = (unit[:, planned] for unit in units[number])
            value = matching_divergence(1 - first @ second.T, epsilon=self.epsilon, right=right)
            learner.add_term(f"expand/plan/{trained}", value, weight=self.plan)

    def _heads(self, subspace: Subspace, number: int, trained: Pair) -> Sequence[int]:
        """Heads of a subspace that learn a pair; other subspaces learn what arrives alone."""
        if number != self._number:
            old = {trained.first, trained.second} <= set(self._old)
            return () if old else range(subspace.heads)
        return (HEADS,) if trained in self._again else range(HEADS)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Decide how much the subspace counts for each pair, and bring pairs to one scale."""
        if self._number is not None:
            self._decide(strategy, self._number)
        self._calibrate(strategy)

    def _decide(self, strategy: Learner, number: int) -> None:
        subspace = strategy.space.grown[number]
        for value in strategy.space.subspaces.parameters():  # frozen from now on
            value.grad = None
            strategy.optimizer.state.pop(value, None)
        held_out = self._similarities(strategy)
        learned = tuple(float(each) for each in subspace.log_weights.detach().exp())[:HEADS]
        of_stage = {each: held_out[each] for each in self._trained if each in held_out}
        choice = choose_trained(self._trained, of_stage, learned)
        met = [{each.first, each.second} & set(self._old) for each in self._trained]
        whole = any(len(olds) != 1 for olds in met)
        known = {each: held_out[each] for each in self._known if each in held_out}
        old = choose_old(known, choice.weights, whole=whole, own=self._again)
        gates, own = dict.fromkeys(self._known, 0.0), dict.fromkeys(self._known, 0.0)
        for each, found in zip(known, old, strict=True):
            gates[each] = max(found.weights[:HEADS]) / max(choice.weights)
            own[each] = sum(found.weights[HEADS:])
        subspace.layout = self._layout(subspace, choice.weights, gates, own)
        self._choices = (choice, *old)

    def _calibrate(self, learner: Learner) -> None:
        """Set the factors by the levels of validation items: those trained on have others."""
        vectors: dict[str, list[Tensor]] = {}
        with _evaluating(learner):
            for block in BlockLoader(_some_of(learner.validation_items), rows=EVALUATION_ROWS):
                batch = block.to(learner.device)
                with learner.precision():
                    embedded = learner.space(batch.features, batch.lengths)
                for name, found in embedded.items():
                    vectors.setdefault(name, []).append(learner.space.vectors(name, found).cpu())
        experience = learner.stage_experience()
        trained = _pairs(*_earlier(experience), experience)
        aligned = connected(_names(learner.space), trained)
        learner.space.factors = mixing_factors(
            {name: torch.cat(each) for name, each in vectors.items()},
            (each for each in all_pairs(tuple(vectors)) if each.second in aligned[each.first]),
        )

    def _layout(
        self,
        subspace: Subspace,
        weights: Sequence[float],
        gates: Mapping[Pair, float],
        own: Mapping[Pair, float],
    ) -> tuple[Block, ...]:
        arriving = [name for name in subspace.kinds if name not in self._old]
        return layout(self._old, arriving, self._trained, weights, gates, own)

    def _similarities(self, learner: Learner) -> dict[Pair, HeldOut]:
        """Of the held-out items of each pair that has two members, if there are any."""
        space, number = learner.space, self._number
        vectors: dict[str, list[Tensor]] = {}
        units: dict[str, list[Tensor]] = {}
        rows: dict[str, list[Tensor]] = {}
        if self._items is None or number is None:
            return {}
        with _evaluating(learner):
            for block in BlockLoader(self._items, rows=EVALUATION_ROWS):
                batch = block.to(learner.device)
                with learner.precision():
                    embedded = space(batch.features, batch.lengths)
                for name, found in embedded.items():
                    if number in found.units:
                        vectors.setdefault(name, []).append(
                            space.vectors(name, found, until=number)
                        )
                        units.setdefault(name, []).append(found.units[number])
                        rows.setdefault(name, []).append(batch.index[batch.rows[name]])
        found = {}
        for each in (*self._trained, *self._known):
            if each.first in rows and each.second in rows:
                where = {name: torch.cat(rows[name]) for name in (each.first, each.second)}
                shared = where[each.first][torch.isin(where[each.first], where[each.second])]
                if len(shared) > 1:
                    right = _answering(self._items.dataset, each, shared)
                    found[each] = _held_out(each, where, shared, vectors, units, right)
        return found


def _some_of(items: Items) -> Items:
    """Of each share at most so many items as are held out of a stage, evenly spaced."""
    shares = []
    for one in items.shares:
        # Of several datasets put together, and of relations in one, the first are of one only.
        kept = min(len(one.rows), MOST)
        chosen = torch.arange(kept) * len(one.rows) // max(kept, 1)
        shares.append(Share(one.stage, one.rows[chosen], one.modalities))
    return Items(items.dataset, tuple(shares))


def _recordings(dataset: Dataset, share: Share) -> Tensor:
    """(n,) numbers of what a share's items show, from 0 on; the same if they share a recording.

    Texts are no recordings. Of large datasets, which would be read for it, each item is one.
    """
    rows = share.rows.numpy()
    found = np.arange(len(rows))
    columns = [dataset.columns[name] for name in share.modalities if name != "text"]
    if sum(4 * int(one.valid[rows].sum()) * one.modality.features for one in columns) < READ:
        for column in columns:
            here = np.flatnonzero(column.present[rows])
            shown: dict[bytes, int] = {}
            number = len(rows) + np.arange(len(rows))
            for place, digest in zip(here, digests_of(column, rows[here]), strict=True):
                number[place] = shown.setdefault(digest, len(shown))
            found = joined(found, number)
    return torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(-1))


def _names(space: JointSpace) -> list[str]:
    return [modality.name for modality in space.modalities]


def _earlier(experience: StageExperience) -> list[StageExperience]:
    """The stages before one; where another run trained some, they are one stage."""
    return [each for each in experience.origin_stream if each.stage < experience.stage]


def _pairs(*stages: StageExperience) -> set[Pair]:
    """What some stages train."""
    return {each for stage in stages for some in stage.pairs.values() for each in some}


def _first_aligned(experience: StageExperience) -> set[Pair]:
    """Pairs of earlier stages that align first coordinates.

    A pair of two that were frozen already learned in appended coordinates alone.
    """
    found: set[Pair] = set()
    there: set[str] = set()
    frozen: set[str] = set()
    for stage in _earlier(experience):
        there |= {modality.name for modality in stage.added}
        found |= {each for each in _pairs(stage) if not {each.first, each.second} <= frozen}
        if found:
            frozen = set(there)
    return found


def _answering(dataset: Dataset, each: Pair, rows: Tensor) -> Tensor | None:
    """(n, n) which of some rows answer one another; None where only each itself does."""
    numbers = []
    for name in (each.first, each.second):
        shown = digests_of(dataset.columns[name], rows.numpy())
        places = {digest: place for place, digest in enumerate(shown)}
        numbers.append(torch.tensor([places[digest] for digest in shown]))
    return answering(*numbers)


def _held_out(
    each: Pair,
    rows: Mapping[str, Tensor],
    shared: Tensor,
    vectors: Mapping[str, list[Tensor]],
    units: Mapping[str, list[Tensor]],
    right: Tensor | None,
) -> HeldOut:
    sides = []
    for name in (each.first, each.second):
        # Shares follow one another, so rows of several are in no order.
        order = rows[name].argsort()
        where = order[torch.searchsorted(rows[name][order], shared)]
        here = where.to(vectors[name][0].device)
        sides.append((torch.cat(vectors[name])[here], torch.cat(units[name])[here]))
    (first, first_units), (second, second_units) = sides
    heads = torch.einsum("ihd,jhd->hij", first_units, second_units)
    return HeldOut(shared, (first @ second.T).cpu(), heads.cpu(), right)


@contextmanager
def _evaluating(learner: Learner) -> Iterator[None]:
    """Evaluation mode without gradient; afterwards each module is in its own mode again."""
    training = [module for module in learner.space.modules() if module.training]
    learner.space.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
