"""Definitions and datasets by name, and what notebooks show of objects."""

import inspect

import pytest

import continual_mm as cm
from continual_mm.system.errors import InputError


@pytest.fixture
def scenario(tmp_path, written, monkeypatch):
    """A file of a scenario, beside its dataset."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "clips.npz")
    text = """
        dataset = "clips.npz"
        [space]
        dim = 8
        clusters = 4
        [training]
        steps = 3
        batch_size = 8
        [[stage]]
        add = ["video", "audio"]
        [[stage]]
        add = ["text"]
        pairs = ["video-text"]
    """
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    return tmp_path / "mine.toml"


def test_what_is_loaded_by_name_trains_as_the_command_line_does(scenario, typed, capsys):
    loaded = cm.load_scenario(scenario, {"training.steps": 2})
    assert (loaded.name, loaded.training.steps) == ("mine", 2)
    strategy = cm.load_strategy("replay", {"replay.weight": 0.5})
    history = cm.train(loaded, cm.load_dataset(loaded), strategy=strategy, progress=True)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "stage 2: R@1 audio-text" in shown
    settings = ("--set", "training.steps=2", "--set", "replay.weight=0.5", "--device", "cpu")
    assert typed("run", "mine.toml", "--strategy", "replay", *settings).code == 0
    found = cm.compare("runs").frame("pair").set_index("pair")["mean"]
    assert {pair: history.recall(pair) for pair in found.index} == found.to_dict()
    assert history.cost["steps"] == 4
    assert history.cost["memory_bytes"] > 0


def test_a_strategy_and_plugins_are_not_given_together(scenario):
    loaded = cm.load_scenario(scenario)
    with pytest.raises(InputError, match="give the one or the others"):
        cm.train(loaded, cm.load_dataset(loaded), strategy=cm.load_strategy("naive"), joint=True)


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (lambda: cm.load_scenario("no.toml"), "no.toml: no such file"),
        (
            lambda: cm.load_scenario("mine.toml", {"training.stepss": 1}),
            "stepss: unknown key with value 1",
        ),
        (lambda: cm.load_strategy("av_vt"), "scenario 'av_vt' is no strategy|no such definition"),
        (lambda: cm.load_dataset("no.npz"), "no.npz"),
    ],
)
def test_what_is_not_there_is_refused(scenario, load, problem):
    with pytest.raises(InputError, match=problem):
        load()


def test_objects_are_short_where_they_are_shown(scenario):
    loaded = cm.load_scenario(scenario)
    assert "training=Training(steps=3, batch_size=8)" in repr(loaded)
    history = cm.train(loaded, cm.load_dataset(loaded))
    assert repr(history).startswith("History(video+audio then text; R@1 in % on test items: ")
    for one in (loaded, history, history.space, cm.load_dataset(loaded)):
        assert len(one._repr_html_()) < 2500
        assert one._repr_html_().startswith("<table>")


def test_help_names_classes_without_their_modules():
    for name, each in vars(cm).copy().items():
        if inspect.isfunction(each):
            assert "continual_mm." not in str(inspect.signature(each)), name
    assert str(inspect.signature(cm.train)).startswith(
        "(scenario: Scenario, dataset: Dataset | Mapping[str, Dataset], *, plugins: "
    )
    assert "space=SpaceSettings(), training=Training()" in str(inspect.signature(cm.Scenario))
    assert "split: ArrayLike | None = None" in str(inspect.signature(cm.Dataset.from_arrays))
