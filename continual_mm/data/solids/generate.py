"""Make the pictures, depth maps and captions, and keep them in the user's cache folder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from continual_mm.data.cache import cached_pack
from continual_mm.data.solids.card import CARD, CLASSES, GAP, SIDE, VERSION, VIEWS
from continual_mm.data.solids.shapes import Solid, draw, surface
from continual_mm.definitions.modality import DatasetCard
from continual_mm.rendering.depth import (
    BACKGROUND,
    SIX_VIEWS,
    normalise_depth,
    render_depth,
    seen_from,
    z_buffer,
)
from continual_mm.system.seeds import seed_for

Image = NDArray[np.float32]

POINTS = 1024  # of a cloud
_SHADED_POINTS = 1500  # of another sample, which the picture is made of
_RADIUS = 0.08  # of a point: about a pixel, where the picture goes from -1 to 1
_CLOUD_NOISE = 0.01  # standard deviation on each coordinate of a cloud
_AMBIENT = 0.25  # brightness of what faces away from the light, of what faces it
_ALBEDO = (0.3, 0.8)  # range of the brightness of what faces the light
_LIGHT = (0.4, 0.6, -0.7)  # where it comes from, in the camera's system: left, up, from behind it
_GREY = (0.1, 0.9)  # range of the background's lightness, with the gap
_PIXEL_NOISE = 0.1  # standard deviation, with the gap
_WORDS = {"proportion": 0.8, "pose": 0.5}  # how often a caption says it
_NOUNS = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "block"),
    "cylinder": ("cylinder", "drum"),
    "ring": ("ring", "torus"),
    "diamond": ("diamond", "octahedron"),
    "stairs": ("stairs", "steps"),
}
"""Words for a shape, where it has not only its own name."""


@dataclass(frozen=True, slots=True, eq=False)
class Object:
    """The raw media of one item."""

    solid: Solid
    image: Image  # (6, 24, 24) shaded, in [0, 1]
    depth: Image  # (6, 24, 24) normalised depth maps of a cloud
    caption: str


def cloud(index: int, *, seed: int = 0) -> NDArray[np.float32]:
    """(1024, 3) the point cloud of an item, as a scanner sees it: with noise, in the unit ball."""
    solid, (for_cloud, *_) = _drawn(index, seed)
    points, _ = surface(solid, POINTS, for_cloud)
    noisy = points + _CLOUD_NOISE * for_cloud.standard_normal(points.shape)
    farthest = float(np.linalg.norm(noisy, axis=1).max())
    return (noisy / max(1.0, farthest)).astype(np.float32)


def make_object(index: int, *, seed: int = 0, gap: bool = False) -> Object:
    """Make one item's media, the same however many others are made; training items come first."""
    solid, (_, for_image, for_caption) = _drawn(index, seed)
    z = render_depth(torch.from_numpy(cloud(index, seed=seed)), size=SIDE, radius=_RADIUS)
    return Object(
        solid,
        _shaded(solid, for_image, gap=gap),
        normalise_depth(z).numpy(),
        _caption(solid, for_caption),
    )


def _drawn(index: int, seed: int) -> tuple[Solid, list[np.random.Generator]]:
    children = np.random.SeedSequence((seed, index)).spawn(4)
    first, *others = map(np.random.default_rng, children)
    return draw(first), others


