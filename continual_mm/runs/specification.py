"""All that a run's numbers follow from, worked out once and handed on; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from continual_mm.data import corpora
from continual_mm.definitions.arrivals import Arrival, plan, scored_on
from continual_mm.definitions.coverage import Coverage, coverage
from continual_mm.definitions.modality import DatasetCard
from continual_mm.definitions.scenario import Scenario, Strategy, TowerSettings
from continual_mm.evaluation.checks import card_of, identity_of
from continual_mm.plugins.files import fingerprints
from continual_mm.runs.origin import Origin, origin_of, weights_file
from continual_mm.runs.records import Split
from continual_mm.system.files import checksum

if TYPE_CHECKING:
    from continual_mm.space.statistics import Statistics

Cards = Mapping[str, DatasetCard]
"""Name of a protocol -> the card of the dataset whose test items it scores."""
NO_CARDS: Cards = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OpenedScenario:
    """A scenario worked out on its dataset, with the cards of all protocols' datasets."""

    scenario: Scenario
    card: DatasetCard
    arrivals: tuple[Arrival, ...]
    origin: Origin | None = None
    scored: Cards = field(default_factory=dict)

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """How many items have both modalities of each pair; nothing while that is not known."""
        return coverage(self.scenario, self.arrivals, self.card)

    @property
    def cards(self) -> tuple[DatasetCard, ...]:
        """Of every dataset that it uses."""
        return (*self.corpora, *self.scored.values())

    @property
    def known(self) -> "Mapping[str, Statistics | None]":
        """By what modalities of the run that it starts from are standardised."""
        return self.origin.statistics if self.origin else {}

    @property
    def corpora(self) -> tuple[DatasetCard, ...]:
        """Of each dataset that is trained on."""
        return tuple(dict(self.card.corpora).values()) or (self.card,)


def opened(scenario: Scenario, card: DatasetCard, scored: Cards = NO_CARDS) -> OpenedScenario:
    """Work a scenario out on a dataset; ``scored`` are cards of datasets loaded already."""
    origin = origin_of(scenario)
    arrivals = plan(scenario, card, start=origin.start if origin else None)
    cards = {
        one.name: scored.get(one.name) or card_of(one, scenario, card) for one in scenario.protocols
    }
    return OpenedScenario(scenario, card, arrivals, origin, cards)


@dataclass(frozen=True)
class Specification:
    """All that the numbers of one run follow from.

    ``modules`` are fingerprints of given towers. ``split`` is whose scores are its results; where
    that is ``validation``, as in a search, test items are not looked at.
    """

    opened: OpenedScenario
    strategy: Strategy
    seed: int = 0
    modules: Mapping[str, str] = field(default_factory=dict)
    split: Split = "test"

    @property
    def scenario(self) -> Scenario:
        """The definition."""
        return self.opened.scenario

    @cached_property
    def arrivals(self) -> tuple[Arrival, ...]:
        """The stages."""
        return scored_on(self.split, self.opened.arrivals, self.opened.card)

    def __str__(self) -> str:
        return f"{self.scenario.name}/{self.strategy.name}/seed-{self.seed}"

    @property
    def path(self) -> Path:
        """Where the run lies in the folder of all runs."""
        return Path(str(self))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What ``definition.json`` holds: all that the numbers follow from, wherever files lie."""
        scenario, card, origin = self.scenario, self.opened.card, self.opened.origin
        towers = {name: _tower(scenario, said) for name, said in scenario.towers.items()}
        for name, fingerprint in self.modules.items():
            towers[name] = {**towers.get(name, {}), "kind": fingerprint}
        files = fingerprints(self.strategy.plugins)
        apart = {"description", "folder", "start", "towers", "protocols"}
        protocols = [
            identity_of(p, scenario, self.opened.scored[p.name]) for p in scenario.protocols
        ]
        return {
            "scenario": {
                **scenario.model_dump(mode="json", exclude=apart),
                "start": origin and origin.fingerprint,
                "towers": towers,
                **({"protocols": protocols} if protocols else {}),
            },
            "strategy": {
                **self.strategy.model_dump(mode="json", exclude={"description"}),
                **({"plugin_files": files} if files else {}),
            },
            "data": {
                "name": card.name,
                "fingerprint": card.fingerprint,
                "items": list(card.items),
                "modalities": {m.name: [str(m.kind), list(m.shape)] for m in card.modalities},
            },
            "seed": self.seed,
            **({} if self.split == "test" else {"split": self.split}),
        }


def specify(scenario: Scenario, strategy: Strategy, *, seed: int = 0) -> Specification:
    """A run on the dataset that a scenario names."""
    card = corpora.card(scenario.corpora, folder=Path(scenario.folder))
    return Specification(opened(scenario, card), strategy, seed)


def _tower(scenario: Scenario, said: TowerSettings) -> dict[str, Any]:
    found: dict[str, Any] = said.model_dump(exclude={"weights"})
    if said.weights:
        found["weights"] = checksum(weights_file(scenario, said))
    return found
