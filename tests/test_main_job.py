"""The main job as a user types it: run, stop, go on, compare, look."""

import json

import numpy as np
import pytest

from continual_mm.comparison.compare import compare
from continual_mm.comparison.figure import draw

SCENARIO = """
description = "Two of three, then the third."
dataset = "mine.npz"
[space]
dim = 16
clusters = 4
[training]
steps = 6
batch_size = 16
learning_rate = 1e-2
[[stage]]
add = ["depth", "touch"]
[[stage]]
add = ["smell"]
pairs = ["depth-smell"]
"""


@pytest.fixture
def scenario(tmp_path, written):
    written(tmp_path / "mine.npz", ("depth", "touch", "smell"))
    file = tmp_path / "mine.toml"
    file.write_text(SCENARIO)
    return file


def test_a_scenario_of_ones_own_is_run_and_compared(scenario, tmp_path, typed):
    out = tmp_path / "runs"
    strategies = ["--strategy", "naive", "--strategy", "replay_transport", "--strategy", "joint"]
    settings = ["--set", "replay.rows=8", "--set", "transport.rows=8", "--set", "memory.items=12"]
    ran = typed("run", scenario, *strategies, *settings, "--seeds", "2", "--out", out)
    assert "stage 2: R@1" in ran.err
    rows = {row["strategy"]: row for row in compared(typed, out)}
    assert set(rows) == {"naive", "replay_transport", "joint"}
    for row in rows.values():
        assert row["seeds"] == 2
        assert row["old_pairs"]["low"] <= row["old_pairs"]["mean"] <= row["old_pairs"]["high"]
    assert rows["joint"]["forgetting"] is None
    assert rows["replay_transport"]["memory_bytes"] > 0 == rows["naive"]["memory_bytes"]
    assert "harmonic mean" in typed("compare", out).out
    draw(compare([out]), "mine", tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.rglob("events.out.*"))) == 6


def compared(typed, out, *options):
    return json.loads(typed("compare", out, "--format", "json", *options).out)["rows"]


def test_the_means_that_are_compared_are_those_in_scores_json(scenario, tmp_path, typed):
    out = tmp_path / "runs"
    assert typed("run", scenario, "--out", out).code == 0
    scores = json.loads((out / "mine" / "naive" / "seed-0" / "scores.json").read_text())
    last = [e for e in scores["evaluations"] if e["stage"] == 2 and e["split"] == "test"]
    (row,) = compared(typed, out)
    for kind, pair in (("old_pairs", "depth-touch"), ("new_pairs", "depth-smell")):
        recalls = [e["recall@1"] for e in last if e["pair"] == pair]
        assert row[kind]["mean"] == pytest.approx(np.mean(recalls))


def test_the_same_folder_refuses_other_settings(scenario, tmp_path, typed):
    command = ["run", scenario, "--out", tmp_path / "runs"]
    assert typed(*command).code == 0
    refused = typed(*command, "--set", "training.steps=7")
    assert refused.code == 2
    assert "training.steps was 6, is 7" in refused.err


def test_a_pack_with_a_number_that_is_not_finite_is_refused_with_its_row(
    scenario, tmp_path, typed, written
):
    values = np.ones((90, 3))
    values[4, 1] = np.nan
    written(tmp_path / "mine.npz", ("touch", "smell"), depth=values)
    refused = typed("run", scenario, "--out", tmp_path / "runs")
    assert refused.code == 2
    assert "depth" in refused.err
    assert "4" in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize("strategy", ["naive", "replay", "transport", "joint"])
def test_real_features_run_too(strategy, test_data, tmp_path, typed):
    """GRID: lips, voice and words of 800 spoken sentences."""
    pack = test_data / "grid_s1_dev.npz"
    settings = ["--set", f"dataset={pack}", "--set", "training.steps=3", "--out", tmp_path]
    assert typed("run", "av_vt", "--strategy", strategy, *settings).code == 0
    (row,) = compared(typed, tmp_path, "--baseline", strategy)
    assert 0 <= row["harmonic_mean"]["mean"] <= 1
