"""Tuning: what is tried, by what it is judged, and how a search goes on."""

import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import continual_mm as cm
from continual_mm.comparison.compare import compare
from continual_mm.comparison.tables import scenario_tables
from continual_mm.data import registry as datasets
from continual_mm.runs.history import Score
from continual_mm.runs.reporter import Reporter, RunReporter
from continual_mm.runs.specification import opened
from continual_mm.runs.status import as_rows, statuses
from continual_mm.runs.tuning.plan import Plan, searched
from continual_mm.runs.tuning.search import (
    ROUNDING,
    means_by_scenario,
    required,
    running_means,
    tune,
)
from continual_mm.system.errors import InputError

REPLAY = cm.Strategy(
    name="replay",
    description="Some are kept.",
    memory=cm.MemorySettings(items=12),
    plugins={"replay": {"rows": 8, "weight": 0.5}},
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory, written):
    return written(tmp_path_factory.mktemp("pack") / "mine.npz")


@pytest.fixture(scope="module")
def scenario(brief):
    """(pack, settings) -> an opened scenario on the pack."""

    def make(pack, **settings):
        card = datasets.card(str(pack), folder=Path())
        return opened(brief(pack, evaluate_every=4, **settings), card)

    return make


@pytest.fixture(scope="module")
def search(scenario, pack):
    """(folder, strategy, settings of the plan) -> a plan of three trials on the pack."""

    def make(out, strategy=REPLAY, *, ranges=(), scenarios=None, **given):
        options = {"trials": 3, "pruning": False, "options": {"device": "cpu"}, **given}
        scenarios = scenarios or (scenario(pack),)
        return Plan(scenarios, strategy, searched(strategy, ranges), out, **options)

    return make


def scores(trial, tuned, seed=0, name="small"):
    folder = tuned.plan.folder / "trials" / name / trial.name / f"seed-{seed}"
    known = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["evaluations"]
    return [Score.from_json(record) for record in known]


def final(found, split, pair, metric="recall_at_1"):
    chosen = [s for s in found if (s.split, s.pair, s.stage, s.final) == (split, pair, 2, True)]
    assert len(chosen) == 2
    return sum(getattr(score, metric) for score in chosen) / 2


def tuned_files(tuned):
    """The scores and ranks of all trials, in order."""
    patterns = ("scores.json", "ranks/*.npz")
    return sorted(path for one in patterns for path in (tuned.plan.folder / "trials").rglob(one))


def tags(tuned, trial):
    """Everything that is on the board of a trial."""
    folder = tuned.plan.folder / "trials" / "small" / trial.name / "seed-0" / "events"
    events = EventAccumulator(str(folder)).Reload()
    return [tag for kind in events.Tags().values() if isinstance(kind, list) for tag in kind]


class Stopping(Reporter):
    """Ends a search the way Ctrl-C does, when a run begins or is given up."""

    def __init__(self, runs):
        self.left, self.begun = runs, []

    def run_reporter(self, run):
        self.begun.append(run)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return RunReporter()


def harmonic_means(tuned, trial, name, seeds):
    means = []
    for seed in range(seeds):
        found = scores(trial, tuned, seed, name)
        old = final(found, "validation", "audio-video", tuned.plan.metric)
        new = final(found, "validation", "text-video", tuned.plan.metric)
        means.append(2 / (1 / old + 1 / new))
    return means


@pytest.fixture(scope="module")
def two(scenario, pack):
    """Two scenarios that are evaluated at different moments."""
    return scenario(pack), scenario(pack, name="long", steps=9)


def test_the_value_on_two_scenarios_is_the_mean_of_what_each_alone_gives(search, two, tmp_path):
    given = {"seeds": 2, "trials": 2, "metric": "mean_reciprocal_rank"}
    tuned, failed = tune(search(tmp_path, scenarios=two, **given), threads=1)
    assert not failed
    assert tuned.plan.folder == tmp_path / "small+long" / "replay"
    for trial in tuned.trials:
        small, long = (harmonic_means(tuned, trial, name, 2) for name in tuned.plan.names)
        assert trial.by_scenario == pytest.approx({"small": fmean(small), "long": fmean(long)})
        assert trial.value == pytest.approx((fmean(small) + fmean(long)) / 2)
    assert trial.by_scenario["small"] != trial.by_scenario["long"]
    alone, _ = tune(search(tmp_path, **given), threads=1)
    assert alone.plan.folder == tmp_path / "small" / "replay"
    assert [t.value for t in alone.trials] == [t.by_scenario["small"] for t in tuned.trials]


