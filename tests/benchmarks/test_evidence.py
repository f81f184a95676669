"""The harness of the evidence: its plan, training that goes on where it stopped, and its tables."""

import csv
import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.comparison.collect import collect, grouped
from continual_mm.comparison.compare import compare
from continual_mm.comparison.export import LOCK
from continual_mm.comparison.exported import UNFINISHED, read_exported
from continual_mm.comparison.tables import as_json
from continual_mm.definitions import catalog
from continual_mm.runs.finished import FinishedRun, PairFacts
from continual_mm.system.errors import InputError

EVIDENCE = Path(__file__).parents[2] / "benchmarks" / "evidence"
MODULES = ("plan", "run", "step_time", "bench", "bounds", "table", "two_stages")
PLAN = """
memory = [4, 8]
[left_out]
[part.full]
seeds = 2
strategies = ["naive", "replay_8", "joint"]
[dataset.tiny]
pack = "tiny.npz"
[[group]]
dataset = "tiny"
title = "One new pair"
part = "full"
scenarios = ["tiny_abc", "tiny_bca"]
"""
BOUNDS = """
total_dim = 8
seeds = 1
[bound.joint_again]
strategy = "joint"
[bound.joint_two]
strategy = "joint"
members = 2
steps = 0.5
"""
SCENARIO = """
dataset = "tiny.npz"
[space]
dim = 8
clusters = 3
[training]
steps = 2
batch_size = 8
[[stage]]
add = ["{0}", "{1}"]
[[stage]]
add = ["{2}"]
pairs = ["{0}-{2}"]
"""


@pytest.fixture(scope="module")
def harness(modules_of):
    """The scripts as modules, by name."""
    with modules_of("evidence", MODULES) as modules:
        yield vars(modules)


@pytest.fixture
def tiny(tmp_path, written):
    """A plan of its own with two scenarios, and the pack for them."""
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    for order in ("abc", "bca"):
        text = SCENARIO.format(*order)
        (tmp_path / "scenarios" / f"tiny_{order}.toml").write_text(text, encoding="utf-8")
    written(tmp_path / "tiny.npz", "abc")
    return tmp_path


@pytest.fixture
def bounded(tiny):
    """The same plan with bounds and one seed."""
    with (tiny / "plan.toml").open("a", encoding="utf-8") as stream:
        stream.write(BOUNDS)
    return tiny


def options(folder, *further):
    return [
        *("--plan", str(folder / "plan.toml"), "--data", str(folder), "--jobs", "1"),
        *("--out", str(folder / "out"), "--results", str(folder / "results"), *further),
    ]


@pytest.fixture
def ran(harness, tiny):
    """(which runs, further options) -> the exit code of training these runs of the plan."""
    return lambda only, *further: harness["run"].main(options(tiny, "--only", only, *further))


