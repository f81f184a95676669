"""The page of a comparison, as a reader meets it in a browser, and the figures beside it."""

import json
import re
import struct

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.reporting.charts import Looks
from continual_mm.reporting.diagram import diagram
from continual_mm.runs.finished import PairFacts


@pytest.fixture(scope="module")
def runs(scenario, changed, tmp_path_factory):
    """Naive, frozen and joint runs of two stages on clips with captions and thumbnails."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((120, 6))
    arrays = {name: shared @ rng.standard_normal((6, 8)) for name in ("video", "audio", "text")}
    out = tmp_path_factory.mktemp("report")
    columns = {**arrays, "text_raw": np.array([f"<b>clip {n}" for n in range(120)])}
    columns["ids"] = np.array([f"clip{n}" for n in range(120)])
    columns["split"] = np.repeat([0, 1, 2], [80, 20, 20])
    columns["picture"] = rng.integers(0, 255, (120, 4, 4, 3), dtype=np.uint8)
    np.savez(out / "clips.npz", **columns)
    dataset = cm.read_pack(out / "clips.npz")
    sizes = {"dim": 8, "clusters": 3, "refresh_every": 4, "stages": scenario.stages[:2]}
    place = {"dataset": "clips.npz", "folder": str(out)}
    small = changed(scenario, **sizes, **place, steps=40, batch_size=16)
    strategies = [
        cm.Strategy(name="naive"),
        cm.Strategy(name="freeze", plugins={"freeze": {}}),
        cm.Strategy(name="joint", joint=True),
    ]
    for strategy in strategies:
        cm.run(small, strategy, dataset, out / "runs", device="cpu")
    return out / "runs"


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    """A report of them, and its figures."""
    from continual_mm.reporting.report import write_report

    folder = tmp_path_factory.mktemp("page")
    options = {"datasets": [str(runs.parent / "clips.npz")], "figures": folder / "figures"}
    list(write_report([runs], folder / "report.html", **options))
    return folder


@pytest.fixture
def page(written, browser):
    """The report, open; what went wrong in it, and what it asked for, is in ``trouble``."""
    tab = browser.new_page()
    tab.trouble = []
    tab.on("console", lambda message: tab.trouble.append(message.text))
    tab.on("pageerror", lambda error: tab.trouble.append(str(error)))
    tab.on("request", lambda one: tab.trouble.append(one.url) if "file:" not in one.url else None)
    tab.goto((written / "report.html").as_uri())
    drawn = "document.querySelectorAll('.chart svg').length"
    tab.wait_for_function(f"{drawn} == document.querySelectorAll('.chart').length")
    yield tab
    tab.close()


def test_all_charts_are_drawn_without_a_word_in_the_console_and_without_network(page):
    assert page.locator(".chart svg").count() == 3
    marks = page.locator(".chart").nth(1).locator(".mark-symbol path").count()
    assert marks == 3
    assert not [each for each in page.trouble if not each.startswith("data:")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_breaks_no_rule_of_accessibility_in_either_theme(page, theme):
    from axe_playwright_python.sync_playwright import Axe

    if theme == "dark":
        page.click("#theme")
        assert page.get_attribute("#theme", "aria-pressed") == "true"
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Axe().run(page).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found]


def test_columns_are_sorted_by_keyboard_and_say_so(page):
    def column():
        return page.locator(".sortable tbody tr td:nth-child(5)").all_inner_texts()

    head = page.locator(".sortable th").nth(4)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    values = [float(re.match(r"[\d.]+", text)[0]) for text in column()]
    assert values == sorted(values, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert [float(re.match(r"[\d.]+", text)[0]) for text in column()] == sorted(values)


def test_why_panels_have_the_cause_and_queries_with_pictures_and_captions(page, runs):
    scores = json.loads((runs / "small/naive/seed-0/scores.json").read_text(encoding="utf-8"))
    (pair,) = scores["diagnosis"][-1]["pairs"].values()
    details = page.locator("details", has_text="queries broke").filter(has_text="naive, seed 0")
    details.evaluate("d => { d.open = true }")
    text = details.inner_text()
    assert f"{pair['broken']} queries broke, {pair['mended']} mended" in text
    assert "<b>clip" in text
    assert pair["broken"]
    source = details.locator("img").first.get_attribute("src", timeout=2000)
    assert source.startswith("data:image/png;base64,")


def test_a_narrow_window_is_not_wider_than_it_is(page):
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_what_a_run_says_cannot_become_a_script(runs, tmp_path, browser, typed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (runs / "small" / "naive" / "seed-0").rglob("*"):
        if path.is_file() and "events" not in path.parts:
            target = tmp_path / "runs" / path.relative_to(runs)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    evil = "</script><script>document.title='broken into'</script><img src=x onerror=alert(1)>"
    for name in ("definition.json", "scores.json"):
        file = tmp_path / "runs" / "small" / "naive" / "seed-0" / name
        value = json.loads(file.read_text(encoding="utf-8"))
        value.pop("seal", None)
        strategy = value["strategy"]
        value["strategy"] = {**strategy, "name": evil} if isinstance(strategy, dict) else evil
        file.write_text(json.dumps(value), encoding="utf-8")
    answer = typed("report", "runs")
    if answer.code:  # a name that was changed by hand may be refused, in a line
        assert "report.html" not in [path.name for path in tmp_path.iterdir()]
        return
    tab = browser.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_timeout(300)
    assert "broken into" not in tab.title()
    assert tab.locator("img[src=x]").count() == 0
    tab.close()


def test_figures_are_files_for_a_paper(written, runs, typed, tmp_path):
    names = {path.name for path in (written / "figures").iterdir()}
    assert names == {f"small-{name}.svg" for name in ("recall", "trade-off", "matrix")}
    assert (written / "figures" / "small-recall.svg").read_text(encoding="utf-8")[:4] == "<svg"
    options = ("--to", tmp_path / "r.html", "--figures", tmp_path / "f", "--figures-format", "png")
    assert typed("report", runs, *options, "--no-examples", "--metric", "medr").code == 0
    head = (tmp_path / "f" / "small-matrix.png").read_bytes()[:24]
    assert struct.unpack(">II", head[16:24])[0] > 100


def test_what_is_no_report_is_not_overwritten_but_a_report_is(runs, typed, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("<p>dear diary", encoding="utf-8")
    answer = typed("report", runs, "--to", mine)
    assert answer.code == 2
    assert "is there, and no report; choose another file" in answer.err
    assert mine.read_text(encoding="utf-8") == "<p>dear diary"
    again = tmp_path / "again.html"
    assert typed("report", runs, "--to", again, "--no-examples").code == 0
    assert typed("report", runs, "--to", again, "--no-examples").code == 0
    assert "there is no run in it" in typed("report", tmp_path, "--to", tmp_path / "x.html").err


def test_up_to_56_strategies_look_different():
    looks = Looks([f"s{n}" for n in range(56)])
    assert len(set(zip(looks.colours, looks.shapes, strict=True))) == 56


def test_the_diagram_says_in_words_what_it_draws():
    pairs = {"audio-video": PairFacts(0, "old", 0.1), "text-video": PairFacts(1, "new", 0.1)}
    drawn = diagram((("video", "audio"), ("text", "<x>")), pairs)
    assert "stage 1: video, audio arrives; pairs: audio-video (old)" in drawn
    assert "&lt;x&gt;" in drawn
    assert drawn.count("<rect") == 6
    assert 'class="old"' in drawn
