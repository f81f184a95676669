"""Finding and reading finished runs: what counts, what is left out, what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison.collect import collect, grouped
from continual_mm.system.errors import InputError

RANKS = [[0.0, 0.5, 2.0], [0.0, 1.0, 0.0]]


@pytest.fixture
def write(finished_run):
    """Writes a finished run of one stage and one pair."""

    def write_run(out, strategy="naive", seed=0, *, steps=50, weight=1.0):
        return finished_run(
            out, strategy, seed, ranks={(1, "audio-video"): RANKS}, rows=[3, 5, 8],
            scenario="av", stages=[("video", "audio")],
            pairs={"audio-video": {"birth": 1, "role": "new"}},
            settings={"training": {"steps": steps, "precision": "float32"}},
            protection={"plugins": {"ewc": {"weight": weight}}}, memory_bytes=7,
        )  # fmt: skip

    return write_run


def change(folder, file, *keys, to):
    path = folder / f"{file}.json"
    value = inner = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(value), encoding="utf-8")


def refusal(*folders):
    with pytest.raises(InputError) as caught:
        grouped(collect(folders)[0])
    return str(caught.value)


def test_a_finished_run_is_read_as_it_was_written(tmp_path, write):
    folder = write(tmp_path, "ewc", 4)
    change(folder, "scores", "evaluations", 0, "chance", to=0.2)
    change(folder, "scores", "evaluations", 1, "chance", to=0.4)
    (run,), unfinished = collect([tmp_path])
    assert (run.folder, run.scenario, run.strategy, run.seed) == (folder, "av", "ewc", 4)
    assert (run.memory_bytes, run.seconds, run.joint) == (7, 1.0, False)
    assert run.arrivals == (("video", "audio"),)
    facts = run.pairs["audio-video"]
    assert (facts.birth, facts.role) == (0, "new")
    assert facts.chance == pytest.approx(0.3)
    ranked = run.ranked[0, "audio-video"]
    assert ranked.rows.tolist() == [3, 5, 8]
    assert ranked.ranks.tolist() == RANKS
    assert unfinished == []


def test_a_run_is_found_once_at_any_depth(tmp_path, write, monkeypatch):
    folder = write(tmp_path)
    write(tmp_path, seed=1)
    monkeypatch.chdir(tmp_path)
    assert len(collect([folder])[0]) == 1
    everywhere = [tmp_path, Path("av"), folder, folder.parent, folder / ".." / "seed-1"]
    assert [run.seed for run in collect(everywhere)[0]] == [0, 1]


def test_links_to_other_folders_are_not_followed(tmp_path, write):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write(inside)
    write(outside, seed=1)
    (inside / "av" / "naive" / "seed-1").symlink_to(outside / "av" / "naive" / "seed-1")
    (inside / "loop").symlink_to(inside)
    assert [run.seed for run in collect([inside])[0]] == [0]


def test_an_unfinished_run_is_left_out_and_named(tmp_path, write):
    write(tmp_path)
    folder = write(tmp_path, seed=1)
    (folder / "cost.json").unlink()
    (folder / "scores.json").unlink()
    runs, left_out = collect([tmp_path])
    assert [run.seed for run in runs] == [0]
    assert left_out == [f"1 run is not finished and left out: {folder}"]


@pytest.mark.parametrize(
    "file", ["scores.json", "cost.json", "definition.json", "ranks/stage-1.npz"]
)
def test_a_damaged_run_is_left_out_with_its_damage_and_the_others_are_compared(
    tmp_path, write, file, typed
):
    write(tmp_path)
    damaged = write(tmp_path, seed=1) / file
    damaged.write_bytes(b"{")
    runs, (told,) = collect([tmp_path])
    assert [run.seed for run in runs] == [0]
    assert told.startswith(f"left out: {damaged}: ")
    for words in (["compare", tmp_path], ["export", tmp_path, "--to", tmp_path / "kept"]):
        shown = typed(*words)
        assert shown.code == 0
        assert told in shown.out + shown.err


def test_no_finished_run_is_refused_with_a_remedy(tmp_path, write):
    assert "there is no run in it" in refusal(tmp_path)
    (write(tmp_path) / "cost.json").unlink()
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "no finished run among 1" in message
    assert "an unfinished run goes on" in message
    assert "no such folder" in refusal(tmp_path / "absent")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, write):
    folder = write(tmp_path).parent
    folder.chmod(0)
    try:
        assert str(folder) in refusal(tmp_path)
    finally:
        folder.chmod(0o755)


def test_every_damaged_file_is_named_at_once(tmp_path, write):
    folders = [write(tmp_path, seed=seed) for seed in range(4)]
    (folders[0] / "scores.json").write_text('{"stages": [', encoding="utf-8")
    (folders[1] / "definition.json").write_bytes(b"\xff\xfe")
    (folders[2] / "ranks" / "stage-1.npz").write_bytes(b"PK\x03\x04 and no more")
    (folders[3] / "ranks" / "stage-1.npz").unlink()
    lines = refusal(tmp_path).splitlines()
    damaged = ("scores.json", "definition.json", "ranks/stage-1.npz", "ranks/stage-1.npz")
    for line, folder, file in zip(lines, folders, damaged, strict=True):
        assert line.startswith(str(folder / file))
        assert line.endswith("give the command that made the run again: it makes this anew")


@pytest.mark.parametrize(
    ("file", "keys", "value", "expected"),
    [
        ("scores", ["stages"], [], "stages"),
        ("scores", ["pairs", "audio-video", "birth"], 2, "audio-video is born after the last"),
        ("scores", ["pairs", "audio-video", "role"], "odd", "pairs.audio-video.role"),
        ("scores", ["pairs", "video"], {"birth": 1, "role": "old"}, "not two different modalities"),
        ("scores", ["evaluations"], [], "no test score of audio-video"),
        ("cost", ["seconds"], None, "seconds"),
        ("definition", ["strategy"], {"name": "naive"}, "strategy.joint"),
    ],
)
def test_a_value_that_no_run_writes_is_refused_with_its_place(
    tmp_path, write, file, keys, value, expected
):
    folder = write(tmp_path)
    change(folder, file, *keys, to=value)
    message = refusal(tmp_path)
    assert message.startswith(str(folder / f"{file}.json"))
    assert expected in message


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("audio to video", np.array([0.0, np.nan, 1.0]), "not one rank for each row"),
        ("audio to video", np.array([0.0, 3.0, 1.0]), "not one rank for each row"),
        ("video to audio", np.array([0.0, 1.0]), "same shape"),
        ("video to audio", np.array([1, {}, None], dtype=object), "pickled Python objects"),
        ("video to audio", None, "lacks 'test/audio-video/video to audio'"),
        ("rows", np.array([3.0, 5.0, 8.0]), "Cannot cast"),
    ],
)
def test_ranks_that_make_no_sense_are_refused_and_never_unpickled(
    tmp_path, write, replace_array, column, value, expected
):
    path = write(tmp_path) / "ranks" / "stage-1.npz"
    replace_array(path, f"test/audio-video/{column}", value)
    message = refusal(tmp_path)
    assert message.startswith(str(path))
    assert expected in message


def test_seeds_of_a_strategy_are_sorted_into_it(tmp_path, write):
    for seed in (10, 9, 2):
        write(tmp_path, seed=seed)
    write(tmp_path, "ewc", weight=7.0)
    groups = grouped(collect([tmp_path])[0])
    seeds = {name: [run.seed for run in runs] for name, runs in groups["av"].items()}
    assert seeds == {"ewc": [0], "naive": [2, 9, 10]}


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"steps": 60}, {"av training.steps=50": {"ewc"}, "av training.steps=60": {"ewc"}}),
        ({"weight": 2.5}, {"av": {"ewc weight=1", "ewc weight=2.5"}}),
        ({"seed": 1, "weight": 2.5}, {"av": {"ewc weight=1", "ewc weight=2.5"}}),
        ({"seed": 1}, {"av": {"ewc"}}),
        ({}, {"av": {"ewc"}}),
    ],
)
def test_runs_of_one_name_are_named_by_what_differs_in_their_definitions(
    tmp_path, write, second, expected
):
    folders = [write(tmp_path / "first", "ewc"), write(tmp_path / "second", "ewc", **second)]
    for places in (folders, folders[::-1]):
        groups = grouped(collect(places)[0])
        assert {name: set(strategies) for name, strategies in groups.items()} == expected
    runs = [run for strategies in groups.values() for each in strategies.values() for run in each]
    assert len(runs) == (2 if second else 1)  # the same run in two folders counts once


def test_a_name_says_which_plugins_are_there_and_what_a_file_leaves_out(tmp_path, write):
    plugins = {
        "one": {"ewc": {"weight": 1.0}},
        "two": {"ewc": {}, "rest": {}},
        "three": {"ewc": {"weight": 1.0}, "replay": {"rows": 8}},
    }
    for place, given in plugins.items():
        change(write(tmp_path / place, "mine"), "definition", "strategy", "plugins", to=given)
    groups = grouped(collect([tmp_path])[0])
    assert set(groups["av"]) == {
        "mine ewc.weight=1 without replay without rest",
        "mine ewc.weight=default without replay with rest",
        "mine ewc.weight=1 with replay replay.rows=8 without rest",
    }


def test_definitions_that_differ_in_too_much_for_a_name_are_named_by_their_folders(tmp_path, write):
    for number in (0, 1):
        many = {"ewc": {f"key{place}": number for place in range(9)}}
        change(write(tmp_path / f"{number}", "mine"), "definition", "strategy", "plugins", to=many)
    assert set(grouped(collect([tmp_path])[0])["av"]) == {
        f"mine ({tmp_path / number / 'av' / 'mine'})" for number in ("0", "1")
    }


def test_one_seed_with_other_numbers_is_no_other_run(tmp_path, write, replace_array):
    folders = [write(tmp_path / "first"), write(tmp_path / "second")]
    path = folders[1] / "ranks" / "stage-1.npz"
    replace_array(path, "test/audio-video/audio to video", np.array([2.0, 2.0, 2.0]))
    message = refusal(*folders)
    assert "seed 0 of strategy 'naive' is also in" in message
    assert all(str(folder) in message for folder in folders)


def test_runs_on_other_data_are_not_pooled(tmp_path, write):
    change(write(tmp_path), "definition", "data", "fingerprint", to="other")
    write(tmp_path, seed=1)
    assert "data.fingerprint differ" in refusal(tmp_path)
