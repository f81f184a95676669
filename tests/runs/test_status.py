"""How far runs are: finished, going on, stopped, failed and damaged ones."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from continual_mm.runs.status import as_json, as_rows, statuses
from continual_mm.system.errors import InputError
from continual_mm.system.files import LOCK, locked

ROOT = Path(__file__).parents[2]
PAIRS = {
    "audio-video": {"birth": 1, "role": "old"},
    "text-video": {"birth": 2, "role": "new"},
    "audio-text": {"birth": 2, "role": "emergent"},
}
AFTER = {
    1: {"audio-video": (0.5, 0.7)},
    2: {"audio-video": (0.3, 0.5), "text-video": (0.6, 0.6), "audio-text": (0.0, 0.2)},
}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def checkpoint(folder, name, seconds):
    notes = {"seconds": seconds, "learned": 1, "scores": [], "geometry": []}
    space = {"settings": {}, "seed": 0, "modalities": [], "towers": {}}
    state = {"format": 2, "stage": 1, "space": space, "sha256": {}, "notes": notes}
    write_json(folder / "checkpoints" / name / "state.json", state)


def begin(out, strategy="naive", seed=0):
    """A run before its first checkpoint."""
    folder = out / "av_vt" / strategy / f"seed-{seed}"
    definition = {
        "scenario": {"name": "av_vt", "stages": [{"add": ["video", "audio"]}, {"add": ["text"]}]},
        "strategy": {"name": strategy, "joint": False},
        "data": {"name": "mine"},
        "seed": seed,
    }
    write_json(folder / "definition.json", definition)
    return folder


def learn(folder, stage):
    """Finish a stage, and the run with the second."""
    evaluations = [
        {
            "stage": number, "final": True, "split": split, "pair": pair, "direction": direction,
            "chance": 0.1, "recall@1": recall if split == "test" else 1.0,
        }
        for number in range(1, stage + 1)
        for split in ("validation", "test")
        for pair, both in AFTER[number].items()
        for direction, recall in zip(("to", "fro"), both, strict=True)
    ]  # fmt: skip
    stages = [{"added": ["video", "audio"]}, {"added": ["text"]}]
    scores = {"stages": stages, "pairs": PAIRS, "evaluations": evaluations}
    write_json(folder / "scores.json", scores)
    checkpoint(folder, f"stage-{stage}", 10.0 * stage)
    if stage == 2:
        write_json(folder / "cost.json", {"seconds": 21.5, "memory_bytes": 0})
    return folder


def age(folder, seconds):
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_finished_run_has_its_recalls_and_their_harmonic_mean(tmp_path):
    folder = learn(begin(tmp_path, seed=3), 2)
    (found,) = statuses([tmp_path])
    assert (found.folder, found.state, found.error) == (folder, "finished", "")
    assert (found.scenario, found.strategy, found.seed) == ("av_vt", "naive", 3)
    assert (found.stage, found.step, found.stages) == (2, None, 2)
    known = {"audio-video": 0.4, "text-video": 0.6, "audio-text": 0.1}
    assert found.recalls == pytest.approx(known)
    assert found.harmonic_mean == pytest.approx(2 * 0.4 * 0.6 / (0.4 + 0.6))
    assert found.seconds == 21.5
    assert time.time() - found.written < 60
    _, (cells,) = as_rows([found])
    assert cells[:5] == ("av_vt", "naive", "3", "harmonic mean 48.0", "22")
    assert cells[-1] == "finished"


def test_a_running_run_is_distinguished_from_one_that_was_killed(tmp_path):
    going = learn(begin(tmp_path, "going"), 1)
    new = begin(tmp_path, "new")
    killed = learn(begin(tmp_path, "killed"), 1)
    (killed / LOCK).touch()
    age(killed, 90)
    with locked(going / LOCK), locked(new / LOCK):
        first, second, third = found = statuses([tmp_path])
    assert [one.state for one in found] == ["running", "stopped", "running"]
    assert [one.stage for one in found] == [1, 1, 0]
    assert first.recalls == {"audio-video": pytest.approx(0.6)}
    assert (first.harmonic_mean, first.seconds, third.seconds) == (None, 10.0, None)
    assert second.written == pytest.approx(time.time() - 90, abs=5)
    cells = as_rows(found)[1]
    assert [row[3] for row in cells] == ["audio-video 60.0", "audio-video 60.0", "-"]
    assert [row[-1] for row in cells] == [
        "stage 1 of 2, running", "stage 1 of 2, stopped", "stage 0 of 2, running",
    ]  # fmt: skip


def test_the_run_that_a_scenario_starts_from_is_a_stage_more(tmp_path):
    folder = begin(tmp_path)
    definition = json.loads((folder / "definition.json").read_text())
    definition["scenario"]["start"] = "0123abcd"
    write_json(folder / "definition.json", definition)
    assert statuses([folder])[0].stages == 3


@pytest.mark.parametrize(
    ("names", "stage", "step", "shown"),
    [
        (["stage-1", "stage-2-step-90", "stage-2-step-300"], 2, 300, "stage 2, step 300, stopped"),
        (["stage-1-step-5"], 1, 5, "stage 1, step 5, stopped"),
        (["stage-1", "stage-1-step-300"], 1, None, "stage 1 of 2, stopped"),
        (["stage-10", "stage-9", "stage-x", ".stage-11-abc"], 10, None, "stage 10 of 2, stopped"),
    ],
)
def test_the_newest_checkpoint_counts_also_inside_a_stage(tmp_path, names, stage, step, shown):
    folder = begin(tmp_path)
    for name in names:
        checkpoint(folder, name, 7.0)
    (found,) = statuses([folder])
    assert (found.stage, found.step, found.seconds) == (stage, step, 7.0)
    assert as_rows([found])[1][0][-1] == shown


def test_a_failed_run_says_why_until_it_is_finished(tmp_path):
    folder = learn(begin(tmp_path), 1)
    write_json(folder / "failure.json", {"error": "no space left", "when": "2020-01-01"})
    (found,) = statuses([tmp_path])
    assert (found.state, found.error, found.stage) == ("failed", "no space left", 1)
    assert as_rows([found])[1][0][-1] == "stage 1 of 2, failed: no space left"
    learn(folder, 2)
    assert statuses([tmp_path])[0].state == "finished"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("definition.json", "{"),
        ("scores.json", '{"stages": []}'),
        ("cost.json", '{"seconds": "long"}'),
        ("scores.json", None),
    ],
)
def test_a_damaged_run_is_shown_beside_the_others(tmp_path, file, text):
    bad = learn(begin(tmp_path, "bad"), 2)
    learn(begin(tmp_path, "good"), 2)
    if text is None:
        (bad / file).unlink()
    else:
        (bad / file).write_text(text)
    by_folder = {found.folder: found for found in statuses([tmp_path])}
    good, damaged = by_folder.pop(tmp_path / "av_vt" / "good" / "seed-0"), by_folder.pop(bad)
    assert (good.state, damaged.state) == ("finished", "damaged")
    assert damaged.error.startswith(f"{bad / file}: ")
    assert damaged.stage == 2
    assert as_rows([damaged])[1][0][-1] == f"damaged: {damaged.error}"


def test_json_has_everything_and_names_the_time_zone(tmp_path):
    age(learn(begin(tmp_path), 1), time.time() - 1_000_000_000)
    begin(tmp_path, "other")
    (first, second) = json.loads(as_json(statuses([tmp_path])))
    assert first["written"] == "2001-09-09T01:46:40+00:00"
    assert first["folder"] == str(tmp_path / "av_vt" / "naive" / "seed-0")
    assert (first["state"], first["stage"], first["stages"]) == ("stopped", 1, 2)
    assert first["recalls"] == {"audio-video": 0.6}
    assert (second["strategy"], second["harmonic_mean"]) == ("other", None)


def test_a_folder_that_is_missing_is_refused_and_one_without_runs_is_empty(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        statuses([tmp_path / "nowhere"])
    assert statuses([tmp_path]) == []


def test_a_hundred_runs_are_listed_in_half_a_second_without_torch(tmp_path):
    for seed in range(100):
        learn(begin(tmp_path, seed=seed), 1 + seed % 2)

    # Processor time, the best of three, for the machine may be busy with other things.
    def seconds():
        used = getrusage(RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken = []
    for _ in range(3):
        before = seconds()
        command = [sys.executable, "-m", "continual_mm", "status", str(tmp_path)]
        shown = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
        taken.append(seconds() - before)
    assert len(shown.stdout.splitlines()) == 101
    assert min(taken) < 0.5


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    folders = [learn(begin(tmp_path / place), 2) for place in ("one", "two")]
    headings, rows = as_rows(statuses([tmp_path / "one", tmp_path / "two"]))
    assert [row[headings.index("folder")] for row in rows] == [str(folder) for folder in folders]
    assert "folder" not in as_rows(statuses([tmp_path / "one"]))[0]
