"""Two packs of other clips each, of one modality in common, as two sources give them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.cache import cached_pack
from continual_mm.data.narrated_shapes.card import CAPTIONS, CARD, SOUND, VERSION
from continual_mm.data.narrated_shapes.generate import pack_path
from continual_mm.data.schema import split_ending
from continual_mm.definitions.modality import DatasetCard


def sound() -> Path:
    """The feature pack of video and sound; made first if need be."""
    return _half(SOUND, 0)


def captions() -> Path:
    """The feature pack of video and captions; made first if need be."""
    return _half(CAPTIONS, 1)


def _half(card: DatasetCard, first: int) -> Path:
    name = f"{card.name}-v{VERSION}-seed0"
    return cached_pack(name, card.names, lambda: _every_other(card, first))


def _every_other(card: DatasetCard, first: int) -> dict[str, NDArray[np.generic]]:
    """Every other item of the whole dataset, and of its columns those of the card."""
    left_out = {*CARD.names, *(["text_raw"] if "text" not in card.names else [])} - {*card.names}
    with np.load(pack_path(), allow_pickle=False) as pack:
        return {
            name: pack[name][first::2] if pack[name].ndim else pack[name]
            for name in pack.files
            if (split_ending(name) or (name, ""))[0] not in left_out
        }