def journal(tuned):
    """The records of Optuna's journal, without times and processes."""
    text = (tuned.plan.folder / "journal.log").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    passing = {"worker_id", "datetime_start", "datetime_complete"}
    begins = 0  # Every process asks for the study that there may be already.
    return [
        {key: value for key, value in line.items() if key not in passing}
        for line in records
        if line["op_code"] != begins
    ]


def test_a_search_over_two_scenarios_that_was_stopped_goes_on_to_the_same_journal(
    search, two, tmp_path
):
    once, again = (search(tmp_path / out, trials=5, scenarios=two) for out in ("once", "again"))
    whole, _ = tune(once, threads=1)
    # After the first trial, and between the runs of the fifth, whose values a model chose.
    for run in (3, 8):
        with pytest.raises(KeyboardInterrupt):
            tune(again, threads=1, reporter=Stopping(run))
    parts, _ = tune(again, threads=1)
    assert parts.trials == whole.trials
    assert [trial.number for trial in parts.trials] == list(range(5))
    assert journal(parts) == journal(whole)


FOUND = [{(0, 10): 0.9, (1, 17): 0.1}, {(0, 10): 0.7, (1, 17): 0.2}, {(0, 5): 0.8, (1, 7): 0.6}]
"""Both seeds of the first scenario of a trial, and one of the second."""


@pytest.fixture(scope="module")
def trial_runs(small_scenario):
    scenarios = (small_scenario("one", 10), small_scenario("other", 5))
    return Plan(scenarios, REPLAY, searched(REPLAY), Path(), trials=1, seeds=2).trial_runs()


def test_every_run_of_a_scenario_counts_the_same(trial_runs):
    found = [*FOUND, {(0, 5): 0.8, (1, 7): 0.7}]
    assert means_by_scenario(trial_runs, found) == pytest.approx({"one": 0.15, "other": 0.65})
    means = running_means(trial_runs, found)
    assert list(means) == list(range(8))
    assert means[1] == 0.1
    assert means[3] == pytest.approx((0.1 + 0.2) / 2)
    assert means[7] == pytest.approx((0.1 + 0.2 + 0.6 + 0.7) / 4)


def test_a_run_must_keep_the_mean_over_runs_at_the_median(trial_runs):
    # Of the fourth run, moments 6 and 7 of all; earlier scenarios are taken as they ended.
    earlier = [{6: mean, 7: mean} for mean in (0.1, 0.2, 0.4, 0.5, 0.6)]
    least = required(trial_runs, FOUND, earlier)
    assert least[(0, 5)] == pytest.approx(4 * 0.4 - (0.1 + 0.2 + 0.8), abs=2 * ROUNDING)
    assert least[(1, 7)] == pytest.approx(4 * 0.4 - (0.1 + 0.2 + 0.6), abs=2 * ROUNDING)
    assert required(trial_runs, FOUND, earlier[:4]) == {}


@pytest.fixture(scope="module")
def whole(search, tmp_path_factory):
    """A search of three trials that was not interrupted."""
    return tune(search(tmp_path_factory.mktemp("whole")), threads=1)[0]


def test_the_first_trial_is_the_strategy_and_all_stay_in_range(whole):
    first, *others = (trial.values["replay.weight"] for trial in whole.trials)
    assert first == 0.5
    assert len(set(others)) == 2
    assert all(0.03 <= value <= 30 for value in others)
    folder = whole.plan.folder / "trials" / "small" / whole.trials[2].name / "seed-0"
    strategy = json.loads((folder / "definition.json").read_text(encoding="utf-8"))["strategy"]
    assert strategy["plugins"]["replay"] == {"rows": 8, "weight": others[1]}


