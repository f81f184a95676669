"""Plugins in files: run where the command line names them, and nowhere else."""

import json
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
SCENARIO = """
dataset = "clips.npz"
[space]
dim = 8
clusters = 0
[training]
steps = 6
batch_size = 8
[[stage]]
add = ["video", "audio"]
[[stage]]
add = ["text"]
pairs = ["video-text"]
"""


@pytest.fixture
def here(tmp_path, monkeypatch, written):
    """The page's files and a small scenario in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTINUAL_MM_PLUGIN_FILES", "")
    written(tmp_path / "clips.npz")
    (tmp_path / "small.toml").write_text(SCENARIO, encoding="utf-8")
    found = re.findall(r"<!-- file (\S+) -->\n```\w+\n(.*?)```", PAGE, re.S)
    for name, text in found:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert [name for name, _ in found] == ["keep_weights.py", "keep.toml"]
    return tmp_path


def recalls(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))["evaluations"]


def test_the_plugin_of_the_page_changes_training_in_processes_of_its_own(here, typed):
    options = ("--device", "cpu", "--plugins", "keep_weights.py")
    assert typed("validate", "small.toml", "keep.toml", *options[2:]).code == 0
    strategies = ("--strategy", "keep.toml", "--strategy", "naive")
    words = ("run", "small.toml", *strategies, *options, "--jobs", 2, "--threads", 1)
    assert typed(*words).code == 0
    folder = here / "runs" / "small"
    assert recalls(folder / "keep" / "seed-0") != recalls(folder / "naive" / "seed-0")


def test_a_run_knows_the_file_that_it_was_trained_by(here, typed):
    words = ("run", "small.toml", "--strategy", "keep.toml", "--plugins", "keep_weights.py")
    assert typed(*words).code == 0
    path = here / "runs" / "small" / "keep" / "seed-0" / "definition.json"
    known = json.loads(path.read_text(encoding="utf-8"))["strategy"]
    assert list(known["plugins"]) == ["keep_weights.py:KeepWeights"]
    assert len(known["plugin_files"]["keep_weights.py"]) == 64
    assert "finished earlier" in typed(*words).err
    file = here / "keep_weights.py"
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    answer = typed(*words)
    assert answer.code == 2
    assert "plugin_files" in answer.err


def test_a_definition_alone_runs_nothing(here, typed):
    (here / "keep_weights.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    answer = typed("run", "small.toml", "--strategy", "keep.toml")
    assert answer.code == 2
    assert "a strategy names it, but the command line does not; add --plugins" in answer.err


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError"),
        ("x = 1\ny = (", "line 2: SyntaxError"),
        ("import continual_mm as cm\nclass Other(cm.Plugin): pass", "it has Other"),
        ("KeepWeights = 3", "has no plugin 'KeepWeights'; subclass continual_mm.Plugin"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(here, typed, code, problem):
    (here / "keep_weights.py").write_text(code, encoding="utf-8")
    answer = typed("validate", "small.toml", "keep.toml", "--plugins", "keep_weights.py")
    assert answer.code == 2
    assert problem in answer.err


@pytest.mark.parametrize(
    ("file", "problem"),
    [("keep.toml", "is no Python file"), ("no.py", "no.py"), ("deep/keep_weights.py", "same name")],
)
def test_what_is_no_file_of_plugins_is_refused(here, typed, file, problem):
    (here / "deep").mkdir()
    (here / "deep" / "keep_weights.py").write_text("", encoding="utf-8")
    files = ("--plugins", "keep_weights.py", "--plugins", file)
    answer = typed("validate", "small.toml", *files)
    assert answer.code == 2
    assert problem in answer.err
