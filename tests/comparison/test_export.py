"""Many runs as one small folder: nothing is lost, equal runs give equal bytes."""

import csv
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison.collect import collect
from continual_mm.comparison.compare import compare
from continual_mm.comparison.export import LOCK, export
from continual_mm.comparison.exported import DEFINITIONS, RANKS, ROWS, read_exported
from continual_mm.comparison.tables import as_json
from continual_mm.system.errors import InputError

CELLS = [(1, "audio-video"), (2, "audio-video"), (2, "text-video"), (2, "audio-text")]


@pytest.fixture(scope="module")
def write_run(finished_run):
    """Writes a finished run of two stages whose ranks, ties among them, are drawn."""

    def write(
        out, strategy="naive", seed=0, *, scenario="av_vt", queries=9, luck=0, ranks=None,
        steps=50, weight=1.0, seconds=1.25,
    ):  # fmt: skip
        rng = np.random.default_rng([seed, luck, *f"{scenario}/{strategy}".encode()])
        drawn = {cell: rng.integers(0, 2 * queries - 1, (2, queries)) / 2 for cell in CELLS}
        if strategy == "joint":
            drawn.pop((1, "audio-video"))
        return finished_run(
            out, strategy, seed, ranks=ranks or drawn, scenario=scenario,
            settings={"training": {"steps": steps}}, protection={"ewc": {"weight": weight}},
            seconds=seconds, memory_bytes=7, memory_items=3, steps=100,
        )  # fmt: skip

    return write


@pytest.fixture
def runs(tmp_path, write_run):
    out = tmp_path / "runs"
    for strategy in ("naive", "ewc", "joint"):
        for seed in range(3):
            write_run(out, strategy, seed)
    write_run(out, "naive", scenario="vt_at")
    write_run(out, "ewc", scenario="vt_at", weight=2.0)
    return out


def contents(folder):
    files = sorted(path for path in folder.iterdir() if path.name != LOCK)
    return {path.name: path.read_bytes() for path in files}


def table(*folders):
    return as_json(compare(folders))


def refusal(*given, to):
    with pytest.raises(InputError) as caught:
        export(given, to)
    return str(caught.value)


def test_exports_give_the_tables_of_the_runs_also_together_with_run_folders(runs, tmp_path):
    whole = table(runs)
    export([runs], tmp_path / "small")
    assert sorted(contents(tmp_path / "small")) == [DEFINITIONS, RANKS, ROWS]
    assert table(tmp_path / "small") == whole
    export([runs / "av_vt"], tmp_path / "one")
    export([runs / "vt_at" / "ewc"], tmp_path / "two")
    assert table(tmp_path / "one", tmp_path / "two", runs / "vt_at" / "naive") == whole


def test_every_number_of_a_run_is_read_back(runs, tmp_path):
    export([runs], tmp_path / "small")
    first = {(r.scenario, r.strategy, r.seed): r for r in collect([runs])[0]}
    found = {(r.scenario, r.strategy, r.seed): r for r in collect([tmp_path / "small"])[0]}
    assert first.keys() == found.keys()
    for key, run in first.items():
        other = found[key]
        assert other.folder == tmp_path / "small" / key[0] / key[1] / f"seed-{key[2]}"
        assert (run.task, run.protection, run.pairs) == (other.task, other.protection, other.pairs)
        assert (run.seconds, run.steps, run.memory_items) == (other.seconds, 100, 3)
        assert run.ranked.keys() == other.ranked.keys()
        for cell, ranked in run.ranked.items():
            np.testing.assert_array_equal(ranked.rows, other.ranked[cell].rows)
            np.testing.assert_array_equal(ranked.ranks, other.ranked[cell].ranks)


def test_equal_runs_give_equal_bytes_in_whatever_order_they_come(runs, tmp_path):
    export([runs], tmp_path / "once")
    for part in ("vt_at", "av_vt/joint", "av_vt/naive", "av_vt"):
        export([runs / part], tmp_path / "bit by bit")
    assert contents(tmp_path / "bit by bit") == contents(tmp_path / "once")


