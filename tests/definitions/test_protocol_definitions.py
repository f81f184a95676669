"""What a [[protocol]] table may say."""

import tomllib

import pytest
from pydantic import ValidationError

from continual_mm.definitions.reading import draft_scenario
from continual_mm.definitions.scenario import Protocol, Scenario

SOUND = {"name": "one", "query": ["text"], "gallery": ["video", "audio"]}
HEAD = 'dataset = "senses.npz"\n[[stage]]\nadd = ["text", "video"]\n'


def draft(protocols):
    document = tomllib.loads(HEAD + protocols)
    return draft_scenario(document, name="mine", folder="here", file="mine.toml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in ("", "a b", "a/b", "-a", 1, None)),
        *(("kind", value) for value in ("clips", "", 1)),
        *(("query", value) for value in ([], "text", ["text", "text"], [1], None)),
        *(("gallery", value) for value in ([], ["text"], ["video", "video"])),
        *(("expected", value) for value in (-1, 1.5, True, "1")),
        ("ordered", False),
        ("ordered", 1),
        ("annotations", "steps.csv"),
        ("dataset", 1),
    ],
)
def test_what_has_no_meaning_is_refused_at_its_key(key, value):
    assert Protocol.model_validate(SOUND)
    with pytest.raises(ValidationError) as caught:
        Protocol.model_validate({**SOUND, key: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {key}


@pytest.mark.parametrize(("kind", "key"), [("steps", "annotations"), ("classes", None)])
def test_keys_belong_to_kinds(kind, key):
    counted = {**SOUND, "kind": kind, "expected": 9, "annotations": "a.csv" if key else ""}
    with pytest.raises(ValidationError, match="has no meaning for kind"):
        Protocol.model_validate(counted)
    assert Protocol.model_validate({**counted, "expected": 0}).kind == kind
    if key:
        with pytest.raises(ValidationError, match="needs annotations"):
            Protocol.model_validate({**SOUND, "kind": kind})
        assert not Protocol.model_validate({**counted, "expected": 0, "ordered": False}).ordered


def test_a_sound_protocol_means_what_its_file_says():
    found = draft('[[protocol]]\nname = "one"\nquery = ["text"]\ngallery = ["video"]\nexpected = 9')
    assert found.problems == ()
    (protocol,) = found.scenario.protocols
    assert protocol == Protocol(name="one", query=("text",), gallery=("video",), expected=9)
    assert protocol.modalities == ("text", "video")
    assert Scenario.model_validate(found.scenario.model_dump()) == found.scenario


def test_every_mistake_is_told_with_its_place_and_remedy():
    found = draft(
        '[[protocol]]\nname = "one"\nquery = ["text"]\ngallery = ["video"]\n'
        '[[protocol]]\nname = "one"\nquery = ["text"]\ngallery = ["video"]\n'
        '[[protocol]]\nname = "two"\ngalery = ["video"]\nquery = ["text"]\n'
    )
    told = [str(problem) for problem in found.problems]
    assert told == [
        "mine.toml, [[protocol]] 2, name: 'one' is the name of an earlier one; "
        "give each protocol a name of its own",
        'mine.toml, [[protocol]] 3, gallery: the key is missing; add gallery = ["video", "audio"]',
        "mine.toml, [[protocol]] 3, galery: unknown key with value ['video']; "
        "did you mean 'gallery'? known are annotations, dataset, expected, gallery, kind, name, "
        "ordered, query",
    ]
    assert [each.name for each in found.scenario.protocols] == ["one", "one"]


def test_protocols_are_a_list_of_tables():
    (told,) = draft('[protocol]\nname = "one"').problems
    assert "no list of tables" in told.message
