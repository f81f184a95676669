"""The handwritten digits that come with scikit-learn, their pixels as four modalities.

1,797 images of 8 x 8 pixels by 13 people, the test part of "Optical Recognition
of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI repository, CC BY 4.0).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from continual_mm.data.cache import cached_pack
from continual_mm.data.digits.card import CARD, NAMED, VERSION
from continual_mm.definitions.modality import Kind

_CORNERS = {"nw": (0, 0), "ne": (0, 1), "sw": (1, 0), "se": (1, 1)}
"""Of every block of 2 x 2 pixels, the row and column of the one that a modality gets."""

_SHADE = 15  # scikit-learn's pixels go from 0 to 16; 17 x 15 would be white


def columns() -> dict[str, NDArray[np.generic]]:
    """The columns of a feature pack, in a fixed order; each quarter is (1797, 16), from 0 to 16."""
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))
    images = digits.images[order].astype(np.float32)
    quarters = {
        name: images[:, row::2, column::2].reshape(len(images), -1)
        for name, (row, column) in _CORNERS.items()
    }
    kinds = {f"{modality.name}_kind": np.array(modality.kind.value) for modality in CARD.modalities}
    return {
        **quarters,
        **kinds,
        "label": digits.target[order].astype(np.int64),
        "picture": (images * _SHADE).astype(np.uint8),
        "ids": np.array([f"digit{index:04d}" for index in order]),
        "split": np.repeat(np.arange(3, dtype=np.int64), CARD.items),
    }


def pack_path() -> Path:
    """Find the feature pack in the cache, or make it there first."""
    return cached_pack(f"{CARD.name}-v{VERSION}", CARD.names, columns)


def named_columns() -> dict[str, NDArray[np.generic]]:
    """The columns with names of classes; the last ten items have the name alone, in order."""
    images, classes = columns(), np.arange(10)
    label = np.concatenate([images["label"], classes])
    there = np.repeat([True, False], [len(images["ids"]), len(classes)])
    blank = {key: np.zeros_like(images[key][: len(classes)]) for key in (*CARD.names, "picture")}
    return {
        **{key: np.concatenate([images[key], none]) for key, none in blank.items()},
        **{key: value for key, value in images.items() if key.endswith("_kind")},
        **{f"{name}_present": there for name in CARD.names},
        "name": np.eye(10, dtype=np.float32)[label],
        "name_kind": np.array(Kind.VECTOR.value),
        "label": label,
        "ids": np.concatenate([images["ids"], [f"name{number}" for number in classes]]),
        "split": np.repeat(np.arange(3, dtype=np.int64), NAMED.items),
    }


def named_pack_path() -> Path:
    """Find the feature pack with names in the cache, or make it there first."""
    return cached_pack(f"{NAMED.name}-v{VERSION}", NAMED.names, named_columns)
