"""Datasets by name or path: registered ones, feature packs, stores, and Hugging Face's.

What a dataset needs is imported when it is asked for: listing datasets needs no numpy.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from continual_mm.data.cards import FORM, PUBLISHED, converted_store, is_converted
from continual_mm.data.recognise import recognised
from continual_mm.definitions.modality import SPLITS, DatasetCard
from continual_mm.system.errors import InputError, Problem, suggestion
from continual_mm.system.imports import optional_import

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset, Standardise


@dataclass(frozen=True, slots=True)
class Registered:
    """Where a dataset that comes with the project is made.

    Attributes:
        card: ``module:name`` of its :class:`DatasetCard`; quick to import.
        pack: ``module:name`` of a function without required arguments that gives the path of its
            pack, which it makes first if need be.
    """

    card: str
    pack: str


_DATA = "continual_mm.data"

REGISTERED: Mapping[str, Registered] = MappingProxyType(
    {
        name: Registered(f"{_DATA}.{name}.card:CARD", f"{_DATA}.{name}.{module}:pack_path")
        for name, module in (("narrated_shapes", "generate"), ("digits", "pack"))
    }
)
"""The datasets that come with the project, by the name that scenarios use."""


def card(
    name_or_path: str, *, folder: Path | None = None, splits: Collection[str] = SPLITS
) -> DatasetCard:
    """A dataset's card, without loading its arrays.

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
    source = "store.form:read_store_card" if path.is_dir() else "pack:read_card"
    read_card: Callable[..., DatasetCard] = _imported(f"{_DATA}.{source}")
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
        name_or_path: As :func:`card` takes it.
        folder: Where relative paths start; None for the working folder.
        standardise: Whether each feature gets mean 0 and standard deviation 1 over the training
            items, or the names of the modalities whose features do, or what was measured on another
            dataset with the same features.
        splits: Splits that must have items.

    Raises:
        InputError: If there is no such dataset, or its pack is unsound.
    """
    registered = REGISTERED.get(name_or_path)
    path = _imported(registered.pack)() if registered else _existing(name_or_path, folder)
    source = "store.reader:read_store" if path.is_dir() else "pack:read_pack"
    read: Callable[..., Dataset] = _imported(f"{_DATA}.{source}")
    dataset = read(path, standardise=standardise, splits=splits)
    # A run is checked against the registered card before the file is there, whose fingerprint may
    # differ from machine to machine in last bits.
    return replace(dataset, card=card(name_or_path)) if registered else dataset


def _imported(reference: str) -> Any:
    with optional_import("a dataset that is a folder"):
        return resolve_name(reference)


def _existing(name_or_path: str, folder: Path | None) -> Path:
    """The file or folder of a dataset; of what is neither pack nor store, a store is made first."""
    if name_or_path in PUBLISHED:
        return converted_store(name_or_path)
    path = (folder or Path()) / Path(name_or_path).expanduser()
    foreign = path.is_dir() and not (path / FORM).exists()
    if (foreign or path.is_file()) and (problem := recognised(path)):
        raise InputError(problem)
    if foreign or name_or_path.startswith("hf:"):
        cached_store: Callable[..., Path] = _imported(f"{_DATA}.hugging_face:cached_store")
        return cached_store(name_or_path, folder)
    if path.exists():
        return path
    names = [*REGISTERED, *PUBLISHED]
    kinds = "give a registered name, an .npz file, a store, or hf:owner/name"
    raise InputError(
        Problem(
            f"dataset {name_or_path!r}",
            f"not registered (registered: {', '.join(names)}) and no file {path}",
            suggestion(name_or_path, names).strip() or kinds,
        )
    )
