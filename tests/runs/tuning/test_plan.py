"""Which parameters are searched and where, and the runs of a search."""

from dataclasses import replace
from pathlib import Path

import pytest

from continual_mm.definitions.rules import Number, Range
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.plugins.registry import BUILT_IN, defaults
from continual_mm.runs.tuning.plan import Plan, searched
from continual_mm.system.errors import InputError


def strategy(**plugins):
    return Strategy(name="mine", memory=MemorySettings(items=9), plugins=plugins)


def test_every_built_in_range_is_one_of_the_parameter_and_holds_its_default():
    for name, known in BUILT_IN.items():
        for key, where in known.search.items():
            rule = known.rule.parameters[key]
            assert isinstance(rule, Number)
            assert rule.least <= where.low < where.high <= (rule.most or float("inf"))
            assert not (rule.above and where.low == rule.least)
            assert not (where.log and where.low <= 0)
            default = defaults(name)[key]
            assert where.low <= default <= where.high or (where.log and default == 0)


def test_every_number_is_searched_but_switches_and_those_that_cost_time_or_are_not_judged():
    left_out = {
        f"{name}.{key}"
        for name, known in BUILT_IN.items()
        for key in known.rule.parameters.keys() - known.search.keys()
    }
    costly = {"rows", "batches", "steps", "items", "rank", "size", "held_out", "every"}
    switches = {"right_only", "trust", "online", "decay", "old_pairs", "same_start", "intra"}
    switches |= {"warn_at", "stop_at"}  # thresholds of a warning
    words = {"align", "shared"}
    not_judged = {"emergent", "bare"}  # a search judges trained pairs as they are scored
    assert {path.split(".")[1] for path in left_out} == costly | switches | words | not_judged


def test_what_the_file_leaves_out_begins_at_the_default():
    found = {str(one): one.start for one in searched(strategy(transport={"weight": 2.0}))}
    own = defaults("transport")
    assert found == {
        "transport.weight": 2.0,
        "transport.epsilon": own["epsilon"],
        "transport.gauge": own["gauge"],
    }


def test_a_range_is_widened_to_hold_what_the_file_says():
    (one,) = searched(strategy(replay={"weight": 90.0}))
    assert one.range == Range(0.03, 90.0, log=True)


def test_what_is_switched_off_stays_off():
    assert [str(one) for one in searched(strategy(distill={"weight": 1.0}))] == ["distill.weight"]
    both = searched(strategy(distill={"weight": 1.0, "current": 2.0}))
    assert {str(one) for one in both} == {"distill.weight", "distill.current"}


def test_an_option_replaces_a_range_or_adds_a_parameter():
    given = ("replay.weight=0.5:2", "replay.rows=4:256:log")
    weight, rows = searched(strategy(replay={"weight": 1.0}), given)
    assert (str(weight), weight.range, weight.whole) == ("replay.weight", Range(0.5, 2.0), False)
    assert (str(rows), rows.range, rows.whole) == ("replay.rows", Range(4, 256, log=True), True)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("replay.weihgt=1:2", "did you mean 'replay.weight'?"),
        ("memory.items=1:2", "the strategy has no such number"),
        ("replay.weight", "'' is no range"),
        ("replay.weight=2:1", "'2:1' is no range"),
        ("replay.weight=0:inf", "'0:inf' is no range"),
        ("replay.weight=0:2:lgo", "'0:2:lgo' is no range"),
        ("replay.weight=0:2:log", "a logarithmic range cannot begin at 0"),
        ("replay.weight=-1:2", "but the parameter is at least 0"),
        ("replay.weight=2:3", "the strategy's own 1, which is tried first, is not in it"),
        ("replay.rows=2.5:300", "the parameter is a whole number"),
        ("slow.ratio=0:2", "but the parameter is at most 1"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_a_remedy(option, expected):
    with pytest.raises(InputError) as caught:
        searched(strategy(replay={"weight": 1.0}, slow={}), [option])
    (problem,) = caught.value.problems
    assert expected in str(problem)
    assert problem.place.startswith("--search ")
    assert problem.remedy


@pytest.fixture
def scenarios(small_scenario):
    return small_scenario("one", 10, 4), small_scenario("other", 5)


def plan(*scenarios):
    ewc = Strategy(name="ewc", plugins={"ewc": {"weight": 10.0}})
    return Plan(scenarios, ewc, searched(ewc), Path("tuning"), trials=8, seeds=2)


def test_runs_come_scenario_by_scenario_and_seed_by_seed(scenarios):
    one, other = scenarios
    runs = plan(one, other).trial_runs()
    assert [(run.scenario, run.seed) for run in runs] == [
        *(("one", 0), ("one", 1)),
        *(("other", 0), ("other", 1)),
    ]
    assert runs[0].moments == ((0, 4), (0, 8), (0, 10), (1, 14), (1, 17))
    assert runs[2].moments == ((0, 5), (1, 7))
    assert [run.offset for run in runs] == [0, 5, 10, 12]
    assert plan(one, other).runs == 8 * 2 * 2


def test_a_search_on_one_scenario_lies_in_its_folder(scenarios):
    alone = plan(scenarios[0])
    assert alone.folder == Path("tuning/one/ewc")
    known = alone.identity()
    assert known["scenario"]["name"] == "one"
    assert known["data"]["fingerprint"] == "print"
    assert known.keys() == {
        *("scenario", "strategy", "data", "seed"),
        *("searched", "seeds", "metric", "pruning"),
    }


def test_a_search_on_several_scenarios_lies_under_all_their_names(scenarios):
    one, other = scenarios
    both = plan(one, other)
    assert both.folder == Path("tuning/one+other/ewc")
    known = both.identity()
    assert known["scenario"]["other"]["training"]["steps"] == 5
    assert known["data"].keys() == {"one", "other"}
    stages = other.scenario.model_copy(update={"name": "longer"})
    longer = plan(one, replace(other, scenario=stages)).identity()
    assert longer != known


def test_scenarios_on_which_nothing_can_be_measured_are_refused_together(scenarios):
    one, other = scenarios
    alone = replace(one, arrivals=one.arrivals[:1])
    empty = replace(other, card=replace(other.card, items=(9, 0, 3)))
    with pytest.raises(InputError) as caught:
        plan(alone, empty).check()
    assert [problem.place for problem in caught.value.problems] == [
        "scenario 'one'",
        "scenario 'other'",
    ]
    assert "the last stage has no old pairs" in str(caught.value)
    assert "no validation items" in str(caught.value)
