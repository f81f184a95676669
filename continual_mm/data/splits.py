"""Which training items are held out for validation and test: whole videos, by their names."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice

from continual_mm.data.schema import Record, is_given
from continual_mm.system.errors import InputError

_TRAINING, _VALIDATION, _TEST = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Shares of the training items that are held out, each in [0, 1), the sum below 1."""

    validation: float = 0.0
    test: float = 0.0
    named: Mapping[str, int] = field(default_factory=dict)  # splits whatever the hashes say

    def __post_init__(self) -> None:
        shares = (self.validation, self.test)
        if not all(share >= 0 for share in shares) or not sum(shares) < 1:
            problem = f"{self.validation:g} and {self.test:g} leave nothing to train on"
            remedy = "give shares of at least 0 that sum to less than 1"
            raise InputError.at("validation and test", problem, remedy)

    def split(self, name: str) -> int:
        """0, 1 or 2 for a video, whatever other videos there are."""
        if name in self.named:
            return self.named[name]
        place = _place(name)
        if place < self.validation:
            return _VALIDATION
        return _TEST if place < self.validation + self.test else _TRAINING

    def among(self, videos: Collection[str], *, usable: Callable[[str], bool] = bool) -> "HeldOut":
        """The same, with a video in each split whose share is not 0, as long as there are enough.

        Where hashes give a split none, it gets the ``usable`` training video of the lowest hash.
        """
        named: dict[str, int] = {}
        for split, share in ((_VALIDATION, self.validation), (_TEST, self.test)):
            if share and not any(map(usable, self._in_split(split, videos))):
                left = (name for name in self._in_split(_TRAINING, videos) if name not in named)
                found = tuple(islice(filter(usable, sorted(left, key=_place)), 2))
                if len(found) == 2:
                    named[found[0]] = split
        return replace(self, named=named)

    def _in_split(self, split: int, videos: Iterable[str]) -> Iterator[str]:
        return (name for name in videos if self.split(name) == split)

    def assigned(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records, some of the training ones held out; groups stay whole."""
        for record in records:
            if record["split"] != _TRAINING:
                yield record
            else:
                name = record.get("group")
                name = name if is_given(name) else record["ids"]
                yield record | {"split": self.split(str(name))}


def _place(name: str) -> float:
    """A hash of a video's name in [0, 1)."""
    digest = blake2b(name.encode(), digest_size=8, person=b"held out").digest()
    return int.from_bytes(digest, "big") / 2**64
