"""Several captions of a recording in a batch: right answers of it, and no negatives."""

import copy
import math

import numpy as np
import pytest
import torch

from continual_mm.data.batch import Items, Share, answering, join, marked
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.learning.objective import right_answers
from continual_mm.losses.contrastive import masked_margin_softmax
from continual_mm.losses.distillation import row_divergence
from continual_mm.losses.transport import log_transport_plan
from continual_mm.losses.trust import right_items, right_plan, trusted_plan
from continual_mm.metrics.likelihood import row_log_likelihood
from continual_mm.plugins.expand import Expand
from continual_mm.plugins.match import Match, matching_divergence
from continual_mm.plugins.row_kl import RowKL
from continual_mm.plugins.transport import KeptPlans, Transport

CLIP = [0, 0, 1, 2, 1, 3]
OF_CLIP = torch.tensor(CLIP)[:, None] == torch.tensor(CLIP)


def captioned():
    """Six captions of four clips whose sounds have 2 to 5 steps; caption 5 repeats caption 3."""
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((4, 5, 3))[CLIP]
    text = rng.standard_normal((6, 4))
    text[5] = text[3]
    lengths = np.array([2, 5, 3, 4])[CLIP]
    return Dataset.from_arrays(
        {"audio": audio, "text": text}, lengths={"audio": lengths}, split=[0] * 6, splits=["train"],
        standardise=False,
    )  # fmt: skip


def block(*rows, **options):
    items = Items(captioned(), (Share(0, torch.arange(6), ("audio", "text")),), **options)
    return items.block((torch.tensor(rows),))


def test_rows_of_a_recording_are_found_whatever_their_order_and_their_neighbours():
    batch = block(4, 0, 2, 5, 1, marked=True)
    assert batch.alike("audio").tolist() == [0, 1, 0, 3, 1]
    assert batch.alike("text") is None
    # Alone, sounds are cut behind their own length; beside others they are filled with zeros.
    joined = join([block(0, marked=True), block(1, 3, 2, marked=True), block(5, marked=True)])
    assert joined.alike("audio").tolist() == [0, 0, 2, 3, 4]
    assert joined.alike("text").tolist() == [0, 1, 2, 3, 2]
    chosen = joined.select(torch.tensor([4, 2, 1, 0]))
    assert chosen.alike("audio").tolist() == [0, 1, 2, 2]
    assert chosen.alike("text").tolist() == [0, 0, 2, 3]
    assert marked(block(0, 1)).alike("audio").tolist() == [0, 0]


def test_where_nothing_is_marked_nothing_is_known():
    assert block(0, 1).alike("audio") is None
    assert join([block(0, marked=True), block(1)]).alike("audio") is None


def test_rows_of_the_same_sum_are_not_taken_for_the_same():
    turned = Dataset.from_arrays({"word": np.eye(4)[[0, 1, 2, 1]]}, split=[0] * 4,
                                 splits=["train"], standardise=False)  # fmt: skip
    items = Items(turned, (Share(0, torch.arange(4), ("word",)),), marked=True)
    assert items.block((torch.arange(4),)).alike("word").tolist() == [0, 1, 2, 1]


def test_whatever_occurs_with_a_recording_answers_it_in_both_directions():
    rows = torch.arange(6)
    found = right_answers(block(*rows.tolist(), marked=True), pair("audio", "text"), rows)
    captions = [{0, 1}, {0, 1}, {2, 4}, {3, 5}, {2, 4}, {3, 5}]
    assert [set(row.nonzero().squeeze(1).tolist()) for row in found] == captions
    some = torch.tensor([1, 2, 3])
    assert right_answers(block(*range(6), marked=True), pair("audio", "text"), some) is None
    # The first sound has two captions, the second of which another sound has, too.
    chain = answering(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]))
    assert chain.tolist() == [[True, True, True], [True, True, True], [False, True, True]]


def test_in_the_contrast_captions_of_a_recording_are_no_negatives():
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double()
    given = similarity.clone().requires_grad_()
    loss = masked_margin_softmax(given, margin=0.1, right=OF_CLIP)
    expected = 0.0
    for i in range(6):
        others = [j for j in range(6) if CLIP[j] != CLIP[i]]
        for line in (similarity[i], similarity[:, i]):
            own = line[i] - 0.1
            expected += torch.logsumexp(torch.stack([own, *line[others]]), 0) - own
    torch.testing.assert_close(loss, expected / 6)
    loss.backward()
    off = OF_CLIP & ~torch.eye(6, dtype=torch.bool)
    assert (given.grad[off] == 0).all()
    assert (given.grad[~off] != 0).all()
    itself = torch.eye(6, dtype=torch.bool)
    assert masked_margin_softmax(similarity, right=itself) == masked_margin_softmax(similarity)


def test_the_plan_of_several_right_partners_has_equal_shares_and_uniform_masses():
    size = OF_CLIP.sum(1)
    torch.testing.assert_close(right_plan(OF_CLIP).exp(), OF_CLIP / (6 * size))
    chain = answering(torch.tensor([0, 0, 2, 3]), torch.tensor([0, 1, 1, 3]))
    plan = right_plan(chain).exp()
    assert plan[~chain].max() < 1e-30
    for axis in (0, 1):
        torch.testing.assert_close(plan.sum(axis), torch.full((4,), 0.25), atol=1e-5, rtol=0)


