"""Figures for TensorBoard, and the transport plans that they show."""

import numpy as np
import pytest
import torch

from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import DatasetCard, Kind, Modality, pair
from continual_mm.definitions.scenario import Scenario, Stage
from continual_mm.evaluation.pairs import Gallery
from continual_mm.runs.board.figures import (
    EPSILON,
    ITEMS,
    plan_of,
    recall_matrix,
    save_plans,
    transport_plans,
)

OLD, NEW = pair("audio", "video"), pair("text", "video")


def test_the_matrix_has_numbers_in_percent_where_a_pair_was_born_and_nothing_before():
    table = np.array([[0.5, np.nan], [0.25, 0.125], [np.nan, np.nan]])
    figure = recall_matrix(table, {OLD: 0, NEW: 1}, {OLD: "old", NEW: "new"})
    (axes,) = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "50.0", (0, 1): "25.0", (1, 1): "12.5"}
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert named == ["audio-video\nold\nsince stage 1", "text-video\nnew\nsince stage 2"]
    assert axes.images[0].get_clim() == (0, 100)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "stage 1", "stage 2", "stage 3",
    ]  # fmt: skip


def test_plans_share_one_scale_and_tell_the_mass_on_the_diagonal():
    before, now = np.eye(4) / 4, np.full((4, 4), 1 / 16)
    figure = transport_plans(OLD, [("after stage 1", before), ("after stage 2", now)])
    first, second, _bar = figure.axes
    assert "100.0 % on the diagonal" in first.get_title()
    assert "25.0 % on the diagonal" in second.get_title()
    assert first.images[0].norm is second.images[0].norm
    assert (first.images[0].norm.vmin, first.images[0].norm.vmax) == (0, 1)
    assert np.allclose(second.images[0].get_array(), 0.25)


CARD = DatasetCard(
    "mine", tuple(Modality(n, Kind.VECTOR, (4,)) for n in ("video", "audio", "text")), (9, 3, 3), ""
)
ARRIVALS = plan(
    Scenario(name="s", stages=(Stage(add=("video", "audio")), Stage(add=("text",)))), CARD
)


def gallery(*names, items=100, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(items, 8, generator=generator) for name in names}
    return Gallery(drawn, {name: torch.arange(items) for name in names})


def test_a_plan_is_that_of_the_first_items_that_have_both_sides():
    seen = gallery("audio", "video", items=90)
    some = Gallery(
        {"audio": seen.embeddings["audio"], "video": seen.embeddings["video"][::2]},
        {"audio": torch.arange(90), "video": torch.arange(0, 90, 2)},
    )
    first, second = (
        torch.nn.functional.normalize(seen.embeddings[name][::2].double()).numpy()
        for name in ("audio", "video")
    )
    kernel = np.exp((first @ second.T - 1) / EPSILON)
    for _ in range(5000):  # Sinkhorn's iteration as in the textbook
        kernel /= 45 * kernel.sum(axis=1, keepdims=True)
        kernel /= 45 * kernel.sum(axis=0, keepdims=True)
    assert plan_of(OLD, some) == pytest.approx(kernel, abs=1e-6)
    assert plan_of(OLD, gallery("audio", "video")).shape == (ITEMS, ITEMS)
    less = plan_of(OLD, seen, torch.arange(1, 90, 2))
    assert less == pytest.approx(kernel, abs=1e-6)


def test_old_pairs_only_and_the_plan_before_stands_first_even_for_a_run_that_goes_on(tmp_path):
    before = gallery("audio", "video")
    shown = save_plans(tmp_path, ARRIVALS, 0, before)
    assert {p: [name for name, _ in plans] for p, plans in shown.items()} == {
        OLD: ["after stage 1"]
    }
    now = gallery("audio", "video", "text", seed=1)
    later = save_plans(tmp_path, ARRIVALS, 1, now)
    assert list(later) == [OLD]
    (first, old_plan), (second, new_plan) = later[OLD]
    assert (first, second) == ("after stage 1", "after stage 2")
    assert (old_plan == plan_of(OLD, before)).all()
    assert (new_plan == plan_of(OLD, now)).all()


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_plan_is_left_out_of_the_picture(tmp_path, damage):
    save_plans(tmp_path, ARRIVALS, 0, gallery("audio", "video"))
    path = tmp_path / "after-stage-1.npz"
    kept = path.read_bytes()
    path.write_bytes(b"PK\0\0" + kept[4:] if damage is None else damage)
    later = save_plans(tmp_path, ARRIVALS, 1, gallery("audio", "video", "text", seed=1))
    assert [name for name, _ in later[OLD]] == ["after stage 2"]


def test_a_pair_without_common_items_has_no_plan(tmp_path):
    seen = gallery("audio", "video", items=6)
    apart = Gallery(
        {name: part[:3] for name, part in seen.embeddings.items()},
        {"audio": torch.arange(3), "video": torch.arange(3, 6)},
    )
    assert save_plans(tmp_path, ARRIVALS, 0, apart) == {}
    assert save_plans(tmp_path, ARRIVALS, 0, Gallery({}, {})) == {}
