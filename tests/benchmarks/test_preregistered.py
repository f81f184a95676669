"""Three tests written down before they were run: the code does what is written, no more."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison.estimates import Estimate
from continual_mm.data.pack import read_pack, write_pack
from continual_mm.definitions.arrivals import plan as arrivals_of
from continual_mm.learning.stream import benchmark
from continual_mm.runs.finished import FinishedRun, PairFacts, Ranked

FOLDER = Path(__file__).parents[2] / "benchmarks" / "preregistered"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
NAMES = ("packs", "plans", "held", "grid", "tables")
WORDS = ("red", "blue", "square", "circle", "left", "right", "low", "high")


@pytest.fixture(scope="module")
def code(modules_of):
    with modules_of("preregistered", NAMES) as modules:
        yield modules


@pytest.fixture(scope="module")
def arrays():
    """As narrated_shapes, but few and short: 40 training, 6 validation and 6 test items."""
    rng = np.random.default_rng(0)
    count = 52
    captions = [" ".join(rng.choice(WORDS, size=4)) for _ in range(count)]
    ids, split = [f"clip{row}" for row in range(count)], np.repeat([0, 1, 2], [40, 6, 6])
    found = {"ids": np.array(ids), "split": split, "text_raw": np.array(captions)}
    kinds = {"video": "frames", "audio": "spectrogram", "text": "tokens"}
    for (name, kind), shape in zip(kinds.items(), ((3, 5), (4, 6), (4, 7)), strict=True):
        found[name] = rng.standard_normal((count, *shape)).astype(np.float32)
        found[f"{name}_kind"], found[f"{name}_length"] = np.array(kind), np.full(count, 4)
    return found | {"video_length": rng.integers(1, 4, count)}


@pytest.fixture
def small(arrays, code, tmp_path, monkeypatch):
    """These items in place of narrated_shapes."""
    write_pack(tmp_path / "small.npz", arrays)
    monkeypatch.setattr(code.packs, "pack_path", lambda: tmp_path / "small.npz")


def registered(heading):
    """Strategy -> role and weights, as the README's table below a heading has them."""
    part = README.split(f" `{heading}`:")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\d., ]*) ?\|", part, flags=re.MULTILINE)
    return {
        name: (role, tuple(float(value) for value in weights.split(",") if value.strip()))
        for name, role, weights in rows
    }


@pytest.mark.parametrize("name", ["shift", "prototypes", "noise"])
def test_a_plan_compares_what_was_registered_at_the_registered_weights(code, name):
    found = next(plan for plan in code.plans.PLANS if plan.name == name)
    planned = {c.name: (c.role, c.weights) for c in found.candidates}
    assert planned == registered(name)


def test_weights_are_a_quarter_to_16_times_the_second_of_them(code):
    for plan in code.plans.PLANS:
        for candidate in plan.candidates:
            low, usual, *more = candidate.weights or (1, 4, 16, 64)
            assert [usual, *more] == [4 * low, 16 * low, 64 * low]


def test_there_are_as_many_runs_as_the_readme_says(code):
    def runs(plan):
        return len({(c.strategy(w).name, seed) for c in plan.candidates for w, seed in cells(c)})

    def cells(candidate):
        chosen = candidate.weights[0] if candidate.weights else None
        trials = [(weight, 0) for weight in candidate.weights]
        return [*trials, *((chosen, seed) for seed in code.grid.Place(Path()).seeds)]

    own = sum(runs(plan) for plan in code.plans.PLANS if not plan.given)
    given = sum(runs(plan) for plan in code.plans.PLANS if plan.given)
    assert f"# {own} runs" in README
    assert f"and {given} runs on GRID" in README


def test_half_of_the_training_items_get_a_sound_that_is_not_theirs_and_no_other_does(code, arrays):
    changed = code.packs.mismatched(arrays, np.arange(3))
    training = arrays["split"] == 0
    other = (changed["audio"] != arrays["audio"]).any(axis=(1, 2))
    assert other.sum() == training.sum() / 2
    assert not other[~training].any()
    sounds = {row.tobytes() for row in arrays["audio"]}
    assert {row.tobytes() for row in changed["audio"]} == sounds
    for name in ("video", "text", "split", "ids"):
        assert (changed[name] == arrays[name]).all()


def test_each_held_out_item_serves_every_pair_once_in_the_shifted_pack(code, arrays):
    shifted = code.packs.shifted(arrays, np.arange(20))
    here = {name: shifted[f"{name}_present"] for name in ("video", "audio", "text")}
    for split in (1, 2):
        of_split = shifted["split"] == split
        for first, second in (("video", "audio"), ("video", "text"), ("audio", "text")):
            both = here[first] & here[second] & of_split
            assert both.sum() == (arrays["split"] == split).sum()
        assert not (here["video"] & here["audio"] & here["text"] & of_split).any()
    assert len(set(shifted["ids"])) == len(shifted["ids"])