def _shaded(solid: Solid, rng: np.random.Generator, *, gap: bool) -> Image:
    """(6, 24, 24) Lambert's law on every surface, on white; with the gap, a noisy negative."""
    points, normals = surface(solid, _SHADED_POINTS, rng)
    turned = partial(seen_from, elevation=SIX_VIEWS[0], azimuth=SIX_VIEWS[1], distance=1.0)
    seen, ends = (turned(torch.from_numpy(each).float()) for each in (points, points + normals))
    _, nearest = z_buffer(seen, size=SIDE, radius=_RADIUS)
    facing = ends - seen
    facing = facing * torch.where(facing[..., 2:] > 0, -1.0, 1.0)  # towards the camera
    light = torch.tensor(_LIGHT, dtype=facing.dtype)
    bright = _AMBIENT + (1 - _AMBIENT) * (facing @ (light / light.norm())).clamp(min=0)
    bright = rng.uniform(*_ALBEDO) * bright
    found = bright.gather(1, nearest.clamp(min=0).flatten(1)).reshape(nearest.shape).numpy()
    empty = nearest.numpy() < 0
    if not gap:
        return np.where(empty, BACKGROUND, found).astype(np.float32)
    image = np.where(empty, rng.uniform(*_GREY), 1 - found)
    noisy = image + _PIXEL_NOISE * rng.standard_normal(image.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def _caption(solid: Solid, rng: np.random.Generator) -> str:
    """Such as ``tall cone lying``."""
    nouns = _NOUNS.get(solid.shape, (solid.shape,))
    words = [nouns[int(rng.integers(len(nouns)))]]
    if rng.random() < _WORDS["proportion"]:
        words.insert(0, solid.proportion)
    if rng.random() < _WORDS["pose"]:
        words.append(solid.pose)
    return " ".join(words)


def word_vector(word: str) -> NDArray[np.float32]:
    """(32,) a vector for a word, drawn at random: what words mean is to be learned."""
    rng = np.random.default_rng(seed_for(0, "word", word))
    return rng.standard_normal(CARD["text"].features).astype(np.float32)


def columns(
    card: DatasetCard, *, seed: int = 0, objects: tuple[int, int, int] | None = None
) -> dict[str, NDArray[np.generic]]:
    """The columns of a pack of so many training, validation and test objects, and the names."""
    counts = objects or next(items for names, items in card.presence or () if len(names) > 1)
    made = [
        make_object(index, seed=seed, gap=card.name == GAP.name) for index in range(sum(counts))
    ]
    texts = [*(each.caption for each in made), *CLASSES]
    labels = [*(each.solid.label for each in made), *range(len(CLASSES))]
    is_object = np.arange(len(texts)) < len(made)
    none = np.zeros((len(CLASSES), VIEWS, SIDE, SIDE), dtype=np.float32)
    text, lengths = _embedded(texts)
    pictures = {
        name: np.concatenate([[getattr(each, name) for each in made], none])
        for name in ("image", "depth")
    }
    return {
        **{f"{modality.name}_kind": np.array(modality.kind.value) for modality in card.modalities},
        **pictures,
        "image_present": is_object,
        "depth_present": is_object,
        "text": text,
        "text_length": lengths,
        "text_raw": np.array(texts),
        "label": np.array(labels, dtype=np.int64),
        "picture": np.rint(255 * pictures["image"][:, 0]).astype(np.uint8),
        "ids": np.array(
            [*(f"solid{n:04d}" for n in range(len(made))), *(f"a {c}" for c in CLASSES)]
        ),
        "split": np.repeat([0, 1, 2, 2], [*counts, len(CLASSES)]).astype(np.int64),
    }


def _embedded(texts: list[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    values = np.zeros((len(texts), *CARD["text"].shape), dtype=np.float32)
    for row, text in enumerate(texts):
        words = [word_vector(word) for word in text.split()]
        values[row, : len(words)] = words
    return values, np.array([len(text.split()) for text in texts])


def pack_path() -> Path:
    """Find the pack in the cache, or generate it there first."""
    return _cached(CARD)


def gap_path() -> Path:
    """The same with the gap between pictures and depth maps."""
    return _cached(GAP)


def _cached(card: DatasetCard) -> Path:
    return cached_pack(f"{card.name}-v{VERSION}-seed0", card.names, lambda: columns(card))


def words() -> dict[str, NDArray[np.float32]]:
    """The vector of every word that the pack's captions are made of."""
    with np.load(pack_path(), allow_pickle=False) as pack:
        texts = pack["text_raw"].tolist()
    return {word: word_vector(word) for text in texts for word in text.split()}