def test_a_rank_takes_less_than_two_bytes(tmp_path, write_run):
    for seed in range(5):
        write_run(tmp_path / "runs", seed=seed, queries=400)
    export([tmp_path / "runs"], tmp_path / "small")
    size = sum(map(len, contents(tmp_path / "small").values()))
    assert size < 2 * 5 * 8 * 400 + 6000


def test_rows_have_recalls_in_percent_and_what_joint_training_has_more(tmp_path, write_run):
    def found(hits):
        return np.tile(np.where(np.arange(4) < hits, 0.0, 2.0), (2, 1))

    emergent = {(2, "audio-text"): found(0)}
    naive = {
        (1, "audio-video"): found(4),
        (2, "audio-video"): found(1),
        (2, "text-video"): found(2),
    }
    joint = {(2, "audio-video"): found(4), (2, "text-video"): found(3)}
    write_run(tmp_path, ranks=naive | emergent)
    write_run(tmp_path, "joint", ranks=joint | emergent)
    export([tmp_path / "av_vt"], tmp_path / "small")
    with (tmp_path / "small" / ROWS).open(encoding="utf-8", newline="") as stream:
        rows = {row["strategy"]: row for row in csv.DictReader(stream)}
    percent = {k.removesuffix("_percent"): v for k, v in rows["naive"].items() if "percent" in k}
    assert percent == {
        "harmonic_mean": "33.333", "old_pairs": "25.000", "new_pairs": "50.000",
        "emergent_pairs": "0.000", "forgetting": "75.000", "retention": "0.000",
        "intransigence": "25.000",
    }  # fmt: skip
    assert rows["joint"]["intransigence_percent"] == ""
    assert rows["joint"]["memory_bytes"] == "7"


def test_earlier_runs_and_other_files_are_kept_and_the_same_run_counts_once(
    runs, tmp_path, write_run
):
    small = tmp_path / "small"
    small.mkdir()
    (small / "README.md").write_text("mine", encoding="utf-8")
    merged = export([runs / "av_vt" / "naive"], small)
    assert (len(merged.runs), merged.added, merged.replaced) == (3, 3, 0)
    write_run(tmp_path / "again", "naive", 1, seconds=99.0)
    merged = export([tmp_path / "again", runs / "av_vt" / "ewc", small], small)
    assert (len(merged.runs), merged.added, merged.replaced) == (6, 3, 0)
    assert {run.seconds for run in collect([small])[0]} == {1.25}
    assert (small / "README.md").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("change", "expected", "left"),
    [
        ({"luck": 1}, "seed 1 of strategy 'ewc' is also in", 9),
        ({"weight": 3.0}, "ewc.weight differ", 7),
        ({"steps": 60}, "scenario.training.steps differ", 1),
    ],
)
def test_a_run_that_does_not_go_with_the_others_replaces_them_only_by_force(
    runs, tmp_path, write_run, change, expected, left
):
    small = tmp_path / "small"
    export([runs / "av_vt"], small)
    before = contents(small)
    folder = write_run(tmp_path / "other", "ewc", 1, **change)
    message = refusal(tmp_path / "other", to=small)
    assert message.startswith(str(folder))
    assert expected in message
    assert "--force" in message
    assert contents(small) == before
    merged = export([tmp_path / "other"], small, force=True)
    assert (len(merged.runs), merged.added) == (left, 0)
    (kept,) = (run for run in merged.runs if run.strategy == "ewc" and run.seed == 1)
    assert kept.folder == folder


def test_new_runs_that_contradict_each_other_are_refused_even_by_force(tmp_path, write_run):
    first, second = tmp_path / "first", tmp_path / "second"
    write_run(first)
    write_run(second, luck=1)
    with pytest.raises(InputError, match="seed 0 of strategy 'naive' is also in"):
        export([first, second], tmp_path / "small", force=True)
    assert not (tmp_path / "small").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from continual_mm.comparison.export import export
def count(event, given):
    if event == "os.rename" and Path(given[1]).name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
