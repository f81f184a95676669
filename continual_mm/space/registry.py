"""Name in ``[tower.<modality>]`` -> encoder: the only list. No torch is imported to read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError

if TYPE_CHECKING:
    from continual_mm.space.towers import Build

ENTRY_POINTS = "continual_mm.towers"
"""Entry-point group of functions of other packages that build towers, ``space.towers.Build``."""


@dataclass(frozen=True, slots=True)
class KnownTower:
    """A tower that files may name; with ``same_size`` it takes vectors of the space's size."""

    path: str
    summary: str
    kinds: frozenset[Kind]
    same_size: bool = False


_VECTOR = frozenset({Kind.VECTOR})
_IN_TIME = frozenset(Kind) - _VECTOR
_ENCODERS, _TOWERS = "continual_mm.space.encoders", "continual_mm.space.towers"

BUILT_IN: Mapping[str, KnownTower] = MappingProxyType(
    {
        "vector": KnownTower(
            f"{_ENCODERS}:VectorEncoder", "a gated unit on a feature vector", _VECTOR
        ),
        "tokens": KnownTower(
            f"{_ENCODERS}:TokenEncoder",
            "each step through a layer, the maximum over the steps, a gated unit",
            _IN_TIME,
        ),
        "flat": KnownTower(
            f"{_ENCODERS}:FlatEncoder",
            "every moment with weights of its own, a gated unit: for clips of one length",
            _IN_TIME,
        ),
        "spectrogram": KnownTower(
            f"{_ENCODERS}:spectrogram_encoder", "a DAVEnet of any width and depth", _IN_TIME
        ),
        "frames": KnownTower(
            f"{_ENCODERS}:frame_encoder", "convolutions over time that skip no step", _IN_TIME
        ),
        "pictures": KnownTower(
            "continual_mm.space.convolution:PictureEncoder",
            "convolutions on each view, such as a depth map, and the mean of the views",
            frozenset({Kind.FRAMES}),
        ),
        "identity": KnownTower(
            f"{_TOWERS}:Identity",
            "nothing: the features are embeddings already",
            _VECTOR,
            same_size=True,
        ),
        "linear": KnownTower(
            f"{_TOWERS}:Linear", "a linear map, at first the identity where sizes agree", _VECTOR
        ),
    }
)


def outside() -> dict[str, EntryPoint]:
    """Towers that other installed packages offer, by name, not imported."""
    found = entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in found if entry.name not in BUILT_IN}


def tower_problem(kind: str, modality: Modality, dim: int) -> str:
    """Why a built-in tower cannot read a modality; empty if it can."""
    known = BUILT_IN.get(kind)
    if known is None:
        return ""
    if modality.kind not in known.kinds:
        return f"does not read {modality.kind}, as {modality.name!r} is"
    if known.same_size and modality.features != dim:
        needed = f"needs {modality.name!r} to have {dim} features, as space.dim says"
        return f"{needed}; it has {modality.features}"
    return ""


def build(kind: str) -> "Build":
    """The function that builds a named tower, which is imported."""
    known = BUILT_IN.get(kind)
    entry = EntryPoint(kind, known.path, ENTRY_POINTS) if known else outside().get(kind)
    if entry is None:
        remedy = "continual-mm list towers shows what there is"
        raise InputError.at(f"tower '{kind}'", "is not installed", remedy)
    try:
        found: Build = entry.load()
    except (ImportError, AttributeError) as error:
        place = f"tower '{kind}' ({entry.value})"
        remedy = "mend or remove the package that offers it"
        raise InputError.at(place, f"cannot be imported: {error}", remedy) from error
    return found