def test_test_items_decide_nothing(whole, search, scenario, tmp_path, features, written):
    text = features()["text"]
    text[60:] = np.random.default_rng(0).permutation(text[60:])
    other = scenario(written(tmp_path / "mixed.npz", text=text))
    mixed, _ = tune(search(tmp_path, scenarios=(other,)), threads=1)
    assert mixed.trials == whole.trials
    # Nor are they looked at: the trials are to the bit what they are on other test items.
    for mine, other in zip(tuned_files(whole), tuned_files(mixed), strict=True):
        assert mine.read_bytes() == other.read_bytes()
        if mine.suffix == ".npz":
            assert {name.split("/")[0] for name in np.load(mine)} == {"validation"}
    first = whole.trials[0]
    assert {score.split for score in scores(first, whole)} == {"validation"}
    assert not [tag for tag in tags(whole, first) if "test" in tag]


def test_what_reads_the_runs_of_a_search_says_that_they_are_of_validation_items(whole):
    comparison = compare([whole.plan.folder])
    (report,) = comparison.reports.values()
    (table,) = scenario_tables(comparison)
    assert report.split == "validation"
    assert "on validation items" in table.title
    assert "on the validation split" in table.about
    (row,) = (row for row in report.rows if row.strategy == whole.trials[0].name)
    found = scores(whole.trials[0], whole)
    assert row.headline.old_pairs.mean == final(found, "validation", "audio-video")
    assert row.headline.new_pairs.mean == final(found, "validation", "text-video")
    rows = as_rows(statuses([whole.plan.folder]))[1]
    assert all(cells[3].startswith("validation harmonic mean") for cells in rows)


def test_a_search_that_was_killed_goes_on_to_the_same_trials(search, whole, tmp_path):
    for runs in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            tune(search(tmp_path), threads=1, reporter=Stopping(runs))
    went_on = Stopping(99)
    parts, _ = tune(search(tmp_path, trials=2), threads=1, reporter=went_on)
    assert parts.trials == whole.trials[:2]
    assert [Path(run).parent.name for run in went_on.begun] == ["replay-001"]
    tuned, _ = tune(search(tmp_path), threads=1)
    assert tuned.trials == whole.trials
    fewer = Stopping(1)
    assert tune(search(tmp_path, trials=1), reporter=fewer)[0].trials == whole.trials[:1]
    written = json.loads((tuned.plan.folder / "tuning.json").read_text(encoding="utf-8"))
    assert (written["trials"], written["finished"], written["split"]) == (1, 1, "validation")
    with pytest.raises(InputError, match="another definition: seeds was 1, is 2"):
        tune(search(tmp_path, seeds=2))


def test_a_line_that_a_kill_cut_off_is_removed_from_the_journal(search, whole, tmp_path):
    shutil.copytree(whole.plan.folder, search(tmp_path).folder)
    journal = search(tmp_path).folder / "journal.log"
    before = journal.read_bytes()
    journal.write_bytes(before[:-40])
    for _ in range(2):  # what is written behind it can be read again
        assert tune(search(tmp_path), threads=1)[0].trials == whole.trials
    assert journal.read_bytes().startswith(before[:-200])


@pytest.mark.parametrize("line", ["garbage", "[1, 2]", '{"op_code": 99}', "\x93"])
def test_a_damaged_journal_is_refused_and_made_anew_once_removed(search, whole, tmp_path, line):
    shutil.copytree(whole.plan.folder, search(tmp_path).folder)
    journal = search(tmp_path).folder / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = line.encode("latin-1") + b"\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"journal\.log: is damaged; remove it"):
        tune(search(tmp_path), threads=1)
    journal.unlink()
    assert tune(search(tmp_path), threads=1)[0].trials == whole.trials


def test_a_value_that_the_runs_do_not_have_is_refused(search, whole, tmp_path):
    shutil.copytree(whole.plan.folder, search(tmp_path).folder)
    journal = search(tmp_path).folder / "journal.log"
    text = re.sub(r'"values":\[[0-9.e-]+\]', '"values":[0.99]', journal.read_text())
    journal.write_text(text)
    with pytest.raises(InputError, match="trial 0 has another value than its runs"):
        tune(search(tmp_path), threads=1)


