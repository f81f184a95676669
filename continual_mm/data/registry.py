"""Datasets by name or path: registered ones, feature packs, stores, and Hugging Face's.

What a dataset needs is imported when it is asked for: listing datasets needs no numpy.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from continual_mm.data.cards import FORM, PUBLISHED, converted_store, is_converted
from continual_mm.data.recognise import recognised
from continual_mm.definitions.modality import SPLITS, DatasetCard
from continual_mm.system.errors import InputError, suggestion
from continual_mm.system.imports import optional_import
from continual_mm.system.reading import reads, user_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from continual_mm.data.dataset import Dataset, Standardise


REGISTERED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "narrated_shapes": ("narrated_shapes.card:CARD", "narrated_shapes.generate:pack_path"),
        "shapes_with_sound": ("narrated_shapes.card:SOUND", "narrated_shapes.halves:sound"),
        "shapes_with_captions": (
            "narrated_shapes.card:CAPTIONS",
            "narrated_shapes.halves:captions",
        ),
        "digits": ("digits.card:CARD", "digits.pack:pack_path"),
        "named_digits": ("digits.card:NAMED", "digits.pack:named_pack_path"),
        "solids": ("solids.card:CARD", "solids.generate:pack_path"),
        "solids_with_gap": ("solids.card:GAP", "solids.generate:gap_path"),
    }
)
"""Datasets that come with the project -> the card, and the function that gives the path of a pack,
which it makes first if need be."""

WORDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("narrated_shapes", "shapes_with_captions"), "narrated_shapes.generate:words")
    | dict.fromkeys(("solids", "solids_with_gap"), "solids.generate:words")
)
"""Those of them whose texts are made of word vectors -> the function that gives these."""

SOUNDS: Mapping[str, str] = MappingProxyType(
    {"narrated_shapes": "narrated_shapes.generate:sound_of"}
)
"""Those of them whose items can be heard -> the function that gives the waveform of an id."""


@reads
def card(
    name_or_path: str, *, folder: Path | None = None, splits: Collection[str] = SPLITS
) -> DatasetCard:
    """A dataset's card, without loading its arrays.

    ``name_or_path`` is a registered name, the path of a pack, a store or a folder of Parquet files,
    or ``hf:owner/name@revision#configuration``; of the last two a store is made once and cached.
    Relative paths start in ``folder``; ``splits`` must have items.
    """
    if name_or_path in REGISTERED:
        known: DatasetCard = _imported(REGISTERED[name_or_path][0])
        return known
    if name_or_path in PUBLISHED and not is_converted(name_or_path):
        return PUBLISHED[name_or_path]
    path = _existing(name_or_path, folder)
    source = "store.form:read_store_card" if path.is_dir() else "pack:read_card"
    read_card: Callable[..., DatasetCard] = _imported(source)
    found = read_card(path, splits=splits)
    if found.presence is None:
        found = replace(found, presence=_imported("store.reader:store_presence")(path))
    return found


@reads
def load(
    name_or_path: str,
    *,
    folder: Path | None = None,
    standardise: "Standardise" = True,
    splits: Collection[str] = SPLITS,
) -> "Dataset":
    """Load a dataset, as :func:`card` takes it; a store stays on the disk."""
    path = located(name_or_path, folder=folder)
    source = "store.reader:read_store" if path.is_dir() else "pack:read_pack"
    read: Callable[..., Dataset] = _imported(source)
    dataset = read(path, standardise=standardise, splits=splits)
    # A run is checked against the registered card before the file is there, whose fingerprint may
    # differ from machine to machine in last bits.
    return replace(dataset, card=card(name_or_path)) if name_or_path in REGISTERED else dataset


def located(name_or_path: str, *, folder: Path | None = None) -> Path:
    """The pack or store of a dataset, as :func:`card` takes it; made first where need be."""
    if name_or_path in REGISTERED:
        made: Path = _imported(REGISTERED[name_or_path][1])()
        return made
    return _existing(name_or_path, folder)


def sounds(name: str) -> "Callable[[str], NDArray[np.float32]] | None":
    """What makes the waveform of an item of a registered dataset, by its id, at 16 kHz; or None."""
    found: Callable[[str], NDArray[np.float32]] | None = None
    if name in SOUNDS:
        found = _imported(SOUNDS[name])
    return found


def words(name: str) -> "dict[str, NDArray[np.float32]] | None":
    """Word -> its vector, of a registered dataset; None of one whose words are not known."""
    if name not in WORDS:
        return None
    found: dict[str, NDArray[np.float32]] = _imported(WORDS[name])()
    return found


def _imported(reference: str) -> Any:
    with optional_import("a dataset that is a folder"):
        return resolve_name(f"continual_mm.data.{reference}")


def _existing(name_or_path: str, folder: Path | None) -> Path:
    """The file or folder of a dataset; of what is neither pack nor store, a store is made first."""
    if name_or_path in PUBLISHED:
        return converted_store(name_or_path)
    path = user_path(name_or_path, folder or "")
    foreign = path.is_dir() and not (path / FORM).exists()
    if (foreign or path.is_file()) and (problem := recognised(path)):
        raise InputError(problem)
    if foreign or name_or_path.startswith("hf:"):
        cached_store: Callable[..., Path] = _imported("hugging_face:cached_store")
        return cached_store(name_or_path, folder)
    if path.exists():
        return path
    names = [*REGISTERED, *PUBLISHED]
    kinds = "give a registered name, an .npz file, a store, or hf:owner/name"
    raise InputError.at(
        f"dataset {name_or_path!r}",
        f"not registered (registered: {', '.join(names)}) and no file {path}",
        suggestion(name_or_path, names).strip() or kinds,
    )
