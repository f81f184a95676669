"""The words for what is extracted: clips of media files, and what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

SPLITS: Mapping[str, int] = MappingProxyType(
    {"train": 0, "validation": 1, "val": 1, "valid": 1, "dev": 1, "test": 2}
)
"""Names of splits and the numbers that packs use for them."""

SILENCES = frozenset({"sil", "sp"})
"""What aligners write where nothing is said."""


class Word(NamedTuple):
    """A spoken word and when it is said, in seconds of its file."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Clip:
    """Part of a media file, or all of it.

    Attributes:
        id: Its name, unique in the manifest.
        path: The file, relative to the manifest's folder, with forward slashes; empty for text
            that belongs to no film or sound, such as the name of a class.
        start: Seconds from the file's beginning.
        end: Seconds from the file's beginning; None for the file's end.
        text: What is said or shown, if known.
        words: What is said when, if known.
        split: 0 training, 1 validation, 2 test.
        group: What it belongs to (a long video, a speaker), if known.
        label: Its class, if known.
        fault: Why its file is not to be opened; empty if it is.
    """

    id: str
    path: str
    start: float = 0.0
    end: float | None = None
    text: str | None = None
    words: tuple[Word, ...] = ()
    split: int = 0
    group: str | None = None
    label: int | None = None
    fault: str = ""

    @property
    def caption(self) -> str | None:
        """The text; without one the words whose middle is in the clip, None if there are none.

        >>> words = Word("sil", 0, 1), Word("bin", 1, 1.5), Word("blue", 1.5, 2.5)
        >>> Clip("a", "a.mpg", end=1.9, words=words).caption
        'bin'
        """
        if self.text is not None:
            return self.text
        last = float("inf") if self.end is None else self.end
        said = [
            word.word
            for word in self.words
            if word.word not in SILENCES and self.start <= (word.start + word.end) / 2 < last
        ]
        return " ".join(said) or None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Clips, checked.

    Attributes:
        folder: What their paths are relative to.
        clips: In the order of the file, or of the sorted paths.
        warnings: What was passed over, for people.
    """

    folder: Path
    clips: tuple[Clip, ...]
    warnings: tuple[str, ...] = ()


def hashed_split(key: str) -> int:
    """Deal something into training (80 %), validation or test (10 % each) by its name alone.

    What is added later changes nothing for what was there, on any machine.

    >>> [hashed_split(name) for name in ("a", "b", "c", "d", "e", "f", "g", "h")]
    [0, 0, 0, 2, 0, 0, 0, 0]
    """
    digest = blake2b(key.encode(), digest_size=8, person=b"split").digest()
    share = int.from_bytes(digest, "big") / 2**64
    return 0 if share < 0.8 else 1 if share < 0.9 else 2
