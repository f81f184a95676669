"""Published datasets that a user has to bring: what they contain, and where they are put.

Imports no numpy, so that scenarios on them can be listed and checked on any machine.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from platformdirs import user_data_path

from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.system.errors import InputError, Problem

DATA_VARIABLE = "CONTINUAL_MM_DATA"
"""Environment variable that names another folder for them than the user's data folder."""

FORM = "store.json"  # what makes a folder a store


def _card(name: str, frames: int, *, classes: bool = False) -> DatasetCard:
    modalities = (
        Modality("video", Kind.VECTOR, (4096,)),
        Modality("audio", Kind.SPECTROGRAM, (frames, 40)),
        Modality("text", Kind.TOKENS, (20, 300)),
    )
    return DatasetCard(name, modalities, (0, 0, 0), f"{name}, not here", classes)


def _embeddings(name: str, size: int, *names: str, classes: bool = False) -> DatasetCard:
    """The card of frozen embeddings of one size."""
    modalities = tuple(Modality(each, Kind.VECTOR, (size,)) for each in names)
    return DatasetCard(name, modalities, (0, 0, 0), f"{name}, not here", classes)


PUBLISHED: Mapping[str, DatasetCard] = MappingProxyType(
    {
        "howto100m": _card("howto100m", 1000),
        "youcook2": _card("youcook2", 5120),
        "msrvtt": _card("msrvtt", 3072),
        "lsmdc": _card("lsmdc", 3072),
        "crosstask": _card("crosstask", 1024),
        "ucf101": _card("ucf101", 1000, classes=True),
        "hmdb51": _card("hmdb51", 1000, classes=True),
        "hsa_languagebind": _embeddings(
            *("hsa_languagebind", 768, "text", "image", "video", "depth", "audio", "thermal"),
            classes=True,
        ),
        "hsa_imagebind": _embeddings(
            *("hsa_imagebind", 1024, "image", "text", "audio", "depth", "thermal", "imu"),
            classes=True,
        ),
        "msrvtt_imagebind": _embeddings("msrvtt_imagebind", 1024, "video", "audio"),
    }
)
"""Their cards as published, which count as long as they are not there; items are not known then."""


ON_THE_HUB: Mapping[str, str] = MappingProxyType(
    {
        "Rowance/HSA-features": "hsa_languagebind",
        "RichyHu999/msrvtt-imagebind-features": "msrvtt_imagebind",
    }
)
"""Repositories of the Hugging Face Hub whose files are no tables -> what converts them."""


def published_folder(name: str) -> Path:
    """The folder of the store that a published dataset is converted to."""
    folder = os.environ.get(DATA_VARIABLE)
    return (Path(folder) if folder else user_data_path("continual_mm")) / name


def steps_of(store: Path) -> Path:
    """The file beside a dataset that says when its videos show which steps."""
    named = store if store.name else store.absolute()
    return named.with_name(f"{named.name}.steps.csv")


def is_converted(name: str) -> bool:
    """Whether a published dataset has been converted."""
    return (published_folder(name) / FORM).is_file()


def converted_store(name: str) -> Path:
    """The store of a published dataset; an InputError if it has not been converted."""
    if found := missing_published([name]):
        raise InputError(found)
    return published_folder(name)


def missing_published(names: Iterable[str]) -> list[Problem]:
    """A problem about each published dataset among some names that has not been converted."""
    return [
        Problem(
            f"dataset '{name}'",
            f"is not in {published_folder(name)}",
            f"convert the published files: continual-mm data convert {name} --help",
        )
        for name in dict.fromkeys(names)
        if name in PUBLISHED and not is_converted(name)
    ]