export([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def export_killed_before(name, runs, to):
    """Export in a process that is killed when the file is to take its place."""
    command = [sys.executable, "-c", KILLED, str(runs), str(to), name]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", [RANKS, DEFINITIONS, ROWS])
def test_a_process_killed_between_two_files_leaves_what_was_there_before(runs, tmp_path, name):
    small = tmp_path / "small"
    export([runs / "av_vt" / "naive"], small)
    before = table(small)
    export_killed_before(name, runs, small)
    assert table(small) == before
    assert (len(export([runs], small).runs), table(small)) == (11, table(runs))
    assert sorted(contents(small)) == [DEFINITIONS, RANKS, ROWS]
    (small / ROWS).write_text(without_last_row(small), encoding="utf-8")
    with pytest.raises(InputError, match=r"not all of runs\.csv, .* have vt_at/"):
        compare([small])


def test_a_first_export_that_was_killed_is_begun_anew(runs, tmp_path):
    export_killed_before(ROWS, runs, tmp_path / "small")
    with pytest.raises(InputError, match="cannot be read"):
        compare([tmp_path / "small"])
    assert export([runs], tmp_path / "small").added == 11
    assert table(tmp_path / "small") == table(runs)


def test_exports_at_the_same_time_lose_no_run(tmp_path, write_run):
    small = tmp_path / "small"
    folders = [write_run(tmp_path / f"{seed}", seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(len(folders)) as pool:
        list(pool.map(lambda folder: export([folder], small), folders))
    assert [run.seed for run in read_exported(small)] == list(range(8))


def test_a_folder_is_read_whole_while_runs_are_added_to_it(tmp_path, write_run):
    small = tmp_path / "small"
    folders = [write_run(tmp_path / f"{seed}", seed=seed) for seed in range(12)]
    export(folders[:1], small)
    seen = set()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: [export([folder], small) for folder in folders])
        while not done.done():
            seen.add(len(read_exported(small)))
        done.result()
    assert seen <= set(range(1, 13))
    assert len(read_exported(small)) == 12


def without_last_row(small):
    return "".join((small / ROWS).read_text(encoding="utf-8").splitlines(keepends=True)[:-1])


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def drop_rows(path, start):
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(start)))


def replacing(old, new):
    def replace(path):
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    return replace


class Trap:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize(
    ("file", "damage", "expected"),
    [
        (RANKS, cut, "or is cut short"),
        (RANKS, Path.unlink, "cannot be opened"),
        (ROWS, Path.unlink, "cannot be read"),
        (DEFINITIONS, cut, "is damaged"),
        (ROWS, replacing("seed,", "sead,"), "name the columns"),
        (ROWS, lambda path: drop_rows(path, "av_vt,ewc,2"), "have av_vt/ewc/seed-2"),
        (ROWS, lambda path: drop_rows(path, ("av_vt,", "vt_at,")), "have av_vt/ewc"),
        (ROWS, lambda path: path.write_bytes(path.read_bytes()[:-9]), "row 11"),
        (ROWS, lambda path: path.write_bytes(path.read_bytes() + b"a,b\n"), "row 12"),
        (ROWS, replacing("av_vt,ewc,0", "av_vt,ewc,7"), "have av_vt/ewc/seed-0, av_vt/ewc/seed-7"),
        (DEFINITIONS, replacing('"name": "av_vt"', '"name": "other"'), "have av_vt/ewc"),
    ],
)
def test_damage_is_refused_with_its_place(runs, tmp_path, file, damage, expected):
    small = tmp_path / "small"
    export([runs], small)
    damage(small / file)
    with pytest.raises(InputError) as caught:
        compare([small])
    message = str(caught.value)
    assert message.startswith(str(small))
    assert expected in message
    left = contents(small)
    assert refusal(runs, to=small).startswith(str(small))
    assert contents(small) == left


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ranks/av_vt/ewc", np.zeros((3, 5), np.uint8), "cannot reshape"),
        ("ranks/av_vt/ewc", np.zeros((3, 73), np.uint8), "more ranks than there are queries"),
        ("ranks/av_vt/ewc", np.full((3, 72), 18, np.uint8), "not one rank for each row"),
        ("ranks/av_vt/ewc", np.full((3, 72), "x"), "Cannot cast"),
        ("ranks/av_vt/ewc", None, "lacks 'ranks/av_vt/ewc'"),
        ("rows/av_vt/audio-video", np.arange(8), "more ranks than there are queries"),
        ("seeds/av_vt/ewc", np.array([Trap()] * 3), "pickled Python objects"),
    ],
)
def test_arrays_that_no_export_writes_are_refused_and_nothing_is_run(
    runs, tmp_path, monkeypatch, replace_array, name, value, expected
):
    monkeypatch.chdir(tmp_path)
    export([runs], tmp_path / "small")
    replace_array(tmp_path / "small" / RANKS, name, value)
    with pytest.raises(InputError) as caught:
        compare([tmp_path / "small"])
    assert str(caught.value).startswith(str(tmp_path / "small" / RANKS))
    assert expected in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["../../outside", "/etc", "a/b"])
