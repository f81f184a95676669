"""The picture of a comparison."""

import struct
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from continual_mm.comparison.compare import Comparison, Headline, Row, ScenarioReport
from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.figure import draw, plot
from continual_mm.runs.finished import PairFacts

AV_VT = {
    "audio-text": PairFacts(1, "emergent", 0.0),
    "audio-video": PairFacts(0, "old", 0.0),
    "text-video": PairFacts(1, "new", 0.0),
}
ARRIVALS = (("video", "audio"), ("text",))


def row(strategy, recalls, seeds=2):
    estimates = {
        pair: tuple(None if v is None else Estimate(v, v - 0.05, v + 0.02) for v in values)
        for pair, values in recalls.items()
    }
    nothing = Headline(*[None] * 7)
    joint = strategy == "joint"
    return Row(strategy, joint, tuple(range(seeds)), nothing, None, 0, 0.0, estimates)


def staged(strategy, old=0.2):
    recalls = {"audio-video": (0.5, old), "text-video": (None, 0.4), "audio-text": (None, 0.1)}
    return row(strategy, recalls)


JOINT = row("joint", dict.fromkeys(AV_VT, (None, 0.55)))


def comparison(*rows, **others):
    return Comparison("naive", {"av_vt": ScenarioReport(ARRIVALS, AV_VT, rows), **others}, ())


def panels(compared, scenario="av_vt"):
    return {axes.get_title(loc="left"): axes for axes in plot(compared, scenario).axes}


def test_the_file_is_a_png_of_the_promised_width_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "av_vt.png"
    draw(comparison(staged("naive"), JOINT), "av_vt", path)
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">I", head[16:20]) == (1400,)
    assert list(path.parent.iterdir()) == [path]


def test_every_pair_has_a_panel_that_names_its_role_old_ones_first():
    found = panels(comparison(staged("naive"), JOINT))
    assert list(found) == ["audio-video", "text-video", "audio-text"]
    roles = [axes.texts[0].get_text().split(":")[0] for axes in found.values()]
    assert roles == ["old", "new", "emergent"]


def test_panels_share_a_scale_from_zero_on_and_joint_training_is_a_level_across_them():
    found = panels(comparison(staged("naive"), JOINT)).values()
    ((bottom, top),) = {axes.get_ylim() for axes in found}
    assert bottom == 0
    assert 57 < top < 70
    for axes in found:
        (level,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert list(level.get_ydata()) == pytest.approx([55.0, 55.0])
        assert list(level.get_xdata()) == [0, 1]


def test_a_line_has_a_point_per_stage_since_birth_in_percent():
    found = panels(comparison(staged("naive")))
    (old,) = found["audio-video"].lines
    (new,) = found["text-video"].lines
    assert list(old.get_xdata()) == [1, 2]
    assert list(old.get_ydata()) == [50.0, 20.0]
    assert list(new.get_xdata()) == [2]
    ((bar,),) = [c.get_segments() for c in found["text-video"].collections]
    assert bar.tolist() == [[2, pytest.approx(35.0)], [2, pytest.approx(42.0)]]


def test_forty_strategies_look_different_and_the_baseline_is_grey():
    names = ["naive", *(f"s{number}" for number in range(39))]
    lines = panels(comparison(*map(staged, names)))["audio-video"].lines
    styles = {(to_hex(line.get_color()), line.get_marker()) for line in lines}
    assert len(styles) == 40
    assert to_hex(lines[0].get_color()) == "#808080"


def test_a_strategy_looks_the_same_in_every_scenario():
    other = ScenarioReport(ARRIVALS, AV_VT, (staged("ewc"),))
    both = comparison(*map(staged, ("freeze", "ewc", "replay")), other=other)
    (alone,) = panels(both, "other")["audio-video"].lines
    among = panels(both)["audio-video"].lines[1]
    assert (alone.get_color(), alone.get_marker()) == (among.get_color(), among.get_marker())


def test_the_legend_reads_as_the_table_and_the_title_says_how_many_seeds():
    names = ["joint", "b", "a", "d", "c"]
    rows = [JOINT, *map(staged, names[1:])]
    rows[2] = row("a", dict.fromkeys(AV_VT, (0.1, 0.1)), seeds=1)
    figure = plot(comparison(*rows), "av_vt")
    (legend,) = figure.legends
    # Matplotlib fills four columns from the top, the first with two keys.
    assert [text.get_text() for text in legend.get_texts()] == ["joint", "c", "b", "a", "d"]
    title = figure.get_suptitle()
    assert title.startswith("av_vt: ")
    assert title.endswith("1 to 2 seeds")


def test_a_scenario_of_one_stage_is_drawn():
    pairs = {"audio-video": PairFacts(0, "new", 0.0)}
    rows = (row("naive", {"audio-video": (0.5,)}, seeds=1), row("joint", {"audio-video": (0.6,)}))
    once = ScenarioReport((("audio", "video"),), pairs, rows)
    (axes,) = plot(Comparison("naive", {"once": once}, ()), "once").axes
    point, _ = axes.lines
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([1], [50.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["stage 1\n+ audio\n+ video"]


@pytest.mark.parametrize("stages", [4, 12])
def test_labels_do_not_overlap_however_many_stages_and_pairs(stages):
    names = ("infrared", "audio", "thermal", "gesture", "text")
    pairs = {f"{a}-{b}": PairFacts(0, "old", 0.0) for a in names for b in names if a < b}
    arrivals = tuple((names[stage % 5],) for stage in range(stages))
    rows = (row("naive", dict.fromkeys(pairs, (0.5,) * stages)),)
    figure = plot(Comparison("naive", {"many": ScenarioReport(arrivals, pairs, rows)}, ()), "many")
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 10
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert len(boxes) == stages
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        role, panel = axes.texts[0].get_window_extent(), axes.get_window_extent()
        assert role.y0 >= panel.y1
        assert role.x1 <= panel.x1
