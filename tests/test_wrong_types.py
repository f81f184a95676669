"""Objects of the wrong type, given to whatever is public: a sentence each, and how to do it."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.plugins.plugin import Plugin
from continual_mm.system.arguments import expected, fits
from continual_mm.system.errors import InputError

PUBLIC = {name: getattr(cm, name) for name in cm.__all__ if name != "__version__"}
FUNCTIONS = [name for name, each in PUBLIC.items() if inspect.isfunction(each)]
THINGS = (
    *(None, object(), [object()], {"what": object()}, ("a", 1)),
    torch.utils.data.TensorDataset(torch.ones(3, 2)),
)


def given(function, wrong):
    """(name of a parameter, arguments with the wrong thing there and wherever one is needed)."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for one in named:
        if wrong is None and one.default is None:
            continue
        needed = [p.name for p in named if p.default is p.empty]
        yield one.name, dict.fromkeys([*needed, one.name], wrong)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_it_expected(name, thing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parameter, arguments in given(PUBLIC[name], thing):
        if parameter in ("ids", "arrays"):
            continue
        with pytest.raises(InputError) as caught:
            PUBLIC[name](**arguments)
        for problem in caught.value.problems:
            assert "\n" not in str(problem)
            assert len(str(problem)) < 400
    assert list(tmp_path.iterdir()) == []


TABLES = [
    name for name, each in PUBLIC.items() if inspect.isclass(each) and hasattr(each, "model_fields")
]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_a_definition_says_what_it_expected(name):
    for key in PUBLIC[name].model_fields:
        for thing in THINGS[1:]:
            with pytest.raises(InputError, match=rf"{name}, {key}"):
                PUBLIC[name](**{key: thing})
    with pytest.raises(InputError, match="unknown key"):
        PUBLIC[name](nothing=1)


PLUGINS = [n for n, each in PUBLIC.items() if inspect.isclass(each) and issubclass(each, Plugin)]


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_says_what_it_expected(name):
    for key in inspect.signature(PUBLIC[name]).parameters:
        for thing in THINGS[1:]:
            with pytest.raises(InputError):
                PUBLIC[name](**{key: thing})


def test_all_that_is_public_was_tried():
    others = PUBLIC.keys() - {*FUNCTIONS, *TABLES, *PLUGINS}
    assert others == {
        *("Comparison", "Dataset", "Hit", "History", "Kind", "Modality", "Retriever"),
    }


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cm.Kind("sound"), "'sound' is no kind of signal; there are vector, tokens"),
        (lambda: cm.Modality("video", "vector", (3,)), r"Kind\.VECTOR"),
        (lambda: cm.Modality("video", cm.Kind.VECTOR, 512), "512 is no tuple of whole number"),
        (lambda: cm.Dataset({}, {}, [], []), "Dataset.from_arrays"),
        (lambda: cm.Dataset.from_arrays(np.ones((3, 2))), "is no mapping of text"),
        (lambda: cm.Dataset.from_arrays({"a": np.ones((9, 2))}, standardise="a"), "collection of"),
        (lambda: cm.History("none", None), "is no sequence of Arrival"),
        (lambda: cm.read_pack(3), r"read_pack\(path=...\): 3 is no text or path"),
    ],
)
def test_a_sentence_says_how_it_is_done(make, said):
    with pytest.raises(InputError, match=said):
        make()


SCENARIO = cm.Scenario(name="one", stages=(cm.Stage(add=("video", "audio")),))


@pytest.fixture(scope="module")
def dataset(features):
    return cm.Dataset.from_arrays(features(("video", "audio")), split=np.repeat([0, 1, 2], 30))


def test_what_users_have_at_hand_instead_is_answered_with_what_to_do(dataset, tmp_path):
    pairs = torch.utils.data.TensorDataset(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(InputError, match=r"a TensorDataset is no Dataset.*Dataset\.from_arrays"):
        cm.train(SCENARIO, pairs)
    with pytest.raises(InputError, match=r"scenario=...\): .* is no Scenario; make one with"):
        cm.train({"stages": [{"add": ["video"]}]}, dataset)
    with pytest.raises(InputError, match=r"towers=...\): .*TowerSettings\(kind='identity'\)"):
        cm.train(SCENARIO, dataset, towers={"video": "identity"})
    with pytest.raises(InputError, match=r"strategy=...\): 'replay' is no Strategy; make one"):
        cm.run(SCENARIO, "replay", dataset, tmp_path)
    with pytest.raises(InputError, match=r"plugins=...\): .*objects, such as continual_mm\.Replay"):
        cm.train(SCENARIO, dataset, plugins=["replay"])
    with pytest.raises(InputError, match=r"out=...\): 'runs' is no path"):
        cm.run(SCENARIO, cm.Strategy(name="naive"), dataset, "runs")
    space = cm.train(SCENARIO.model_copy(update={"training": cm.Training(steps=1)}), dataset).space
    for wrong in ("a cat", None, [["a", "b"]], object()):
        with pytest.raises(InputError, match="features of 'video'"):
            space.encode("video", wrong)
    with pytest.raises(KeyError, match="no modality 'smell' in this space; it has video, audio"):
        space.encode("smell", np.ones(6))


def test_annotations_are_told_in_words_and_checked_as_they_say():
    assert fits(np.int64(3), int)
    assert not fits(True, float)
    assert fits(Path("a"), str | Path)
    assert fits({"a": 1}, dict[str, int])
    assert not fits({"a": "1"}, dict[str, int])
    assert not fits({1: 1}, dict[str, int])
    assert fits(iter("ab"), object)
    assert expected(str | Path) == "text or path"
