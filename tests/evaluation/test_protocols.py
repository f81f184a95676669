"""Runs that are scored by protocols: what is kept, and that training does not notice."""

import json
import math

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from continual_mm.comparison.protocols import compare_protocol
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.pack import write_pack
from continual_mm.definitions.scenario import (
    Protocol,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    Training,
)
from continual_mm.evaluation.protocols import load_scored
from continual_mm.evaluation.scores import ProtocolScore
from continual_mm.runs.finished import read_finished
from continual_mm.runs.run import open_run, run, train
from continual_mm.runs.specification import Specification, opened
from continual_mm.system.errors import InputError

SIZES = {"video": 8, "audio": 7, "text": 5}
RNG = np.random.default_rng(1)
MAPS = {name: RNG.standard_normal((6, size)) for name, size in SIZES.items()}
NAIVE = Strategy(name="naive")
PAIR_LORA = Strategy(name="pair_lora", plugins={"pair_lora": {"rank": 2}})
BOTH = Protocol(name="both", dataset="x", query=("text",), gallery=("video", "audio"), expected=20)
FULL = Protocol(
    name="full", kind="video_retrieval", dataset="x", query=("audio", "text"), gallery=("video",)
)
OWN = Protocol(name="own", query=("audio",), gallery=("video",))


def arrays(rows):
    shared = RNG.standard_normal((rows, 6))
    return {name: (shared @ each).astype(np.float32) for name, each in MAPS.items()}


DATASET = Dataset.from_arrays(arrays(90), split=np.repeat([0, 1, 2], [60, 15, 15]))


def only_scored(arrays, **options):
    """Sixteen items that only score."""
    options = {"standardise": DATASET.statistics, **options}
    return Dataset.from_arrays(arrays, split=np.full(16, 2), splits=["test"], **options)


