"""A search as it was asked for."""

from dataclasses import replace
from pathlib import Path

import pytest

from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.definitions.scenario import Scenario, Stage, Strategy, Training
from continual_mm.runs.specification import OpenedScenario, opened
from continual_mm.runs.tuning.plan import Plan, searched
from continual_mm.system.errors import InputError

CARD = DatasetCard(
    "mine",
    tuple(Modality(name, Kind.VECTOR, (4,)) for name in ("video", "audio", "text")),
    (9, 3, 3),
    "print",
)
EWC = Strategy(name="ewc", plugins={"ewc": {"weight": 10.0}})


def scenario(name: str, steps: int, every: int = 0) -> OpenedScenario:
    made = Scenario(
        name=name,
        training=Training(steps=steps, evaluate_every=every),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",))),
    )
    return opened(made, CARD)


ONE = scenario("one", 10, 4)
OTHER = scenario("other", 5)


def plan(*scenarios: OpenedScenario) -> Plan:
    return Plan(scenarios, EWC, searched(EWC), Path("tuning"), trials=8, seeds=2)


def test_runs_come_scenario_by_scenario_and_seed_by_seed() -> None:
    legs = plan(ONE, OTHER).legs()
    assert [(leg.scenario, leg.seed) for leg in legs] == [
        *(("one", 0), ("one", 1)),
        *(("other", 0), ("other", 1)),
    ]
    assert legs[0].moments == ((0, 4), (0, 8), (0, 10), (1, 14), (1, 18), (1, 20))
    assert legs[2].moments == ((0, 5), (1, 10))
    assert [leg.begun for leg in legs] == [0, 6, 12, 14]
    assert plan(ONE, OTHER).runs == 8 * 2 * 2


def test_one_scenario_lies_and_is_known_as_before_there_were_several() -> None:
    alone = plan(ONE)
    assert alone.folder == Path("tuning/one/ewc")
    known = alone.identity()
    assert known["scenario"]["name"] == "one"
    assert known["data"]["fingerprint"] == "print"
    assert known.keys() == {
        *("scenario", "strategy", "data", "seed"),
        *("searched", "seeds", "metric", "pruning"),
    }


def test_several_scenarios_lie_under_their_names_and_are_all_known() -> None:
    both = plan(ONE, OTHER)
    assert both.folder == Path("tuning/one+other/ewc")
    known = both.identity()
    assert known["scenario"]["other"]["training"]["steps"] == 5
    assert known["data"].keys() == {"one", "other"}
    longer = plan(ONE, scenario("other", 6)).identity()
    assert longer != known


def test_what_lacks_something_to_weigh_is_named() -> None:
    empty = replace(OTHER, card=replace(CARD, items=(9, 0, 3)))
    with pytest.raises(InputError) as caught:
        plan(ONE, empty).check()
    (problem,) = caught.value.problems
    assert problem.place == "scenario 'other'"
    assert "no validation items" in problem.message
