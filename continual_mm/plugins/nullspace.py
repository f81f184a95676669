"""Null space: old layers change only where nothing that they were given before can tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from continual_mm.dice import seed_for
from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import StepLoader
from continual_mm.plugins.layers import Layer, LayerInputs
from continual_mm.plugins.plugin import Plugin, fraction
from continual_mm.space.naming import modality_of, named_parameters, trainable

ROUNDING = torch.finfo(torch.float32).eps ** 2
"""Energy, relative to the largest, that float32 inputs have in directions that are not theirs."""


class Nullspace(Plugin):
    """Projection of updates onto the null space of old inputs (after Wang et al., CVPR 2021).

    A layer gives ``W x + b``. With U an orthonormal basis of the space that its old inputs
    ``(x, 1)`` lie in, the change ``D = (W, b) - (W, b)_start`` since the stage's start becomes
    ``D - D U U^T`` behind every optimiser step, so old outputs stay. Projecting gradients instead
    does not do that: Adam divides them entry by entry, and weight decay never was a gradient.

    U comes from the uncentred covariance of the inputs, the sum of the finished stages' means,
    gathered in evaluation mode on some of each stage's items. From the second stage on it binds the
    linear and convolutional layers of encoders and reconstruction heads that were there before.
    Whatever else these learn (scales and shifts of normalisations, recurrent weights, biases added
    elsewhere) is held still, and what keeps statistics, such as batch normalisation, stays in
    evaluation mode. The scale of the similarities moves no embedding and is free.

    Args:
        keep: Part of the inputs' energy that U holds, in [0, 1]: 1 all of it, and old outputs do
            not change at all; 0 none, and nothing is held either.
        batches: Batches that a stage's inputs are gathered from.
        rows: Rows of each of them.
    """

    def __init__(self, *, keep: float = 0.99, batches: int = 32, rows: int = 32) -> None:
        super().__init__()
        self.keep = fraction("nullspace.keep", keep)
        if batches < 1 or rows < 1:
            problem = f"nullspace.batches = {batches}, nullspace.rows = {rows}"
            raise ValueError(f"{problem}: give at least 1 of each")
        self.batches = batches
        self.rows = rows
        self._covariance: dict[Layer, Tensor] = {}
        self._basis: dict[Layer, Tensor] = {}
        self._start: dict[Layer, Tensor] = {}
        self._bound: dict[Layer, tuple[Tensor, ...]] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Hold still what old towers learn outside the layers that are bound."""
        bound = {name for layer in self._basis for name in layer}
        towers = {modality_of(name) for name in bound}
        for name, parameter in named_parameters(strategy.space):
            if modality_of(name) in towers and name not in bound:
                parameter.requires_grad_(False)
                parameter.grad = None

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Remember where the layers are, and stop the statistics of old towers."""
        parameters = dict(named_parameters(strategy.space))
        self._bound = {
            layer: tuple(parameters[name].detach() for name in layer) for layer in self._basis
        }
        self._start = {
            layer: _rows(values, self._basis[layer].shape[0])
            for layer, values in self._bound.items()
        }
        towers = {modality_of(layer[0]) for layer in self._bound}
        for name, module in strategy.space.named_modules():
            if modality_of(name) in towers and _has_statistics(module):
                module.training = False

    @torch.no_grad()
    def after_update(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Take out of the layers' change what old inputs would notice."""
        for layer, (weight, *biases) in self._bound.items():
            start = self._start[layer]
            change = _rows([weight, *biases], start.shape[0]) - start
            rows = (start + outside(change, self._basis[layer])).flatten(0, 1)
            width = rows.shape[1] - len(biases)
            weight.copy_(rows[:, :width].reshape(weight.shape))
            for bias in biases:
                bias.copy_(rows[:, width])

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the stage's inputs to those before them."""
        self._start, self._bound = {}, {}
        if not self.keep:
            return
        for layer, covariance in self.covariances(strategy).items():
            before = self._covariance.get(layer, torch.zeros_like(covariance))
            self._covariance[layer] = before + covariance
            self._basis[layer] = leading_space(self._covariance[layer], self.keep)

    def covariances(self, learner: Learner) -> dict[Layer, Tensor]:
        """Layer -> uncentred covariance of what the stage's items put into it."""
        experience = learner.stage_experience()
        loader = StepLoader(
            experience.items,
            tuple(self.rows for _ in experience.items.shares),
            steps=self.batches,
            seed=seed_for(learner.space.seed, "nullspace", experience.stage),
        )
        owned = {
            name: value
            for name, value in trainable(learner.space).items()
            if modality_of(name) is not None
        }
        inputs = LayerInputs(owned)
        learner.space.eval()  # what counts are the outputs that are used
        for block in loader:
            with inputs, learner.precision():
                for name, part in learner.model(block.to(learner.device)).items():
                    learner.space.reconstruct(name, part.embedding)
        learner.space.train()
        return inputs.covariances()

    def state(self) -> dict[str, Tensor]:
        """Covariances and bases by layer; inside a stage also its weights at the start."""
        return {
            f"{kind}/{','.join(layer)}": value
            for kind, values in self._parts()
            for layer, value in values.items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._covariance, self._basis, self._start = {}, {}, {}
        parts = dict(self._parts())
        for key, value in state.items():
            kind, _, layer = key.partition("/")
            parts[kind][tuple(layer.split(","))] = value

    def _parts(self) -> tuple[tuple[str, dict[Layer, Tensor]], ...]:
        return (
            ("covariance", self._covariance),
            ("basis", self._basis),
            ("start", self._start),
        )


def leading_space(covariance: Tensor, keep: float) -> Tensor:
    """Orthonormal basis of the fewest directions that hold a part of the energy.

    Args:
        covariance: (groups, d, d) uncentred.
        keep: The part, in [0, 1]; 1 takes every direction but those of rounding errors.

    Returns:
        (groups, d, r) float32; groups that need fewer than r directions have columns of zeros.
    """
    energies, directions = torch.linalg.eigh(covariance)
    energies, directions = energies.flip(1).clamp(min=0), directions.flip(2)
    before = energies.cumsum(1) - energies
    wanted = before < keep * energies.sum(1, keepdim=True)
    wanted &= energies > ROUNDING * energies[:, :1]
    most = int(wanted.sum(1).max())
    chosen: Tensor = (directions * wanted[:, None, :])[:, :, :most]
    return chosen.float().contiguous()


def outside(change: Tensor, basis: Tensor) -> Tensor:
    """What is left of rows without their part in a space: (g, n, d), (g, d, r) -> (g, n, d)."""
    left: Tensor = torch.baddbmm(change, change @ basis, basis.mT, alpha=-1)
    return left


def _rows(values: Sequence[Tensor], groups: int) -> Tensor:
    """(groups, outputs of each, d): a layer's weight as a matrix, its bias as the last column."""
    matrix = torch.cat([values[0].flatten(1), *(bias[:, None] for bias in values[1:])], dim=1)
    return matrix.reshape(groups, -1, matrix.shape[1])


def _has_statistics(module: nn.Module) -> bool:
    """Whether a module keeps buffers of its own, which training mode may move."""
    return next(module.buffers(recurse=False), None) is not None
