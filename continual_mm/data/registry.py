"""Datasets by name: the registered ones, any feature pack or store by its path, Hugging Face's.

Nothing is imported until it is asked for: listing datasets needs no numpy.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from continual_mm.data.cards import FORM, PUBLISHED, converted_store, is_converted
from continual_mm.data.recognise import recognised
from continual_mm.definitions.modality import SPLITS, DatasetCard
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.imports import installed

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset, Standardise


@dataclass(frozen=True, slots=True)
class Registered:
    """Where a registered dataset lives; imported only when it is asked for.

    Attributes:
        card: ``module:name`` of its :class:`DatasetCard`; quick to import.
        pack: ``module:name`` of a function without required arguments that gives the path of its
            pack, which it makes first if need be.
    """

    card: str
    pack: str


_PACK = "continual_mm.data.pack"
_STORE = "continual_mm.data.store"
_HUB = "continual_mm.data.hugging_face"
_PREFIX = "hf:"
_SHAPES = "continual_mm.data.narrated_shapes"
_DIGITS = "continual_mm.data.digits"

REGISTERED: Mapping[str, Registered] = MappingProxyType(
    {
        "narrated_shapes": Registered(f"{_SHAPES}.card:CARD", f"{_SHAPES}.generate:pack_path"),
        "digits": Registered(f"{_DIGITS}.card:CARD", f"{_DIGITS}.pack:pack_path"),
    }
)
"""The datasets that come with the project, by the name that scenarios use."""


def card(
    name_or_path: str, *, folder: Path | None = None, splits: Collection[str] = SPLITS
) -> DatasetCard:
    """Give a dataset's card without loading its arrays.

    Args:
        name_or_path: A registered name, the path of a feature pack, a store, or a folder of Parquet
            files, or ``hf:owner/name`` for a Hugging Face dataset, where ``@revision`` and
            ``#configuration`` may follow. Of the last two a store is made once and cached.
        folder: Where relative paths start, such as the scenario file's folder; None for the
            working folder.
        splits: Splits that must have items; ``test`` is enough where nothing is trained.

    Raises:
        InputError: If there is no such dataset, or its pack is unsound.
    """
    if registered := REGISTERED.get(name_or_path):
        known: DatasetCard = _imported(registered.card)
        return known
    if name_or_path in PUBLISHED and not is_converted(name_or_path):
        return PUBLISHED[name_or_path]
    path = _existing(name_or_path, folder)
    source = f"{_STORE}.form:read_store_card" if path.is_dir() else f"{_PACK}:read_card"
    read_card: Callable[..., DatasetCard] = _imported(source)
    return read_card(path, splits=splits)


def load(
    name_or_path: str,
    *,
    folder: Path | None = None,
    standardise: "Standardise" = True,
    splits: Collection[str] = SPLITS,
) -> "Dataset":
    """Load a dataset; a generated one is made first, and cached. A store stays on the disk.

    Args:
        name_or_path: A registered name, the path of a feature pack, a store, or a folder of Parquet
            files, or ``hf:owner/name`` for a Hugging Face dataset, where ``@revision`` and
            ``#configuration`` may follow. Of the last two a store is made once and cached.
        folder: Where relative paths start; None for the working folder.
        standardise: Whether each feature gets mean 0 and standard deviation 1 over the training
            items, or the names of the modalities whose features do, or what was measured on another
            dataset with the same features.
        splits: Splits that must have items.

    Raises:
        InputError: If there is no such dataset, or its pack is unsound.
    """
    read_pack: Callable[..., Dataset] = _imported(f"{_PACK}:read_pack")
    if registered := REGISTERED.get(name_or_path):
        pack_path: Callable[[], Path] = _imported(registered.pack)
        # The card of the registry, not the file's: a run is checked against it before the file is
        # there, and the same version may differ in last bits from machine to machine.
        dataset = read_pack(pack_path(), standardise=standardise, splits=splits)
        return replace(dataset, card=card(name_or_path))
    path = _existing(name_or_path, folder)
    read: Callable[..., Dataset] = (
        _imported(f"{_STORE}.reader:read_store") if path.is_dir() else read_pack
    )
    return read(path, standardise=standardise, splits=splits)


def _imported(reference: str) -> Any:
    return installed(reference, "a dataset that is a folder")


def _existing(name_or_path: str, folder: Path | None) -> Path:
    """The file or folder of a dataset; of what is neither pack nor store, a store is made first."""
    if name_or_path in PUBLISHED:
        return converted_store(name_or_path)
    path = (folder or Path()) / Path(name_or_path).expanduser()
    foreign = path.is_dir() and not (path / FORM).exists()
    if (foreign or path.is_file()) and (problem := recognised(path)):
        raise InputError(problem)
    if foreign or name_or_path.startswith(_PREFIX):
        cached_store: Callable[..., Path] = _imported(f"{_HUB}:cached_store")
        return cached_store(name_or_path, folder)
    if path.exists():
        return path
    close = get_close_matches(name_or_path, [*REGISTERED, *PUBLISHED], n=1)
    names = ", ".join([*REGISTERED, *PUBLISHED])
    kinds = "give a registered name, an .npz file, a store, or hf:owner/name"
    raise InputError(
        Problem(
            f"dataset {name_or_path!r}",
            f"not registered (registered: {names}) and no file {path}",
            f"did you mean {close[0]!r}?" if close else kinds,
        )
    )