def records(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_plan_has_every_strategy_with_and_without_memory_but_those_left_out(
    harness, tmp_path, capsys
):
    given = ["--dry-run", "--data", str(tmp_path), "--results", str(tmp_path / "none")]
    assert harness["run"].main([*given, "--part", "full"]) == 0
    out = capsys.readouterr().out
    assert f"grid: left out, there is no grid_s1_dev.npz in {tmp_path}" in out
    cells = [line.split(":")[0] for line in out.splitlines() if line.endswith("to do 0 1 2 3 4")]
    left_out = harness["plan"].Plan()._document["left_out"]
    wanted = {
        f"{scenario}/{entry.name}{ending}"
        for scenario in ("av_vt", "vt_at", "at_av")
        for entry in catalog.shipped("strategies")
        if entry.name not in left_out
        for ending in (("_32", "_128") if "memory" in entry.document else ("",))
    }
    bounds = ("joint_wide", "joint_two", "joint_two_twice")
    wanted |= {f"{scenario}/{name}" for scenario in ("av_vt", "vt_at", "at_av") for name in bounds}
    assert set(cells) == wanted
    assert f"{5 * len(wanted)} runs, 0 done, {5 * len(wanted)} to do" in out


def test_seed_0_of_everything_comes_before_seed_1(harness):
    seeds = [run.seed for run in harness["plan"].Plan().runs("all", None)]
    assert seeds == sorted(seeds)


def test_scenarios_on_real_recordings_have_the_stages_of_the_shipped_ones_and_no_place():
    found = sorted((EVIDENCE / "scenarios").glob("grid_*.toml"))
    assert len(found) == 7
    for path in found:
        own = catalog.open_definition("scenarios", path).document
        shipped = catalog.find("scenarios", path.stem.removeprefix("grid_")).document
        assert own["dataset"] == "grid_s1_dev.npz"
        for mine, theirs in zip(own["stage"], shipped["stage"], strict=True):
            assert mine["add"] == theirs["add"]
            pairs = [{frozenset(p.split("-")) for p in s.get("pairs", ())} for s in (mine, theirs)]
            assert pairs[0] == pairs[1]


def test_training_goes_on_where_it_stopped_even_without_its_folders(ran, tiny, capsys):
    assert ran("tiny_abc/naive") == 0
    first = records(tiny / "results" / "runs.csv")
    assert [row["seed"] for row in first] == ["0", "1"]
    (tiny / "out").rename(tiny / "gone")
    assert ran("tiny_abc/(naive|replay)") == 0
    assert "4 runs, 2 done, 2 to do" in capsys.readouterr().out
    assert not (tiny / "out" / "tiny_abc" / "naive").exists()
    after = records(tiny / "results" / "runs.csv")
    assert len(after) == 4
    kept = [row["seconds"] for row in after if row["strategy"] == "naive"]
    assert kept == [row["seconds"] for row in first]


def test_a_finished_run_that_was_not_exported_is_exported_and_not_trained_again(ran, tiny):
    assert ran("tiny_abc/naive") == 0
    folder = tiny / "out" / "tiny_abc" / "naive" / "seed-0"
    assert (folder / "scores.json").exists()
    assert not (folder / "checkpoints").exists()
    before = {path.name: path.read_bytes() for path in (tiny / "results").iterdir()}
    for name in before:
        (tiny / "results" / name).unlink()
    assert ran("tiny_abc/naive") == 0
    assert {path.name: path.read_bytes() for path in (tiny / "results").iterdir()} == before


def test_files_that_a_process_at_work_leaves_in_the_results_are_not_committed():
    root = EVIDENCE.parents[1]
    ignored = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {LOCK, UNFINISHED} <= set(ignored)


def test_tables_have_the_numbers_of_compare_and_their_means(harness, ran, tiny):
    assert ran(".*/(naive|joint)") == 0
    results = tiny / "results"
    assert harness["table"].main([*options(tiny)[:2], "--results", str(results)]) == 0
    cells = {(row["scenario"], row["strategy"]): row for row in records(results / "summary.csv")}
    known = json.loads(as_json(compare([results])))["rows"]
    assert len(known) == 4
    for row in known:
        own = cells[row["scenario"], row["strategy"]]
        assert own["seeds"] == "2"
        for name in ("harmonic_mean", "old_pairs", "retention", "intransigence", "difference"):
            for end in ("mean", "low", "high"):
                expected = f"{100 * row[name][end]:z.3f}" if row[name] else ""
                assert own[f"{name}_{end}"] == expected
    for strategy in ("naive", "joint"):
        mean = cells["mean of tiny_abc, tiny_bca", strategy]
        for name in ("harmonic_mean", "new_pairs", "difference"):
            each = [cells[f"tiny_{order}", strategy][f"{name}_mean"] for order in ("abc", "bca")]
            if each[0]:
                expected = np.mean([float(cell) for cell in each])
                assert float(mean[f"{name}_mean"]) == pytest.approx(expected, abs=2e-3)
        assert mean["step_time"] == ""
    page = (results / "README.md").read_text(encoding="utf-8")
    assert "## tiny: One new pair" in page
    assert "difference to naive" in page


def test_tables_have_finer_scores_chance_sizes_and_indexes(harness, ran, tiny):
    assert ran("tiny_abc/(naive|joint)") == 0
    results = tiny / "results"
    assert harness["table"].main([*options(tiny)[:2], "--results", str(results)]) == 0
    cells = {row["strategy"]: row for row in records(results / "summary.csv")}
    for metric, ending in (("recall@10", "at_10"), ("mean_reciprocal_rank", "mrr")):
        for row in json.loads(as_json(compare([results], metric=metric)))["rows"]:
            own = cells[row["strategy"]]
            for name in ("harmonic_mean", "old_pairs"):
                assert own[f"{name}_{ending}_low"] == f"{100 * row[name]['low']:z.3f}"
    naive = cells["naive"]
    assert (naive["vector_size"], naive["chance"]) == ("8", "3.333")
    assert naive["earlier_recall_mean"]
    page = (results / "README.md").read_text(encoding="utf-8")
    assert "| retention (chance 3.33) | difference to naive | mixed | earlier | memory |" in page


def test_an_interval_of_a_mean_over_equal_scenarios_is_that_of_one(harness, ran, tiny):
    assert ran("tiny_abc/(naive|joint)") == 0
    known = grouped(collect([tiny / "results"])[0])
    bench = harness["bench"].Bench(known["tiny_abc"])
    once, twice = (harness["bench"].lines([bench] * times, "naive") for times in (1, 2))
    assert [line.estimates for line in once] == [line.estimates for line in twice]
    naive = next(line for line in once if line.strategy == "naive")
    assert naive.estimates["difference"] is None


def test_the_time_of_a_step_comes_from_a_process_that_takes_strategies_in_turn(harness, ran, tiny):
    assert ran("tiny_abc/naive") == 0
    given = ["--plan", str(tiny / "plan.toml"), "--results", str(tiny / "results")]
    short = ["--data", str(tiny), "--steps", "3", "--rounds", "2"]
    assert harness["step_time"].main([*given, *short]) == 0
    rows = records(tiny / "results" / "step_times.csv")
    assert len(rows) == 6
    assert {row["rounds"] for row in rows} == {"2"}
    assert all(float(row["milliseconds"]) > 0 for row in rows)
    naive = {row["multiple_of_naive"] for row in rows if row["strategy"] == "naive"}
    assert naive == {"1.000"}
    assert harness["table"].main(given) == 0
    cells = {(r["scenario"], r["strategy"]): r for r in records(tiny / "results" / "summary.csv")}
    assert cells["tiny_abc", "naive"]["step_time"] == "1"


def test_times_of_some_strategies_go_where_they_were_and_the_others_stay(harness):
    kept = "scenario,strategy,rounds,milliseconds,multiple_of_naive\n" + "".join(
        f"s,{name},1,{time},{time}\n" for name, time in (("naive", 1), ("ewc", 2), ("agem", 3))
    )
    now = kept.replace("ewc,1,2,2", "ewc,3,5,5").replace("naive,1,1,1", "naive,3,9,1")
    now = "".join(line for line in now.splitlines(keepends=True) if "agem" not in line)
    found = harness["step_time"].beside(now, kept)
    assert found == kept.replace("ewc,1,2,2", "ewc,3,5,5")


def test_what_has_another_definition_by_now_is_trained_anew_only_when_asked(ran, tiny, capsys):
    only = "tiny_abc/naive/seed-0"
    assert ran(only) == 0
    file = tiny / "scenarios" / "tiny_abc.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("steps = 2", "steps = 3"))
    capsys.readouterr()
    assert ran(only) == 2
    reason = "tiny_abc/naive/seed-0: was trained with another scenario.training.steps"
    assert reason in capsys.readouterr().out
    assert ran(only, "--replace") == 0
    (row,) = records(tiny / "results" / "runs.csv")
    assert row["steps"] == "6"


def test_results_of_a_scenario_are_not_lost_to_runs_of_another_definition(ran, tiny, capsys):
    assert ran("tiny_abc/naive") == 0
    kept = records(tiny / "results" / "runs.csv")
    file = tiny / "scenarios" / "tiny_abc.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("steps = 2", "steps = 3"))
    assert ran("tiny_abc/joint") == 2
    assert "tiny_abc: was trained with another scenario.training.steps" in capsys.readouterr().out
    assert records(tiny / "results" / "runs.csv") == kept


def test_results_of_a_version_that_lacked_a_key_go_with_runs_in_which_it_is_off(ran, tiny):
    assert ran("tiny_abc/naive/seed-0") == 0
    file = tiny / "results" / "definitions.json"
    text = file.read_text(encoding="utf-8")
    definitions = json.loads(text)
    scenario = definitions["scenarios"]["tiny_abc"]["scenario"]
    for table in (scenario["training"], *scenario["stages"]):
        del table["epochs"]
    file.write_text(json.dumps(definitions), encoding="utf-8")
    assert ran("tiny_abc/naive") == 0
    assert len(records(tiny / "results" / "runs.csv")) == 2


def test_a_strategy_that_lacks_runs_is_shown_with_the_seeds_it_has(harness, ran, tiny):
    assert ran(r"tiny_abc/(naive|joint/seed-0)|tiny_bca/naive/seed-1") == 0
    given = ["--plan", str(tiny / "plan.toml"), "--results", str(tiny / "results")]
    assert harness["table"].main(given) == 0
    rows = {(r["scenario"], r["strategy"]): r for r in records(tiny / "results" / "summary.csv")}
    mean = "mean of tiny_abc, tiny_bca"
    assert {key: row["seeds"] for key, row in rows.items()} == {
        (mean, "naive"): "2/1",
        (mean, "joint"): "1/0",
        ("tiny_abc", "naive"): "2",
        ("tiny_abc", "joint"): "1",
        ("tiny_bca", "naive"): "1",
    }
    assert rows[mean, "naive"]["harmonic_mean_mean"]
    assert not rows[mean, "joint"]["harmonic_mean_mean"]


def ranks_of(folder, scenario, strategy):
    with np.load(folder / "results" / "ranks.npz") as arrays:
        return arrays[f"ranks/{scenario}/{strategy}"] / 2


def test_a_bound_of_one_member_of_the_usual_size_is_joint_training(ran, bounded):
    assert ran("tiny_abc/joint(_again)?/") == 0
    first, again = (ranks_of(bounded, "tiny_abc", name) for name in ("joint", "joint_again"))
    assert np.array_equal(first, again)


def test_a_bound_of_two_members_ranks_by_the_sum_of_their_similarities(ran, bounded):
    assert ran("tiny_abc/joint_two", "--no-slim") == 0
    place = bounded / "out" / "members" / "joint_two" / "tiny_abc" / "joint"
    spaces = [cm.open_run(place / f"seed-{seed}") for seed in (0, 1000)]
    assert {space.size for space in spaces} == {4}
    data = cm.read_pack(bounded / "tiny.npz")
    rows = torch.from_numpy(np.flatnonzero(data.split == 2))
    expected = []
    for first, second in ("ab", "ac", "bc"):
        similarity = sum(
            space.encode(first, data.columns[first].take(rows)[0], standardised=True)
            @ space.encode(second, data.columns[second].take(rows)[0], standardised=True).T
            for space in spaces
        ).numpy()
        for each in (similarity, similarity.T):
            expected.append((each > each.diagonal()[:, None]).sum(1))
    assert np.array_equal(ranks_of(bounded, "tiny_abc", "joint_two")[0], np.concatenate(expected))
    (row,) = records(bounded / "results" / "runs.csv")
    assert row["steps"] == "4"  # joint training makes 4, and each of two members half of them
    definitions = json.loads((bounded / "results" / "definitions.json").read_text())
    (strategy,) = definitions["strategies"]
    assert strategy["definition"]["member_dim"] == 4
    assert definitions["scenarios"]["tiny_abc"]["scenario"]["space"]["dim"] == 8


def test_a_bound_goes_on_with_the_members_it_has(ran, bounded, capsys):
    only, out = "tiny_abc/joint_two", bounded / "out"
    assert ran(only, "--no-slim") == 0
    found = ranks_of(bounded, "tiny_abc", "joint_two")
    members = out / "members" / "joint_two" / "tiny_abc" / "joint"
    trained = (members / "seed-0" / "cost.json").stat().st_mtime_ns
    for lost in (members / "seed-1000", out / "tiny_abc", bounded / "results"):
        shutil.rmtree(lost)
    assert ran(only, "--dry-run") == 0
    assert f"{only}: to do 0" in capsys.readouterr().out
    assert ran(only, "--no-slim") == 0
    assert (members / "seed-0" / "cost.json").stat().st_mtime_ns == trained
    assert np.array_equal(ranks_of(bounded, "tiny_abc", "joint_two"), found)


def test_members_of_a_bound_that_is_made_are_removed_and_not_trained_again(ran, bounded):
    only, members = "tiny_abc/joint_two", bounded / "out" / "members" / "joint_two" / "tiny_abc"
    assert ran(only) == 0
    found = ranks_of(bounded, "tiny_abc", "joint_two")
    shutil.rmtree(bounded / "results")
    assert ran(only) == 0
    assert not list(members.rglob("*.json"))
    assert np.array_equal(ranks_of(bounded, "tiny_abc", "joint_two"), found)


@pytest.mark.parametrize(
    ("plugins", "stages", "pairs", "size"),
    [
        ({}, ("ab", "c"), None, 8),
        ({"freeze": {}}, ("ab", "c"), None, 8),
        ({"pair_lora": {}}, ("ab", "c"), ["b-c"], 16),  # b: by its own vector and that with c
        ({"pair_lora": {}}, ("a", "b", "c"), None, 16),  # a: with b, and with c
        ({"pair_lora": {}}, ("ab", "c", "d"), None, 24),  # a: by its own, with c, with d
        ({"expand": {}}, ("ab", "c"), None, None),  # training decides it
    ],
)
def test_the_size_of_vectors_of_earlier_runs_follows_from_their_definition(
    harness, plugins, stages, pairs, size
):
    there, facts = "", {}
    for stage, added in enumerate(stages):
        before, there = there, there + added
        for first, second in combinations(sorted(there), 2):
            if not {first, second} <= set(before):
                facts[f"{first}-{second}"] = PairFacts(stage, "new", 0.1)
    said = [{"add": list(added)} for added in stages]
    said[-1]["pairs"] = pairs
    run = FinishedRun(
        Path(), "", "", 0, False, {"scenario": {"space": {"dim": 8}, "stages": said}},
        {"plugins": plugins}, tuple(map(tuple, stages)), facts, {}, 0, 0.0,
    )  # fmt: skip
    assert harness["bench"].vector_size(run) == size
    assert harness["bench"].vector_size(replace(run, vector_size=40)) == 40


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "plan.toml: no such file"),
        ("[x]", "plan.toml: is no plan: it has no group, part, dataset, memory, left_out"),
        (PLAN.replace("title", "titel"), "plan.toml: unexpected KeyError: 'title'"),
    ],
)
def test_a_plan_that_is_none_is_refused(harness, tmp_path, text, problem, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if text is not None:
        (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    for name in ("table", "run", "step_time"):
        with pytest.raises(InputError, match=problem):
            harness[name].main(["--plan", str(tmp_path / "plan.toml")])


@pytest.fixture(scope="module")
def committed():
    """The committed results: scenario -> strategy -> runs."""
    return grouped(read_exported(EVIDENCE / "results"))


def test_recall_of_an_order_counts_texts_that_find_their_video(harness, committed):
    runs = committed["av_t"]["naive"]
    found = [np.mean(run.ranked[1, "text-video"].ranks[0] < 10) for run in runs]
    estimate = harness["two_stages"].estimates(committed["av_t"], "recall@10")["naive"]
    assert estimate.mean == pytest.approx(np.mean(found))
    assert estimate.low < estimate.mean < estimate.high


@pytest.mark.parametrize("dataset", ["narrated_shapes", "GRID"])
def test_the_page_on_the_original_experiments_has_the_tables(harness, committed, dataset):
    page = (EVIDENCE.parents[1] / "docs" / "original-experiments.md").read_text(encoding="utf-8")
    assert harness["two_stages"].table(committed, dataset) in page


def test_a_group_may_have_strategies_of_its_own(harness, tiny):
    text = (tiny / "plan.toml").read_text(encoding="utf-8")
    (tiny / "plan.toml").write_text(f'{text}strategies = ["ewc"]\n', encoding="utf-8")
    runs = harness["plan"].Plan(tiny / "plan.toml").runs("all", tiny)
    names = {run.strategy.name for run in runs}
    assert names == {"naive", "replay_8", "joint", "ewc"}