def test_a_space_that_is_right_is_at_the_plan_of_right_partners():
    """Sounds and captions of a clip are one vector, and those of others are orthogonal."""
    cost = 1 - OF_CLIP.double()
    assert matching_divergence(cost, epsilon=0.01, right=OF_CLIP).abs() < 1e-6
    # With each its own partner only, half of the mass of four captions is astray.
    assert matching_divergence(cost, epsilon=0.01) == pytest.approx(4 / 6 * math.log(2), abs=1e-3)


def test_a_teachers_plan_is_mixed_with_that_of_all_right_partners():
    cost = torch.rand(6, 6, generator=torch.Generator().manual_seed(2)).double()
    plan, _ = log_transport_plan(cost, epsilon=0.1)
    mixed = trusted_plan(plan, 0.3, right_plan(OF_CLIP)).exp()
    shares = OF_CLIP / (6 * OF_CLIP.sum(1))
    torch.testing.assert_close(mixed, 0.3 * plan.exp() + 0.7 * shares)
    kept = KeptPlans(epsilon=0.1, trust=0.3, unbalanced=0.0, right_only=False)
    both = (pair("audio", "text"), pair("text", "video"))
    kept.learn(both, torch.stack([cost, cost.T]), [OF_CLIP, None])
    state = kept.state()["plan/audio-text,text-video"].exp()
    torch.testing.assert_close(state[0], mixed)
    own = 0.3 * log_transport_plan(cost.T, epsilon=0.1)[0].exp() + 0.7 * torch.eye(6) / 6
    torch.testing.assert_close(state[1], own)


def test_a_teacher_that_prefers_another_caption_of_the_clip_is_right():
    plan = torch.eye(3)[[1, 0, 2]]  # the first two items are captions of one clip, swapped
    clips = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert right_items(plan).tolist() == [False, False, True]
    assert right_items(plan, clips).tolist() == [True, True, True]
    student = torch.zeros(3, 3)
    without, withal = (
        row_divergence(student, plan, temperature=0.1, right=right) for right in (None, clips)
    )
    everywhere = row_divergence(student, plan, temperature=0.1, right_only=False)
    assert withal == everywhere
    assert without == pytest.approx(float(everywhere) / 3, rel=1e-5)


def test_the_likelihood_is_that_of_any_right_answer():
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    found = row_log_likelihood(similarity, 0.5, OF_CLIP)
    odds = (similarity.double() / 0.5).exp()
    rows = (odds * OF_CLIP).sum(1) / odds.sum(1)
    columns = (odds * OF_CLIP).sum(0) / odds.sum(0)
    torch.testing.assert_close(found, (rows.log() + columns.log()) / 2)


def twice_each():
    """Sounds, videos and depths are in two items each, with texts of their own."""
    rng = np.random.default_rng(0)
    twice = np.arange(120) // 2
    arrays = {name: rng.standard_normal((60, 8))[twice] for name in ("audio", "video", "depth")}
    arrays["text"] = rng.standard_normal((120, 5))
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


@pytest.mark.parametrize(
    "plugin",
    [Match(), RowKL(rows=16), Transport(trust=0.5, rows=16), Transport(right_only=1, rows=16),
     Expand(size=4, rank=2, held_out=0.3)],
    ids=["match", "row_kl", "trust", "right_only", "expand"],
)  # fmt: skip
def test_strategies_that_know_the_right_partner_know_all_of_them(plugin, begun):
    weights = []
    for blind in (False, True):
        learner, streams = begun(copy.deepcopy(plugin), dataset=twice_each(), items=40)
        for experience in streams.train:
            experience.items.marked = not blind
        for stage in (0, 1):
            learner.learn(streams, stage)
        values = list(learner.parameters().values())
        assert all(bool(value.isfinite().all()) for value in values)
        weights.append(torch.cat([value.detach().flatten() for value in values]))
    assert not torch.equal(*weights)


def test_items_of_a_recording_are_held_out_of_a_stage_together(begun, looking):
    trained = []

    def look(learner):
        trained.extend(learner.stage_experience().items.shares)

    learner, streams = begun(
        Expand(size=4, rank=2, held_out=0.3), looking(1, look), dataset=twice_each()
    )
    for stage in (0, 1):
        drawn = streams.train[stage].items.shares[0].rows
        learner.learn(streams, stage)
    kept = {*trained[0].rows.tolist()}
    held_out = {*drawn.tolist()} - kept
    assert held_out
    assert not {row // 2 for row in held_out} & {row // 2 for row in kept}


@pytest.mark.parametrize("mode", ["robust", "reference"])
def test_only_published_mistakes_are_repeated_as_published(mode, begun, looking):
    """Each sound twice: in reference mode the copies are each other's negatives, as published."""
    known = []

    def look(learner):
        known.append(learner.batch.alike("audio"))

    settings = {"mode": mode} if mode == "robust" else {"mode": mode, "clusters": 4}
    learner, streams = begun(looking(0, look), dataset=twice_each(), **settings)
    learner.learn(streams, 0)
    assert any(found is not None for found in known) == (mode == "robust")
