"""From run folders to tables, Markdown and JSON, with numbers known by hand."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison import tables as report
from continual_mm.comparison.compare import Comparison, Headline, Row, ScenarioReport, compare
from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.export import export
from continual_mm.system.errors import InputError

MEASURES = (
    *("harmonic_mean", "old_pairs", "new_pairs", "emergent_pairs"),
    *("retention", "forgetting", "intransigence"),
    *("stability_gap", "mixed_recall", "earlier_recall"),
)
SEED_BY_SEED = MEASURES[-3:]


def of(first, second=None, *, queries=4):
    """The first so many of some queries are found in either direction."""
    both = (first, first if second is None else second)
    return [[query < found for query in range(queries)] for found in both]


NAIVE = {
    (1, "audio-video"): of(4),
    (2, "audio-video"): of(1, 3),
    (2, "text-video"): of(3),
    (2, "audio-text"): of(1, 0),
}
JOINT = {(2, "audio-video"): of(4), (2, "text-video"): of(4), (2, "audio-text"): of(2)}


@pytest.fixture
def write(finished_run):
    """Writes a finished run by what it found at rank 0."""

    def write_run(out, strategy, hits, seed=0, **options):
        ranks = {cell: np.where(found, 0.0, 2.0) for cell, found in hits.items()}
        return finished_run(out, strategy, seed, ranks=ranks, **options)

    return write_run


def rows_of(comparison):
    rows = json.loads(report.as_json(comparison))["rows"]
    return {row["strategy"]: row for row in rows}


def table_of(comparison, scenario=""):
    """Headings and cells of the table of a scenario, by default the only one."""
    found = {table.name: table for table in report.scenario_tables(comparison)}
    table = found[scenario] if scenario else next(iter(found.values()))
    return table.headings, table.rows


def markdown(comparison):
    return report.as_markdown(report.scenario_tables(comparison), comparison.notes)


def test_cumulative_training_has_stages_and_is_a_bound_whose_memory_is_not_counted(tmp_path, write):
    write(tmp_path, "naive", NAIVE)
    write(tmp_path, "cumulative", {**NAIVE, (2, "audio-video"): of(2)})
    comparison = compare([tmp_path])
    bounds = {row.strategy: row.bound for row in comparison.reports["av_vt"].rows}
    assert bounds == {"naive": False, "cumulative": True}
    assert rows_of(comparison)["cumulative"]["forgetting"]["mean"] == 0.5
    assert [note for note in comparison.notes if "every past item" in note] == [
        "av_vt: cumulative: every past item is trained again, which no memory above counts"
    ]


def test_every_measure_is_the_one_worked_out_by_hand(tmp_path, write):
    write(tmp_path, "naive", NAIVE)
    write(tmp_path, "joint", JOINT)
    rows = rows_of(compare([tmp_path]))
    naive = {name: rows["naive"][name]["mean"] for name in MEASURES[:-3]}
    assert naive == pytest.approx(
        {
            "harmonic_mean": 2 * 0.5 * 0.75 / (0.5 + 0.75),
            "old_pairs": 0.5,
            "new_pairs": 0.75,
            "emergent_pairs": 0.125,
            "retention": (0.5 - 0.25) / (1 - 0.25),
            "forgetting": 0.5,
            "intransigence": 0.25,
        }
    )
    assert rows["joint"]["harmonic_mean"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert rows["joint"]["emergent_pairs"]["mean"] == 0.5
    undefined = [name for name in MEASURES if rows["joint"][name] is None]
    assert undefined == ["retention", "forgetting", "intransigence", *SEED_BY_SEED]
    assert rows["joint"]["difference"]["to"] == "naive"
    assert rows["joint"]["difference"]["mean"] == pytest.approx(0.4)
    assert rows["naive"]["difference"] is None


def test_the_json_has_exactly_the_promised_keys(tmp_path, write):
    write(tmp_path, "naive", NAIVE, memory_bytes=5, seconds=2.0)
    write(tmp_path, "naive", NAIVE, 1, memory_bytes=6, seconds=3.0)
    write(tmp_path, "ewc", NAIVE)
    value = json.loads(report.as_json(compare([tmp_path])))
    assert list(value) == ["rows", "metric", "baseline", "notes"]
    assert (value["metric"], value["baseline"]) == ("recall@1", "naive")
    for row in value["rows"]:
        ends = ["difference", "chance", "memory_bytes", "seconds", "vector_size"]
        assert list(row) == ["scenario", "strategy", "seeds", *MEASURES, *ends]
        for name in MEASURES[:-4]:
            assert list(row[name]) == ["mean", "low", "high"]
            assert row[name]["low"] <= row[name]["mean"] <= row[name]["high"] <= 1
        assert {row[name] for name in ("intransigence", *SEED_BY_SEED)} == {None}
    ewc, naive = value["rows"]
    assert list(ewc["difference"]) == ["to", "mean", "low", "high"]
    assert (naive["scenario"], naive["seeds"]) == ("av_vt", 2)
    assert (naive["memory_bytes"], naive["seconds"]) == (6, 2.5)


def test_a_comparison_by_another_metric_is_of_its_scores_and_its_chance(tmp_path, finished_run):
    found = [np.repeat([0.0, 9.0, 30.0], [10, 20, 10])] * 2
    ranks = dict.fromkeys(NAIVE, found)
    finished_run(tmp_path, "naive", ranks=ranks)
    comparison = compare([tmp_path], metric="recall@10")
    row = rows_of(comparison)["naive"]
    assert row["old_pairs"]["mean"] == 0.75
    assert row["chance"] == pytest.approx(10 / 40)
    (table,) = report.scenario_tables(comparison)
    assert (
        table.title
        == "av_vt: R@10 in % on test items, mean and 95 % interval, chance of old pairs 25.0"
    )
    expected = 0.25 + 0.5 / 10 + 0.25 / 31
    row = rows_of(compare([tmp_path], metric="mean_reciprocal_rank"))["naive"]
    assert row["new_pairs"]["mean"] == pytest.approx(expected)
    with pytest.raises(InputError, match=r"'recal@1' is unknown; did you mean 'recall@1'"):
        compare([tmp_path], metric="recal@1")


def test_there_is_no_retention_of_a_pair_that_had_learned_nothing(tmp_path, write):
    few = {cell: of(2, queries=40) for cell in NAIVE}
    write(tmp_path, "naive", few)
    write(tmp_path, "ewc", {**few, (1, "audio-video"): of(20, queries=40)})
    rows = rows_of(compare([tmp_path]))
    assert rows["naive"]["retention"] is None
    assert rows["ewc"]["retention"]["mean"] == pytest.approx((2 - 1) / (20 - 1))
    export([tmp_path], tmp_path / "kept")
    with (tmp_path / "kept" / "runs.csv").open(newline="") as stream:
        cells = {row["strategy"]: row["retention_percent"] for row in csv.DictReader(stream)}
    assert cells == {"naive": "", "ewc": "5.263"}


def test_the_size_of_vectors_is_kept_and_shown_beside_indexes(tmp_path, write):
    folder = write(tmp_path / "runs", "expand", NAIVE, vector_size=512)
    write(tmp_path / "runs", "naive", NAIVE)
    scores = json.loads((folder / "scores.json").read_text())
    index = {"stage": 2, "kind": "mixed", "query": "video", "gallery": ["audio", "text"]}
    scores["indexes"] = [{**index, "measures": {"recall@10": 0.5}}]
    (folder / "scores.json").write_text(json.dumps(scores))
    export([tmp_path / "runs"], tmp_path / "kept")
    comparison = compare([tmp_path / "kept"])
    sizes = {name: row["vector_size"] for name, row in rows_of(comparison).items()}
    assert sizes == {"expand": 512, "naive": None}
    (table,) = report.index_tables(comparison)
    assert {row[0]: row[-1] for row in table.rows} == {"expand": "512", "naive": "-"}


def test_a_strategy_equal_to_the_baseline_differs_by_exactly_nothing(tmp_path, write):
    rng = np.random.default_rng(0)
    for seed in (0, 1, 2):
        hits = {cell: rng.random((2, 60)) < 0.4 for cell in NAIVE}
        write(tmp_path, "naive", hits, seed)
        write(tmp_path, "same", hits, seed)
    same = rows_of(compare([tmp_path]))["same"]
    assert same["difference"] == {"to": "naive", "mean": 0.0, "low": 0.0, "high": 0.0}
    assert same["harmonic_mean"]["low"] < same["harmonic_mean"]["high"]


def test_differences_are_taken_to_the_baseline_asked_for(tmp_path, write):
    write(tmp_path, "naive", NAIVE)
    write(tmp_path, "joint", JOINT)
    comparison = compare([tmp_path], baseline="joint")
    rows = rows_of(comparison)
    assert rows["joint"]["difference"] is None
    assert rows["naive"]["difference"]["to"] == "joint"
    assert rows["naive"]["difference"]["mean"] == pytest.approx(-0.4)
    assert "difference to joint" in table_of(comparison)[0]


def test_without_its_baseline_a_scenario_has_no_differences_and_says_so(tmp_path, write):
    write(tmp_path, "ewc", NAIVE)
    (write(tmp_path, "naive", NAIVE) / "cost.json").unlink()
    comparison = compare([tmp_path])
    assert rows_of(comparison)["ewc"]["difference"] is None
    folder = tmp_path / "av_vt" / "naive" / "seed-0"
    assert f"1 run is not finished and left out: {folder}" in comparison.notes
    assert "av_vt: no finished run of the baseline naive, hence no differences" in comparison.notes


def test_strategies_are_compared_over_the_seeds_that_both_have(tmp_path, write):
    worse = {**NAIVE, (2, "text-video"): of(1)}
    write(tmp_path, "naive", NAIVE, 0)
    write(tmp_path, "naive", worse, 1)
    write(tmp_path, "ewc", worse, 1)
    write(tmp_path, "ewc", NAIVE, 2)
    write(tmp_path, "alone", NAIVE, 3)
    comparison = compare([tmp_path])
    rows = rows_of(comparison)
    assert rows["ewc"]["difference"]["mean"] == 0.0
    assert rows["alone"]["difference"] is None
    text = "\n".join(comparison.notes)
    assert text.count("seeds differ") == 1
    assert "av_vt: seeds differ (ewc: 1, 2; naive: 0, 1; alone: 3): a difference is over" in text
    assert "only one seed of alone; intervals then cover queries, not seeds" in text


def test_the_joint_strategy_is_told_by_its_definition(tmp_path, write):
    write(tmp_path, "naive", NAIVE)
    write(tmp_path, "joint_longer", JOINT)
    assert rows_of(compare([tmp_path]))["naive"]["intransigence"]["mean"] == 0.25
    write(tmp_path, "joint_wider", JOINT)
    comparison = compare([tmp_path])
    assert rows_of(comparison)["naive"]["intransigence"] is None
    assert any("several joint strategies" in note for note in comparison.notes)
    write(tmp_path, "joint", {**JOINT, (2, "text-video"): of(2)})
    assert rows_of(compare([tmp_path]))["naive"]["intransigence"]["mean"] == -0.25


def test_a_scenario_of_one_stage_has_only_new_pairs(tmp_path, write):
    pairs = {"audio-video": {"birth": 1, "role": "new"}}
    for strategy, found in (("naive", 1), ("joint", 3)):
        hits = {(1, "audio-video"): of(found)}
        once = [("video", "audio")]
        write(tmp_path, strategy, hits, scenario="once", pairs=pairs, stages=once)
    comparison = compare([tmp_path])
    rows = rows_of(comparison)
    assert list(rows) == ["joint", "naive"]
    defined = [name for name in MEASURES if rows["naive"][name] is not None]
    assert defined == ["new_pairs", "intransigence"]
    assert rows["joint"]["difference"] is None
    _, (_, cells) = table_of(comparison)
    assert cells[2:4] == ("-", "-")
    assert cells[4].startswith("25.0±")
    assert cells[5:9] == ("-", "-", "-", "-")


def test_a_stage_before_any_pair_needs_no_ranks(tmp_path, write):
    pairs = {"audio-video": {"birth": 2, "role": "new"}}
    hits = {(2, "audio-video"): of(1)}
    stages = [("video",), ("audio",)]
    write(tmp_path, "naive", hits, scenario="v_a", pairs=pairs, stages=stages)
    write(tmp_path, "naive", {}, scenario="v", pairs={}, stages=[("video",)])
    comparison = compare([tmp_path])
    assert list(comparison.reports) == ["v_a"]
    before, after = comparison.reports["v_a"].rows[0].recalls["audio-video"]
    assert before is None
    assert after is not None
    assert after.mean == 0.25
    assert "v: left out, a single modality has no pair to compare" in comparison.notes


def look_inside(folder, *recalls, before=0.75):
    """Give a run's scores of audio-video at the first stage's end and inside the last stage."""
    file = folder / "scores.json"
    scores = json.loads(file.read_text(encoding="utf-8"))
    moments = [(1, 4, True, before)]
    moments += [(2, step, False, recall) for step, recall in enumerate(recalls, start=5)]
    moments += [(2, 9, True, 0.5)]
    for stage, step, final, recall in moments:
        score = {"stage": stage, "step": step, "final": final, "split": "test", "chance": 0.25}
        scores["evaluations"].append({**score, "pair": "audio-video", "recall@1": recall})
    file.write_text(json.dumps(scores), encoding="utf-8")


def test_the_stability_gap_is_the_mean_over_seeds_of_each_seeds_own(tmp_path, write):
    look_inside(write(tmp_path, "naive", NAIVE), 0.125, 0.625)
    _, (cells,) = table_of(compare([tmp_path]))
    assert cells[8] == "62.5"  # a single seed has no interval
    look_inside(write(tmp_path, "naive", NAIVE, 1), 0.625, 0.375)
    write(tmp_path, "joint", JOINT)
    comparison = compare([tmp_path])
    rows = rows_of(comparison)
    # Averaged first, the worst moment of both would be 0.375 and the gap 0.375.
    gap = {"mean": (0.625 + 0.375) / 2, "low": 0.375, "high": 0.625}
    assert rows["naive"]["stability_gap"] == gap
    assert rows["joint"]["stability_gap"] is None
    headings, (joint, naive) = table_of(comparison)
    assert (joint[8], naive[8]) == ("-", "50.0±12.5")
    assert headings[7:10] == ("retention", "stability gap", "difference to naive")
    text = markdown(comparison)
    assert "| stability gap |" in text
    assert "interval is over seeds only" in text


def test_scores_of_indexes_have_a_table_of_their_own_and_survive_an_export(tmp_path, write):
    def score(folder, stage, kind, query, gallery, **measures):
        file = folder / "scores.json"
        scores = json.loads(file.read_text())
        found = {"stage": stage, "kind": kind, "query": query, "gallery": gallery}
        found["measures"] = {f"recall@{key[1:]}": value for key, value in measures.items()}
        scores.setdefault("indexes", []).append(found)
        file.write_text(json.dumps(scores))

    for seed, recall in enumerate((0.5, 0.7)):
        folder = write(tmp_path / "runs", "naive", NAIVE, seed)
        score(folder, 2, "mixed", "video", ["audio", "text"], k10=recall)
        score(folder, 2, "mixed", "text", ["audio", "video"], k10=0.1)
        score(folder, 1, "mixed", "text", ["audio", "video"], k10=1.0)  # not the last stage
        score(folder, 2, "earlier", "video", ["audio"], k1=0.25)
        score(folder, 2, "earlier", "text", ["video"], k1=1.0)  # not an old pair
    export([tmp_path / "runs"], tmp_path / "kept")
    for folder in ("runs", "kept"):
        comparison = compare([tmp_path / folder])
        (table,) = report.index_tables(comparison)
        assert table.rows[0][:4] == ("naive", "2", "35.0±5.0", "25.0±0.0")
    write(tmp_path / "alone", "naive", NAIVE)
    assert report.index_tables(compare([tmp_path / "alone"])) == []


def test_an_export_from_before_there_were_scores_of_indexes_is_read(tmp_path, write):
    write(tmp_path / "runs", "naive", NAIVE)
    export([tmp_path / "runs"], tmp_path / "kept")
    rows = tmp_path / "kept" / "runs.csv"
    lines = [line.rsplit(",", 3)[0] for line in rows.read_text().splitlines()]
    assert lines[0].endswith("step_seconds")
    rows.write_text("\n".join(lines) + "\n")
    assert rows_of(compare([tmp_path / "kept"])) == rows_of(compare([tmp_path / "runs"]))


@pytest.mark.parametrize("inside", [[], [0.125]])
def test_without_evaluations_inside_the_last_stage_of_all_seeds_there_is_no_gap(
    tmp_path, write, inside
):
    look_inside(write(tmp_path, "naive", NAIVE), *inside)
    write(tmp_path, "naive", NAIVE, 1)
    comparison = compare([tmp_path])
    assert "stability gap" not in markdown(comparison).lower()
    assert rows_of(comparison)["naive"]["stability_gap"] is None


def test_the_table_shows_percent_and_what_is_undefined(tmp_path, write):
    half = {cell: of(20, queries=40) for cell in NAIVE}
    write(tmp_path, "naive", half, memory_bytes=1_260_000, seconds=7.25)
    write(tmp_path, "joint", {cell: of(40, queries=40) for cell in JOINT}, seconds=1234.5)
    comparison = compare([tmp_path])
    headings, (joint, naive) = table_of(comparison)
    assert headings[:5] == ("strategy", "seeds", "harmonic mean %", "old %", "new %")
    assert joint[:5] == ("joint", "1", "100.0 [100.0, 100.0]", "100.0±0.0", "100.0±0.0")
    assert headings[5:8] == ("emergent %", "forgetting", "retention")
    assert joint[6:8] == ("-", "-")
    assert headings[8:] == ("difference to naive", "memory", "seconds")
    assert joint[8].startswith("+50.0 [")
    assert joint[9:] == ("0 B", "1234")
    assert naive[6:8] == ("0.0±0.0", "100.0±0.0")
    assert naive[8:] == ("-", "1.3 MB", "7.2")


def test_markdown_has_a_table_per_scenario_that_pipes_do_not_break(tmp_path, write):
    write(tmp_path, "naive", NAIVE)
    write(tmp_path, "a|b", NAIVE, scenario="second")
    lines = markdown(compare([tmp_path])).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["## av_vt", "## second"]
    tables = [line for line in lines if line.startswith("|")]
    columns = {line.replace(r"\|", "").count("|") for line in tables}
    assert (len(tables), columns) == (6, {12})
    assert tables[1].startswith("| :-- | --: |")
    assert tables[5].startswith(r"| a\|b | 1 |")
    assert lines[-1].startswith("- second: ")


def test_a_table_with_the_longest_shipped_name_fits_into_140_columns():
    wide = Estimate(-0.889, -0.999, -0.777)
    headline = Headline(*[Estimate(0.555, 0.45, 0.64)] * 7)
    seeds = tuple(range(10))
    row = Row("replay_ewc_transport", False, seeds, headline, wide, 123_456_789, 12345.6, {})
    one = Comparison("naive", {"av_vt": ScenarioReport((), {}, (row,))}, ())
    headings, (cells,) = table_of(one)
    widths = [max(map(len, column)) for column in zip(headings, cells, strict=True)]
    assert "stability gap" not in headings
    assert sum(widths) + 2 * (len(widths) - 1) <= 140


def test_nothing_below_zero_is_minus_zero():
    nothing = Estimate(-0.0, -0.0, -0.0000004)
    row = Row("a", False, (0,), Headline(*[nothing] * 7), nothing, 0, 0.0, {})
    one = Comparison("naive", {"av_vt": ScenarioReport((), {}, (row,))}, ())
    _, (cells,) = table_of(one)
    assert cells[2] == "0.000 [0.000, 0.000]"
    assert cells[8] == "+0.000 [0.000, 0.000]"
    assert math.isfinite(json.loads(report.as_json(one))["rows"][0]["seconds"])


def test_comparing_waits_neither_for_torch_nor_for_a_window():
    code = """
