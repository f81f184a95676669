"""Two pools of image-text pairs of which it is known how good each is; see ``run.py``."""

from enum import IntEnum
from pathlib import Path

import numpy as np

from continual_mm.data.pack import write_pack
from continual_mm.system.seeds import seed_for

FACTORS, VALUES, WORD, IMAGE = 8, 6, 24, 64
NOISE = 1.0  # deviation in images; what is shown has the same
TRAINING, VALIDATION, TEST = 3000, 100, 1000  # items
NAMED = 2  # factors that what is vague shows


class Quality(IntEnum):
    """What a pair is; the ``label`` of the pack, which no filter reads."""

    GOOD = 0
    VAGUE_TEXT = 1
    VAGUE_IMAGE = 2
    VAGUE_BOTH = 3
    MISMATCHED = 4


POOLS = {
    "vague_one_side": {
        Quality.VAGUE_TEXT: 0.20, Quality.VAGUE_IMAGE: 0.15, Quality.MISMATCHED: 0.25
    },
    "vague_both_sides": {
        Quality.VAGUE_TEXT: 0.15, Quality.VAGUE_BOTH: 0.25, Quality.MISMATCHED: 0.20
    },
}  # fmt: skip
"""Shares of what is not good; 40 % are."""


def write(path: Path, pool: str, *, seed: int) -> None:
    """A pack of one pool; its validation and test items are good pairs."""
    rng = np.random.default_rng(seed_for(seed, pool))
    split = np.repeat([0, 1, 2], [TRAINING, VALIDATION, TEST])
    quality = np.full(len(split), Quality.GOOD)
    counts = {kind: round(share * TRAINING) for kind, share in POOLS[pool].items()}
    bad = np.repeat(list(counts), list(counts.values()))
    quality[rng.choice(TRAINING, len(bad), replace=False)] = bad
    in_image = rng.integers(VALUES, size=(len(split), FACTORS))
    in_text = in_image.copy()
    mismatched = quality == Quality.MISMATCHED
    in_text[mismatched] = rng.integers(VALUES, size=(int(mismatched.sum()), FACTORS))
    some = rng.random((len(split), FACTORS)).argsort(1) < NAMED
    both = quality == Quality.VAGUE_BOTH
    text_shows = np.where(((quality == Quality.VAGUE_TEXT) | both)[:, None], some, True)
    image_shows = np.where(((quality == Quality.VAGUE_IMAGE) | both)[:, None], some, True)
    text, lengths = _texts(rng, in_text, text_shows)
    write_pack(
        path,
        {
            "ids": np.arange(len(split)).astype(str),
            "split": split,
            "label": quality.astype(np.int64),
            "image": _images(rng, in_image, image_shows),
            "text": text,
            "text_kind": np.array("tokens"),
            "text_length": lengths,
        },
    )


def _images(rng: np.random.Generator, values: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """A vector each: a mixture of what is shown, and noise."""
    looks = rng.standard_normal((FACTORS, VALUES, IMAGE))
    parts = looks[np.arange(FACTORS), values] * shown[:, :, None]
    noise = rng.standard_normal((len(values), IMAGE))
    return (parts.sum(1) / FACTORS**0.5 + NOISE * noise).astype(np.float32)


def _texts(
    rng: np.random.Generator, values: np.ndarray, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A word for each factor that is named, in any order, and how many there are."""
    words = rng.standard_normal((FACTORS, VALUES, WORD))
    text = np.zeros((len(values), FACTORS, WORD), dtype=np.float32)
    for row, (item, named) in enumerate(zip(values, shown, strict=True)):
        factors = rng.permutation(np.flatnonzero(named))
        text[row, : len(factors)] = words[factors, item[factors]]
    return text, shown.sum(1)