def test_turned_video_is_halfway_to_a_rotation_of_itself(code, arrays):
    old, new = code.packs.standardised_and_turned(arrays, arrays["split"] == 0)
    turned = np.sqrt(2) * new - old
    flat, onto = old.reshape(-1, old.shape[-1]), turned.reshape(-1, old.shape[-1])
    assert onto @ onto.T == pytest.approx(flat @ flat.T, abs=1e-4)
    assert np.abs(onto - flat).max() > 1


def test_the_map_of_texts_keeps_angles_between_captions(code, arrays):
    training = arrays["split"] == 0
    vectors = code.packs.embedded(arrays["text_raw"], training)
    bags = np.array([[word in text.split() for word in WORDS] for text in arrays["text_raw"]])
    centred = bags - bags[training].mean(axis=0)
    assert vectors.shape == (len(training), code.packs.DIM)
    assert vectors @ vectors.T == pytest.approx(centred @ centred.T, abs=1e-4)


def test_video_is_turned_in_the_second_stage_of_a_seed_and_not_in_the_first(code, small, tmp_path):
    place = code.grid.Place(tmp_path)
    plan = next(plan for plan in code.plans.PLANS if plan.name == "shift")
    base = read_pack(tmp_path / "small.npz").columns["video"].values
    for seed in (0, 1):
        scenario = code.grid.scenario_of(plan, seed, place)
        dataset = read_pack(Path(scenario.folder) / scenario.dataset, standardise=False)
        streams = benchmark(scenario, arrivals_of(scenario, dataset.card), dataset, seed=seed)
        first, second = (stage.items.shares[0].rows.numpy() for stage in streams.train)
        video = dataset.columns["video"].values
        assert video[first] == pytest.approx(base[first], abs=1e-5)
        assert (np.abs(video[second] - base[second]).max(axis=(1, 2)) > 0.1).all()


def test_transport_wins_only_where_the_whole_interval_says_so(code):
    verdicts = [
        code.grid.verdict(Estimate(0.1, *ends)) for ends in ((0.05, 0.2), (0, 0.2), (-1, 0.2))
    ]
    assert verdicts == ["wins", "undecided", "undecided"]
    assert code.grid.verdict(Estimate(-0.1, -0.2, -0.05)) == "loses"
    assert code.grid.verdict(None) == "undecided"


def test_the_smaller_of_equal_weights_is_chosen_and_one_that_diverged_never(code):
    candidate = code.plans.Candidate("l2", "rival", "distill", (1.0, 4.0, 16.0))
    equal = code.grid.choose(candidate, {16.0: 0.5, 4.0: 0.5})
    assert (equal.weight, equal.at_the_edge) == (4.0, False)
    weak = code.grid.choose(replace(candidate, name="weak"), {1.0: 0.4})
    assert weak.at_the_edge
    assert code.grid.rival_of([weak, equal]) == "l2"
    with pytest.raises(code.grid.IncompleteError, match="finite"):
        code.grid.choose(candidate, {})


def finished(strategy, seed, found):
    """A run that answers some share of 40 queries of every pair at every stage."""
    pairs = {
        "audio-text": PairFacts(1, "emergent", 0.025),
        "audio-video": PairFacts(0, "old", 0.025),
        "text-video": PairFacts(1, "new", 0.025),
    }
    ranks = np.tile((np.arange(40) >= 40 * found).astype(float), (2, 1))
    ranked = {
        (stage, name): Ranked(np.arange(40), ranks)
        for stage in (0, 1)
        for name, facts in pairs.items()
        if facts.birth <= stage
    }
    arrivals = (("video", "audio"), ("text",))
    task = (Path(strategy), "noise", strategy, seed, False, {}, {})
    return FinishedRun(*task, arrivals, pairs, ranked, memory_bytes=0, seconds=2.0)