import sys
import continual_mm.comparison.figure, continual_mm.comparison.tables
heavy = {"torch", "avalanche", "matplotlib.pyplot"} & sys.modules.keys()
if heavy:
    sys.exit(", ".join(heavy))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_first_score_near_chance_leaves_nothing_to_retain_and_that_is_told_everywhere(
    tmp_path, write, typed
):
    # Of 40 items chance finds 1 and the first score is 3: 1.2 standard errors above it.
    barely = {cell: of(3, queries=40) for cell in NAIVE} | {(2, "audio-video"): of(9, queries=40)}
    write(tmp_path, "naive", barely)
    write(tmp_path, "joint", {cell: of(30, queries=40) for cell in JOINT})
    comparison = compare([tmp_path])
    row = rows_of(comparison)["naive"]
    assert row["retention"] is None
    assert row["forgetting"]["mean"] == pytest.approx(-6 / 40)
    told = "no retention of naive: the first score of audio-video is not above chance by 4"
    for format_ in ("table", "markdown", "latex", "json"):
        assert told in typed("compare", tmp_path, "--format", format_).out
    export([tmp_path], tmp_path / "small")
    with (tmp_path / "small" / "runs.csv").open(encoding="utf-8", newline="") as stream:
        percents = {line["strategy"]: line["retention_percent"] for line in csv.DictReader(stream)}
    assert percents == {"naive": "", "joint": ""}


