"""Row-KL: whom remembered items choose in the other modality stays as it was."""

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
