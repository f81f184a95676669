"""Finding definitions and changing them from the command line."""

from pathlib import Path

import pytest

from continual_mm.definitions import catalog
from continual_mm.system.errors import InputError


def written(folder, text, name="mine.toml"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize("kind", catalog.DEFINITION_KINDS)
def test_what_is_shipped_is_found_by_name_and_by_path(kind):
    for entry in catalog.shipped(kind):
        assert catalog.find(kind, entry.name) == entry
        assert catalog.find(kind, str(entry.path)) == entry
        assert catalog.find_any(entry.name) == entry
        assert catalog.find_any(str(entry.path)) == entry


ASK = [lambda name: catalog.find("strategies", name), catalog.find_any]


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("name", ["none.toml", "no/such/folder/none", "none.toml/none.toml"])
def test_a_file_that_is_not_there_is_refused(ask, name, tmp_path):
    path = str(tmp_path / name)
    with pytest.raises(InputError, match="no such file") as caught:
        ask(path)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'dataset = "x"\n\n[space\ndim = 3\n', r"not valid TOML: .*line 3"),
        (b'dataset = "x"\n[[stage]]\nadd = [\n', "at line 3, the end of the file"),
        (b"[space]\ndim = 3\ndim = 4\n", "line 3"),
        (b'description = "caf\xe9"\n', "is not UTF-8: byte 0xe9 in line 1"),
    ],
)
def test_what_is_not_toml_is_refused_with_file_and_line(tmp_path, text, problem):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=f"^{path}: .*{problem}"):
        catalog.find("scenarios", path)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbfjoint = true\r\n")
    assert catalog.find("strategies", path).document == {"joint": True}


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({}, None),
        ({"description": "x"}, None),
        ({"dataset": "x"}, "scenarios"),
        ({"stage": [{}], "replay": {}}, "scenarios"),
        ({"datset": "x", "stages": [{}]}, "scenarios"),
        ({"space": {}, "training": {}}, "scenarios"),
        ({"joint": True}, "strategies"),
        ({"cumulative": True}, "strategies"),
        ({"joint": True, "ewc": [{}]}, "strategies"),
        ({"memory": {}, "items": 3}, "strategies"),
        ({"repaly": {}, "training": {}}, "strategies"),
    ],
)
def test_a_file_is_known_by_its_contents(document, kind):
    assert catalog.kind_of(document) == kind


def test_a_strategy_where_a_scenario_is_needed_is_refused(tmp_path):
    path = written(tmp_path, "[replay]")
    with pytest.raises(InputError, match="this is a strategy, where a scenario is needed"):
        catalog.find("scenarios", path)
    path = written(tmp_path, "[[stage]]")
    with pytest.raises(InputError, match="this is a scenario, where a strategy is needed"):
        catalog.find("strategies", path)


DOCUMENT = {
    "dataset": "x",
    "training": {"steps": 5},
    "stage": [{"add": ["a"]}, {"add": ["b"], "steps": 3}],
}


@pytest.mark.parametrize(
    ("path", "text", "changed"),
    [
        ("dataset", "../y.npz", {"dataset": "../y.npz"}),
        ("dataset", '"3"', {"dataset": "3"}),
        ("dataset", "1\nstage = 2", {"dataset": "1\nstage = 2"}),
        ("dataset", "", {"dataset": ""}),
        ("training.steps", "50", {"training": {"steps": 50}}),
        ("training.rate", "1e-3", {"training": {"steps": 5, "rate": 1e-3}}),
        ("space.dim", "8", {"space": {"dim": 8}}),
        ("standardise", "false", {"standardise": False}),
        ("stage.2.steps", "10", {"stage": [{"add": ["a"]}, {"add": ["b"], "steps": 10}]}),
        ("stage.1.add", '["c", "d"]', {"stage": [{"add": ["c", "d"]}, {"add": ["b"], "steps": 3}]}),
    ],
)
def test_a_setting_changes_one_value(path, text, changed):
    before = repr(DOCUMENT)
    assert catalog.overridden(DOCUMENT, [(path, text)]) == DOCUMENT | changed
    assert repr(DOCUMENT) == before


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("stage.3.steps", "there is no number '3' in the list; write a number from 1 to 2"),
        ("stage.0.steps", "there is no number '0' in the list"),
        ("stage.²", "there is no number '²' in the list"),
        ("stage.steps", "there is no number 'steps' in the list"),
        ("training.steps.more", "'more' would be a key of 5, which is not a table"),
        ("dataset.a.b", "'a' would be a key of 'x', which is not a table"),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused(path, told):
    with pytest.raises(InputError) as caught:
        catalog.overridden(DOCUMENT, [(path, "1")])
    assert str(caught.value).startswith(f"--set {path}: {told}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = " + "[" * 900 + "]" * 900, "lie in one another more than 16 deep"),
        ("a = " + "[" * 10_000 + "]" * 10_000, "lie in one another more than 16 deep"),
        ("a = " + "{a = " * 300 + "1" + "}" * 300, "lie in one another more than 16 deep"),
        (f"[space]\ndim = {'9' * 5000}", "a whole number is beyond 64 bits"),
        (f"[space]\ndim = 0x{'f' * 9000}", "space, dim: not valid TOML: a whole number"),
        (f"[space]\ndim = {2**63}", "space, dim: not valid TOML: a whole number"),
        ('dataset = "a\\u0000b"', "dataset: the text contains a NUL character"),
        ('"a\\u0000" = 1', "a key contains a NUL character"),
        ("# " + "x" * (1 << 20), "what is read here has at most 1,048,576"),
    ],
)
def test_what_no_definition_needs_is_refused_in_a_line(tmp_path, text, problem):
    path = written(tmp_path, text.encode())
    with pytest.raises(InputError, match=problem) as caught:
        catalog.open_definition("scenarios", Path(path))
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["[" * 900 + "]" * 900, "9" * 5000, "0x" + "f" * 9000, "a\0"])
def test_a_setting_is_held_to_the_same(value):
    with pytest.raises(InputError, match=r"^--set space\.dim"):
        catalog.overridden({"space": {}}, [("space.dim", value)])


def test_the_largest_whole_number_of_toml_is_read(tmp_path):
    entry = catalog.open_definition(
        "scenarios", Path(written(tmp_path, f"a = {2**63 - 1}".encode()))
    )
    assert entry.document == {"a": 2**63 - 1}
