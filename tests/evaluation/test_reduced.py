"""Scores of vectors as they are and mapped, on vectors whose recalls are plain to see."""

import math

import torch

from continual_mm.definitions.modality import pair
from continual_mm.evaluation.reduced import Form, measured
from continual_mm.evaluation.relevance import Relevance
from continual_mm.learning.projection import Vectors

ROLES = {
    pair("audio", "video"): "old",
    pair("text", "video"): "new",
    pair("audio", "text"): "emergent",
}
ITEMS = torch.arange(4)
# Each item lies on an axis of its own; the last two videos lie where the other one should.
SWAPPED = Vectors(
    {"audio": torch.eye(4), "text": torch.eye(4), "video": torch.eye(4)[[0, 1, 3, 2]]},
    dict.fromkeys(("audio", "text", "video"), ITEMS),
)


def scored(form, vectors=SWAPPED):
    (found,) = measured({"some": form}, {"test": vectors}, ROLES, Relevance())
    return found


def test_recalls_are_means_over_the_pairs_of_a_role_and_both_directions():
    found = scored(Form(4, {}))
    assert (found.vectors, found.numbers, found.bytes) == ("some", 4, 16)
    scores = found.scores["test"]
    assert (scores.old, scores.new, scores.emergent) == (0.5, 0.5, 1)
    assert scores.harmonic_mean == 0.5
    assert scores.pairs == {
        "audio-video": scores.old,
        "text-video": scores.new,
        "audio-text": scores.emergent,
    }


def test_a_map_counts_in_the_scores_and_in_the_size():
    turned = torch.eye(4)[:, [1, 0, 3, 2]]
    assert scored(Form(4, {}, turned)).scores == scored(Form(4, {})).scores
    # The last two axes become one, on which the last item is in front of the other for both.
    merged = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 2]])
    found = scored(Form(3, {}, merged))
    assert (found.numbers, found.bytes) == (3, 12)
    assert found.scores["test"].emergent == 0.75


def test_one_index_is_ranked_with_factors_that_bring_modalities_to_one_scale():
    unit = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    unit = unit / unit.norm(dim=1, keepdim=True)
    vectors = Vectors(
        {"audio": unit, "text": 5 * unit, "video": unit},
        dict.fromkeys(("audio", "text", "video"), torch.arange(40)),
    )
    # Five times as long, many other texts come before the video that belongs to a sound.
    assert scored(Form(4, {}), vectors).scores["test"].one_index < 0.9
    assert scored(Form(4, {"text": 0.2}), vectors).scores["test"].one_index == 1


def test_what_is_not_there_has_no_score():
    two = Vectors(
        {name: SWAPPED.of[name] for name in ("audio", "text")}, {"audio": ITEMS, "text": ITEMS}
    )
    scores = scored(Form(4, {}), two).scores["test"]
    assert scores.emergent == 1
    assert all(map(math.isnan, (scores.old, scores.new, scores.harmonic_mean, scores.one_index)))
