"""Hidden input features: for a whole item, the same at the same step, never while evaluating."""

import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import FeatureDropout
from continual_mm.space.space import JointSpace


def test_a_feature_is_hidden_at_all_time_steps_of_an_item():
    seen = FeatureDropout(0.5, seed=0)("audio", torch.ones(50, 7, 20), time=True)
    assert torch.equal(seen, seen[:, :1].expand_as(seen))
    assert set(seen.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(seen[0], seen[1])


def test_the_mean_stays_and_the_rate_is_right():
    values = torch.rand(4000, 30, generator=torch.Generator().manual_seed(0))
    seen = FeatureDropout(0.2, seed=0)("video", values, time=False)
    assert abs(float((seen == 0).float().mean()) - 0.2) < 0.01
    assert abs(float(seen.mean() - values.mean())) < 0.01


def test_a_step_hides_what_it_hid_before_and_other_steps_and_modalities_something_else():
    dropout, again = FeatureDropout(0.5, seed=3), FeatureDropout(0.5, seed=3)
    values = torch.ones(9, 9)
    for moment in ((0, 1), (1, 0)):
        dropout.set_step(*moment)
    first = dropout("video", values, time=False)
    again.set_step(1, 0)
    assert torch.equal(again("video", values, time=False), first)
    assert not torch.equal(again("audio", values, time=False), first)
    again.set_step(1, 1)
    assert not torch.equal(again("video", values, time=False), first)


def test_nothing_is_hidden_while_evaluating_nor_from_a_frozen_tower():
    space = JointSpace(SpaceSettings(dim=8, clusters=0, feature_dropout=0.5))
    space.add_modality(Modality("video", Kind.VECTOR, (20,)))
    values = torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    generator = torch.random.get_rng_state()
    clean = space.encode("video", values)
    noisy = space({"video": values}, {})["video"].embedding
    assert not torch.allclose(clean, noisy)
    space.tower("video").eval()
    torch.testing.assert_close(space({"video": values}, {})["video"].embedding, clean)
    assert torch.equal(generator, torch.random.get_rng_state())
