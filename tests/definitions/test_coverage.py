"""How many items a pair has, in each stage and split, counted by hand."""

import pytest

from continual_mm.definitions.arrivals import births, plan, roles
from continual_mm.definitions.coverage import (
    coverage,
    coverage_notes,
    coverage_problems,
    few_items,
)
from continual_mm.definitions.modality import DatasetCard, Kind, Modality, pair
from continual_mm.definitions.scenario import Scenario, Stage

NAMES = ("audio", "image", "text")
ALL, SOUNDS, TEXTS = NAMES, ("audio", "image"), ("image", "text")


def card(presence, items=None):
    modalities = tuple(Modality(name, Kind.VECTOR, (3,)) for name in NAMES)
    total = tuple(map(sum, zip(*(some for _, some in presence), strict=True)))
    return DatasetCard("mine", modalities, items or total, "0", presence=presence)


TWO = (Stage(add=SOUNDS), Stage(add=("text",), pairs=("image-text",)))


def found(presence, *stages, **settings):
    scenario = Scenario(name="mine", stages=stages or TWO, **settings)
    return scenario, plan(scenario, card(presence)), card(presence)


def told(presence, *stages, **settings):
    return [str(one) for one in coverage_problems(*found(presence, *stages, **settings), "f")]


DISJOINT = ((SOUNDS, (60, 20, 30)), (TEXTS, (40, 20, 25)))


def test_items_are_counted_by_pair_stage_and_split():
    cells = {one.cells for one in coverage(*found(DISJOINT))}
    assert cells == {
        ("audio-image", "1", "about 30 of 60", "20", "30"),
        ("image-text", "2", "about 20 of 40", "20", "25"),
        ("audio-text", "none", "0", "0", "not scored"),
    }
    shared = coverage(*found(DISJOINT, items="shared"))
    assert [one.expected for one in shared if one.stage] == [60, 40]


def test_a_pair_that_no_stage_trains_and_no_test_item_has_is_left_unscored_with_a_line():
    scenario, arrivals, mine = found(DISJOINT)
    assert arrivals[-1].unscored == (pair("audio", "text"),)
    assert list(births(arrivals)) == [pair("audio", "image"), pair("image", "text")]
    assert roles(arrivals).emergent == ()
    assert list(coverage_problems(scenario, arrivals, mine, "f")) == []
    (line,) = coverage_notes(coverage(scenario, arrivals, mine))
    assert line.startswith("audio-text: no stage trains it and no test item has both modalities")
    met = (*DISJOINT, (ALL, (0, 0, 40)))
    assert roles(found(met)[1]).emergent == (pair("audio", "text"),)


@pytest.mark.parametrize(("both", "expected"), [(0, "no training item"), (1, "only one training")])
def test_a_stage_that_could_learn_nothing_of_a_pair_is_refused(both, expected):
    presence = ((SOUNDS, (60, 0, 0)), (("text",), (40, 0, 0)), (ALL, (both, 20, 30)))
    (problem,) = told(presence)
    assert problem.startswith(f"f, [[stage]] 2, pairs: {expected}")
    assert "has both image and text" in problem
    # Nothing is learned in a stage of no steps, and by no other strategy either.
    towers = (TWO[0], Stage(add=("text",), pairs=("image-text",), steps=0))
    assert told(presence, *towers) == []


def test_a_pair_that_is_trained_must_be_scored():
    untested = ((SOUNDS, (60, 20, 30)), (TEXTS, (40, 0, 0)), (("text",), (0, 5, 5)))
    assert [one.partition(": ")[2].partition(",")[0] for one in told(untested)] == [
        "no validation item has both image and text",
        "no test item has both image and text",
    ]


def test_a_handful_of_items_is_told_of():
    presence = ((SOUNDS, (60, 20, 30)), (ALL, (6, 3, 1)))
    lines = list(coverage_notes(coverage(*found(presence))))
    assert lines == [
        "audio-text: only 1 test item has both modalities: R@1 in a random order is 100.0 %",
        "image-text: stage 2 trains it on about 3 items (its share of 6), of which little can be"
        " learned",
        "image-text: only 1 test item has both modalities: R@1 in a random order is 100.0 %",
        "image-text: only 3 validation items have both modalities, which decide little",
    ]
    assert "20.0 %" in few_items(5)


def test_what_is_not_known_is_not_counted():
    scenario = Scenario(name="mine", stages=TWO)
    absent = DatasetCard("mine", card(DISJOINT).modalities, (0, 0, 0), "not here")
    old = DatasetCard("mine", card(DISJOINT).modalities, (9, 3, 3), "an old store", presence=None)
    for unknown in (absent, old):
        arrivals = plan(scenario, unknown)
        assert coverage(scenario, arrivals, unknown) == ()
        assert list(coverage_problems(scenario, arrivals, unknown, "f")) == []