@pytest.mark.parametrize(("shares", "verdict"), [((1.0, 0.5), "wins"), ((0.25, 0.75), "loses")])
def test_the_difference_is_that_of_contender_minus_rival(code, small, tmp_path, shares, verdict):
    plan = next(plan for plan in code.plans.PLANS if plan.name == "noise")
    scenario = code.grid.scenario_of(plan, 0, code.grid.Place(tmp_path))
    two = [code.grid.Chosen(each, {1.0: 0.5}, 1.0) for each in plan.candidates[:2]]
    runs = [
        [finished(each.candidate.name, seed, share) for seed in (0, 1)]
        for each, share in zip(two, shares, strict=True)
    ]
    findings = code.grid.compared(plan, two, runs, scenario, (0, 1))
    difference = findings.contender.differences["harmonic_mean"]
    assert difference.mean == pytest.approx(shares[0] - shares[1])
    assert (findings.verdict, findings.rival) == (verdict, "distill")


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_plan_is_carried_out_written_down_and_not_done_twice(code, small, tmp_path):
    plan = next(plan for plan in code.plans.PLANS if plan.name == "shift")
    transport, distill, *_ = plan.candidates
    distill = replace(distill, weights=distill.weights[:1])
    transport = replace(transport, weights=transport.weights[:2])
    plan = replace(plan, candidates=(transport, distill))
    settings = (("training.steps", "2"), ("training.batch_size", "8"), ("space.clusters", "0"))
    place = code.grid.Place(tmp_path, seeds=(0, 1), settings=settings)
    results = tmp_path / "results"
    text = code.tables.write(code.grid.carry_out(plan, place), results)
    rows = read_csv(results / "shift.csv")
    decisive = {row["strategy"]: row for row in rows if row["measure"] == "harmonic_mean"}
    assert decisive["distill"]["difference_mean"] == ""
    low, high = (float(decisive["transport"][f"difference_{end}"]) for end in ("low", "high"))
    assert ("undecided" in text.splitlines()[0]) == (low <= 0 <= high)

    tried = [row for row in read_csv(results / "shift_weights.csv") if row["chosen"] == "1"]
    assert len(tried) == 2
    chosen = next(row["weight"] for row in tried if row["strategy"] == "transport")
    means = {"audio-video": [], "text-video": []}
    for seed in (0, 1):
        file = tmp_path / "shift" / f"transport-{chosen}" / f"seed-{seed}" / "scores.json"
        for score in json.loads(file.read_text())["evaluations"]:
            if score["stage"] == 2 and score["split"] == "test" and score["pair"] in means:
                means[score["pair"]].append(score["recall@1"])
    old, new = (float(np.mean(values)) for values in means.values())
    expected = 2 * old * new / (old + new) if old + new else 0.0
    assert float(decisive["transport"]["mean"]) == pytest.approx(expected, abs=1e-6)

    finished = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("cost.json")}
    assert len(finished) == 5
    assert code.tables.write(code.grid.carry_out(plan, place), results) == text
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("cost.json")} == finished


def test_what_is_held_is_counted_to_the_byte(code, small, tmp_path):
    """A dozen items and their embeddings."""
    plan = next(plan for plan in code.plans.PLANS if plan.name == "noise")
    scenario = code.grid.scenario_of(plan, 0, code.grid.Place(tmp_path))
    candidate = code.plans.Candidate("l2", "rival", "distill", (1.0,), items=12)
    held = code.held.held_bytes(scenario, candidate.strategy(1.0))
    floats = 3 * 5 + 4 * 6 + 2 * 256
    whole = 2 + 2 + 2 + 2  # lengths and rows of two modalities; row and stage twice over
    rng = 1
    assert held == 12 * (4 * floats + 8 * whole) + 8 * rng


def test_the_bytes_of_l2_and_prototypes_are_those_of_the_readme(code, tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"video": (12, 54), "audio": (31, 40), "text": (12, 32)}
    pack = {name: rng.standard_normal((230, *shape)) for name, shape in shapes.items()}
    pack |= {"video_kind": np.array("frames"), "audio_kind": np.array("spectrogram")}
    pack |= {f"{name}_length": np.full(230, shape[0]) for name, shape in shapes.items()}
    ids, split = np.array([f"clip{row}" for row in range(230)]), np.repeat([0, 1, 2], [210, 10, 10])
    write_pack(tmp_path / "like.npz", {**pack, "ids": ids, "split": split})
    plan = next(plan for plan in code.plans.PLANS if plan.name == "prototypes")
    place = code.grid.Place(tmp_path, settings=(("dataset", str(tmp_path / "like.npz")),))
    scenario = code.grid.scenario_of(plan, 0, place)
    held = {
        c.name: code.held.held_bytes(scenario, c.strategy(c.weights[0] if c.weights else None))
        for c in plan.candidates
    }
    assert held["naive"] == 0
    assert held["prototypes"] <= held["distill_items"] < 1.01 * held["prototypes"]
    for name in ("prototypes", "distill_items", "distill_current", "partners"):
        assert f"{held[name]:,}" in README
