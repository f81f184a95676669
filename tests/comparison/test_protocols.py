"""Protocols side by side: from files to tables, with numbers known by hand."""

import json
import math
import re

import numpy as np
import pytest

from continual_mm.comparison import tables as report
from continual_mm.comparison.export import export
from continual_mm.comparison.exported import RANKS, read_exported
from continual_mm.comparison.latex import as_latex
from continual_mm.comparison.protocols import compare_protocol
from continual_mm.metrics.bootstrap import interval
from continual_mm.runs.finished import read_finished
from continual_mm.system.errors import InputError

KINDS = {"clips": "retrieval", "tasks": "steps", "names": "classes"}


@pytest.fixture
def write(finished_run):
    """Writes a finished run of two stages by what its protocols found."""

    def write_run(out, strategy, seed, found, *, start=5, bugs=(), groups=()):
        answers = {}
        for cell, values in found.items():
            table = np.atleast_2d(np.array(values, dtype=float))
            units = np.arange(start, start + table.shape[1])
            answers[cell] = {"units": units, "values": table}
            if groups and cell[1] == "tasks":
                answers[cell]["groups"] = np.array(groups)
        protocols = [{"name": name, "kind": kind} for name, kind in KINDS.items()]
        settings = {"protocols": protocols, "space": {"bugs": bugs}}
        pairs = {"a-b": {"birth": 1, "role": "old"}}
        ranks = {(stage, "a-b"): np.zeros((2, 3)) for stage in (1, 2)}
        own = {"scenario": "s", "stages": [("a", "b"), ()], "pairs": pairs, "settings": settings}
        return finished_run(out, strategy, seed, ranks=ranks, answers=answers, **own)

    return write_run


def found(shift=0.0, *, missing=math.inf):
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
def runs(tmp_path, write):
    for seed in (0, 1):
        write(tmp_path / "runs", "naive", seed, found())
        write(tmp_path / "runs", "late", seed, found(1.0))
    return tmp_path / "runs"


def rows(runs, protocol, table=0):
    compared = compare_protocol([runs], protocol)
    return {(row.stage, row.strategy): row for row in compared.reports[table].rows}


def markdown(compared, *, tasks=False):
    return report.as_markdown(report.protocol_tables(compared, tasks=tasks), compared.notes)


def means(row):
    return [math.nan if each is None else each.mean for each in row.estimates]


def test_measures_are_those_of_the_answers_by_stage_and_strategy(runs):
    clips = rows(runs, "clips")
    assert list(clips) == [(1, "naive"), (1, "late"), (2, "late"), (2, "naive")]
    assert means(clips[1, "naive"]) == pytest.approx([2 / 7, 4 / 7, 5 / 7, 5.0])
    assert means(clips[1, "late"]) == pytest.approx([0, 3 / 7, 4 / 7, 6.0])
    assert clips[1, "naive"].seeds == (0, 1)
    assert means(rows(runs, "tasks")[2, "naive"]) == pytest.approx([0.375, 2 / 6])
    assert means(rows(runs, "tasks", 1)[2, "naive"]) == [0.5]
    assert means(rows(runs, "names")[2, "naive"]) == pytest.approx([0.625, 0.75])


def test_intervals_are_of_a_bootstrap_over_the_same_queries(tmp_path, write):
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
def test_missing_items_are_counted_in_every_format(tmp_path, write, absent):
    write(tmp_path, "naive", 0, {(2, "clips", "items"): [0, 1, 2, absent, absent]})
    compared = compare_protocol([tmp_path], "clips")
    title = "s, clips: item to item, 5 queries, 2 of them missing"
    assert f"## {title}" in markdown(compared)
    assert title in as_latex(report.protocol_tables(compared))
    (row,) = json.loads(report.protocol_json(compared))["rows"]
    assert (row["queries"], row["missing"]) == (5, 2)
    write(tmp_path / "whole", "naive", 0, {(2, "clips", "items"): [0, 1, 2]})
    assert "missing" not in markdown(compare_protocol([tmp_path / "whole"], "clips"))


def test_a_median_whose_interval_reaches_the_missing_has_no_upper_end(tmp_path, write):
    write(tmp_path, "naive", 0, {(2, "clips", "items"): [0, 1, 2, *[math.inf] * 2]})
    (row,) = rows(tmp_path, "clips").values()
    median = row.estimates[3]
    assert (median.mean, median.high) == (3.0, math.inf)
    compared = compare_protocol([tmp_path], "clips")
    (row,) = json.loads(report.protocol_json(compared))["rows"]
    assert row["median_rank"]["high"] is None
    assert "inf]" in markdown(compared)