def test_trials_at_once_are_those_in_turn_as_long_as_none_knows_enough_of_others(
    search, whole, tmp_path
):
    # The first four are spread evenly, whatever earlier trials came to.
    once, _ = tune(search(tmp_path), jobs=2, threads=1)
    assert once.trials == whole.trials


def test_a_trial_that_falls_behind_is_pruned_and_counted(search, tmp_path):
    slow = cm.Strategy(name="slow", plugins={"slow": {"ratio": 1.0}})
    given = {"pruning": True, "metric": "mean_reciprocal_rank", "ranges": ("slow.ratio=0:1",)}
    tuned, _ = tune(search(tmp_path, slow, trials=8, **given))
    assert [trial.number for trial in tuned.trials] == list(range(8))
    assert [trial.state for trial in tuned.trials[:5]] == ["finished"] * 5
    pruned = [trial for trial in tuned.trials if trial.state == "pruned"]
    assert pruned
    assert {trial.value for trial in pruned} == {None}
    assert all("validation items" in trial.note for trial in pruned)
    folder = tuned.plan.folder / "trials" / "small" / pruned[0].name / "seed-0"
    assert not (folder / "cost.json").exists()
    assert compare([tuned.plan.folder]).reports["small"].rows


def test_a_value_that_leads_to_nan_is_a_trial_and_no_end(search, tmp_path):
    ewc = cm.Strategy(name="ewc", plugins={"ewc": {"weight": 1e38, "batches": 1, "rows": 8}})
    tuned, failed = tune(search(tmp_path, ewc, trials=2, ranges=("ewc.weight=1e-90:1e38:log",)))
    assert not failed
    first, second = tuned.trials
    assert (first.state, first.value) == ("diverged", None)
    assert "not finite" in first.note
    assert tuned.best == second


@pytest.fixture
def tune_command(tmp_path, monkeypatch, typed, written, scenario_text):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "mine.npz")
    Path("mine.toml").write_text(scenario_text)
    command = ("tune", "mine.toml", "--trials", "2", "--device", "cpu")
    return lambda *arguments: typed(*command, *arguments)


def test_the_command_prints_the_trials_and_writes_a_strategy(tune_command):
    transport = ["--strategy", "transport", "--set", "memory.items=9", "--write", "best.toml"]
    shown = tune_command(*transport)
    assert shown.code == 0
    assert "best of 2 trials" in shown.out
    text = Path("best.toml").read_text(encoding="utf-8")
    assert text.startswith("# Tuned on mine: best of 2 trials of 1 seed each (2 finished), number")
    document = tomllib.loads(text)
    written = json.loads(Path("tuning/mine/transport/tuning.json").read_text(encoding="utf-8"))
    assert (
        document["description"] == "The transport plans of old pairs are kept on some past items."
    )
    assert document["memory"] == {"items": 9}
    best = {f"transport.{key}": value for key, value in document["transport"].items()}
    assert best == written["best"]["values"]
    assert math.isclose(written["best"]["value"], max(t["value"] for t in written["tried"]))
    shown = tune_command(*transport)
    assert shown.code == 2
    assert "best.toml: is there already; name another file, or add --force" in shown.err
    assert tune_command(*transport, "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--strategy", "naive"], "strategy 'naive': there is no number to search in it; it needs"),
        (["mine.toml", "--strategy", "ewc"], "scenario 'mine': is named twice"),
        (["--strategy", "ewc", "--search", "ewc.wieght=1:2"], "did you mean 'ewc.weight'?"),
        (["--strategy", "ewc", "--write", "best"], "best: is no name of a strategy file"),
    ],
)
def test_wrong_input_is_refused_in_a_line(tune_command, arguments, expected):
    shown = tune_command(*arguments)
    assert shown.code == 2
    (line,) = shown.err.splitlines()
    assert expected in line


def test_without_optuna_the_command_says_what_to_install():
    code = """
import sys
sys.modules["optuna"] = None
from continual_mm.cli.app import main
main(["tune", "av_vt", "--strategy", "ewc", "--trials", "1"])
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "continual-mm: tune: optuna is not installed; pip install 'continual-mm[tune]'\n"
    )
