"""The three tests as data. README.md, which was there first, says why each is as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from packs import Recipe, mismatched, shifted

from continual_mm.definitions.scenario import MemorySettings, Strategy

Role = Literal["contender", "rival", "other"]

TRANSPORT = PARTNERS = (0.75, 3.0, 12.0, 48.0)
DISTILL = (2.5, 10.0, 40.0, 160.0)
ROW_KL = PROTOTYPES = REPLAY = (0.25, 1.0, 4.0, 16.0)
RELATIONAL = (25.0, 100.0, 400.0, 1600.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A strategy of which one number is open.

    Attributes:
        name: In tables.
        role: ``contender`` is transport, ``rival`` what it is compared with.
        plugin: What protects old pairs; none for naive training.
        weights: The values among which validation items choose, ascending.
        key: The plugin's parameter that takes them.
        fixed: Its other parameters.
        items: Remembered items; 0 for no memory.
    """

    name: str
    role: Role = "other"
    plugin: str = ""
    weights: tuple[float, ...] = ()
    key: str = "weight"
    fixed: Mapping[str, float] = field(default_factory=dict)
    items: int = 0

    def strategy(self, weight: float | None) -> Strategy:
        """The strategy with a weight; without one, naive training."""
        if weight is None:
            return Strategy(name=self.name)
        return Strategy(
            name=f"{self.name}-{weight:g}",
            memory=MemorySettings(items=self.items) if self.items else None,
            plugins={self.plugin: {**self.fixed, self.key: weight}},
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A test on one dataset.

    Attributes:
        name: Of the scenario's file and of the results.
        test: What ``--only`` calls it.
        candidates: Whom it compares.
        recipe: Makes the pack; None takes the scenario's dataset as it is.
        given: Whether the dataset lies in the folder that ``--data`` names.
    """

    name: str
    test: str
    candidates: tuple[Candidate, ...]
    recipe: Recipe | None = None
    given: bool = False


NAIVE = Candidate("naive")


def by_equal_bytes(items: int) -> tuple[Candidate, ...]:
    """Prototypes, and L2 with at least as many bytes for items, or with a copy of the towers."""
    return (
        Candidate("prototypes", "contender", "prototypes", PROTOTYPES),
        Candidate("distill_items", "rival", "distill", DISTILL, items=items),
        Candidate("distill_current", "rival", "distill", DISTILL, "current", {"weight": 0.0}),
    )


PLANS = (
    Plan(
        "shift",
        "shift",
        (
            Candidate(
                "transport", "contender", "transport", TRANSPORT, fixed={"gauge": 0.0}, items=128
            ),
            Candidate("distill", "rival", "distill", DISTILL, items=128),
            Candidate("row_kl", "other", "row_kl", ROW_KL, items=128),
            Candidate("relational", "other", "relational", RELATIONAL, items=128),
            NAIVE,
        ),
        recipe=shifted,
    ),
    Plan(
        "prototypes",
        "prototypes",
        (
            *by_equal_bytes(103),
            Candidate("partners", "other", "partners", PARTNERS, fixed={"items": 32}),
            NAIVE,
        ),
    ),
    Plan(
        "noise",
        "noise",
        (
            Candidate(
                "transport_unbalanced",
                "contender",
                "transport",
                TRANSPORT,
                fixed={"gauge": 0.1, "unbalanced": 0.3},
                items=128,
            ),
            Candidate("distill", "rival", "distill", DISTILL, items=128),
            Candidate(
                "transport", "other", "transport", TRANSPORT, fixed={"gauge": 0.1}, items=128
            ),
            Candidate(
                "transport_trust",
                "other",
                "transport",
                TRANSPORT,
                fixed={"gauge": 0.1, "trust": 0.5},
                items=128,
            ),
            Candidate("row_kl", "other", "row_kl", ROW_KL, items=128),
            Candidate("replay", "other", "replay", REPLAY, items=128),
            NAIVE,
        ),
        recipe=mismatched,
    ),
    Plan("prototypes_grid", "prototypes", (*by_equal_bytes(42), NAIVE), given=True),
)
