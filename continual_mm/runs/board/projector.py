"""Embeddings of the scored items for TensorBoard's projector, with captions and thumbnails."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format
from matplotlib.image import imsave
from numpy.typing import NDArray
from tensorboard.plugins.projector.projector_config_pb2 import (
    EmbeddingInfo,
    ProjectorConfig,
    SpriteMetadata,
)
from torch.nn.functional import interpolate

from continual_mm.data.dataset import Dataset
from continual_mm.data.schema import NOT_GIVEN
from continual_mm.evaluation.pairs import Gallery
from continual_mm.system.files import atomic_write

ITEMS = 400  # items of each modality at most, evenly spaced: more thumbnails hide one another
VALUES = 1 << 23
"""Numbers in all at most, 32 MB: a browser has to hold them; fewer items where D is large."""
SIDE = 32  # pixels of a thumbnail's longer side at most; smaller images stay as they are

_CONFIGURATION, _FOLDER = "projector_config.pbtxt", "projector"
_ENTRY = "entry.pbtxt"  # what the configuration says of a stage
_QUICKLY = {"compress_level": 1}  # noise shrinks no further, it only takes longer


@dataclass(frozen=True, slots=True)
class Points:
    """(points, D) embeddings that the projector shows, each with its modality and dataset row."""

    modality: NDArray[np.str_]
    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]


def points_of(gallery: Gallery) -> Points:
    """Choose points from a gallery, modality by modality; copied to the CPU."""
    dimension = max(part.shape[1] for part in gallery.embeddings.values())
    most = min(ITEMS, max(1, VALUES // (dimension * len(gallery.embeddings))))
    names, rows, embeddings = [], [], []
    for name, part in gallery.embeddings.items():
        chosen = torch.linspace(0, len(part) - 1, min(most, len(part))).round().long()
        names.append(np.full(len(chosen), name))
        rows.append(gallery.rows[name][chosen].numpy())
        embeddings.append(part[chosen.to(part.device)].float().cpu().numpy())
    return Points(np.concatenate(names), np.concatenate(rows), np.concatenate(embeddings))


def write(folder: Path, points: Points, dataset: Dataset, *, name: str, stage: int) -> None:
    """Write a stage's files beside the event files, values as the bytes that they are.

    The configuration then has this stage, from 1, and those before it that are there, the last one
    first.
    """
    place = f"{_FOLDER}/stage-{stage}"
    home = folder / place
    info = EmbeddingInfo(
        tensor_name=name,
        tensor_path=f"{place}/tensors.bytes",
        tensor_shape=points.embeddings.shape,
        metadata_path=f"{place}/metadata.tsv",
    )
    with atomic_write(home / "tensors.bytes") as temporary:
        points.embeddings.astype("<f4").tofile(temporary)
    with atomic_write(home / "metadata.tsv") as temporary:
        temporary.write_text(metadata(points, dataset), encoding="utf-8")
    if dataset.picture is not None:
        thumbnails = thumbnails_of(dataset.picture[points.rows])
        with atomic_write(home / "sprite.png") as temporary:
            imsave(temporary, sprite(thumbnails), format="png", pil_kwargs=_QUICKLY)
        high, wide = thumbnails.shape[1:3]
        size = SpriteMetadata(image_path=f"{place}/sprite.png", single_image_dim=[wide, high])
        info.sprite.CopyFrom(size)
    with atomic_write(home / _ENTRY) as temporary:
        temporary.write_text(text_format.MessageToString(info), encoding="utf-8")
    every = [folder / _FOLDER / f"stage-{number}" / _ENTRY for number in range(stage, 0, -1)]
    config = ProjectorConfig(
        embeddings=[
            text_format.Parse(path.read_text(encoding="utf-8"), EmbeddingInfo())
            for path in every
            if path.is_file()
        ]
    )
    with atomic_write(folder / _CONFIGURATION) as temporary:
        temporary.write_text(text_format.MessageToString(config), encoding="utf-8")


def _shown(label: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.where(label == NOT_GIVEN, "", label.astype(np.str_))


def metadata(points: Points, dataset: Dataset) -> str:
    """A line of columns per point below their names: modality, item, caption, label."""
    columns: Mapping[str, NDArray[np.generic] | None] = {
        "modality": points.modality,
        "item": dataset.ids[points.rows],
        "caption": None if dataset.text is None else dataset.text[points.rows],
        "label": None if dataset.label is None else _shown(dataset.label[points.rows]),
    }
    known = {name: column for name, column in columns.items() if column is not None}
    lines = ["\t".join(known)]
    for cells in zip(*known.values(), strict=True):
        # A tab or a line's end inside a caption would begin another column or point.
        lines.append("\t".join(" ".join(str(cell).split()) for cell in cells))
    return "\n".join(lines) + "\n"


def thumbnails_of(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, h, w, 3) images in RGB whose longer side is at most :data:`SIDE` pixels."""
    colour = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    shrink = SIDE / max(colour.shape[1:3])
    if shrink >= 1:
        return colour
    size = [max(1, round(shrink * length)) for length in colour.shape[1:3]]
    channels = torch.from_numpy(colour).permute(0, 3, 1, 2).float()
    small = interpolate(channels, size=size, mode="area").round().to(torch.uint8)
    return small.permute(0, 2, 3, 1).numpy()


def sprite(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One square image of all thumbnails, black where there are none left."""
    count, high, wide, _ = thumbnails.shape
    across = math.ceil(math.sqrt(count))
    sheet = np.zeros((across * across, high, wide, 3), dtype=np.uint8)
    sheet[:count] = thumbnails
    rows = sheet.reshape(across, across, high, wide, 3).swapaxes(1, 2)
    return rows.reshape(across * high, across * wide, 3)
