"""Null space: old layers change only in directions that old inputs do not have."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import freeze
from continual_mm.plugins.plugin import Plugin, stage_batches
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import named_parameters, owner_of, trainable
from continual_mm.system.seeds import seed_for

Layer = str  # name of a layer's weight and, behind a comma, of its bias where it learns one


class LayerInputs(TorchFunctionMode):
    """Inside it the covariance of the inputs of every linear map and convolution is gathered.

    ``parameters`` are the weights and biases that are looked for, by name. Calls are noticed, not
    modules: a weight that its tower multiplies by itself is found as well. Any other use (a
    normalisation, a recurrent layer, an attention that multiplies by part of a weight) is not.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {parameter: name for name, parameter in parameters.items()}
        self._sums: dict[Layer, Tensor] = {}
        self._counts: Counter[Layer] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look at a call that torch is about to make."""
        kwargs = kwargs or {}
        if func in _READERS:
            self._note(*_READERS[func](*args, **kwargs))
        return func(*args, **kwargs)

    @torch.no_grad()
    def _note(self, weight: Tensor, bias: Tensor | None, vectors: Tensor) -> None:
        if weight not in self._names:
            return
        layer = self._names[weight]
        exact = vectors.detach().double()
        if bias is not None and bias in self._names:
            layer += f",{self._names[bias]}"
            exact = torch.cat([exact, exact.new_ones(*exact.shape[:2], 1)], dim=2)
        products = exact.mT @ exact
        self._sums[layer] = self._sums.get(layer, torch.zeros_like(products)) + products
        self._counts[layer] += exact.shape[1]

    def covariances(self) -> dict[Layer, Tensor]:
        """Layer -> (groups, d, d) float64 uncentred covariance, the mean of ``x x^T``.

        With a bias, the last of the d entries of x is a constant 1. Layers that share a weight or a
        bias with another are left out, for what keeps one of them still may move the other.
        """
        used = Counter(name for layer in self._sums for name in layer.split(","))
        return {
            layer: total / max(self._counts[layer], 1)
            for layer, total in self._sums.items()
            if all(used[name] == 1 for name in layer.split(","))
        }


def _linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    return weight, bias, input.reshape(1, -1, input.shape[-1])


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor | None, Tensor]:
    kernel = weight.shape[2:]
    axes = len(kernel)
    batched = input if input.dim() == axes + 2 else input[None]
    steps, gaps = _each(stride, axes), _each(dilation, axes)
    spans = [gap * (size - 1) for gap, size in zip(gaps, kernel, strict=True)]
    values = pad(batched, _margins(padding, spans))
    for axis in range(axes):
        values = values.unfold(2 + axis, spans[axis] + 1, steps[axis])[..., :: gaps[axis]]
    # (n, channels, *places, *kernel) -> (n, groups, channels of a group, places, kernel)
    channels, places = weight.shape[1], values.shape[2 : 2 + axes].numel()
    values = values.reshape(batched.shape[0], groups, channels, places, kernel.numel())
    patches = values.permute(1, 0, 3, 2, 4).reshape(groups, -1, channels * kernel.numel())
    return weight, bias, patches


def _each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """One number for each axis, where a single one may stand for all."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)


def _margins(padding: str | int | Sequence[int], spans: Sequence[int]) -> list[int]:
    """Zeros before and behind each axis, the last axis first, as ``pad`` takes them."""
    if padding == "same":
        sides = [(span // 2, span - span // 2) for span in spans]
    elif isinstance(padding, str):
        sides = [(0, 0)] * len(spans)
    else:
        sides = [(side, side) for side in _each(padding, len(spans))]
    return [zeros for pair in reversed(sides) for zeros in pair]


_READERS: Mapping[Any, Callable[..., tuple[Tensor, Tensor | None, Tensor]]] = {
    functional.linear: _linear,
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.conv3d: _convolution,
}
"""A function of torch -> what finds weight, bias and (groups, n, d) inputs in its arguments."""


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
    elsewhere) is frozen, and modules with running statistics, such as batch normalisation, stay in
    evaluation mode. The scale of the similarities moves no embedding and is trained.

    Args:
        keep: Part of the inputs' energy in the span of U, in [0, 1]: with 1 old outputs do not
            change at all; with 0 nothing is constrained.
        batches: Batches that a stage's inputs are gathered from.
        rows: Rows of each of them.
    """

    saved = ("covariance", "basis", "start")

    def __init__(self, *, keep: float = 0.99, batches: int = 32, rows: int = 32) -> None:
        super().__init__()
        self.keep = checked("nullspace.keep", keep)
        self.batches = checked("nullspace.batches", batches)
        self.rows = checked("nullspace.rows", rows)
        self._covariance: dict[Layer, Tensor] = {}
        self._basis: dict[Layer, Tensor] = {}
        self._start: dict[Layer, Tensor] = {}
        self._bound: dict[Layer, list[Tensor]] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze what old towers learn outside the layers that are projected."""
        bound = {name for layer in self._basis for name in layer.split(",")}
        towers = {owner_of(name) for name in bound}
        for name, parameter in named_parameters(strategy.space):
            if owner_of(name) in towers and name not in bound:
                freeze([parameter])

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the layers' weights, and stop the running statistics of old towers."""
        parameters = dict(named_parameters(strategy.space))
        self._bound = {
            layer: [parameters[name].detach() for name in layer.split(",")] for layer in self._basis
        }
        self._start = {
            layer: _rows(values, self._basis[layer].shape[0])
            for layer, values in self._bound.items()
        }
        towers = {owner_of(layer) for layer in self._bound}
        for name, module in strategy.space.named_modules():
            # Buffers of a module's own are what training mode may move.
            if owner_of(name) in towers and any(True for _ in module.buffers(recurse=False)):
                module.training = False

    @torch.no_grad()
    def after_update(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Remove the part of the layers' change that lies in the span of old inputs."""
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
        """Add the covariance of the stage's inputs to those of earlier stages."""
        self._start, self._bound = {}, {}
        if not self.keep:
            return
        for layer, covariance in self.covariances(strategy).items():
            before = self._covariance.get(layer, torch.zeros_like(covariance))
            self._covariance[layer] = before + covariance
            self._basis[layer] = leading_space(self._covariance[layer], self.keep)

    def covariances(self, learner: Learner) -> dict[Layer, Tensor]:
        """Layer -> uncentred covariance of what the stage's items put into it."""
        owned = {
            name: value
            for name, value in trainable(learner.space).items()
            if owner_of(name) is not None
        }
        inputs = LayerInputs(owned)
        seed = seed_for(learner.space.seed, "nullspace", learner.stage)
        for batch in stage_batches(learner, rows=self.rows, batches=self.batches, seed=seed):
            with inputs, learner.precision():
                for name, part in learner.model(batch).items():
                    learner.space.reconstruct(name, part.embedding)
        return inputs.covariances()


def leading_space(covariance: Tensor, keep: float) -> Tensor:
    """(groups, d, r) float32 orthonormal basis of the fewest directions with a part of the energy.

    ``covariance`` is (groups, d, d), uncentred; a part, in [0, 1], of 1 takes every direction but
    those of rounding errors. Groups that need fewer than r directions have columns of zeros.
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
