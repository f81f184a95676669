"""The space: towers that ignore padding and scale, that grow alike whatever the order."""

import pytest
import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import (
    FeatureDropout,
    GatedUnit,
    first_for_padding,
    masked_max,
    masked_mean,
)
from continual_mm.space.naming import canonical, modality_of, named_parameters
from continual_mm.space.space import JointSpace

SETTINGS = SpaceSettings(dim=16, clusters=4, width=8, depth=2)
SHAPES = {
    Kind.VECTOR: (6,),
    Kind.TOKENS: (7, 6),
    Kind.SPECTROGRAM: (21, 10),
    Kind.FRAMES: (9, 3, 4),
}


def modality(kind):
    return Modality("some", kind, SHAPES[kind])


def space_with(kind, seed=0):
    space = JointSpace(SETTINGS, seed=seed)
    space.add_modality(modality(kind))
    return space.eval()


def signal(kind, rows=5):
    return torch.randn(rows, *SHAPES[kind], generator=torch.Generator().manual_seed(1))


def test_the_published_gated_unit_is_linear_times_a_gate_of_itself():
    unit = GatedUnit(3, 2, norm=False)
    x = torch.randn(4, 3)
    h = x @ unit.fc.weight.T + unit.fc.bias
    expected = h / (1 + torch.exp(-(h @ unit.gate.weight.T + unit.gate.bias)))
    torch.testing.assert_close(unit(x), expected)


def test_pooling_looks_at_valid_steps_only():
    values = torch.tensor([[[1.0], [5.0], [90.0]], [[-3.0], [-2.0], [-1.0]]])
    valid = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values, valid).tolist() == [[3.0], [-3.0]]
    assert masked_max(values, valid).tolist() == [[5.0], [-3.0]]
    assert first_for_padding(values, valid).amax(1).tolist() == [[5.0], [-3.0]]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.has_length])
def test_what_lies_behind_a_length_changes_nothing(kind):
    space, values = space_with(kind), signal(kind)
    lengths = torch.tensor([1, 2, 3, 5, 6])
    noisy = values.clone()
    for row, length in enumerate(lengths):
        noisy[row, length:] = 1e4
    longer = torch.cat([values, torch.full_like(values, -50.0)], dim=1)
    expected = space({"some": values}, {"some": lengths})["some"].embedding
    for other in (noisy, longer):
        found = space({"some": other}, {"some": lengths})["some"].embedding
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_row_is_embedded_alike_in_any_company(kind):
    space, values = space_with(kind).train(), signal(kind)
    together = space.encode("some", values)
    alone = torch.stack([space.encode("some", row) for row in values])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(Kind))
def test_inputs_a_thousand_times_larger_are_embedded_and_trained_as_well(kind):
    space = space_with(kind).train()
    values = signal(kind).requires_grad_()
    lengths = {} if kind is Kind.VECTOR else {"some": torch.full((5,), SHAPES[kind][0])}
    gradients = []
    for factor in (1.0, 1000.0):
        space.zero_grad()
        embedded = space({"some": factor * values}, lengths)["some"]
        (embedded.embedding @ torch.ones(16)).square().sum().backward()
        norms = [p.grad.norm() for _, p in named_parameters(space) if p.grad is not None]
        gradients.append(torch.stack(norms))
    assert gradients[1].isfinite().all()
    assert gradients[1].max() < 20 * gradients[0].max()


@pytest.mark.parametrize("kind", [Kind.SPECTROGRAM, Kind.FRAMES])
def test_temporal_encoders_hear_the_order(kind):
    space, values = space_with(kind).train(), signal(kind)
    for block in space.tower("some").trunk.stages:
        torch.nn.init.normal_(block.conv2.weight, std=0.2)
    forwards, backwards = space.encode("some", values), space.encode("some", values.flip(1))
    assert (forwards - backwards).norm(dim=1).min() > 1e-2


def test_embeddings_are_unit_vectors_in_float32_under_bfloat16_too():
    space = space_with(Kind.TOKENS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedded = space({"some": signal(Kind.TOKENS)}, {})["some"]
    assert embedded.embedding.dtype == torch.float32
    torch.testing.assert_close(embedded.embedding.norm(dim=1), torch.ones(5))


def test_initial_weights_depend_on_no_order_and_leave_the_global_generator_alone():
    generator = torch.random.get_rng_state()
    early, late, different = (JointSpace(SETTINGS, seed=seed) for seed in (3, 3, 4))
    one, other = Modality("one", Kind.VECTOR, (4,)), Modality("other", Kind.TOKENS, (5, 4))
    for space, order in ((early, (one, other)), (late, (other, one)), (different, (one,))):
        for added in order:
            space.add_modality(added)
    assert torch.equal(generator, torch.random.get_rng_state())
    weights = dict(late.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in early.named_parameters())
    assert not torch.equal(different.tower("one").unit.fc.weight, early.tower("one").unit.fc.weight)


def test_welcoming_twice_changes_nothing_but_another_shape_is_refused():
    space = space_with(Kind.VECTOR)
    before = space.tower("some").unit.fc.weight.clone()
    space.add_modality(modality(Kind.VECTOR))
    assert torch.equal(space.tower("some").unit.fc.weight, before)
    with pytest.raises(ValueError, match="cannot be added"):
        space.add_modality(Modality("some", Kind.VECTOR, (5,)))


@pytest.mark.parametrize("name", ["keys", "type", "values", "forward", "m"])
def test_a_modality_may_have_any_name(name):
    space = JointSpace(SETTINGS)
    space.add_modality(Modality(name, Kind.VECTOR, (4,)))
    assert space.encode(name, torch.ones(2, 4)).shape == (2, 16)
    assert name in space
    assert {modality_of(n) for n, _ in space.named_parameters()} == {None, name}


def test_encoding_says_what_does_not_fit():
    space = space_with(Kind.TOKENS)
    with pytest.raises(KeyError, match="no modality 'smell' in this space"):
        space.encode("smell", torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"one item is \(7, 6\)"):
        space.encode("some", torch.ones(2, 7, 5))


def test_encoding_leaves_every_module_in_the_mode_that_it_was_in():
    space = JointSpace(SETTINGS)
    for name in ("still", "some"):
        space.add_modality(Modality(name, Kind.VECTOR, SHAPES[Kind.VECTOR]))
    space.train()
    space.tower("still").eval()
    modes = [module.training for module in space.modules()]
    for name in ("still", "some"):
        space.encode(name, signal(Kind.VECTOR))
        assert [module.training for module in space.modules()] == modes


def test_the_logit_scale_is_bounded():
    space = JointSpace(SETTINGS)
    for value, expected in ((50.0, 100.0), (-50.0, 1.0)):
        space.log_scale.data.fill_(value)
        assert float(space.logit_scale.detach()) == pytest.approx(expected)


def test_wrappers_do_not_change_a_name():
    expected = "encoders.text.unit.fc.weight"
    for wrapped in (
        "module.encoders.text.unit.fc.weight",
        "_orig_mod.encoders.text.unit.fc.weight",
        "encoders.text.unit.base_layer.fc.weight",
        "encoders.text.unit.fc.parametrizations.weight.original",
    ):
        assert canonical(wrapped) == expected
    assert modality_of("module.encoders.text.unit.fc.weight") == "text"
    assert modality_of("log_scale") is None


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
