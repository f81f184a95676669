"""The groups of units of a whole space: of its encoders, and of what reads or grew from them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import nn

from continual_mm.merging.groups import EMBEDDING, Group, Place, gated, groups_of
from continual_mm.space.encoders import Encoder
from continual_mm.space.merged import Merged
from continual_mm.space.naming import module_key
from continual_mm.space.space import JointSpace
from continual_mm.space.subspaces import Adapters, Part
from continual_mm.space.towers import Adapted, Identity

POOLED = "unit.fc.weight"
"""What reads the pooled units of an encoder, which its head predicts and its parts read."""

OWN = "hidden units of {} stay: its tower is a module of its own, whose units cannot be told"


def hidden_groups(space: JointSpace) -> tuple[list[Group], list[str]]:
    """The groups inside encoders and subspaces, in the order of layers.

    Returns:
        The groups, with names of tensors in the state of the space, and a line for each encoder
        that has none because its units are unknown.
    """
    found: list[Group] = []
    notes = []
    for modality in space.modalities:
        name = modality.name
        try:
            found += _of_tower(space, name)
        except ValueError:
            notes.append(OWN.format(name))
        for start, part in _parts(space, name):
            if part.encoder is not None:
                inner = [g for g in _known(part.encoder) if g.name != EMBEDDING]
                found += [_within(group, f"{start}.encoder") for group in inner]
    for number, subspace in enumerate(space.grown):
        if subspace.map is not None:
            first, last = _linear_layers(subspace.map, f"subspaces.{number}.map")
            found.append(Group(first, _layer(first), (Place(f"{last}.weight", 1),)))
    return found, notes


def embedding_group(space: JointSpace) -> Group:
    """The dimensions of the embedding, which all encoders write: one group of all modalities.

    Raises:
        ValueError: If an encoder gives embeddings of its own size.
    """
    writers, readers = [Place("centroids", 1)], []
    for modality in space.modalities:
        name = modality.name
        group = _outputs(space.tower(name), name)
        within = _with_adapters(_within(group, _encoder(name)), space, name)
        head, _ = _linear_layers(space.head(name), _head(name))
        writers += within.writers
        readers += [*within.readers, Place(f"{head}.weight", 1)]
    for number, subspace in enumerate(space.grown):
        if subspace.map is not None:
            first, _ = _linear_layers(subspace.map, f"subspaces.{number}.map")
            readers.append(Place(f"{first}.weight", 1, unit_length=True))
    known = space.state_dict().keys()
    there = tuple(each for each in writers if each.tensor in known)
    return Group(EMBEDDING, there, tuple(readers))


def _of_tower(space: JointSpace, name: str) -> Iterator[Group]:
    """The hidden groups of a modality's encoder; of several in a merged one, of each."""
    tower, start = space.tower(name), _encoder(name)
    parts = [(start, tower)]
    if isinstance(tower, Merged):
        parts = [(f"{start}.parts.{n}", each) for n, each in enumerate(tower.encoders)]
    for number, (inside, encoder) in enumerate(parts):
        for group in groups_of(encoder):
            if group.name == EMBEDDING:
                continue
            whole = _within(group, inside)
            pooled = next((each for each in group.readers if each.tensor == POOLED), None)
            if pooled is not None and not number:
                whole = _with_readers(whole, space, name, pooled.blocks)
            yield _with_adapters(whole, space, name)


def _known(encoder: Encoder) -> tuple[Group, ...]:
    try:
        return groups_of(encoder)
    except ValueError:
        return ()


def _with_readers(group: Group, space: JointSpace, name: str, blocks: int) -> Group:
    """With what an encoder's pooled units go to: the head that predicts them, and subspaces."""
    _, last = _linear_layers(space.head(name), _head(name))
    predicted = tuple(Place(f"{last}.{each}", 0, blocks) for each in ("weight", "bias"))
    read = tuple(
        Place(f"{start}.{POOLED}", 1, blocks)
        for start, part in _parts(space, name)
        if part.encoder is None
    )
    return replace(group, writers=group.writers + predicted, readers=group.readers + read)


def _with_adapters(group: Group, space: JointSpace, name: str) -> Group:
    """With the low-rank changes of a tower's weights, which have the rows and columns of these."""
    writers, readers = list(group.writers), list(group.readers)
    for start, part in _parts(space, name):
        if part.adapters is not None:
            for side in (writers, readers):
                side += [
                    low_rank
                    for place in side.copy()
                    if (low_rank := _low_rank(place, part.adapters, start, space, name))
                ]
    return replace(group, writers=tuple(writers), readers=tuple(readers))


def _low_rank(
    place: Place, adapters: Adapters, start: str, space: JointSpace, name: str
) -> Place | None:
    own = place.tensor.removeprefix(f"{_encoder(name)}.")
    if own == place.tensor or own not in adapters.names:
        return None
    number = adapters.names.index(own)
    if place.axis == 0:
        return Place(f"{start}.adapters.up.{number}", 0, place.blocks)
    weight = space.tower(name).get_parameter(own)
    return Place(f"{start}.adapters.down.{number}", 1, place.blocks, weight[0, 0].numel())


def _outputs(tower: Encoder, name: str) -> Group:
    """What writes and reads the embedding in an encoder."""
    if isinstance(tower, Merged):
        maps = range(len(tower.encoders))
        return Group(EMBEDDING, tuple(Place(f"map_{number}", 1) for number in maps), ())
    if isinstance(tower, Adapted) and not isinstance(tower.head, nn.Identity):
        return Group(EMBEDDING, *gated("head"))
    if isinstance(tower, Adapted | Identity):
        raise ValueError(f"the tower of {name} gives embeddings of its own size")
    return next(each for each in groups_of(tower) if each.name == EMBEDDING)


def _parts(space: JointSpace, name: str) -> Iterator[tuple[str, Part]]:
    """Name and module of what maps a modality into each subspace, unless a common map does."""
    for number, subspace in enumerate(space.grown):
        if name in subspace and isinstance(part := subspace.part(name), Part):
            yield f"subspaces.{number}.parts.{module_key(name)}", part


def _within(group: Group, start: str) -> Group:
    def moved(places: Iterable[Place]) -> tuple[Place, ...]:
        return tuple(replace(each, tensor=f"{start}.{each.tensor}") for each in places)

    name = f"{start}.{group.name}"
    return replace(group, name=name, writers=moved(group.writers), readers=moved(group.readers))


def _linear_layers(module: nn.Module, start: str) -> tuple[str, str]:
    """Names of the first and the last linear layer of a module of two."""
    first, last = (
        f"{start}.{name}" for name, each in module.named_modules() if isinstance(each, nn.Linear)
    )
    return first, last


def _layer(name: str) -> tuple[Place, ...]:
    return Place(f"{name}.weight"), Place(f"{name}.bias")


def _encoder(name: str) -> str:
    return f"encoders.{module_key(name)}"


def _head(name: str) -> str:
    return f"reconstructions.{module_key(name)}"