def test_what_is_so_in_every_scenario_is_told_once(tmp_path, write):
    for scenario in ("one", "two", "three"):
        write(tmp_path, "naive", NAIVE, scenario=scenario)
        for number in range(5):
            write(tmp_path, f"other{number}", NAIVE, 1, scenario=scenario)
        (write(tmp_path, "left", NAIVE, scenario=scenario) / "cost.json").unlink()
    notes = compare([tmp_path]).notes
    assert [note for note in notes if "seeds differ" in note] == [
        "one, three, two: seeds differ (naive: 0; all others: 1): a difference is over the seeds "
        "that both strategies have, and there is none without any"
    ]
    assert any(note.startswith("3 runs are not finished") for note in notes)
    assert len(notes) == len(set(notes)) == 6


def test_low_scores_are_shown_with_as_many_decimals_as_their_intervals_have_digits(tmp_path, write):
    few = {cell: of(2, 4, queries=2000) for cell in NAIVE}
    write(tmp_path, "naive", few)
    headings, (cells,) = table_of(compare([tmp_path]))
    shown = dict(zip(headings, cells, strict=True))
    assert re.fullmatch(r"0\.15±0\.1\d", shown["old %"])
    assert re.fullmatch(r"0\.15 \[0\.0\d, 0\.3\d\]", shown["harmonic mean %"])
    (title,) = (table.title for table in report.scenario_tables(compare([tmp_path])))
    assert title.endswith("chance of old pairs 0.05")
