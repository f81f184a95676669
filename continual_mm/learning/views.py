"""What pairs with towers of their own see in a batch, beside what the space makes of it."""

from collections.abc import Mapping

from continual_mm.modality import Pair
from continual_mm.space.space import Embedded


class Views(dict[str, Embedded]):
    """What the space makes of a batch, by modality.

    Attributes:
        own: Pair -> modality -> what the pair's own tower makes of the same rows.
    """

    def __init__(self, embedded: Mapping[str, Embedded]) -> None:
        super().__init__(embedded)
        self.own: dict[Pair, dict[str, Embedded]] = {}


def of_pair(embedded: Mapping[str, Embedded], pair: Pair) -> Mapping[str, Embedded]:
    """What a pair sees: through its own towers where it has some, else through the space's."""
    own = embedded.own.get(pair) if isinstance(embedded, Views) else None
    return {**embedded, **own} if own else embedded


def own_of(embedded: Mapping[str, Embedded], name: str) -> list[dict[str, Embedded]]:
    """What pairs see that have towers of their own for a modality, in order of the pairs."""
    own = embedded.own if isinstance(embedded, Views) else {}
    return [own[pair] for pair in sorted(own) if name in own[pair]]
