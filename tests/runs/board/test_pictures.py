"""Figures for the board."""

import numpy as np

from continual_mm.definitions.modality import pair
from continual_mm.runs.board.pictures import recall_matrix, transport_plans

OLD, NEW = pair("audio", "video"), pair("text", "video")


def test_the_matrix_has_numbers_in_percent_where_a_pair_was_born_and_nothing_before():
    table = np.array([[0.5, np.nan], [0.25, 0.125], [np.nan, np.nan]])
    figure = recall_matrix(table, {OLD: 0, NEW: 1}, {OLD: "old", NEW: "new"})
    (axes,) = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "50.0", (0, 1): "25.0", (1, 1): "12.5"}
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert named == ["audio-video\nold, since stage 1", "text-video\nnew, since stage 2"]
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
