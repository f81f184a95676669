"""Relational: how alike remembered items of one modality are stays as it was."""

from functools import partial

import numpy as np
import pytest
import torch

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import relational_distance
from continual_mm.plugins.relational import Relational


@pytest.fixture
def begun(begun):
    """With a memory of 24 items."""
    return partial(begun, items=24)


def test_the_distance_is_the_mean_squared_change_of_the_cosine_of_two_items():
    rng = np.random.default_rng(3)
    new, old = (rng.standard_normal((5, 3)) for _ in range(2))
    changes = [
        (new[i] @ new[j] - old[i] @ old[j]) ** 2 for i in range(5) for j in range(5) if i != j
    ]
    found = relational_distance(torch.from_numpy(new), torch.from_numpy(old))
    assert float(found) == pytest.approx(np.mean(changes))


def test_a_rotation_of_all_items_is_no_change_and_a_shear_is():
    rng = torch.Generator().manual_seed(3)
    items = torch.randn(6, 4, generator=rng, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=rng, dtype=torch.float64))
    assert float(relational_distance(items @ turn, items)) < 1e-20
    turn[0, 1] += 0.1
    assert float(relational_distance(items @ turn, items)) > 1e-4


def test_the_terms_compare_each_old_modality_with_the_old_space(watched, terms_of, remembered):
    def check(strategy, old):
        found = terms_of(strategy, "relational/")
        assert found.keys() == {f"relational/{name}" for name in ("audio", "text", "video")}
        batch, part = remembered(strategy), strategy.remembered
        for name in ("audio", "text", "video"):
            where = strategy.batch.positions(name, batch.rows[name] + part.start)
            new = strategy.embedded[name].direction[where]
            before = old.encode(name, batch.features[name])
            change = (new @ new.T - before @ before.T).square()
            count = len(new)
            expected = 6.0 / 3 * change.sum() / (count * (count - 1))
            torch.testing.assert_close(found[f"relational/{name}"], expected, rtol=1e-3, atol=1e-6)

    watched(Relational(weight=6.0, rows=16), 2, check)


def test_at_the_teacher_there_is_no_change_and_no_pull(watched, terms_of):
    def check(strategy, old):
        if strategy.step:
            return
        found = terms_of(strategy, "relational/")
        assert len(found) == 2
        weights = list(strategy.space.tower("video").parameters())
        loss = torch.stack(list(found.values())).sum()
        pulls = torch.autograd.grad(loss, weights, retain_graph=True)
        assert float(loss) < 1e-9
        assert max(float(pull.abs().max()) for pull in pulls) < 1e-4

    watched(Relational(rows=16), 1, check)


def test_similarities_of_old_items_change_less_with_it(scenario, dataset, changed, trained):
    def alike(learner: Learner) -> torch.Tensor:
        video = learner.space.encode("video", dataset.columns["video"].values[:80])
        return video @ video.T

    scenario = changed(scenario, steps=40)
    before = alike(trained(stages=1, scenario=scenario))
    loose = alike(trained(scenario=scenario))
    held = alike(trained(Relational(weight=1000.0, rows=24), scenario=scenario))
    assert (held - before).square().mean() < 0.5 * (loose - before).square().mean()


def test_without_a_memory_it_is_refused_at_the_start(begun):
    learner, streams = begun(Relational(), items=None)
    with pytest.raises(ValueError, match="relational needs past items: give the run a memory"):
        learner.learn(streams, 0)


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"rows": 1}):
        with pytest.raises(ValueError, match=rf"relational\.{next(iter(wrong))} = "):
            Relational(**wrong)


def test_a_run_that_goes_on_inside_a_stage_ends_with_the_same_bits(ends, same):
    assert same(*ends(lambda: Relational(rows=16)))


def test_it_changes_training_and_with_no_weight_it_does_not(trained, values, same):
    naive = values(trained())
    assert not same(naive, values(trained(Relational(rows=16))))
    none = Relational(weight=0.0)
    assert same(naive, values(trained(none)))
    assert none.state() == {}


def test_it_leaves_the_first_stage_alone(trained, values, same):
    naive = values(trained(stages=1))
    assert same(naive, values(trained(Relational(rows=16), stages=1)))
