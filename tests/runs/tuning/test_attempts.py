"""A trial in progress, with values known by hand."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.definitions.scenario import Scenario, Stage, Strategy, Training
from continual_mm.runs.listener import Halt
from continual_mm.runs.parallel import Outcome
from continual_mm.runs.specification import OpenedScenario, opened
from continual_mm.runs.tuning.plan import Plan, searched
from continual_mm.runs.tuning.search import ROUNDING, Attempt

MODALITIES = tuple(Modality(name, Kind.VECTOR, (4,)) for name in ("video", "audio", "text"))
CARD = DatasetCard("mine", MODALITIES, (9, 3, 3), "")
EWC = Strategy(name="ewc", plugins={"ewc": {}})


def scenario(name: str, steps: int) -> OpenedScenario:
    stages = (Stage(add=("video", "audio")), Stage(add=("text",)))
    made = Scenario(name=name, training=Training(steps=steps), stages=stages)
    return opened(made, CARD)


def attempt() -> Attempt:
    """Two scenarios of two seeds; both seeds of the first are done, and one of the second."""
    scenarios = (scenario("one", 10), scenario("other", 5))
    plan = Plan(scenarios, EWC, searched(EWC), Path(), trials=1, seeds=2)
    found = [
        {(0, 10): 0.9, (1, 20): 0.1},
        {(0, 10): 0.7, (1, 20): 0.2},
        {(0, 5): 0.8, (1, 10): 0.6},
    ]
    return Attempt(optuna.create_study().ask(), {}, plan.legs(), found)


def test_every_run_counts_the_same() -> None:
    done = attempt()
    done.found.append({(0, 5): 0.8, (1, 10): 0.7})
    assert done.score == pytest.approx((0.1 + 0.2 + 0.6 + 0.7) / 4)
    assert done.by_scenario() == pytest.approx({"one": 0.15, "other": 0.65})


def test_a_run_must_keep_the_mean_over_runs_at_the_median() -> None:
    # Of the fourth run, moments 6 and 7 of all; earlier scenarios are taken as they ended.
    earlier = [{6: mean, 7: mean} for mean in (0.1, 0.2, 0.4, 0.5, 0.6)]
    least = attempt().least(earlier)
    assert least[(0, 5)] == pytest.approx(4 * 0.4 - (0.1 + 0.2 + 0.8), abs=2 * ROUNDING)
    assert least[(1, 10)] == pytest.approx(4 * 0.4 - (0.1 + 0.2 + 0.6), abs=2 * ROUNDING)
    assert attempt().least(earlier[:4]) == {}


def test_a_run_that_fell_behind_is_reported_as_the_mean_until_then() -> None:
    behind = attempt()
    behind.take_down(Outcome(Path(), "pruned", halted=Halt((0, 5), 0.3)))
    assert behind.state is TrialState.PRUNED
    assert behind.reports == pytest.approx({6: (0.1 + 0.2 + 0.8 + 0.3) / 4})
    assert behind.note == "other, seed 1: pruned"


def test_a_run_that_failed_for_lack_of_memory_decides_nothing() -> None:
    failed = attempt()
    failed.take_down(Outcome(Path(), "no memory"))
    assert (failed.state, failed.reports, failed.note) == (None, {}, "")
