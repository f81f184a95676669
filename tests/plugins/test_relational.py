"""Relational: how alike remembered items of one modality are stays as it was."""

from functools import partial

import pytest
import torch

from continual_mm.learning.learner import Learner
from continual_mm.plugins.relational import Relational


@pytest.fixture
def begun(begun):
    """With a memory of 24 items."""
    return partial(begun, items=24)


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


def test_similarities_of_old_items_change_less_with_it(scenario, dataset, changed, trained):
    def alike(learner: Learner) -> torch.Tensor:
        video = learner.space.encode("video", dataset.columns["video"].values[:80])
        return video @ video.T

    scenario = changed(scenario, steps=40)
    before = alike(trained(stages=1, scenario=scenario))
    loose = alike(trained(scenario=scenario))
    held = alike(trained(Relational(weight=1000.0, rows=24), scenario=scenario))
    assert (held - before).square().mean() < 0.5 * (loose - before).square().mean()
