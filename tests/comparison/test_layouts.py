"""Comparisons by pair, stage and direction, by median rank, for narrow terminals and notebooks."""

import csv
import io

import numpy as np
import pytest

from continual_mm.comparison import interactive
from continual_mm.comparison.breakdown import tables_by
from continual_mm.comparison.compare import compare_by
from continual_mm.comparison.estimates import Estimate, metric_named
from continual_mm.comparison.tables import as_json, fitted, scenario_tables
from continual_mm.comparison.tidy import as_csv, rows_by
from continual_mm.comparison.trade_off import pareto
from continual_mm.system.errors import InputError

NAIVE = {  # ranks of four queries from 0, in both directions
    (1, "audio-video"): [[0, 0, 1, 3], [0, 1, 2, 3]],
    (2, "audio-video"): [[0, 2, 2, 3], [1, 1, 3, 3]],
    (2, "text-video"): [[0, 0, 0, 1], [0, 0, 2, 2]],
    (2, "audio-text"): [[1, 1, 1, 1], [0, 0, 0, 0]],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, finished_run):
    """A folder of two strategies, one of them twice as it is."""
    out = tmp_path_factory.mktemp("runs")
    better = {**NAIVE, (2, "audio-video"): NAIVE[1, "audio-video"]}
    for seed in (0, 1):
        finished_run(out, "naive", seed, ranks=NAIVE)
        finished_run(out, "replay", seed, ranks=better)
    return out


def by_names(rows, *keys):
    return {tuple(row[key] for key in keys): row for row in rows}


def test_short_names_are_those_of_the_field():
    names = [metric_named(name) for name in ("R@1", "r@5", "r@10", "mrr", "MedR")]
    assert names == [
        *("recall@1", "recall@5", "recall@10"),
        *("mean_reciprocal_rank", "median_rank"),
    ]
    with pytest.raises(InputError, match="'map' is unknown; there are r@1"):
        metric_named("map")


def test_median_ranks_are_numpys_and_their_forgetting_is_places_lost(runs):
    (found,) = compare_by([runs], ["medr"])
    row = {row.strategy: row for row in found.reports["av_vt"].rows}["naive"]
    before, after, new = (
        np.median(NAIVE[cell], axis=1).mean() + 1
        for cell in ((1, "audio-video"), (2, "audio-video"), (2, "text-video"))
    )
    assert row.recalls["audio-video"][0].mean == before
    assert (row.headline.old_pairs.mean, row.headline.new_pairs.mean) == (after, new)
    assert row.headline.forgetting.mean == after - before > 0
    assert row.headline.harmonic_mean is row.headline.retention is None
    replay = {row.strategy: row for row in found.reports["av_vt"].rows}["replay"]
    assert replay.difference.mean == (before - after) / 2
    assert replay.recalls["audio-video"][1].low <= before <= replay.recalls["audio-video"][1].high


def test_a_table_of_median_ranks_has_no_percent_and_no_column_that_is_empty(runs):
    (found,) = compare_by([runs], ["medr"])
    (table,) = scenario_tables(found)
    assert not [heading for heading in table.headings if "%" in heading]
    assert not {"harmonic mean", "retention"} & set(table.headings)
    assert "chance of old pairs 2.5" in table.title


def test_directions_are_scored_one_by_one_and_their_mean_is_the_pairs_score(runs):
    (found,) = compare_by([runs], ["r@1"], directions=True)
    rows = by_names(rows_by(found, "direction"), "strategy", "query", "answers")
    assert rows["naive", "audio", "text"]["mean"] == 0
    assert rows["naive", "text", "audio"]["mean"] == 1
    assert rows["naive", "text", "video"]["mean"] == 0.75
    pairs = by_names(rows_by(found, "pair"), "strategy", "pair")
    for name in ("audio-text", "audio-video", "text-video"):
        ways = [rows[key]["mean"] for key in rows if (key[0], rows[key]["pair"]) == ("naive", name)]
        assert np.mean(ways) == pytest.approx(pairs["naive", name]["mean"])


def test_stages_are_in_order_and_what_was_not_there_yet_is_a_dash(runs):
    (found,) = compare_by([runs], ["r@1"])
    (table,) = tables_by(found, "stage")
    assert table.headings[-2:] == ("stage 1 (+ video, audio)", "stage 2 (+ text)")
    lines = {line.cells[:2]: line.cells[-2:] for line in table.lines}
    assert lines["audio-video", "naive"][0].startswith("37.5 [")
    assert lines["audio-video", "naive"][1].startswith("12.5 [")
    assert lines["text-video", "naive"][0] == "-"