def test_names_in_an_export_lead_to_no_other_folder(runs, tmp_path, name):
    small = tmp_path / "deep" / "small"
    export([runs / "vt_at"], small)
    replacing("vt_at", name)(small / ROWS)
    replacing('"vt_at"', f'"{name}"')(small / DEFINITIONS)
    arrays = {key.replace("vt_at", name): each for key, each in np.load(small / RANKS).items()}
    np.savez(small / RANKS, **arrays)
    before = sorted(tmp_path.rglob("*"))
    export([small], tmp_path / "again")
    assert sorted(contents(tmp_path / "again")) == [DEFINITIONS, RANKS, ROWS]
    after = [path for path in sorted(tmp_path.rglob("*")) if "again" not in path.parts]
    assert after == before


def test_the_command_says_how_many_runs_are_there_now(runs, tmp_path, typed):
    small = tmp_path / "small"
    assert "11 runs, 11 of them new" in typed("export", runs, "--to", small).out
    assert "vt_at: R@1 in %" in typed("compare", small).out


def test_two_values_of_a_number_are_two_rows_wherever_they_are_written(tmp_path, write_run, typed):
    for weight in (1.0, 10.0):
        out = tmp_path / f"{weight:g}"
        for seed in range(2):
            write_run(out, "ewc", seed, weight=weight, luck=int(weight))
            write_run(out, "naive", seed)
    both, small = (tmp_path / "1", tmp_path / "10"), tmp_path / "small"
    names = {"naive", "ewc weight=1", "ewc weight=10"}
    rows = json.loads(table(*both))["rows"]
    assert {row["strategy"] for row in rows} == names
    assert {row["seeds"] for row in rows} == {2}
    assert all(name in typed("compare", *both, "--format", "latex").out for name in names)
    export(both, small)
    assert table(small) == table(*both)
    with (small / ROWS).open(encoding="utf-8", newline="") as stream:
        assert {row["strategy"] for row in csv.DictReader(stream)} == names
    export([small], tmp_path / "again")
    assert contents(tmp_path / "again") == contents(small)
    # A difference is to the one that is named.
    (compared,) = compare(both, baseline="ewc weight=1").reports.values()
    differences = {row.strategy: row.difference is not None for row in compared.rows}
    assert differences == {name: name != "ewc weight=1" for name in names}
    note = next(note for note in compare(both, baseline="ewc").notes if "baseline" in note)
    assert "name one of ewc weight=1, ewc weight=10" in note


def test_a_second_value_is_added_to_an_export_together_with_the_first(tmp_path, write_run):
    one, ten, small = tmp_path / "one", tmp_path / "ten", tmp_path / "small"
    write_run(one, "ewc", weight=1.0)
    write_run(ten, "ewc", weight=10.0, luck=1)
    export([one], small)
    assert "or export both folders at once" in refusal(ten, to=small)
    merged = export([small, ten], small)
    assert (len(merged.runs), merged.added, merged.replaced) == (2, 1, 0)
    merged = export([ten], small, force=True)
    assert (len(merged.runs), merged.added, merged.replaced) == (2, 0, 0)
    write_run(tmp_path / "three", "ewc", weight=3.0, luck=3)
    merged = export([tmp_path / "three"], small, force=True)
    assert (len(merged.runs), merged.replaced) == (1, 2)
