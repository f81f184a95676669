"""A scenario on a dataset: what arrives, what is available, what is trained."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.definitions.arrivals import births, plan, problems_of, roles
from continual_mm.definitions.modality import DatasetCard, Kind, Modality, all_pairs, pair
from continual_mm.definitions.scenario import Scenario, Stage, Training
from continual_mm.system.errors import InputError


def card(*names, has_labels=False, groups=0):
    modalities = tuple(Modality(name, Kind.VECTOR, (3,)) for name in names)
    return DatasetCard("senses", modalities, (8, 1, 1), "0", has_labels, groups)


def scenario(*stages, **others):
    return Scenario(name="mine", stages=stages, **others)


SENSES = card("touch", "smell", "taste", "sight")
THREE = scenario(
    Stage(add=("sight", "taste")),
    Stage(add=("smell",), pairs=("smell-sight",), steps=3),
    Stage(add=("touch",)),
)


def told(*stages, on=SENSES, **others):
    return [str(problem) for problem in problems_of(scenario(*stages, **others), on, file="f")]


def test_each_stage_knows_what_arrives_what_is_there_and_what_is_trained():
    first, second, third = plan(THREE, SENSES)
    assert [m.name for m in first.added] == ["sight", "taste"]
    assert first.trained == (pair("sight", "taste"),)
    assert [m.name for m in second.available] == ["sight", "taste", "smell"]
    assert second.trained == (pair("smell", "sight"),)
    assert second.training == Training(steps=3)
    assert [m.name for m in third.added] == ["touch"]
    assert third.trained == (pair("touch", "sight"), pair("touch", "smell"), pair("touch", "taste"))
    assert [arrival.stage for arrival in (first, second, third)] == [0, 1, 2]
    assert first.seen == ("sight", "taste")
    assert second.seen == ("sight", "smell")
    assert third.seen == ("sight", "taste", "smell", "touch")


def test_a_pair_is_born_when_both_its_modalities_are_there():
    born = births(plan(THREE, SENSES))
    assert born == {
        pair("sight", "taste"): 0,
        pair("sight", "smell"): 1,
        pair("taste", "smell"): 1,
        pair("touch", "sight"): 2,
        pair("touch", "smell"): 2,
        pair("touch", "taste"): 2,
    }
    assert list(born) == sorted(born)


def test_pairs_are_old_new_or_emergent():
    found = roles(plan(THREE, SENSES))
    assert found.old == (pair("sight", "smell"), pair("sight", "taste"))
    assert found.new == (pair("sight", "touch"), pair("smell", "touch"), pair("taste", "touch"))
    assert found.emergent == (pair("smell", "taste"),)


def test_an_old_pair_that_the_last_stage_trains_again_is_still_old():
    found = roles(
        plan(
            scenario(Stage(add=("sight", "smell")), Stage(add=("taste",), pairs=("sight-smell",))),
            SENSES,
        )
    )
    assert found.old == (pair("sight", "smell"),)
    assert found.new == ()
    assert len(found.emergent) == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_without_named_pairs_each_pair_is_trained_once_when_it_is_born(stage_of, rng):
    names = [f"m{number}" for number in range(len(stage_of))]
    rng.shuffle(names)
    groups = [
        tuple(name for name, place in zip(names, stage_of, strict=True) if place == stage)
        for stage in range(4)
    ]
    stages = [Stage(add=group) for group in groups if group]
    arrivals = plan(scenario(*stages), card(*sorted(names)))
    trained = [found for arrival in arrivals for found in arrival.trained]
    assert sorted(trained) == list(all_pairs(tuple(names)))
    assert {found: a.stage for a in arrivals for found in a.trained} == births(arrivals)
    assert len(roles(arrivals).emergent) == 0


SECOND = "is added a second time; name it once, at stage"


@pytest.mark.parametrize(
    ("stages", "lines"),
    [
        (
            (Stage(add=("sight",)), Stage(add=("tast", "hearing"))),
            [
                "2, add: no modality 'tast' in dataset 'senses'; did you mean 'taste'? "
                "it has sight, smell, taste, touch",
                "2, add: no modality 'hearing' in dataset 'senses'; "
                "it has sight, smell, taste, touch",
            ],
        ),
        (
            (Stage(add=("sight", "sight")), Stage(add=("smell",)), Stage(add=("smell",))),
            [f"1, add: modality 'sight' {SECOND} 1", f"3, add: modality 'smell' {SECOND} 2"],
        ),
        (
            (Stage(add=("sight", "smell"), pairs=("sight-smell", "smell-sight")),),
            ["1, pairs: pair 'smell-sight' is named twice; name each pair once"],
        ),
    ],
)
def test_modalities_and_pairs_that_are_not_there_or_named_twice_are_told(stages, lines):
    assert told(*stages) == [f"f, [[stage]] {line}" for line in lines]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sight-touch", "pair 'sight-touch' is not available yet: touch did not arrive"),
        ("touch-hearing", "not available yet: hearing and touch did not arrive"),
        ("sight-sight", "'sight-sight' is not two different modalities"),
    ],
)
def test_a_pair_that_cannot_be_trained_is_told_with_those_that_can(text, problem):
    (line,) = told(Stage(add=("sight", "smell"), pairs=(text,)), Stage(add=("touch",)))
    assert line.startswith("f, [[stage]] 1, pairs: ")
    assert problem in line
    assert line.endswith("; possible at this stage: sight-smell")


def test_without_a_card_all_but_the_dataset_is_judged():
    stages = (Stage(add=("x", "x"), pairs=("x-y",)), Stage(add=("z",), pairs=("x-z", "x")))
    assert [line.split(":")[0] for line in told(*stages, on=None, positives="label")] == [
        "f, [[stage]] 1, add",
        "f, [[stage]] 1, pairs",
        "f, [[stage]] 2, pairs",
    ]


def test_labels_are_asked_for_only_where_there_are_some():
    stages = (Stage(add=("sight", "smell")),)
    (line,) = told(*stages, positives="label")
    assert line.startswith("f, positives: 'label' asks for labels, but dataset 'senses' has none")
    assert told(*stages, on=card("sight", "smell", has_labels=True), positives="label") == []
    assert told(*stages, positives="duplicates") == []
    (line,) = told(*stages, positives="group")
    assert line.startswith("f, positives: 'group' asks for groups, but dataset 'senses' has none")
    assert told(*stages, on=card("sight", "smell", groups=3), positives="group") == []


def test_a_plan_is_refused_with_everything_and_the_name_of_the_scenario():
    wrong = scenario(Stage(add=("sight", "sight")), Stage(add=("hearing",)))
    with pytest.raises(InputError) as caught:
        plan(wrong, SENSES)
    assert len(caught.value.problems) == 2
    assert str(caught.value).startswith("scenario 'mine', [[stage]] 1, add: ")
