"""Terms of a combinatorial contrast: counted, named, and trained by the stages that they need."""

from itertools import product
from math import comb

import pytest

from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.definitions.terms import Term, term_problems, terms, trained_terms
from continual_mm.system.errors import InputError

LETTERS = "abcdef"


def fusion(**settings):
    return SpaceSettings(kind="fusion", **settings)


def texts(found):
    return [str(term) for term in found]


@pytest.mark.parametrize(("modalities", "count"), [(2, 1), (3, 6), (4, 25), (5, 90)])
def test_all_terms_are_as_many_as_pairs_of_disjoint_sets(modalities, count):
    found = terms(LETTERS[:modalities], smaller=modalities, larger=modalities)
    assert len(set(found)) == len(found) == count
    assert count == (3**modalities - 2 ** (modalities + 1) + 1) / 2


@pytest.mark.parametrize(("modalities", "count"), [(2, 1), (3, 6), (4, 22), (5, 65)])
def test_terms_of_a_single_modality_and_a_set(modalities, count):
    found = terms(LETTERS[:modalities], smaller=1, larger=modalities)
    assert len(found) == count
    # A modality with a set of others; pairs are counted from both ends.
    assert count == modalities * (2 ** (modalities - 1) - 1) - comb(modalities, 2)


@pytest.mark.parametrize(("smaller", "larger"), [(1, 1), (1, 2), (2, 2), (2, 3)])
def test_terms_are_those_of_all_assignments_to_two_sides(smaller, larger):
    names = LETTERS[:4]
    found = set()
    for places in product((0, 1, 2), repeat=4):
        sides = [[n for n, p in zip(names, places, strict=True) if p == side] for side in (1, 2)]
        sizes = sorted(map(len, sides))
        if 0 < sizes[0] <= smaller and sizes[1] <= larger:
            found.add(Term.of(*sides))
    assert set(terms(names, smaller=smaller, larger=larger)) == found


def test_a_term_is_read_in_any_order_and_written_in_one():
    term = Term.parse("video+audio-text")
    assert str(term) == "text-audio+video"
    assert term == Term.parse("text-audio+video")
    assert term.pairs == {Pair("audio", "text"), Pair("text", "video")}
    assert str(Term.parse("video-text")) == str(Pair.parse("video-text"))


@pytest.mark.parametrize("text", ["text", "a-b-c", "a-", "a+-b", "a-a+b", "a+a-b", ""])
def test_what_is_no_term_is_refused(text):
    with pytest.raises(ValueError, match="two sides joined by a hyphen"):
        Term.parse(text)


def pairs(*texts):
    return tuple(Pair.parse(text) for text in texts)


def test_a_stage_trains_terms_all_of_whose_pairs_it_trains():
    stages = {0: pairs("t-v"), 1: pairs("a-t", "a-v")}
    found = {str(term): where for term, where in trained_terms(stages, fusion()).items()}
    assert found == {"a-t": [1], "a-v": [1], "t-v": [0], "a-t+v": [1]}


def test_where_one_stage_trains_all_pairs_all_six_terms_are_trained():
    found = trained_terms({0: pairs("a-t", "a-v", "t-v")}, fusion())
    assert texts(found) == ["a-t", "a-v", "t-v", "a-t+v", "t-a+v", "v-a+t"]


def test_a_pair_that_is_never_trained_is_aligned_by_no_term():
    found = trained_terms({0: pairs("a-v"), 1: pairs("t-v")}, fusion(larger_side=3))
    assert texts(found) == ["a-v", "t-v"]


def test_terms_of_weight_0_are_not_trained():
    settings = fusion(term_weights={"v+a-t": 0.0, "t-v": 0.5})
    found = trained_terms({0: pairs("a-t", "a-v", "t-v")}, settings)
    assert texts(found) == ["a-t", "a-v", "t-v", "a-t+v", "v-a+t"]


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({"t-v+a": 1.0, "t-a+v": 2.0}, "named twice"),
        ({"t-smell": 1.0}, "no term of this scenario"),
        ({"t+v": 1.0}, "not two sides joined by a hyphen"),
        ({"t+v-a+smell": 1.0}, "there are a-t, a-v, t-v"),
    ],
)
def test_weights_of_what_is_no_term_are_refused(weights, problem):
    (found,) = term_problems(fusion(term_weights=weights), "atv", "mine.toml")
    assert "mine.toml, [space], term_weights" in str(found)
    assert problem in str(found)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"clusters": 8}, "clusters: 8 has no meaning for kind 'fusion'"),
        ({"mode": "reference"}, "mode: 'reference' has no meaning for kind 'fusion'"),
        ({"dim": 6}, "heads: 6 numbers of a token cannot be divided among 4 heads"),
        ({"smaller_side": 3}, "larger_side: 2 is less than smaller_side = 3"),
        ({"term_weights": {"a-b": -1.0}}, "give at least 0"),
        ({"kind": "mcn", "blocks": 2}, "a meaning for kind 'fusion' only"),
        ({"kind": "transformer"}, "give 'mcn' or 'fusion'"),
    ],
)
def test_settings_of_another_kind_of_space_are_refused(settings, problem):
    with pytest.raises(InputError) as refused:
        SpaceSettings(**{"kind": "fusion", **settings})
    assert problem in str(refused.value)


def test_a_space_of_the_usual_kind_is_written_as_before_there_was_another():
    written = SpaceSettings(dim=8).model_dump()
    assert not {"kind", "blocks", "term_weights"} & written.keys()
    again = fusion(dim=8, term_weights={"a-b": 2.0})
    assert SpaceSettings(**again.model_dump()) == again