def test_csv_has_a_row_for_each_metric_and_reads_back(runs):
    found = compare_by([runs], ["r@1", "mrr"])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(row["metric"], row["strategy"]) for row in rows] == [
        ("recall@1", "replay"),
        ("recall@1", "naive"),
        ("mean_reciprocal_rank", "replay"),
        ("mean_reciprocal_rank", "naive"),
    ]
    first = found[0].reports["av_vt"].rows[0].headline.harmonic_mean
    assert Estimate(*(float(rows[0][f"harmonic_mean{e}"]) for e in ("", "_low", "_high"))) == first
    assert rows[1]["difference"] == ""
    assert '"metrics": [' in as_json(*found)


def test_a_narrow_terminal_has_whole_columns_the_most_important_ones_first(runs):
    (found,) = compare_by([runs], ["r@1"])
    (table,) = scenario_tables(found)
    shown, left = fitted(table, 80)
    names = [heading.rstrip("*") for heading in shown.headings]
    assert names[:4] == ["strategy", "seeds", "harmonic mean %", "old %"]
    assert {"forgetting", "new %"} <= set(names)
    assert "difference to naive" in left
    assert max(len("  ".join(row)) for row in shown.rows) <= 80
    assert {cell for row in shown.rows for cell in row} <= {c for row in table.rows for c in row}
    assert fitted(table, 300) == (table, ())
    assert fitted(table, 5)[0].headings == ("strategy",)


def test_the_front_has_what_nothing_else_beats_in_both():
    points = {"best old": (5.0, 1.0), "between": (3, 3), "beaten": (2, 3), "best new": (0, 9)}
    assert pareto(points) == ["best new", "between", "best old"]
    assert set(pareto({"a": (1, 1), "b": (1, 1)})) == {"a", "b"}


def test_a_comparison_in_python_is_a_frame_figures_and_short_html(runs):
    found = interactive.compare(str(runs), metric="r@1")
    frame = found.frame("pair")
    old = frame.query("strategy == 'naive' and pair == 'audio-video'")
    assert old["mean"].item() == 0.125
    assert {len(found.frame(by)) for by in ("strategy", "direction", "stage")} == {2, 12}
    assert repr(found) == "Comparison({'av_vt': 2 strategies}, metric='recall@1')"
    html = found._repr_html_()
    assert "replay" in html
    assert len(html) < 3000
    with pytest.raises(InputError, match="figure: 'reccall' is unknown; did you mean 'recall'"):
        found.plot("reccall")
    with pytest.raises(InputError, match="scenario: 'x' is unknown; there are av_vt"):
        found.plot(scenario="x")


def test_the_trade_off_has_a_mark_for_each_strategy_at_its_old_and_new_pairs(runs):
    (axes,) = interactive.compare(runs).plot("trade-off").axes
    marks = {
        c.get_label(): tuple(float(v[0]) for v in c.lines[0].get_data()) for c in axes.containers
    }
    assert marks == {"naive": (12.5, 62.5), "replay": (37.5, 62.5)}


def test_all_panels_of_the_matrix_have_one_scale_of_colours(runs):
    figure = interactive.compare(runs).plot("matrix")
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert {image.get_clim() for image in images} == {(0.0, 62.5)}
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.images] == [
        "replay",
        "naive",
    ]


def test_what_a_file_says_is_no_markup_in_a_notebook(tmp_path, finished_run):
    finished_run(tmp_path, "<b>x</b>", ranks=NAIVE, scenario="<i>s")
    assert "<b>x" not in interactive.compare(tmp_path)._repr_html_()


@pytest.mark.parametrize("name", ["a.svg", "deep/b.pdf", "c.PNG"])
def test_pictures_are_of_the_format_that_their_name_says(runs, tmp_path, monkeypatch, typed, name):
    monkeypatch.chdir(tmp_path)
    assert typed("compare", str(runs), "--picture", name).code == 0
    begin = (tmp_path / name).read_bytes()[:200]
    known = {".svg": b"<svg", ".pdf": b"%PDF", ".png": b"PNG"}
    assert known[(tmp_path / name).suffix.lower()] in begin or b"<?xml" in begin
