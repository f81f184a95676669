"""Cross and intra: what arrives is fitted to a fixed partner by two views of each item."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Kind, Modality, Pair
from continual_mm.learning.growth import of_pair
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import gathered, paired_rows
from continual_mm.losses.nt_xent import nt_xent, uncertain
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.space.convolution import is_pictures, rescaled
from continual_mm.space.space import Embedded

LOG_SIGMA = "plugin/cross_intra/log_sigma"
"""The name of what is learned beside the space, among the learner's parameters."""


class CrossIntra(Plugin):
    r"""The losses by which CLIP2Point (Huang et al. 2023) adds depth to images and text.

    .. math::
        L = \mathrm{NTX}\Big(\frac{f_1 + f_2}2, g\Big)
        + \frac{\mathrm{NTX}(f_1, f_2)}{\sigma^2} + \log(1 + \sigma)

    From the second stage on they take the place of the contrast of every pair of a modality that
    arrives and one that was there: f₁ and f₂, (n, D), are raw embeddings of two views of what
    arrives, g are those of the old modality, without gradient. σ is learned from 1 on in each
    stage.

    Of what is shown as pictures, (views, height, width), a step sees one view of each item, drawn
    at random and the same for both modalities; f₁ and f₂ are of this view from two distances. Of
    anything else they are of the same features, of which different ones are hidden
    (``feature_dropout``).

    It says how something is learned. What keeps the old modalities is another plugin,
    :class:`~continual_mm.plugins.freeze.Freeze`.

    Args:
        temperature: τ of both losses.
        intra: 1 for both losses, 0 for the first alone.
        jitter: Distances are drawn from 1 - jitter to 1 + jitter.
    """

    def __init__(self, *, temperature: float = 0.07, intra: int = 1, jitter: float = 0.1) -> None:
        super().__init__()
        self.temperature = checked("cross_intra.temperature", temperature)
        self.intra = checked("cross_intra.intra", intra)
        self.jitter = checked("cross_intra.jitter", jitter)
        self._pairs: dict[Pair, str] = {}  # those of the stage -> the modality that arrives
        self._second: dict[str, Tensor] = {}  # modality that arrives -> its second view
        self._log_sigma: Parameter | None = None

    @property
    def curves(self) -> Mapping[str, Tensor]:
        """The learned deviation."""
        found = self._log_sigma
        return {} if found is None else {"cross_intra/sigma": found.detach().exp()}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Find the pairs that it concerns, and begin with a deviation of 1."""
        experience = strategy.stage_experience()
        old = {modality.name for modality in strategy.space.modalities}
        pairs = {pair for some in experience.pairs.values() for pair in some}
        arriving = {
            pair: name
            for pair in sorted(pairs)
            for name, other in pair.directions
            if name not in old and other in old
        }
        self._pairs = arriving if experience.training.steps else {}
        if self._pairs and self.intra:
            self._log_sigma = Parameter(torch.zeros((), device=strategy.device))
            strategy.own_parameters[LOG_SIGMA] = self._log_sigma

    def before_forward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Choose a view of each item, and make the second one of what arrives."""
        self._second = {}
        strategy.space.dropout.set_step(strategy.stage, strategy.step)  # as forward does later
        for name in sorted(set(self._pairs.values())):
            if name not in strategy.batch.features:
                continue
            if is_pictures(_modality(strategy, name)):
                partners = [pair for pair, arriving in self._pairs.items() if arriving == name]
                strategy.mbatch = self._one_view(strategy, name, partners)
                first, second = self._distances(strategy, name)
                features = {**strategy.batch.features, name: first}
                strategy.mbatch = replace(strategy.batch, features=features)
            else:
                second = strategy.batch.features[name]
            self._second[name] = second

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put both losses in the place of the contrast."""
        for pair, name in self._pairs.items():
            rows = paired_rows(strategy.batch, pair, [strategy.stage], strategy.current)
            if rows.shape[0] < 2:  # a row without negatives says nothing
                continue
            other = pair.first if name == pair.second else pair.second
            seen = of_pair(strategy.embedded, pair)
            first = _raw(seen[name], strategy.batch.positions(name, rows))
            second = _raw(self._again(strategy, pair, name), strategy.batch.positions(name, rows))
            target = _raw(seen[other], strategy.batch.positions(other, rows)).detach()
            strategy.drop_term(f"contrast/{pair}")
            cross = nt_xent((first + second) / 2, target, temperature=self.temperature)
            strategy.add_term(f"cross/{pair}", cross, weight=1.0)
            if self._log_sigma is not None:
                intra = nt_xent(first, second, temperature=self.temperature)
                value = uncertain(intra, self._log_sigma)
                strategy.add_term(f"intra/{pair}", value, weight=1.0)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Drop the deviation: the next stage begins with another."""
        self._pairs, self._second = {}, {}
        if self._log_sigma is not None:
            del strategy.own_parameters[LOG_SIGMA]
            strategy.optimizer.state.pop(self._log_sigma, None)
            self._log_sigma = None

    def state(self) -> dict[str, Tensor]:
        """The logarithm of the deviation, inside a stage."""
        found = self._log_sigma
        return {} if found is None else {"log_sigma": found.detach()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        if self._log_sigma is not None and "log_sigma" in state:
            self._log_sigma.copy_(state["log_sigma"])

    def _one_view(self, learner: Learner, name: str, pairs: list[Pair]) -> Batch:
        """The batch with one view of each item, of what arrives and of partners with as many."""
        batch, views = learner.batch, _modality(learner, name).shape[0]
        dropout = learner.space.dropout
        generator = dropout.generator(learner.device, "view", name)
        drawn = torch.rand(len(batch), generator=generator, device=learner.device)
        features, lengths = dict(batch.features), dict(batch.lengths)
        for each in dict.fromkeys([name, *_partners(pairs, name)]):
            known = _modality(learner, each)
            if each in features and known.kind is Kind.FRAMES and known.shape[0] == views:
                rows = batch.rows[each].to(learner.device)
                valid = lengths[each] if each in lengths else torch.full_like(rows, views)
                chosen = (drawn[rows] * valid).long()
                place = torch.arange(len(rows), device=learner.device)
                features[each] = features[each][place, chosen][:, None]
                lengths[each] = torch.ones_like(chosen)
        return replace(batch, features=features, lengths=lengths)

    def _distances(self, learner: Learner, name: str) -> Iterator[Tensor]:
        """The pictures of what arrives from two distances each."""
        pictures = learner.batch.features[name]
        for which in ("first", "second"):
            generator = learner.space.dropout.generator(learner.device, f"distance {which}", name)
            drawn = torch.rand(len(pictures), generator=generator, device=learner.device)
            yield rescaled(pictures, 1 + self.jitter * (2 * drawn - 1))

    def _again(self, learner: Learner, pair: Pair, name: str) -> Embedded:
        """The embeddings of the second view."""
        space, lengths = learner.space, learner.batch.lengths.get(name)
        tower = learner.own_towers.get(pair, {}).get(name, space.tower(name))
        time = _modality(learner, name).kind.has_length
        values = space.dropout(f"{name}, second view", self._second[name], time=time)
        with learner.precision():
            return space.embed(name, tower, values, lengths, hiding=False)


def _partners(pairs: list[Pair], name: str) -> list[str]:
    return [pair.first if name == pair.second else pair.second for pair in pairs]


def _modality(learner: Learner, name: str) -> Modality:
    return next(each for each in learner.space.modalities if each.name == name)


def _raw(embedded: Embedded, where: Tensor) -> Tensor:
    """(n, D) embeddings of some positions before they were brought to length one."""
    return gathered(embedded.direction * embedded.norm[:, None], where)
