"""Which items of a published training set are held out: whole videos, by their names alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.published.report import Record

_TRAINING, _VALIDATION, _TEST = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Shares of the training items that are kept from training.

    Attributes:
        validation: In [0, 1).
        test: In [0, 1); the two together below 1.

    Raises:
        RefusedError: If nothing would be left, or a share is negative.
    """

    validation: float = 0.0
    test: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.validation, self.test)
        if not all(share >= 0 for share in shares) or not sum(shares) < 1:
            problem = f"{self.validation:g} and {self.test:g} leave nothing to train on"
            remedy = "give shares of at least 0 that sum to less than 1"
            raise RefusedError(Complaint("validation and test", problem, remedy))

    def split(self, name: str) -> int:
        """0, 1 or 2 for a video; what is added later changes nothing for what was there."""
        digest = blake2b(name.encode(), digest_size=8, person=b"held out").digest()
        place = int.from_bytes(digest, "big") / 2**64
        if place < self.validation:
            return _VALIDATION
        return _TEST if place < self.validation + self.test else _TRAINING

    def dealt(self, records: Iterable[Record]) -> Iterator[Record]:
        """Records, some of those for training now for validation or test; groups stay whole."""
        for record in records:
            if record["split"] != _TRAINING:
                yield record
            else:
                yield record | {"split": self.split(str(record.get("group", record["ids"])))}
