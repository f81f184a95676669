"""Protocols side by side: from files to tables, with numbers known by hand."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.comparison import tables as report
from continual_mm.comparison.export import export
from continual_mm.comparison.exported import RANKS, read_exported
from continual_mm.comparison.finished import read_finished
from continual_mm.comparison.latex import protocol_latex
from continual_mm.comparison.protocols import ProtocolRow, compare_protocol
from continual_mm.metrics.bootstrap import interval
from continual_mm.system.errors import InputError

KINDS = {"clips": "retrieval", "tasks": "steps", "names": "classes"}
Series = Mapping[tuple[int, str, str], Any]
"""(1-based stage, protocol, series) -> values."""


def write(
    out: Path,
    strategy: str,
    seed: int,
    found: Series,
    *,
    start: int = 5,
    bugs: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
) -> Path:
    """A finished run of two stages in which protocols found what they are said to have found."""
    folder = out / "s" / strategy / f"seed-{seed}"
    (folder / "ranks").mkdir(parents=True)
    rows, ranks = np.arange(3), np.zeros(3)
    pair = {"test/a-b/rows": rows, "test/a-b/a to b": ranks, "test/a-b/b to a": ranks}
    for stage in (1, 2):
        arrays = dict(pair)
        for (when, protocol, series), values in found.items():
            if when == stage:
                table = np.atleast_2d(np.array(values, dtype=float))
                place = f"protocol/{protocol}/{series}"
                arrays[f"{place}/units"] = np.arange(start, start + table.shape[1])
                arrays[f"{place}/values"] = table
                if groups and protocol == "tasks":
                    arrays[f"{place}/groups"] = np.array(groups)
        np.savez(folder / "ranks" / f"stage-{stage}.npz", **arrays)
    score = {"final": True, "split": "test", "pair": "a-b", "chance": 0.1, "recall@1": 1.0}
    protocols = [{"name": name, "kind": kind} for name, kind in KINDS.items()]
    files = {
        "definition": {
            "scenario": {"name": "s", "protocols": protocols, "space": {"bugs": bugs}},
            "strategy": {"name": strategy, "joint": False},
            "data": {},
            "seed": seed,
        },
        "scores": {
            "stages": [{"added": ["a", "b"]}, {"added": []}],
            "pairs": {"a-b": {"birth": 1, "role": "old"}},
            "evaluations": [{**score, "stage": stage} for stage in (1, 2)],
            "protocols": [{"name": p, "stage": s} for s, p in {(s, p) for s, p, _ in found}],
        },
        "cost": {"seconds": 1.0, "memory_bytes": 0},
    }
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def found(shift: float = 0.0, *, missing: float = math.inf) -> Series:
    """Ranks of six clips, a seventh missing; two videos of a task and one of another; classes."""
    ranks = np.array([0, 0, 2, 4, 9, 20]) + shift
    return {
        (1, "clips", "items"): [*ranks, missing],
        (2, "clips", "items"): [*(ranks + 1), missing],
        (2, "tasks", "videos"): [[1.0, 0.5, 0.0], [0, 0, 1], [1, 2, 3]],
        (2, "tasks", "tasks"): [0.25, 0.75],
        (2, "names", "items"): [[1, 0.5, 0, 1], [3, 3, 3, 8]],
    }


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        write(tmp_path / "runs", "naive", seed, found())
        write(tmp_path / "runs", "late", seed, found(1.0))
    return tmp_path / "runs"


def rows(runs: Path, protocol: str, table: int = 0) -> dict[tuple[int, str], ProtocolRow]:
    compared = compare_protocol([runs], protocol)
    return {(row.stage, row.strategy): row for row in compared.tables[table].rows}


def means(row: ProtocolRow) -> list[float]:
    return [math.nan if each is None else each.mean for each in row.estimates]


def test_measures_are_those_of_the_answers_by_stage_and_strategy(runs: Path) -> None:
    clips = rows(runs, "clips")
    assert list(clips) == [(1, "naive"), (1, "late"), (2, "late"), (2, "naive")]
    assert means(clips[1, "naive"]) == pytest.approx([2 / 7, 4 / 7, 5 / 7, 5.0])
    assert means(clips[1, "late"]) == pytest.approx([0, 3 / 7, 4 / 7, 6.0])
    assert clips[1, "naive"].seeds == (0, 1)
    assert means(rows(runs, "tasks")[2, "naive"]) == pytest.approx([0.375, 2 / 6])
    assert means(rows(runs, "tasks", 1)[2, "naive"]) == [0.5]
    assert means(rows(runs, "names")[2, "naive"]) == pytest.approx([0.625, 0.75])


def test_intervals_are_of_a_bootstrap_over_the_same_queries(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 30, 200).astype(float)
    for strategy, shift in (("naive", 0), ("same", 0), ("late", 5)):
        write(tmp_path, strategy, 0, {(2, "clips", "items"): ranks + shift})
    compared = rows(tmp_path, "clips")
    same, late = compared[2, "same"], compared[2, "late"]
    assert (same.difference.low, same.difference.mean, same.difference.high) == (0, 0, 0)
    own = compared[2, "naive"].estimates
    # An independent bootstrap, whose ends are sure to about one query in 200.
    drawn = ranks[rng.integers(0, 200, (4000, 200))]
    for estimate, values in [(own[2], (drawn < 10).mean(1)), (own[3], np.median(drawn, 1) + 1)]:
        low, high = interval(values)
        width = 0.015 if estimate is own[2] else 1.0
        assert estimate.low == pytest.approx(low, abs=width)
        assert estimate.high == pytest.approx(high, abs=width)
    assert late.difference.mean == (ranks < -4).mean() - (ranks < 1).mean()


@pytest.mark.parametrize("absent", [math.inf, math.nan])
def test_what_was_asked_of_nobody_is_told_in_every_format(tmp_path: Path, absent: float) -> None:
    write(tmp_path, "naive", 0, {(2, "clips", "items"): [0, 1, 2, absent, absent]})
    compared = compare_protocol([tmp_path], "clips")
    told = "s, clips: item to item, 5 queries, 2 of them missing"
    assert f"## {told}" in report.protocol_markdown(compared)
    assert told in protocol_latex(compared)
    (row,) = json.loads(report.protocol_json(compared))["rows"]
    assert (row["queries"], row["missing"]) == (5, 2)
    write(tmp_path / "whole", "naive", 0, {(2, "clips", "items"): [0, 1, 2]})
    assert "missing" not in report.protocol_markdown(
        compare_protocol([tmp_path / "whole"], "clips")
    )


def test_a_median_whose_interval_reaches_the_missing_has_no_upper_end(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, {(2, "clips", "items"): [0, 1, 2, *[math.inf] * 2]})
    (row,) = rows(tmp_path, "clips").values()
    median = row.estimates[3]
    assert (median.mean, median.high) == (3.0, math.inf)
    compared = compare_protocol([tmp_path], "clips")
    (told,) = json.loads(report.protocol_json(compared))["rows"]
    assert told["median_rank"]["high"] is None
    assert "inf]" in report.protocol_markdown(compared)


def test_missing_items_of_reference_mode_are_in_no_median(tmp_path: Path) -> None:
    write(tmp_path, "naive", 0, {(2, "clips", "items"): [0, 1, 2, *[math.nan] * 5]})
    (row,) = rows(tmp_path, "clips").values()
    assert means(row) == [1 / 8, 3 / 8, 3 / 8, 2.0]


def test_where_every_tie_is_listed_the_listed_ranks_are_compared(tmp_path: Path) -> None:
    """Four queries and a missing one; the second lists ranks 0 to 5, the third 4 and 5."""
    items = [[0, 0, 4, 9, math.nan], [0, 5, 5, 9, math.nan]]
    listed = {**found(), (2, "clips", "items"): items}
    listed.pop((1, "clips", "items"))
    write(tmp_path / "runs", "naive", 0, listed, bugs=("two_over_three", "ties_listed_each"))
    (table,) = compare_protocol([tmp_path / "runs"], "clips").tables
    assert table.title == "item to item, every tie listed"
    assert means(table.rows[0]) == pytest.approx([2 / 5, 7 / 5, 10 / 5, 4.5])
    export([tmp_path / "runs"], tmp_path / "small")
    whole, part = (compare_protocol([tmp_path / name], "clips") for name in ("runs", "small"))
    assert report.protocol_json(whole) == report.protocol_json(part)
    assert "s, clips: item to item, every tie listed" in report.protocol_markdown(whole)


def test_an_export_gives_the_same_tables_and_loses_no_number(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write(runs, "gaps", seed, found(seed, missing=math.nan))
    small = tmp_path / "small"
    export([runs], small)
    for protocol in KINDS:
        whole, part = (compare_protocol([place], protocol) for place in (runs, small))
        assert report.protocol_json(whole) == report.protocol_json(part)
        assert report.protocol_markdown(whole) == report.protocol_markdown(part)
    originals = {run.parent.name + run.name: read_finished(run) for run in runs.glob("s/*/*")}
    for copy in read_exported(small):
        judged = originals[copy.folder.parent.name + copy.folder.name].judged
        assert copy.judged.keys() == judged.keys()
        for cell, answers in copy.judged.items():
            np.testing.assert_array_equal(answers.units, judged[cell].units)
            np.testing.assert_array_equal(answers.values, judged[cell].values)
    before = (small / RANKS).read_bytes()
    assert export([runs], small).added == 0
    assert (small / RANKS).read_bytes() == before


def test_tasks_are_told_one_by_one_and_exports_keep_their_names(tmp_path: Path) -> None:
    """Tea's two videos find 1 and 0.5 of their steps, rice's one none; another seed all of it."""
    runs = tmp_path / "runs"
    other = {**found(), (2, "tasks", "videos"): [[1.0, 0.5, 1.0], [0, 0, 1], [1, 2, 3]]}
    for seed, answers in enumerate((found(), other)):
        # Seconds ranked are asked of tasks themselves, which here begin with number 0.
        write(runs, "naive", seed, answers, start=0, groups=("tea & milk", "rice"))
    compared = compare_protocol([runs], "tasks")
    export([runs], tmp_path / "small")
    assert report.protocol_json(compared) == report.protocol_json(
        compare_protocol([tmp_path / "small"], "tasks")
    )
    videos, seconds = json.loads(report.protocol_json(compared))["rows"]
    assert {name: one["mean"] for name, one in videos["tasks"].items()} == {
        "tea & milk": 0.75, "rice": 0.5,
    }  # fmt: skip
    tea = videos["tasks"]["tea & milk"]
    assert (tea["low"], tea["high"]) == (0.5, 1.0)
    # Of rice there is one video, so that only seeds differ.
    assert {videos["tasks"]["rice"][end] for end in ("low", "high")} == {0.0, 1.0}
    assert {name: one["mean"] for name, one in seconds["tasks"].items()} == {
        "tea & milk": 0.25, "rice": 0.75,
    }  # fmt: skip
    plain, listed = (
        report.protocol_markdown(compared),
        report.protocol_markdown(compared, tasks=True),
    )
    assert "rice" not in plain
    assert "### s, tasks: recall in %, stage 2" in listed
    assert "| tea & milk | 75.0 [50.0, 100.0] |" in listed
    assert r"tea \& milk & 75.0" in protocol_latex(compared, tasks=True)
    (row,) = json.loads(report.protocol_json(compare_protocol([runs], "names")))["rows"]
    assert "tasks" not in row


def changed(path: Path, name: str, value: np.ndarray | None) -> None:
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays.pop(name, None)
    np.savez(path, **arrays, **({} if value is None else {name: value}))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("clips/items/values", None, "cannot be read"),
        ("clips/items/units", None, "cannot be read"),
        ("clips/items/values", np.zeros((2, 7)), r"numbers from 0 of shape \(1, 7\)"),
        ("clips/items/values", -np.ones((1, 7)), "numbers from 0"),
        ("clips/items/units", np.zeros(7, int), "no ascending list of queries"),
        ("tasks/videos/values", np.array([["x"] * 3] * 3), "numbers from 0"),
        ("tasks/videos/groups", np.arange(2), "is no list of names"),
    ],
)
def test_damaged_answers_are_refused_with_their_place(
    runs: Path, name: str, value: Any, expected: str
) -> None:
    changed(runs / "s" / "late" / "seed-1" / "ranks" / "stage-2.npz", f"protocol/{name}", value)
    with pytest.raises(InputError, match=expected) as caught:
        compare_protocol([runs], "clips")
    assert f"column 'protocol/{name}'" in str(caught.value)


def test_an_export_that_lost_or_gained_answers_is_refused(runs: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    export([runs], small)
    name = "protocol-values/s/late/clips/items/stage-2"
    with np.load(small / RANKS) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for wrong in ({key: each for key, each in arrays.items() if key != name},
                  {**arrays, name: arrays[name][:1]},
                  {**arrays, name.replace("late", "lost"): arrays[name]}):  # fmt: skip
        np.savez(small / RANKS, **wrong)
        with pytest.raises(InputError, match="protocol-values/s/l"):
            read_exported(small)


def test_runs_that_were_asked_otherwise_are_not_compared(runs: Path, tmp_path: Path) -> None:
    write(runs, "other", 0, found(), start=6)
    with pytest.raises(InputError, match="asked different queries"):
        compare_protocol([runs], "clips")
    with pytest.raises(InputError, match="was asked other queries"):
        export([runs], tmp_path / "small")


def test_a_single_seed_says_nothing_of_others_and_that_is_told(runs: Path) -> None:
    assert compare_protocol([runs], "clips").notes == ()
    write(runs, "alone", 3, found())
    (note,) = compare_protocol([runs], "clips").notes
    assert note == "only one seed of alone; intervals then cover queries, not seeds"


def test_a_protocol_that_no_run_has_is_refused_by_name(runs: Path) -> None:
    with pytest.raises(InputError) as caught:
        compare_protocol([runs], "clip")
    assert str(caught.value) == (
        "--protocol clip: no run was scored by it; did you mean 'clips'? "
        "there are clips, tasks, names"
    )


def test_without_a_baseline_there_is_no_difference_and_a_note(runs: Path) -> None:
    compared = compare_protocol([runs], "clips", baseline="joint")
    assert all(row.difference is None for row in compared.tables[0].rows)
    assert len(compared.notes) == 1
    assert "no finished run of the baseline joint" in compared.notes[0]
