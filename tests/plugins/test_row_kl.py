"""Row-KL: whom remembered items choose in the other modality stays as it was."""

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import kl_div

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import row_divergence
from continual_mm.plugins.row_kl import RowKL
from continual_mm.space.space import JointSpace


@pytest.fixture
def begun(begun):
    """With a memory of 24 items."""
    return partial(begun, items=24)


def divergence(new: torch.Tensor, old: torch.Tensor, temperature: float) -> torch.Tensor:
    """By torch's own: mean over rows, one direction."""
    old, new = (each / temperature for each in (old, new))
    return kl_div(new.log_softmax(1), old.log_softmax(1), reduction="batchmean", log_target=True)


def test_the_divergence_is_torchs_in_both_directions():
    generator = torch.Generator().manual_seed(3)
    new, old = (torch.rand(9, 9, generator=generator) for _ in range(2))
    found = row_divergence(new, old, temperature=0.2, right_only=False)
    expected = divergence(new, old, 0.2) + divergence(new.T, old.T, 0.2)
    torch.testing.assert_close(found, expected)


def test_queries_that_the_teacher_got_wrong_count_as_if_the_student_agreed():
    generator = torch.Generator().manual_seed(3)
    new, old = (torch.rand(9, 9, generator=generator) for _ in range(2))
    old += 0.4 * torch.eye(9)
    expected = torch.tensor(0.0)
    for here, there in ((new, old), (new.T, old.T)):
        wrong = there.argmax(1) != torch.arange(9)
        assert 0 < int(wrong.sum()) < 9
        expected += divergence(here, torch.where(wrong[:, None], here, there), 0.2)
    torch.testing.assert_close(row_divergence(new, old, temperature=0.2), expected)


def test_two_candidates_have_the_divergence_of_two_coins():
    old = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])  # 3/4 against 1/4
    new = torch.zeros(2, 2)  # 1/2 against 1/2
    coin = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(row_divergence(new, old, temperature=1.0)) == pytest.approx(2 * coin)


def cosines(strategy: Learner, batch: Batch, old: JointSpace, first: str, second: str):
    """(present, old) cosines of the remembered rows that have both modalities."""
    part = strategy.remembered
    both = (batch.present(first) & batch.present(second)).nonzero().squeeze(1)
    new, before = {}, {}
    for name in (first, second):
        where = strategy.batch.positions(name, both + part.start)
        new[name] = strategy.embedded[name].direction[where]
        before[name] = old.encode(name, batch.features[name][batch.positions(name, both)])
    return tuple(each[first] @ each[second].T for each in (new, before))


@pytest.mark.parametrize("right_only", [0, 1])
def test_the_terms_are_the_divergences_of_old_pairs_from_the_old_space(
    right_only, watched, terms_of, remembered
):
    def check(strategy, old):
        pairs = {"audio-video": ("audio", "video"), "text-video": ("text", "video")}
        found = terms_of(strategy, "row_kl/")
        assert found.keys() == {f"row_kl/{name}" for name in pairs}
        for name, (first, second) in pairs.items():
            new, before = cosines(strategy, remembered(strategy), old, first, second)
            expected = row_divergence(new, before, temperature=0.5, right_only=bool(right_only))
            torch.testing.assert_close(
                found[f"row_kl/{name}"], 3.0 / 2 * expected, rtol=1e-3, atol=1e-5
            )

    plugin = RowKL(weight=3.0, temperature=0.5, right_only=right_only, rows=16)
    watched(plugin, 2, check)


def test_at_the_teacher_there_is_no_divergence_and_no_pull(watched, terms_of):
    def check(strategy, old):
        if strategy.step:
            return
        (term,) = terms_of(strategy, "row_kl/").values()
        weights = list(strategy.space.tower("video").parameters())
        pulls = torch.autograd.grad(term, weights, retain_graph=True)
        assert abs(float(term)) < 1e-6
        assert max(float(pull.abs().max()) for pull in pulls) < 1e-4

    watched(RowKL(rows=16), 1, check)


def test_choices_of_old_items_change_less_with_it(scenario, dataset, changed, trained):
    def choices(learner: Learner) -> torch.Tensor:
        video, audio = (
            learner.space.encode(name, dataset.columns[name].values[:80])
            for name in ("video", "audio")
        )
        return video @ audio.T

    scenario = changed(scenario, steps=40)
    before = choices(trained(stages=1, scenario=scenario))
    loose = choices(trained(scenario=scenario))
    held = choices(trained(RowKL(weight=10.0, right_only=0, rows=24), scenario=scenario))
    assert divergence(held, before, 0.07) < 0.5 * divergence(loose, before, 0.07)


def test_without_a_memory_it_is_refused_at_the_start(begun):
    learner, streams = begun(RowKL(), items=None)
    with pytest.raises(ValueError, match="row_kl needs past items: give the run a memory"):
        learner.learn(streams, 0)


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"temperature": 0.0}, {"right_only": 2}, {"rows": 1}):
        with pytest.raises(ValueError, match=rf"row_kl\.{next(iter(wrong))} = "):
            RowKL(**wrong)


def test_a_run_that_goes_on_inside_a_stage_ends_with_the_same_bits(ends, same):
    assert same(*ends(lambda: RowKL(rows=16)))


def test_it_changes_training_and_with_no_weight_it_does_not(trained, values, same):
    naive = values(trained())
    assert not same(naive, values(trained(RowKL(rows=16))))
    none = RowKL(weight=0.0)
    assert same(naive, values(trained(none)))
    assert none.state() == {}


def test_it_leaves_the_first_stage_alone(trained, values, same):
    naive = values(trained(stages=1))
    assert same(naive, values(trained(RowKL(rows=16), stages=1)))
