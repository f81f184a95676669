"""MMLoRA: modalities learn to classify alone, then adapters learn to do so together."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from continual_mm.data.batch import Batch, Items, Share
from continual_mm.data.schema import NOT_GIVEN
from continual_mm.definitions.modality import Pair
from continual_mm.learning.growth import of_pair
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import embeddings_at, paired_rows, stages_of
from continual_mm.losses.classification import mean_logit_cross_entropy
from continual_mm.plugins.adapters import PairAdapters
from continual_mm.plugins.freeze import eval_frozen, freeze, unfreeze
from continual_mm.plugins.registry import checked
from continual_mm.system.errors import InputError

PLACE = "[mmlora]"


class MMLora(PairAdapters):
    """Uni-modal learning first, then low-rank adapters that learn from all modalities together.

    For data with labels, in which one modality is the name of an item's class. A stage that trains
    one pair, of a modality with the names, trains it as ever, and from the second stage on what was
    there before is frozen: each modality learns by itself, and none is neglected because another
    was faster. A stage that trains several pairs of the names trains these together: its loss is
    the cross-entropy of the **mean of the modalities' logits**
    (:func:`~continual_mm.losses.classification.mean_logit_cross_entropy`) and nothing else, where
    the logit of a class is the scaled similarity to its name. What was there before learns by
    adapters (:func:`~continual_mm.plugins.adapters.adapted`), each pair by its own, what arrives in
    the stage is trained whole.

    Args:
        rank: Rank of an adapter; in a layer with fewer inputs or outputs, their number. 0 trains
            the towers themselves.
        alpha: Scale of the adapters, relative to their rank.
        rate: Adapters' learning rate in terms of the stage's.
    """

    def __init__(self, *, rank: int = 8, alpha: float = 16.0, rate: float = 3.0) -> None:
        super().__init__(
            rank=checked("mmlora.rank", rank),
            alpha=checked("mmlora.alpha", alpha),
            rate=checked("mmlora.rate", rate),
        )
        self._frozen: tuple[Parameter, ...] = ()
        self._names = ""  # of the modality that names classes, in a stage that trains them together
        self._classes: Batch | None = None  # an item of each class
        self._label = torch.zeros(0, dtype=torch.long)  # the sorted labels of the classes

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze what was there, and adapt it where a stage trains several pairs together."""
        experience, space = strategy.stage_experience(), strategy.space
        pairs = sorted({pair for some in experience.pairs.values() for pair in some})
        self._names, self._classes = "", None
        if experience.items.dataset.label is None:
            problem = f"dataset '{experience.items.dataset.card.name}' has no labels"
            raise InputError.at(PLACE, problem, "give its items a label, or take joint_lora")
        if len(pairs) > 1 and experience.training.steps:
            self._names = _shared(pairs)
            self._label, self._classes = _classes(experience.items, self._names)
            self._classes = self._classes.to(strategy.device)
        if self._names and not self.rank:
            unfreeze(space, self._frozen)
            self._frozen = ()
            return
        if space.modalities:
            self._frozen += freeze(space.parameters())
            strategy.clusters.fixed = True
        self.make_again(strategy)
        self.hold(strategy, frozen=True)
        if self._names:
            self._adapt_pairs(strategy, pairs)

    def _adapt_pairs(self, learner: Learner, pairs: list[Pair]) -> None:
        """Adapters of the stage's pairs, those of an earlier stage too, learn."""
        for pair in pairs:
            if pair not in learner.own_towers:
                self.adapt(learner, pair, (pair.first, pair.second))
        self.found(learner)
        starts = tuple(f"own/{pair}/" for pair in pairs)
        for name, adapter in self._adapters.items():
            adapter.requires_grad_(name.startswith(starts))

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set frozen towers to evaluation mode."""
        eval_frozen(strategy.space)

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Train the mean of the logits instead of each pair by itself."""
        if self._classes is None:
            return
        logits, rows = [], []
        pairs = strategy.stage_experience().pairs
        for pair, stages in stages_of(pairs).items():
            name = pair.first if pair.second == self._names else pair.second
            some = paired_rows(strategy.batch, pair, stages, strategy.current)
            if len(some):
                seen = of_pair(strategy.embedded, pair)
                embedding = embeddings_at(strategy.batch, seen, name, some)
                named = self._named(strategy, pair, self._classes)
                logits.append(strategy.space.logit_scale * (embedding @ named.T))
                rows.append(some)
        if logits:
            loss = mean_logit_cross_entropy(logits, rows, self._labels(strategy))
            strategy.train_on("mean_logits", loss)

    def _named(self, learner: Learner, pair: Pair, classes: Batch) -> Tensor:
        """(K, D) embeddings of the names of the classes, as a pair sees them."""
        name, space = self._names, learner.space
        tower = learner.own_towers.get(pair, {}).get(name, space.tower(name))
        values, lengths = classes.features[name], classes.lengths.get(name)
        with learner.precision():
            return space.embed(name, tower, values, lengths, hiding=False).embedding

    def _labels(self, learner: Learner) -> Tensor:
        """(N,) which class each row of the batch is of; -1 where it has no label."""
        labels = learner.stage_experience().items.dataset.label
        given = torch.from_numpy(np.asarray(labels)[learner.batch.index.numpy()])
        place = torch.searchsorted(self._label, given).clamp(max=len(self._label) - 1)
        return torch.where(self._label[place] == given, place, -1)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze the stage's adapters, and drop their optimiser state."""
        self.hold(strategy, frozen=True)


def _shared(pairs: list[Pair]) -> str:
    """The modality that all pairs have in common, which names the classes."""
    common = set.intersection(*({pair.first, pair.second} for pair in pairs))
    if len(common) != 1:
        shown = ", ".join(map(str, pairs))
        problem = f"{shown} are trained together, and no modality is in each, to name classes"
        remedy = 'name pairs of one modality, such as pairs = ["image-name", "audio-name"]'
        raise InputError.at(PLACE, problem, remedy)
    return common.pop()


def _classes(items: Items, name: str) -> tuple[Tensor, Batch]:
    """The labels of the training items that have a modality, and an item of each."""
    dataset = items.dataset
    rows = np.unique(torch.cat([share.rows for share in items.shares]).numpy())
    labels = np.asarray(dataset.label)
    rows = rows[dataset.columns[name].present[rows] & (labels[rows] != NOT_GIVEN)]
    known, first = np.unique(labels[rows], return_index=True)
    if len(known) < 2:
        problem = f"training items with {name} have {len(known)} labels"
        raise InputError.at(PLACE, problem, "give at least two classes")
    last = np.unique(labels[rows][::-1], return_index=True)[1]
    sides = (rows[first], rows[::-1][last])
    one, other = (
        Items(dataset, (Share(0, torch.from_numpy(side.copy()), (name,)),), filled=True).block(
            (torch.arange(len(side)),)
        )
        for side in sides
    )
    differing = (one.features[name] != other.features[name]).flatten(1).any(1).nonzero()
    if len(differing):
        problem = f"items of label {known[int(differing[0])]} differ in {name}"
        remedy = f"let {name} be the name of an item's class, the same for all items of a label"
        raise InputError.at(f"{PLACE}, dataset '{dataset.card.name}'", problem, remedy)
    return torch.from_numpy(known.astype(np.int64)), one
