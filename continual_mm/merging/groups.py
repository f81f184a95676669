"""Which units of an encoder are tied, so that whatever reorders or fuses one moves all of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from continual_mm.space.encoders import (
    Encoder,
    FlatEncoder,
    ResidualBlock,
    TemporalEncoder,
    TokenEncoder,
    VectorEncoder,
)
from continual_mm.space.mcn import (
    DavenetBlock,
    PublishedSpectrogram,
    PublishedTokens,
)
from continual_mm.space.towers import Identity, Linear

EMBEDDING = "embedding"
"""The group of the encoder's outputs, which all modalities of a space share."""

STEPS_SEEN = 32


@dataclass(frozen=True, slots=True)
class Place:
    """An axis of a tensor along which the units lie, ``blocks`` times one after another."""

    tensor: str  # its name in the encoder's state
    axis: int = 0
    blocks: int = 1
    inner: int = 1  # numbers of each unit, side by side
    # Whether it reads vectors of length one, whose numbers grow as these become fewer.
    unit_length: bool = False

    def rows(self, state: Mapping[str, Tensor]) -> Tensor:
        """(units, numbers) what the tensor has of each unit."""
        first = state[self.tensor].movedim(self.axis, 0)
        parts = first.reshape(self.blocks, len(first) // (self.blocks * self.inner), -1)
        return parts.movedim(1, 0).flatten(1)


@dataclass(frozen=True, slots=True)
class Group:
    """Units that cannot be moved apart.

    ``writers`` are what makes the units (rows of weights, biases, parameters of norms, each norm
    behind the layer that it normalises), ``readers`` what takes them in. ``seen`` are modules that
    show them on items, ``axis`` where they lie in their outputs or, ``before``, in their inputs;
    there is none for :data:`EMBEDDING`.
    """

    name: str
    writers: tuple[Place, ...]
    readers: tuple[Place, ...]
    seen: tuple[str, ...] = ()
    axis: int = -1
    before: bool = False


def groups_of(encoder: Encoder) -> tuple[Group, ...]:
    """The groups of an encoder of the package.

    Raises:
        ValueError: If its units are unknown: of a module that was given, or of several encoders.
    """
    known = _KINDS.get(type(encoder))
    for kind, found in _KINDS.items() if known is None else ():
        if isinstance(encoder, kind):
            known = found
    if known is None:
        raise ValueError(f"units of a {type(encoder).__name__} cannot be told, so not averaged")
    names = encoder.state_dict().keys()
    return tuple(
        Group(
            group.name,
            tuple(each for each in group.writers if each.tensor in names),
            tuple(each for each in group.readers if each.tensor in names),
            group.seen,
            group.axis,
            group.before,
        )
        for group in known(encoder)
    )


def _layer(name: str) -> tuple[Place, ...]:
    """Rows of a linear map or a convolution, or what a norm has of each unit."""
    fields = ("weight", "bias", "running_mean", "running_var")
    return tuple(Place(f"{name}.{each}") for each in fields)


def _columns(name: str, blocks: int = 1) -> Place:
    return Place(f"{name}.weight", 1, blocks)


def gated(name: str) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    """Writers and readers of the outputs of a gated unit: its gate multiplies each by itself."""
    parts = (f"{name}.fc", f"{name}.norm", f"{name}.gate")
    return tuple(each for part in parts for each in _layer(part)), (_columns(f"{name}.gate"),)


def _vector(_encoder: Encoder) -> Iterator[Group]:
    yield Group(EMBEDDING, *gated("unit"))


def _linear(_encoder: Encoder) -> Iterator[Group]:
    yield Group(EMBEDDING, _layer("map"), ())


def _nothing(_encoder: Encoder) -> Iterator[Group]:
    yield from ()


def _pooled(*writers: Place) -> Callable[[Encoder], Iterator[Group]]:
    """Of encoders that pool by one layer and its norm, in front of the gated unit."""

    def groups(_encoder: Encoder) -> Iterator[Group]:
        yield Group("pooled", writers, (_columns("unit.fc"),), ("unit",), before=True)
        yield Group(EMBEDDING, *gated("unit"))

    return groups


@dataclass(slots=True)
class _Stream:
    """What is added up along a chain of residual blocks of one width.

    Behind a ReLU some units are dead and look alike; one branch in front of it tells them apart.
    """

    seen: tuple[str, ...]
    writers: tuple[Place, ...]
    readers: tuple[Place, ...] = ()
    axis: int = 1

    def group(self, readers: Iterable[Place] = ()) -> Group:
        name = f"stream of {self.seen[0]}"
        return Group(name, self.writers, (*self.readers, *readers), self.seen, self.axis)


def _blocks(
    stream: _Stream, blocks: Mapping[str, ResidualBlock | DavenetBlock]
) -> Iterator[Group | _Stream]:
    """The groups inside blocks and of streams that end; last the stream behind them all."""
    for name, block in blocks.items():
        ours = isinstance(block, ResidualBlock)
        shortcut, last = ("shortcut", "conv2") if ours else ("downsample", "bn2")
        inner = (*_layer(f"{name}.conv1"), *_layer(f"{name}.bn1"))
        reads = (_columns(f"{name}.conv2"),)
        yield Group(f"{name}.conv1", inner, reads, (f"{name}.conv1",), 1)
        made = (*_layer(f"{name}.conv2"), *_layer(f"{name}.bn2"))
        stream.readers += (_columns(f"{name}.conv1"),)
        through = getattr(block, shortcut)
        if isinstance(through, nn.Identity):
            stream.writers += made
            continue
        inside = (f"{name}.{shortcut}", f"{name}.{shortcut}.0", f"{name}.{shortcut}.1")
        own = tuple(each for part in inside for each in _layer(part))
        yield stream.group((_columns(inside[0]), _columns(inside[1])))
        stream = _Stream((name, f"{name}.{last}"), (*made, *own))
    yield stream


def _temporal(encoder: Encoder) -> Iterator[Group]:
    if not isinstance(encoder, TemporalEncoder):
        raise TypeError("not a TemporalEncoder")
    blocks = {
        f"trunk.stages.{number}": block
        for number, block in enumerate(encoder.trunk.stages)
        if isinstance(block, ResidualBlock)
    }
    begun = _Stream(("trunk.norm",), (*_layer("trunk.stem"), *_layer("trunk.norm")), axis=-1)
    for found in _blocks(begun, blocks):
        if isinstance(found, Group):
            yield found
            continue
        # The mean and the maximum over time stand side by side.
        found.writers += tuple(Place(f"norm.{each}", 0, 2) for each in ("weight", "bias"))
        yield found.group((_columns("unit.fc", 2),))
    yield Group(EMBEDDING, *gated("unit"))


def _davenet(encoder: Encoder) -> Iterator[Group]:
    if not isinstance(encoder, PublishedSpectrogram):
        raise TypeError("not a PublishedSpectrogram")
    blocks = {
        f"net.{stage}.{number}": block
        for stage in encoder.net.stages
        for number, block in enumerate(encoder.net.get_submodule(stage).children())
        if isinstance(block, DavenetBlock)
    }
    begun = _Stream(("net.bn1",), (*_layer("net.conv1"), *_layer("net.bn1")))
    for found in _blocks(begun, blocks):
        yield found if isinstance(found, Group) else found.group((_columns("unit.fc"),))
    writers, readers = gated("unit")
    yield Group("unit", writers, (*readers, _columns("projection")), ("unit",))
    yield Group(EMBEDDING, _layer("projection"), ())


_KINDS: Mapping[type[Encoder], Callable[[Encoder], Iterator[Group]]] = {
    VectorEncoder: _vector,
    TokenEncoder: _pooled(*_layer("words"), Place("bias"), *_layer("norm")),
    FlatEncoder: _pooled(*_layer("moments"), *_layer("norm")),
    TemporalEncoder: _temporal,
    PublishedTokens: _pooled(*_layer("words")),
    PublishedSpectrogram: _davenet,
    Linear: _linear,
    Identity: _nothing,
}


def carried(
    state: Mapping[str, Tensor],
    groups: Iterable[Group],
    maps: Mapping[str, tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """The state of an encoder whose groups have become others.

    Args:
        state: Name -> tensor, as the encoder has it.
        groups: Its groups.
        maps: Name of a group -> (new, old) what makes the new units of the old ones, and
            (old, new) what shares an old unit out; groups without a map stay.

    Returns:
        Name -> tensor in the type that it had; worked out in float64.
    """
    found = {
        name: value.double() if value.is_floating_point() else value
        for name, value in state.items()
    }
    for group in groups:
        if group.name in maps:
            carry(found, group, *maps[group.name])
    return {name: value.to(state[name].dtype) for name, value in found.items()}


def carry(
    state: dict[str, Tensor],
    group: Group,
    outgoing: Tensor,
    incoming: Tensor,
    own: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Map one group in a state of float64, see :func:`carried`.

    ``own`` has the (old, new) maps of readers that share the old units out in another way.
    """
    for place in group.writers:
        state[place.tensor] = _along(state[place.tensor], place, outgoing.double())
    for place in group.readers:
        shared = own.get(place.tensor, incoming).double()
        old, new = shared.shape
        rate = (new / old) ** 0.5 if place.unit_length else 1.0
        state[place.tensor] = _along(state[place.tensor], place, rate * shared.T)


def _along(value: Tensor, place: Place, matrix: Tensor) -> Tensor:
    """Multiply an axis by (new, old), block by block."""
    first = value.movedim(place.axis, 0)
    parts = first.reshape(place.blocks, matrix.shape[1], place.inner, *first.shape[1:])
    new = torch.einsum("ij,bj...->bi...", matrix.to(value.device), parts)
    return new.flatten(0, 2).movedim(0, place.axis).contiguous()


@torch.no_grad()
def activations(
    encoder: Encoder,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    groups: Iterable[Group],
) -> dict[str, Tensor]:
    """What the units of hidden groups are on items: name of a group -> (samples, units).

    A unit that has a value at every time step gives a sample for each of at most
    :data:`STEPS_SEEN` of an item, evenly spaced. ``batches`` are values and lengths of the
    modality; the encoder is taken as it is, so set it to evaluation mode.
    """
    found: dict[str, list[Tensor]] = {}
    handles = []
    for group in groups:
        for name in group.seen:
            into = found.setdefault(group.name, [])
            handles.append(_listen(encoder.get_submodule(name), group, into))
    try:
        for values, lengths in batches:
            encoder(values, lengths)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(values) for name, values in found.items()}


def _listen(
    module: nn.Module, group: Group, into: list[Tensor]
) -> torch.utils.hooks.RemovableHandle:
    def note(values: Tensor) -> None:
        last = values.movedim(group.axis, -1)
        if last.dim() > 2:
            last = last[:, :: -(-last.shape[1] // STEPS_SEEN)]
        into.append(last.flatten(0, -2).float().cpu())

    if group.before:
        return module.register_forward_pre_hook(lambda _module, given: note(given[0]))
    return module.register_forward_hook(lambda _module, _given, made: note(made))
