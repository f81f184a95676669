"""Datasets by name: the registered ones, and any feature pack by its path.

Nothing is imported until it is asked for: listing datasets needs no numpy.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.modality import SPLITS, DatasetCard

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
        name_or_path: A registered name, or the path of a feature pack.
        folder: Where relative paths start, such as the scenario file's folder; None for the
            working folder.
        splits: Splits that must have items; ``test`` is enough where nothing is trained.

    Raises:
        RefusedError: If there is no such dataset, or its pack is unsound.
    """
    if registered := REGISTERED.get(name_or_path):
        known: DatasetCard = _imported(registered.card)
        return known
    read_card: Callable[..., DatasetCard] = _imported(f"{_PACK}:read_card")
    return read_card(_existing(name_or_path, folder), splits=splits)


def load(
    name_or_path: str,
    *,
    folder: Path | None = None,
    standardise: "Standardise" = True,
    splits: Collection[str] = SPLITS,
) -> "Dataset":
    """Load a dataset into memory; a generated one is made first, and cached.

    Args:
        name_or_path: A registered name, or the path of a feature pack.
        folder: Where relative paths start; None for the working folder.
        standardise: Whether each feature gets mean 0 and standard deviation 1 over the training
            items, or the names of the modalities whose features do, or what was measured on another
            dataset with the same features.
        splits: Splits that must have items.

    Raises:
        RefusedError: If there is no such dataset, or its pack is unsound.
    """
    read_pack: Callable[..., Dataset] = _imported(f"{_PACK}:read_pack")
    if registered := REGISTERED.get(name_or_path):
        pack_path: Callable[[], Path] = _imported(registered.pack)
        # The card of the registry, not the file's: a run is checked against it before the file is
        # there, and the same version may differ in last bits from machine to machine.
        dataset = read_pack(pack_path(), standardise=standardise, splits=splits)
        return replace(dataset, card=card(name_or_path))
    return read_pack(_existing(name_or_path, folder), standardise=standardise, splits=splits)


def _imported(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _existing(name_or_path: str, folder: Path | None) -> Path:
    path = (folder or Path()) / Path(name_or_path).expanduser()
    if path.exists():
        return path
    close = get_close_matches(name_or_path, REGISTERED, n=1)
    raise RefusedError(
        Complaint(
            f"dataset {name_or_path!r}",
            f"not registered (registered: {', '.join(REGISTERED)}) and no file {path}",
            f"did you mean {close[0]!r}?" if close else "give a registered name, or an .npz file",
        )
    )
