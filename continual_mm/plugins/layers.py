"""What goes into linear and convolutional layers: every vector that their weights multiply."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

Layer = tuple[str, ...]
"""Names of a layer's weight and, where it learns one, its bias."""


class LayerInputs(TorchFunctionMode):
    """Inside it the covariance of the inputs of every linear map and convolution is gathered.

    Calls are noticed, not modules: a weight that its tower multiplies by itself is found as well.
    What is used in any other way (a normalisation, a recurrent layer, an attention that multiplies
    by part of a weight) is not found.

    Args:
        parameters: Name -> the weights and biases that are looked for.
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
        layer: Layer = (self._names[weight],)
        exact = vectors.detach().double()
        if bias is not None and bias in self._names:
            layer += (self._names[bias],)
            exact = torch.cat([exact, exact.new_ones(*exact.shape[:2], 1)], dim=2)
        products = exact.mT @ exact
        self._sums[layer] = self._sums.get(layer, torch.zeros_like(products)) + products
        self._counts[layer] += exact.shape[1]

    def covariances(self) -> dict[Layer, Tensor]:
        """Layer -> (groups, d, d) float64 uncentred covariance, the mean of ``x x^T``.

        With a bias, the last of the d entries of x is a constant 1. Layers that share a weight or a
        bias with another are left out, for what keeps one of them still may move the other.
        """
        used = Counter(name for layer in self._sums for name in layer)
        return {
            layer: total / max(self._counts[layer], 1)
            for layer, total in self._sums.items()
            if all(used[name] == 1 for name in layer)
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