def test_where_every_tie_is_listed_the_listed_ranks_are_compared(tmp_path, write):
    """Four queries and a missing one; the second lists ranks 0 to 5, the third 4 and 5."""
    items = [[0, 0, 4, 9, math.nan], [0, 5, 5, 9, math.nan]]
    listed = {**found(), (2, "clips", "items"): items}
    listed.pop((1, "clips", "items"))
    write(tmp_path / "runs", "naive", 0, listed, bugs=("two_over_three", "ties_listed_each"))
    (table,) = compare_protocol([tmp_path / "runs"], "clips").reports
    assert table.title == "item to item, every tie listed"
    assert means(table.rows[0]) == pytest.approx([2 / 5, 7 / 5, 10 / 5, 4.5])
    export([tmp_path / "runs"], tmp_path / "small")
    whole, part = (compare_protocol([tmp_path / name], "clips") for name in ("runs", "small"))
    assert report.protocol_json(whole) == report.protocol_json(part)
    assert "s, clips: item to item, every tie listed" in markdown(whole)


def test_an_export_gives_the_same_tables_and_loses_no_number(runs, write, tmp_path):
    for seed in (0, 1):
        write(runs, "gaps", seed, found(seed, missing=math.nan))
    small = tmp_path / "small"
    export([runs], small)
    for protocol in KINDS:
        whole, part = (compare_protocol([place], protocol) for place in (runs, small))
        assert report.protocol_json(whole) == report.protocol_json(part)
        assert markdown(whole) == markdown(part)
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


def test_tasks_are_told_one_by_one_and_exports_keep_their_names(tmp_path, write):
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
    plain, listed = (markdown(compared), markdown(compared, tasks=True))
    assert "rice" not in plain
    assert "### s, tasks: recall in %, stage 2" in listed
    assert "| tea & milk | 75.0 [50.0, 100.0] |" in listed
    assert r"tea \& milk & 75.0" in as_latex(report.protocol_tables(compared, tasks=True))
    (row,) = json.loads(report.protocol_json(compare_protocol([runs], "names")))["rows"]
    assert "tasks" not in row


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("clips/items/values", None, "lacks 'protocol/clips/items/values'"),
        ("clips/items/units", None, "lacks 'protocol/clips/items/units'"),
        ("clips/items/values", np.zeros((2, 7)), r"'items' is not of shape \(1, 7\)"),
        ("tasks/videos/values", np.array([["x"] * 3] * 3), "Cannot cast"),
    ],
)
def test_a_run_with_damaged_answers_is_left_out(runs, replace_array, name, value, expected):
    file = runs / "s" / "late" / "seed-1" / "ranks" / "stage-2.npz"
    replace_array(file, f"protocol/{name}", value)
    told = [note for note in compare_protocol([runs], "clips").notes if str(file) in note]
    assert len(told) == 1
    assert re.search(expected, told[0])
    with pytest.raises(InputError, match=expected) as caught:
        compare_protocol([file.parents[1]], "clips")
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("value", [None, np.zeros((1, 1, 7))])
def test_an_export_that_lost_answers_is_refused(runs, tmp_path, replace_array, value):
    export([runs], tmp_path)
    replace_array(tmp_path / RANKS, "protocol-values/s/late/clips/items/stage-2", value)
    with pytest.raises(InputError, match=r"ranks\.npz: is damaged"):
        read_exported(tmp_path)


def test_runs_that_were_asked_otherwise_are_not_compared(runs, write, tmp_path):
    write(runs, "other", 0, found(), start=6)
    with pytest.raises(InputError, match="asked different queries"):
        compare_protocol([runs], "clips")
    with pytest.raises(InputError, match="has other test items or queries"):
        export([runs], tmp_path / "small")


def test_a_single_seed_says_nothing_of_others_and_that_is_told(runs, write):
    assert compare_protocol([runs], "clips").notes == ()
    write(runs, "alone", 3, found())
    seeds, note = compare_protocol([runs], "clips").notes
    assert seeds.startswith("seeds differ (alone: 3; ")
    assert note == "only one seed of alone; intervals then cover queries, not seeds"


def test_a_protocol_that_no_run_has_is_refused_by_name(runs):
    with pytest.raises(InputError) as caught:
        compare_protocol([runs], "clip")
    assert str(caught.value) == (
        "--protocol clip: no run was scored by it; did you mean 'clips'? "
        "there are clips, tasks, names"
    )


def test_without_a_baseline_there_is_no_difference_and_a_note(runs):
    compared = compare_protocol([runs], "clips", baseline="joint")
    assert all(row.difference is None for row in compared.reports[0].rows)
    assert len(compared.notes) == 1
    assert "no finished run of the baseline joint" in compared.notes[0]
