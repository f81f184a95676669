"""Finding and reading finished runs: what counts, what is left out, what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.comparison.collect import collect, grouped
from continual_mm.system.errors import InputError

RANKS = {
    "test/audio-video/rows": np.array([3, 5, 8]),
    "test/audio-video/audio to video": np.array([0.0, 0.5, 2.0]),
    "test/audio-video/video to audio": np.array([0.0, 1.0, 0.0]),
}


def write(
    out: Path, strategy: str = "naive", seed: int = 0, *, steps: int = 50, weight: float = 1.0
) -> Path:
    """A finished run of one stage and one pair."""
    folder = out / "av" / strategy / f"seed-{seed}"
    (folder / "ranks").mkdir(parents=True)
    score = {"stage": 1, "final": True, "split": "test", "pair": "audio-video"}
    files = {
        "definition": {
            "scenario": {"name": "av", "training": {"steps": steps, "precision": "float32"}},
            "strategy": {"name": strategy, "joint": False, "plugins": {"ewc": {"weight": weight}}},
            "data": {"name": "mine", "fingerprint": "f"},
            "seed": seed,
        },
        "scores": {
            "stages": [{"stage": 1, "added": ["video", "audio"]}],
            "pairs": {"audio-video": {"birth": 1, "role": "new"}},
            "evaluations": [
                {**score, "direction": "audio to video", "chance": 0.2},
                {**score, "direction": "video to audio", "chance": 0.4},
                {**score, "direction": "audio to video", "chance": 0.9, "split": "validation"},
            ],
        },
        "cost": {"seconds": 2, "memory_bytes": 7, "device": "cpu"},
    }
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    np.savez(folder / "ranks" / "stage-1.npz", **RANKS)
    return folder


def change(folder: Path, file: str, *keys: str | int, to: Any) -> None:
    path = folder / f"{file}.json"
    value = inner = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(value), encoding="utf-8")


def refusal(*folders: Path) -> str:
    with pytest.raises(InputError) as caught:
        grouped(collect(folders)[0])
    return str(caught.value)


def test_a_finished_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = write(tmp_path, "ewc", 4)
    (run,), unfinished = collect([tmp_path])
    assert (run.folder, run.scenario, run.strategy, run.seed) == (folder, "av", "ewc", 4)
    assert (run.memory_bytes, run.seconds, run.joint) == (7, 2.0, False)
    assert run.arrivals == (("video", "audio"),)
    facts = run.pairs["audio-video"]
    assert (facts.birth, facts.role) == (0, "new")
    assert facts.chance == pytest.approx(0.3)
    ranked = run.ranked[0, "audio-video"]
    assert ranked.rows.tolist() == [3, 5, 8]
    assert ranked.ranks.tolist() == [[0.0, 0.5, 2.0], [0.0, 1.0, 0.0]]
    assert unfinished == []


def test_a_run_is_found_once_from_whatever_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    write(tmp_path, seed=1)
    monkeypatch.chdir(tmp_path)
    assert len(collect([folder])[0]) == 1
    assert len(collect([folder.parent])[0]) == 2
    everywhere = [tmp_path, Path("av"), folder, folder.parent, folder / ".." / "seed-1"]
    assert [run.seed for run in collect(everywhere)[0]] == [0, 1]


def test_links_to_other_folders_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write(inside)
    write(outside, seed=1)
    (inside / "av" / "naive" / "seed-1").symlink_to(outside / "av" / "naive" / "seed-1")
    (inside / "loop").symlink_to(inside)
    assert [run.seed for run in collect([inside])[0]] == [0]


def test_an_unfinished_run_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path)
    folder = write(tmp_path, seed=1)
    (folder / "cost.json").unlink()
    (folder / "scores.json").unlink()
    runs, unfinished = collect([tmp_path])
    assert [run.seed for run in runs] == [0]
    assert unfinished == [folder]


def test_no_finished_run_is_refused_with_the_way_on(tmp_path: Path) -> None:
    assert "there is no run in it" in refusal(tmp_path)
    (write(tmp_path) / "cost.json").unlink()
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "no finished run among 1" in message
    assert "an unfinished run goes on" in message
    assert "no such folder" in refusal(tmp_path / "absent")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path).parent
    folder.chmod(0)
    try:
        assert str(folder) in refusal(tmp_path)
    finally:
        folder.chmod(0o755)


def test_every_damaged_file_is_named_at_once(tmp_path: Path) -> None:
    folders = [write(tmp_path, seed=seed) for seed in range(4)]
    (folders[0] / "scores.json").write_text('{"stages": [', encoding="utf-8")
    (folders[1] / "definition.json").write_bytes(b"\xff\xfe")
    (folders[2] / "ranks" / "stage-1.npz").write_bytes(b"PK\x03\x04 and no more")
    (folders[3] / "ranks" / "stage-1.npz").unlink()
    lines = refusal(tmp_path).splitlines()
    damaged = ("scores.json", "definition.json", "ranks/stage-1.npz", "ranks/stage-1.npz")
    for line, folder, file in zip(lines, folders, damaged, strict=True):
        assert line.startswith(str(folder / file))
        assert line.endswith("remove the run's folder and run it again")


@pytest.mark.parametrize(
    ("file", "keys", "value", "told"),
    [
        ("scores", ["stages"], [], "stages"),
        ("scores", ["pairs", "audio-video", "birth"], 2, "audio-video is born after the last"),
        ("scores", ["pairs", "audio-video", "role"], "odd", "pairs.audio-video.role"),
        ("scores", ["pairs", "video"], {"birth": 1, "role": "old"}, "not two different modalities"),
        ("scores", ["evaluations", 0, "chance"], "0.2", "evaluations.0.chance"),
        ("scores", ["evaluations"], [], "no test score of audio-video"),
        ("cost", ["seconds"], None, "seconds"),
        ("cost", ["memory_bytes"], -1, "memory_bytes"),
        ("definition", ["strategy"], {"name": "naive"}, "strategy.joint"),
        ("definition", ["seed"], "0", "seed"),
    ],
)
def test_a_value_that_no_run_writes_is_refused_with_its_place(
    tmp_path: Path, file: str, keys: list[str | int], value: Any, told: str
) -> None:
    folder = write(tmp_path)
    change(folder, file, *keys, to=value)
    message = refusal(tmp_path)
    assert message.startswith(str(folder / f"{file}.json"))
    assert told in message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("audio to video", np.array([0.0, np.nan, 1.0])),
        ("audio to video", np.array([0.0, -1.0, 1.0])),
        ("video to audio", np.array([0.0, 1.0])),
        ("video to audio", np.array(["a", "b", "c"])),
        ("video to audio", np.array([1, {}, None], dtype=object)),
        ("rows", np.array([3, 8, 5])),
        ("rows", np.array([3.0, 5.0, 8.0])),
    ],
)
def test_ranks_that_make_no_sense_are_refused_and_never_unpickled(
    tmp_path: Path, column: str, value: np.ndarray
) -> None:
    folder = write(tmp_path)
    path = folder / "ranks" / "stage-1.npz"
    np.savez(path, **{**RANKS, f"test/audio-video/{column}": value})
    message = refusal(tmp_path)
    assert message.startswith(str(path))
    assert f"test/audio-video/{column}" in message


def test_a_missing_direction_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "ranks" / "stage-1.npz"
    np.savez(path, **{name: RANKS[name] for name in list(RANKS)[:2]})
    assert "test/audio-video/video to audio" in refusal(tmp_path)


def test_seeds_of_a_strategy_are_sorted_into_it(tmp_path: Path) -> None:
    for seed in (10, 9, 2):
        write(tmp_path, seed=seed)
    write(tmp_path, "ewc", weight=7.0)
    groups = grouped(collect([tmp_path])[0])
    seeds = {name: [run.seed for run in runs] for name, runs in groups["av"].items()}
    assert seeds == {"ewc": [0], "naive": [2, 9, 10]}


def test_scenarios_of_one_name_and_two_definitions_are_not_pooled(tmp_path: Path) -> None:
    first = write(tmp_path / "first")
    second = write(tmp_path / "second", "ewc", steps=60)
    message = refusal(tmp_path)
    assert str(first) in message
    assert str(second) in message
    assert "scenario.training.steps differ" in message
    assert "precision" not in message


def test_runs_on_other_data_are_not_pooled(tmp_path: Path) -> None:
    change(write(tmp_path), "definition", "data", "fingerprint", to="other")
    write(tmp_path, seed=1)
    assert "data.fingerprint differ" in refusal(tmp_path)


def test_seeds_of_a_strategy_with_two_definitions_are_not_pooled(tmp_path: Path) -> None:
    first, second = write(tmp_path, "ewc"), write(tmp_path, "ewc", 1, weight=2.0)
    message = refusal(tmp_path)
    assert str(first) in message
    assert str(second) in message
    assert "plugins.ewc.weight differ" in message


def test_a_seed_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first"), write(tmp_path / "second")
    message = refusal(first, second)
    assert f"seed 0 of strategy 'naive' is also in {first}" in message
    assert message.startswith(str(second))
