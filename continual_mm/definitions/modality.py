"""The words for what a dataset offers: modalities, kinds of signal, pairs, the card."""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from math import prod
from typing import Self

from continual_mm.system.arguments import checked_class
from continual_mm.system.errors import InputError

SPLITS = ("training", "validation", "test")  # what the split values 0, 1 and 2 stand for


class Kind(StrEnum):
    """The kind of signal that one item of a modality is; it decides the encoder.

    ``VECTOR`` is (features,); ``TOKENS`` is an unordered bag (time, features); ``SPECTROGRAM`` is
    (time, mels) and ``FRAMES`` is (time, ...), both read in order. All but vectors have lengths.
    """

    VECTOR = "vector"
    TOKENS = "tokens"
    SPECTROGRAM = "spectrogram"
    FRAMES = "frames"

    @classmethod
    def _missing_(cls, value: object) -> None:
        remedy = f"there are {', '.join(cls)}"
        raise InputError.at("Kind", f"{value!r:.60} is no kind of signal", remedy)

    @property
    def has_length(self) -> bool:
        """Whether the first axis of an item is time, of which only a prefix may be valid."""
        return self is not Kind.VECTOR

    def allows(self, axes: int) -> bool:
        """Whether an item may have so many axes."""
        least = 2 if self.has_length else 1
        return axes >= least if self is Kind.FRAMES else axes == least


@checked_class
@dataclass(frozen=True, slots=True)
class Modality:
    """A modality as a dataset declares it.

    Attributes:
        name: Any identifier, such as ``video``; never ``ids``, ``split`` or another pack column.
        kind: The kind of signal.
        shape: Shape of one item: (features,), (time, features), or (time, ...). The time is the
            longest that occurs.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def features(self) -> int:
        """Values per item (vectors) or per time step (everything else)."""
        return prod(self.shape[1:] if self.kind.has_length else self.shape)

    @property
    def about_order(self) -> str:
        """A sentence for tokens of which every item has as many rows: it may be an image."""
        return (
            f"every item of {self.name} has {self.shape[0]} rows, which are read without their "
            f"order (kind tokens): if it is an image or a clip, give it the kind frames, or write "
            f'[tower.{self.name}] kind = "flat"'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How published files were converted into a dataset."""

    reader: str  # the name of their format, such as `youcook2`
    # `reference` if they were read with the mistakes of the published program, else `robust`.
    mode: str
    vectors: str  # a digest of the words and vectors that its texts are made of
    max_words: int  # known words that a text was cut to
    # Seconds up to which clips took in the captions around their own; None where clips were cut
    # out already.
    min_time: float | None = None

    def __str__(self) -> str:
        clips = "" if self.min_time is None else f"clips grown to {self.min_time:g} s, "
        return (
            f"{self.reader} in {self.mode} mode, {clips}texts of at most {self.max_words} words,"
            f" word vectors {self.vectors[:8]}"
        )


Presence = tuple[tuple[tuple[str, ...], tuple[int, int, int]], ...]
"""(modalities, items per split that have just these), of every combination that occurs."""


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What a dataset contains, known without loading its arrays or importing torch."""

    name: str  # the registered name, or the file's stem
    modalities: tuple[Modality, ...]
    items: tuple[int, int, int]  # per split: (training, validation, test)
    # Changes whenever the content does; keeps a run from being continued on other data.
    fingerprint: str
    has_labels: bool = False  # whether items carry a class label (for `positives = "label"`)
    groups: int = 0  # groups among the training items, such as videos; 0 where items have none
    provenance: Provenance | None = None  # how it was converted, where it was and that is known
    # Modalities that are tokens because nothing says otherwise, and of which all items have as many
    # rows, as far as that is known without reading them.
    all_rows: tuple[str, ...] = ()
    # Whether features are read from the disk as they are needed; else all of them are in memory.
    on_disk: bool = field(default=False, compare=False)
    # What items have; empty where every item has every modality, None where that is not known.
    presence: Presence | None = ()
    # Name -> card of the datasets that it was put together of, if it was.
    corpora: tuple[tuple[str, "DatasetCard"], ...] = ()

    def corpus(self, name: str) -> "DatasetCard":
        """One of the datasets that it was put together of; itself, where it was not."""
        return dict(self.corpora).get(name, self)

    def having(self, *names: str) -> tuple[int, int, int] | None:
        """Items per split that have all of some modalities; None where that is not known.

        >>> seen = ((("a",), (5, 1, 1)), (("a", "b"), (2, 0, 3)))
        >>> DatasetCard("ab", (), (7, 1, 4), "", presence=seen).having("a", "b")
        (2, 0, 3)
        """
        if self.presence is None or not any(self.items):
            return None
        if not self.presence:
            return self.items
        found = [items for own, items in self.presence if set(names) <= set(own)]
        training, validation, test = (sum(each) for each in zip((0, 0, 0), *found, strict=True))
        return training, validation, test

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names in the dataset's order."""
        return tuple(modality.name for modality in self.modalities)

    def __getitem__(self, name: str) -> Modality:
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise KeyError(name)


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two modalities that are compared with each other; made by :func:`pair`, order-free."""

    first: str
    second: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"video-text"``, in either order; a ValueError if it is anything else."""
        names = text.split("-")
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise ValueError(f"{text!r} is not two different modalities joined by a hyphen")
        first, second = sorted(names)
        return cls(first, second)

    @property
    def directions(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Both retrieval directions as (query, gallery)."""
        return (self.first, self.second), (self.second, self.first)

    def __contains__(self, modality: object) -> bool:
        return modality in (self.first, self.second)

    def __str__(self) -> str:
        return f"{self.first}-{self.second}"


def pair(first: str, second: str) -> Pair:
    """Give the unordered pair of two modalities, equal whichever comes first.

    >>> str(pair("video", "audio"))
    'audio-video'
    """
    return Pair.parse(f"{first}-{second}")


def all_pairs(modalities: tuple[str, ...]) -> tuple[Pair, ...]:
    """Every pair among some modalities, sorted by name."""
    return tuple(sorted(pair(first, second) for first, second in combinations(modalities, 2)))
