"""The main job as a user types it: run, stop, go on, compare, look."""

import json
from pathlib import Path

import numpy as np
import pytest

from continual_mm.cli import app as cli
from continual_mm.comparison.compare import compare
from continual_mm.comparison.figure import draw
from continual_mm.data.pack import write_pack

SCENARIO = """
description = "Two of three, then the third."
dataset = "{pack}"
[space]
dim = 16
clusters = 4
[training]
steps = 6
batch_size = 16
learning_rate = 1e-2
[[stage]]
add = ["{first}", "{second}"]
[[stage]]
add = ["{third}"]
pairs = ["{first}-{third}"]
"""


def typed(*arguments):
    """Type a command; gives its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return caught.value.code


@pytest.fixture
def scenario(tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((90, 5))
    arrays = {name: shared @ rng.standard_normal((5, 6)) for name in ("depth", "touch", "smell")}
    ids = np.array([f"item{row}" for row in range(90)])
    write_pack(tmp_path / "mine.npz", {**arrays, "ids": ids, "split": np.repeat([0, 1, 2], 30)})
    text = SCENARIO.format(pack="mine.npz", first="depth", second="touch", third="smell")
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def test_a_scenario_of_ones_own_is_run_and_compared(scenario, tmp_path, capsys):
    out = str(tmp_path / "runs")
    strategies = ["--strategy", "naive", "--strategy", "replay_transport", "--strategy", "joint"]
    settings = ["--set", "replay.rows=8", "--set", "transport.rows=8", "--set", "memory.items=12"]
    assert typed("run", str(scenario), *strategies, *settings, "--seeds", "2", "--out", out) == 0
    assert "stage 2: R@1" in capsys.readouterr().err
    assert typed("compare", out, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["strategy"]: row for row in found["rows"]}
    assert set(rows) == {"naive", "replay_transport", "joint"}
    for row in rows.values():
        assert row["seeds"] == 2
        assert row["old_pairs"]["low"] <= row["old_pairs"]["mean"] <= row["old_pairs"]["high"]
    assert rows["joint"]["forgetting"] is None
    assert rows["replay_transport"]["memory_bytes"] > 0 == rows["naive"]["memory_bytes"]
    assert typed("compare", out) == 0
    assert "harmonic mean" in capsys.readouterr().out
    draw(compare([Path(out)]), "mine", tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    events = list((tmp_path / "runs").rglob("events.out.*"))
    assert len(events) == 6


def test_the_means_that_are_compared_are_those_in_scores_json(scenario, tmp_path, capsys):
    out = tmp_path / "runs"
    assert typed("run", str(scenario), "--out", str(out)) == 0
    scores = json.loads((out / "mine" / "naive" / "seed-0" / "scores.json").read_text())
    last = [e for e in scores["evaluations"] if e["stage"] == 2 and e["split"] == "test"]
    capsys.readouterr()
    assert typed("compare", str(out), "--format", "json") == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    for kind, pair in (("old_pairs", "depth-touch"), ("new_pairs", "depth-smell")):
        recalls = [e["recall@1"] for e in last if e["pair"] == pair]
        assert row[kind]["mean"] == pytest.approx(np.mean(recalls))


def test_the_same_folder_refuses_other_settings(scenario, tmp_path, capsys):
    out = ["--out", str(tmp_path / "runs")]
    assert typed("run", str(scenario), *out) == 0
    assert typed("run", str(scenario), *out, "--set", "training.steps=7") == 2
    assert "training.steps was 6, is 7" in capsys.readouterr().err


def test_a_pack_with_a_number_that_is_not_finite_is_refused_with_its_row(tmp_path, capsys):
    values = np.ones((6, 3))
    values[4, 1] = np.nan
    arrays = {"depth": values, "touch": np.ones((6, 2)), "smell": np.ones((6, 2))}
    ids, split = np.array(list("abcdef")), np.array([0, 0, 1, 1, 2, 2])
    write_pack(tmp_path / "bad.npz", {**arrays, "ids": ids, "split": split})
    file = tmp_path / "bad.toml"
    text = SCENARIO.format(pack="bad.npz", first="depth", second="touch", third="smell")
    file.write_text(text)
    assert typed("run", str(file), "--out", str(tmp_path / "runs")) == 2
    told = capsys.readouterr().err
    assert "depth" in told
    assert "4" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("strategy", ["naive", "replay", "transport", "joint"])
def test_real_features_run_too(strategy, test_data, tmp_path, capsys):
    """GRID: lips, voice and words of 800 spoken sentences."""
    pack = test_data / "grid_s1_dev.npz"
    settings = ["--set", f"dataset={pack}", "--set", "training.steps=3", "--out", str(tmp_path)]
    assert typed("run", "av_vt", "--strategy", strategy, *settings) == 0
    capsys.readouterr()
    assert typed("compare", str(tmp_path), "--format", "json", "--baseline", strategy) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert 0 <= row["harmonic_mean"]["mean"] <= 1
