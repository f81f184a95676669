"""Terms of a combinatorial contrast: which modalities, taken together, are compared with which."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Self

from continual_mm.definitions.modality import Pair, pair
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.system.errors import Problem, first_few

Side = tuple[str, ...]  # names of modalities that are taken together, sorted


@dataclass(frozen=True, slots=True, order=True)
class Term:
    """Two sides without a common modality; the one with fewer, else the lower name, is first."""

    first: Side
    second: Side

    @classmethod
    def of(cls, one: Iterable[str], other: Iterable[str]) -> Self:
        """The term of two sides, in either order."""
        return cls(*sorted((tuple(sorted(one)), tuple(sorted(other))), key=_by_size))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"text-audio+video"``, in any order; a ValueError if it is anything else."""
        sides = [side.split("+") for side in text.split("-")]
        names = [name for side in sides for name in side]
        if len(sides) != 2 or not all(names) or len(set(names)) < len(names):
            form = "two sides joined by a hyphen, each of modalities joined by +"
            raise ValueError(f"{text!r} is not {form}")
        return cls.of(*sides)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both of them."""
        return self.first, self.second

    @property
    def names(self) -> Side:
        """All modalities."""
        return (*self.first, *self.second)

    @property
    def pairs(self) -> frozenset[Pair]:
        """The pairs of a modality of one side with one of the other: what the term aligns."""
        return frozenset(pair(*both) for both in product(*self.sides))

    def __str__(self) -> str:
        return "-".join("+".join(side) for side in self.sides)


def _by_size(side: Side) -> tuple[int, Side]:
    return len(side), side


def terms(names: Iterable[str], *, smaller: int, larger: int) -> tuple[Term, ...]:
    """Every term of some modalities, in order of the numbers of modalities on its sides.

    The side with fewer has at most ``smaller`` of them, the other at most ``larger``. Of M
    modalities there are (3^M - 2^(M+1) + 1) / 2 if no side is limited.

    >>> [str(term) for term in terms("abc", smaller=1, larger=2)]
    ['a-b', 'a-c', 'b-c', 'a-b+c', 'b-a+c', 'c-a+b']
    """
    known = sorted(names)
    sizes = range(1, min(larger, len(known)) + 1)
    sides = [side for size in sizes for side in combinations(known, size)]
    found = [
        Term(one, other)
        for one, other in combinations(sides, 2)
        if len(one) <= smaller and set(one).isdisjoint(other)
    ]
    return tuple(sorted(found, key=lambda term: (len(term.names), len(term.first), term)))


def trained_terms(
    pairs: Mapping[int, Iterable[Pair]], settings: SpaceSettings
) -> dict[Term, list[int]]:
    """Term -> stages whose rows train it, of those whose weight is not 0.

    A stage trains a term if it trains every pair that the term aligns, so that a pair which no
    stage trains is aligned by no term either.
    """
    found: dict[Term, list[int]] = {}
    weights = weights_of(settings)
    for stage, known in pairs.items():
        trained = set(known)
        names = {name for each in trained for name in (each.first, each.second)}
        for term in terms(names, smaller=settings.smaller_side, larger=settings.larger_side):
            if term.pairs <= trained and weights.get(term, 1.0):
                found.setdefault(term, []).append(stage)
    return dict(sorted(found.items(), key=lambda each: (len(each[0].names), each[0])))


def weights_of(settings: SpaceSettings) -> dict[Term, float]:
    """Term -> its weight, where that is not 1."""
    return {Term.parse(text): float(value) for text, value in settings.term_weights.items()}


def term_problems(settings: SpaceSettings, names: Iterable[str], place: str) -> Iterator[Problem]:
    """A problem for each weight of what is no term of the modalities that arrive."""
    if not settings.term_weights:
        return
    known = terms(names, smaller=settings.smaller_side, larger=settings.larger_side)
    remedy = f"there are {first_few([str(term) for term in known]) or 'none'}"
    seen: set[Term] = set()
    for text in settings.term_weights:
        where = f"{place}, [space], term_weights"
        try:
            term = Term.parse(text)
        except ValueError as error:
            yield Problem(where, str(error), remedy)
            continue
        if term not in known:
            yield Problem(where, f"{text!r} is no term of this scenario", remedy)
        elif term in seen:
            yield Problem(where, f"{text!r} is named twice", "name each term once")
        seen.add(term)
