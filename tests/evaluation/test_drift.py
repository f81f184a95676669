"""Drift: what is compared with what, and that measuring it changes nothing."""

import json
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from continual_mm.definitions.scenario import Strategy
from continual_mm.evaluation.drift import EPSILON, Drift
from continual_mm.evaluation.pairs import Evaluation, Gallery
from continual_mm.losses.transport import transport_plan
from continual_mm.metrics.geometry import movement
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.run import run, train

DIM = 6


def unit(rows, seed):
    values = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=1)


def gallery(seed=0, *names, rows=None):
    names = names or ("video", "audio")
    rows = rows or {name: torch.arange(10, 50) for name in names}
    return Gallery(
        {name: unit(len(rows[name]), 10 * seed + place) for place, name in enumerate(names)},
        dict(rows),
    )


def moment(stage, step, *, final=False, split="test"):
    return Evaluation(stage=stage, step=step, final=final, split=split, pairs=())


def turned(source, angle):
    block = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    spin = torch.block_diag(*[block] * (DIM // 2))
    return Gallery({name: e @ spin for name, e in source.embeddings.items()}, source.rows)


def watched(**settings):
    records = []
    return Drift(records.append, **settings), records


def compared(first, second, **settings):
    """The records of a first stage's end and of a step of the second stage."""
    drift, records = watched(**settings)
    drift(moment(0, 5, final=True), first)
    drift(moment(1, 7), second)
    return records


def test_before_the_first_stage_has_ended_there_is_a_gap_and_nothing_to_compare_with():
    drift, records = watched()
    here = gallery()
    drift(moment(0, 3), here)
    drift(moment(0, 5, final=True), here)
    for record, final in zip(records, (False, True), strict=True):
        means = [rows.double().mean(0) for rows in here.embeddings.values()]
        gap = float((means[0] - means[1]).norm())
        assert record.modality_gap == {"audio-video": pytest.approx(gap)}
        assert math.isnan(record.rotation)
        assert record.moved == record.residual == record.plan_drift == {}
        assert record.final is final
    assert [(record.stage, record.step) for record in records] == [(1, 3), (1, 5)]


def test_a_space_that_turns_as_one_keeps_its_plans():
    _, found = compared(gallery(), turned(gallery(), 0.5))
    assert found.rotation == pytest.approx(0.5, abs=1e-5)
    assert found.moved == pytest.approx(dict.fromkeys(("audio", "video"), 2 * math.sin(0.25)))
    assert found.residual == pytest.approx(dict.fromkeys(("audio", "video"), 0), abs=1e-6)
    assert found.plan_drift["audio-video"] == pytest.approx(0, abs=1e-6)


def test_one_modality_that_turns_alone_leaves_a_residual_and_changes_the_plan():
    old = gallery()
    new = {**old.embeddings, "video": turned(old, 1.0).embeddings["video"]}
    _, found = compared(old, Gallery(new, old.rows))
    assert found.moved["audio"] == 0
    assert min(found.residual.values()) > 0.1
    costs = [1 - (e["audio"] @ e["video"].T).double() for e in (old.embeddings, new)]
    before, after = (transport_plan(cost, epsilon=EPSILON) for cost in costs)
    divergence = float((before * (before / after).log()).sum())
    assert divergence > 0.1
    assert found.plan_drift["audio-video"] == pytest.approx(divergence, rel=1e-3)


def test_a_stages_end_is_compared_with_the_one_before_and_then_takes_its_place():
    drift, records = watched()
    first = gallery()
    drift(moment(0, 5, final=True), first)
    drift(moment(1, 7), turned(first, 0.2))
    drift(moment(1, 9, final=True), turned(first, 0.3))
    drift(moment(2, 11), turned(first, 0.7))
    angles = [record.rotation for record in records[1:]]
    assert angles == pytest.approx([0.2, 0.3, 0.4], abs=1e-5)


def test_a_modality_that_has_just_arrived_is_not_old():
    drift, records = watched()
    drift(moment(0, 5, final=True), gallery())
    later = gallery(0, "video", "audio", "text")
    drift(moment(1, 9, final=True), later)
    drift(moment(2, 11), later)
    assert set(records[1].modality_gap) == {"audio-video", "audio-text", "text-video"}
    assert set(records[1].moved) == set(records[1].residual) == {"audio", "video"}
    assert set(records[1].plan_drift) == {"audio-video"}
    assert set(records[2].moved) == {"audio", "text", "video"}
    assert set(records[2].plan_drift) == {"audio-video", "audio-text", "text-video"}


def test_at_most_so_many_items_are_kept_and_they_are_spread_evenly():
    drift, records = watched(items=8)
    here = gallery()
    drift(moment(0, 5, final=True), here)
    state = drift.state()
    assert state["rows/video"].tolist() == [10, 15, 20, 25, 30, 35, 40, 45]
    torch.testing.assert_close(state["embeddings/video"], here.embeddings["video"][::5])
    drift(moment(1, 7), gallery(1))
    before, after = (
        {name: rows[::5] for name, rows in each.embeddings.items()} for each in (here, gallery(1))
    )
    assert records[1].rotation == pytest.approx(movement(before, after).rotation, rel=1e-5)


def test_items_that_lack_a_modality_are_left_to_the_others():
    rows = {"video": torch.arange(0, 40), "audio": torch.arange(20, 60)}
    here = gallery(rows=rows)
    records = compared(here, turned(here, 0.3))
    both = [here.embeddings["video"][20:], here.embeddings["audio"][:20]]
    gap = float((both[0].mean(0) - both[1].mean(0)).norm())
    assert records[0].modality_gap["audio-video"] == pytest.approx(gap, abs=1e-6)
    assert records[1].rotation == pytest.approx(0.3, abs=1e-5)
    assert records[1].plan_drift["audio-video"] == pytest.approx(0, abs=1e-6)


def test_pairs_without_a_common_item_have_neither_gap_nor_plan():
    apart = gallery(rows={"video": torch.arange(0, 20), "audio": torch.arange(20, 40)})
    _, found = compared(apart, turned(apart, 0.3))
    assert math.isnan(found.modality_gap["audio-video"])
    assert found.plan_drift == {}
    assert set(found.moved) == {"audio", "video"}


@pytest.fixture(scope="module")
def scenario(scenario, changed):
    sizes = {"dim": 8, "clusters": 3, "refresh_every": 4, "stages": scenario.stages[:2]}
    return changed(scenario, **sizes, steps=9, batch_size=8, evaluate_every=4)


def test_training_gives_the_same_weights_whether_drift_is_measured_or_not(
    scenario, dataset, trained, values, same
):
    unwatched = trained()
    rng = torch.random.get_rng_state()
    watched = train(scenario, dataset, device="cpu")
    assert len(watched.geometry) == 6
    assert same(values(unwatched), values(watched))
    assert torch.equal(rng, torch.random.get_rng_state())


@pytest.fixture(scope="module")
def folders(scenario, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    naive, joint = Strategy(name="naive"), Strategy(name="joint", joint=True)
    strategies = [naive, joint, Strategy(name="freeze", plugins={"freeze": {}})]
    for strategy in strategies:
        run(scenario, strategy, dataset, out, device="cpu")
    return {each.name: RunFolder(out / "small" / each.name / "seed-0") for each in strategies}


def geometry_of(folder):
    return json.loads((folder.path / "scores.json").read_text(encoding="utf-8"))["geometry"]


def test_a_run_writes_the_geometry_of_every_test_evaluation(folders):
    records = geometry_of(folders["naive"])
    assert [(record["stage"], record["step"], record["final"]) for record in records] == [
        (1, 4, False), (1, 8, False), (1, 9, True), (2, 13, False), (2, 17, False), (2, 18, True),
    ]  # fmt: skip
    assert [record["rotation"] is None for record in records] == [True] * 3 + [False] * 3
    assert records[0]["moved"] == records[2]["plan_drift"] == {}
    assert set(records[2]["modality_gap"]) == {"audio-video"}
    assert set(records[5]["modality_gap"]) == {"audio-video", "audio-text", "text-video"}


def test_freezing_keeps_the_geometry_and_naive_training_does_not(folders):
    for record in geometry_of(folders["freeze"])[3:]:
        assert record["moved"] == {"audio": 0.0, "video": 0.0}
        assert record["rotation"] == pytest.approx(0, abs=1e-6)
        assert record["residual"] == pytest.approx({"audio": 0, "video": 0}, abs=1e-6)
        assert record["plan_drift"]["audio-video"] == pytest.approx(0, abs=1e-9)
    for record in geometry_of(folders["naive"])[3:]:
        assert record["rotation"] > 1e-3
        assert record["moved"]["video"] > 1e-2
        assert record["residual"]["video"] > 1e-3
        assert record["plan_drift"]["audio-video"] > 1e-4


def test_joint_training_has_no_earlier_space(folders):
    for record in geometry_of(folders["joint"]):
        assert record["stage"] == 2
        assert record["rotation"] is None
        assert record["plan_drift"] == {}


def test_the_board_shows_the_geometry_at_the_global_step(folders):
    board = EventAccumulator(str(folders["naive"].events))
    board.Reload()
    tags = {tag for tag in board.Tags()["scalars"] if tag.startswith("geometry/")}
    assert tags == {
        *("geometry/rotation", "geometry/plan drift/audio-video"),
        *(f"geometry/{kind}/{m}" for kind in ("moved", "residual") for m in ("audio", "video")),
        *(f"geometry/modality gap/{pair}" for pair in ("audio-text", "audio-video", "text-video")),
    }
    records = geometry_of(folders["naive"])
    shown = {event.step: event.value for event in board.Scalars("geometry/rotation")}
    expected = {r["step"]: r["rotation"] for r in records if r["rotation"] is not None}
    assert shown == pytest.approx(expected)
    gaps = board.Scalars("geometry/modality gap/audio-video")
    assert [event.step for event in gaps] == [4, 8, 9, 13, 17, 18]