OTHER = only_scored(arrays(16), group=np.arange(16) // 4)
SCORED = {"both": OTHER, "full": OTHER}


def scenario(*protocols, **space):
    settings = {"dim": 12, "clusters": 3, "feature_dropout": 0.2, **space}
    return Scenario(
        name="small",
        space=SpaceSettings(**settings),
        training=Training(steps=5, batch_size=16, learning_rate=1e-2, evaluate_every=2),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
        protocols=protocols,
    )


THREE = scenario(BOTH, FULL, OWN)
PLAIN = scenario()


def ranks_of(similarity):
    """Wrong answers that are more similar, and half of those exactly as similar."""
    own = np.diag(similarity)[:, None]
    return (similarity > own).sum(1) + ((similarity == own).sum(1) - 1) / 2


def embedded(space, dataset):
    rows = dataset.rows_of(Split.TEST)
    return {
        name: space.encode(name, dataset.columns[name].values[rows], standardised=True).numpy()
        for name in SIZES
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    run(THREE, NAIVE, DATASET, out, scored=SCORED, device="cpu")
    return out / "small" / "naive" / "seed-0"


@pytest.mark.parametrize("mode", ["robust", "reference"])
def test_protocols_change_no_bit_of_training(mode, same):
    space = {"mode": mode} if mode == "robust" else {"mode": mode, "feature_dropout": 0.0}
    alone = train(scenario(**space), DATASET, device="cpu")
    watched = train(scenario(BOTH, FULL, OWN, **space), DATASET, scored=SCORED, device="cpu")
    assert [score.name for score in watched.protocols] == ["own", "both", "full", "own"]
    assert same(alone.space.state_dict(), watched.space.state_dict())
    assert alone.scores == watched.scores


def test_a_protocol_is_scored_after_every_stage_at_which_its_modalities_are_there(finished):
    scores = json.loads((finished / "scores.json").read_text())["protocols"]
    assert [(score["name"], score["stage"], score["step"]) for score in scores] == [
        ("own", 1, 5), ("both", 2, 10), ("full", 2, 10), ("own", 2, 10),
    ]  # fmt: skip
    counted = {score["name"]: (score["queries"], score["expected"]) for score in scores}
    assert counted == {"own": (15, 15), "both": (16, 20), "full": (16, 16)}


def test_scores_are_those_of_the_space_that_the_run_leaves(finished):
    seen = embedded(open_run(finished), OTHER)
    similarity = seen["text"] @ (seen["video"] + seen["audio"]).T
    known = read_finished(finished).judged
    found = known[1, "both", "items"].values[0]
    np.testing.assert_array_equal(found, [*ranks_of(similarity), *[math.inf] * 4])
    scores = json.loads((finished / "scores.json").read_text())["protocols"]
    measures = {score["name"]: score["measures"] for score in scores}
    for k in (1, 5, 10):
        assert measures["both"][f"recall@{k}"] == (ranks_of(similarity) < k).sum() / 20
    assert measures["both"]["median_rank"] == np.median(found) + 1
    swapped = (seen["audio"] + seen["text"]) @ seen["video"].T
    np.testing.assert_array_equal(known[1, "full", "clips"].values[0], ranks_of(swapped))


def test_the_scenarios_own_items_give_the_ranks_of_the_pair(finished):
    known = read_finished(finished)
    for stage in (0, 1):
        pair, found = known.ranked[stage, "audio-video"], known.judged[stage, "own", "items"]
        np.testing.assert_array_equal(found.units, pair.rows)
        np.testing.assert_array_equal(found.values[0], pair.ranks[0])


def test_pairs_with_towers_of_their_own_are_compared_through_them(tmp_path):
    stages = (Stage(add=("video", "audio")), Stage(add=("text",)))
    several = scenario(BOTH).model_copy(update={"stages": stages})
    history = run(several, PAIR_LORA, DATASET, tmp_path, scored={"both": OTHER}, device="cpu")
    folder = tmp_path / "small" / "pair_lora" / "seed-0"
    similarity = np.zeros((16, 16), np.float32)
    for name in ("video", "audio"):
        seen = embedded(open_run(folder, pair=f"text-{name}"), OTHER)
        similarity += seen["text"] @ seen[name].T
    found = read_finished(folder).judged[1, "both", "items"].values[0, :16]
    np.testing.assert_array_equal(found, ranks_of(similarity))
    bare = embedded(history.space, OTHER)
    shared = bare["text"] @ (bare["video"] + bare["audio"]).T
    assert np.abs(shared - similarity).max() > 1e-3


def test_reference_mode_compares_raw_embeddings_and_leaves_the_missing_out():
    published = scenario(BOTH, mode="reference", dim=12, feature_dropout=0.0)
    history = train(published, DATASET, scored={"both": OTHER}, device="cpu")
    seen = embedded(history.space, OTHER)
    assert not np.allclose(np.linalg.norm(seen["text"], axis=1), 1.0, atol=0.05)
    ranks = ranks_of(seen["text"] @ (seen["video"] + seen["audio"]).T)
    measures = history.protocols[-1].measures
    assert measures["median_rank"] == np.median(ranks) + 1
    assert measures["recall@10"] == (ranks < 10).sum() / 20


def test_a_comparison_has_the_listed_ties_that_the_scores_have(tmp_path):
    twice = arrays(16)
    for values in twice.values():
        values[8:] = values[:8]
    doubled = only_scored(twice)
    bugs = {"mode": "reference", "feature_dropout": 0.0, "bugs": ("ties_listed_each",)}
    run(scenario(BOTH, **bugs), NAIVE, DATASET, tmp_path, scored={"both": doubled}, device="cpu")
    folder = tmp_path / "small" / "naive" / "seed-0"
    (score,) = json.loads((folder / "scores.json").read_text())["protocols"]
    ((row,),) = (report.rows for report in compare_protocol([tmp_path], "both").reports)
    shown = dict(zip(score["measures"], (each.mean for each in row.estimates), strict=True))
    assert shown == pytest.approx(score["measures"])
    # Two ranks for each of the sixteen queries, of which the first is even; twenty are expected.
    assert round(score["measures"]["recall@10"] * 20) % 2 == 0
    ranks = read_finished(folder).judged[1, "both", "items"].values[:, :16]
    np.testing.assert_array_equal(ranks[1] - ranks[0], np.ones(16))


def test_a_run_that_was_stopped_scores_nothing_twice(finished, tmp_path, stop_at):
    given = THREE, NAIVE, DATASET, tmp_path
    for steps in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            run(*given, scored=SCORED, device="cpu", checkpoint_every=1, reporter=stop_at(steps))
    run(*given, scored=SCORED, device="cpu")
    parts = tmp_path / "small" / "naive" / "seed-0"
    for name in ("scores.json", "ranks/stage-1.npz", "ranks/stage-2.npz"):
        assert (parts / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_goes_on_only_with_what_its_protocols_scored_before(tmp_path, stop_at):
    given = scenario(OWN, BOTH), NAIVE, DATASET, tmp_path
    with pytest.raises(KeyboardInterrupt):
        run(*given, scored={"both": OTHER}, device="cpu", reporter=stop_at(6))
    changed = only_scored(arrays(16))
    with pytest.raises(InputError, match=r"protocols\[2\]\.data\.fingerprint"):
        run(*given, scored={"both": changed}, device="cpu")


def test_runs_without_protocols_are_defined_as_they_were_before_there_were_any():
    known = Specification(opened(PLAIN, DATASET.card), NAIVE).identity
    assert "protocols" not in known["scenario"]
    cards = {name: each.card for name, each in SCORED.items()}
    found = Specification(opened(THREE, DATASET.card, cards), NAIVE).identity
    told = found["scenario"]["protocols"]
    assert [each["data"]["name"] for each in told] == ["arrays", "arrays", "arrays"]
    assert told[0]["data"]["fingerprint"] == OTHER.card.fingerprint
    assert all("dataset" not in each for each in told)


def test_tensorboard_shows_every_measure(finished):
    events = EventAccumulator(str(finished / "events"))
    events.Reload()
    shown = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if "protocol/" in tag}
    scores = json.loads((finished / "scores.json").read_text())["protocols"]
    expected = {f"protocol/{s['name']}/{name}" for s in scores for name in s["measures"]}
    assert set(shown) == expected
    assert [point.step for point in shown["protocol/own/recall@1"]] == [5, 10]


def test_a_score_is_read_back_as_it_was_written():
    score = ProtocolScore("one", "retrieval", 1, 9, 4, 5, {"recall@1": 0.2, "median_rank": 3.0})
    assert ProtocolScore.from_json(json.loads(json.dumps(score.as_json()))) == score
    steps = ProtocolScore(
        "two", "steps", 1, 9, 4, 4, {"recall": 0.2}, {"tea": {"recall": math.inf}}
    )
    assert steps.as_json()["tasks"] == {"tea": {"recall": None}}
    assert math.isnan(ProtocolScore.from_json(steps.as_json()).tasks["tea"]["recall"])
    assert "tasks" not in score.as_json()
    never = ProtocolScore("one", "retrieval", 1, 9, 1, 5, {"median_rank": math.inf})
    assert never.as_json()["measures"] == {"median_rank": None}
    assert math.isnan(ProtocolScore.from_json(never.as_json()).measures["median_rank"])


def test_what_is_given_for_no_protocol_or_does_not_fit_is_refused():
    with pytest.raises(InputError, match="no protocol 'bot' in scenario 'small'; did you mean"):
        train(THREE, DATASET, scored={**SCORED, "bot": OTHER}, device="cpu")
    lacking = Dataset.from_arrays({"text": np.ones((3, 5))}, split=[2] * 3, splits=["test"],
                                  standardise=DATASET.statistics)  # fmt: skip
    with pytest.raises(InputError, match="protocol 'both', gallery: no modality 'video'"):
        train(scenario(BOTH), DATASET, scored={"both": lacking}, device="cpu")
    raw = Dataset.from_arrays(arrays(9), split=[2] * 9, splits=["test"], standardise=False)
    with pytest.raises(
        InputError, match=r"is not standardised as what is trained on; read it with"
    ):
        train(scenario(BOTH), DATASET, scored={"both": raw}, device="cpu")


def test_a_file_is_loaded_once_and_standardised_as_what_is_trained(tmp_path):
    columns = arrays(9)
    ids = np.array([f"{row}" for row in range(9)])
    write_pack(tmp_path / "x", {**columns, "ids": ids, "split": np.full(9, 2)})
    known = THREE.model_copy(update={"folder": str(tmp_path)})
    scored = load_scored(known, DATASET)
    assert scored["both"] is scored["full"]
    assert scored["own"] is DATASET
    for name, column in scored["both"].columns.items():
        by = DATASET.statistics[name]
        expected = (columns[name] - by.mean) * by.rate
        np.testing.assert_allclose(column.values, expected, rtol=1e-4, atol=1e-5)


FILE = """
dataset = "trained.npz"
[space]
dim = 8
clusters = 2
[training]
steps = 2
batch_size = 8
[[stage]]
add = ["video", "text"]
[[protocol]]
name = "elsewhere"
dataset = "scored.npz"
query = ["text"]
gallery = ["video"]
"""


def test_from_a_file_to_a_table_with_commands(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    for name, rows, split in (("trained", 30, np.arange(30) % 3), ("scored", 9, np.full(9, 2))):
        columns = {key: each for key, each in arrays(rows).items() if key != "audio"}
        ids = np.array([f"{row}" for row in range(rows)])
        write_pack(tmp_path / f"{name}.npz", {**columns, "ids": ids, "split": split})
    (tmp_path / "mine.toml").write_text(FILE, encoding="utf-8")
    *_, latex, first, second = (
        typed(*command.split())
        for command in (
            "validate mine.toml",
            "run mine.toml --strategy naive --strategy joint --device cpu --no-board",
            "export runs --to small",
            "compare runs --protocol elsewhere --format latex",
            "compare runs --protocol elsewhere --format markdown",
            "compare small --protocol elsewhere --format markdown",
        )
    )
    assert r"1 & joint & 1 & " in latex.out
    assert first == second
    first = first.out.partition("## mine, elsewhere: item to item, 9 queries")[2]
    assert "| 1 | naive | 1 |" in first
    assert "| 1 | joint | 1 |" in first
    assert "| R@1 % | R@5 % | R@10 % | MedR | difference to naive |" in first
