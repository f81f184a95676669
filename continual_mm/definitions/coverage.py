"""How many items have both modalities of a pair: what can be trained of it, and scored."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from continual_mm.definitions.arrivals import Arrival, births
from continual_mm.definitions.modality import DatasetCard, Pair
from continual_mm.definitions.scenario import Scenario
from continual_mm.system.errors import Problem

HANDFUL = 16
"""Items below which what is learned of a pair, or a score of it, says little."""

FEWEST = 2
"""Training items below which nothing can be learned of a pair: one alone has no negatives."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The items that have both modalities of a pair, in one stage that trains it.

    ``stage`` is 1-based, 0 for a pair that no stage trains. ``training`` counts what the stage is
    trained on, divided among so many ``shares`` of stages that see one each.
    """

    pair: Pair
    stage: int
    training: int
    shares: int
    validation: int
    test: int

    @property
    def expected(self) -> float:
        """Training items of the stage; which ones, the seed draws."""
        return self.training / self.shares

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of a table below :data:`HEADINGS`."""
        training = f"{self.training}"
        if self.shares > 1:
            training = f"about {self.expected:.0f} of {self.training}"
        stage = f"{self.stage}" if self.stage else "none"
        test = f"{self.test}" if self.test or self.stage else "not scored"
        return str(self.pair), stage, training, f"{self.validation}", test


HEADINGS = ("pair", "trained in stage", "training items", "validation", "test")


def coverage(
    scenario: Scenario, arrivals: Sequence[Arrival], card: DatasetCard
) -> tuple[Coverage, ...]:
    """Every pair with each stage that trains it; nothing while the items are unknown."""
    found = []
    for pair in births(arrivals, all_of_them=True):
        held_out = card.having(pair.first, pair.second)
        if held_out is None:
            return ()
        for arrival in _training(arrivals, pair) or [None]:
            training, shares, stage = held_out[0], 1, 0
            if arrival is not None:
                seen = card.corpus(arrival.dataset).having(pair.first, pair.second)
                training, stage = (seen or held_out)[0], arrival.stage + 1
                if scenario.items == "split":
                    shares = sum(each.dataset == arrival.dataset for each in arrivals)
            found.append(Coverage(pair, stage, training, shares, held_out[1], held_out[2]))
    return tuple(found)


def _training(arrivals: Sequence[Arrival], pair: Pair) -> list[Arrival | None]:
    return [each for each in arrivals if pair in each.trained and each.trains]


def coverage_problems(
    scenario: Scenario,
    arrivals: Sequence[Arrival],
    card: DatasetCard,
    place: str,
    *,
    only: str = "test",
) -> Iterator[Problem]:
    """A problem for each pair that a stage of a file could learn nothing of, or not be scored.

    Where results are of ``only`` the validation items, there need be no test items.
    """
    begun = len(arrivals) - len(scenario.stages)
    unknown: set[Pair] = set()
    for one in coverage(scenario, arrivals, card):
        if not one.stage:
            continue
        both = f"has both {one.pair.first} and {one.pair.second}"
        if one.training < FEWEST:
            name = card.corpus(arrivals[one.stage - 1].dataset).name
            count = "only one" if one.training else "no"
            yield Problem(
                f"{place}, [[stage]] {one.stage - begun}, pairs",
                f"{count} training item of dataset '{name}' {both}",
                "train other pairs there, or give training items with both",
            )
        if one.pair not in unknown:
            unknown.add(one.pair)
            for split, items in (("validation", one.validation), ("test", one.test)):
                if not items and only in ("test", split):
                    yield Problem(
                        f"{place}, dataset '{card.name}'",
                        f"no {split} item {both}, a pair that is trained",
                        f"give {split} items with both, or train other pairs",
                    )


def coverage_notes(found: Iterable[Coverage]) -> Iterator[str]:
    """A sentence for each pair that is not scored, and for each of a handful of items."""
    told: set[Pair] = set()
    for one in found:
        if one.stage and one.expected < HANDFUL:
            share = f" (its share of {one.training})" if one.shares > 1 else ""
            yield (
                f"{one.pair}: stage {one.stage} trains it on about {one.expected:.0f} items{share},"
                " of which little can be learned"
            )
        if one.pair in told:
            continue
        told.add(one.pair)
        if not one.test:
            yield (
                f"{one.pair}: no stage trains it and no test item has both modalities; it is not"
                " scored"
            )
        elif one.test < HANDFUL:
            yield f"{one.pair}: {few_items(one.test)}"
        if one.stage and one.validation < HANDFUL:
            yield (
                f"{one.pair}: only {one.validation} validation items have both modalities, which"
                " decide little"
            )


def few_items(items: int, split: str = "test") -> str:
    """What so few items of a split mean for a score.

    >>> few_items(1)
    'only 1 test item has both modalities: R@1 in a random order is 100.0 %'
    """
    what = "item has" if items == 1 else "items have"
    return (
        f"only {items} {split} {what} both modalities: R@1 in a random order is {100 / items:.1f} %"
    )
