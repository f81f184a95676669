"""Tied units: an encoder whose units are in another order is the same encoder."""

import pytest
import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.merging.fuse import averaged, matched, reestimate_norms
from continual_mm.merging.groups import EMBEDDING, activations, carried, groups_of
from continual_mm.space.encoders import (
    FlatEncoder,
    TokenEncoder,
    VectorEncoder,
    frame_encoder,
    spectrogram_encoder,
)
from continual_mm.space.mcn import PublishedFrames, PublishedSpectrogram, PublishedTokens
from continual_mm.space.merged import Merged
from continual_mm.space.towers import Adapted, Linear

SETTINGS = SpaceSettings(dim=8, width=4, depth=3)
BUILDS = {
    "vector": VectorEncoder,
    "tokens": TokenEncoder,
    "flat": FlatEncoder,
    "frames": frame_encoder,
    "spectrogram": spectrogram_encoder,
    "linear": Linear,
    "published frames": PublishedFrames,
    "published tokens": PublishedTokens,
    "published spectrogram": PublishedSpectrogram,
}
OF_VECTORS = {"vector", "linear"}


def modality(name):
    if name in OF_VECTORS:
        return Modality("m", Kind.VECTOR, (6,))
    return Modality("m", Kind.FRAMES, (9, 6))


def items(name, count=60):
    generator = torch.Generator().manual_seed(1)
    if name in OF_VECTORS:
        return torch.randn(count, 6, generator=generator), None
    lengths = torch.randint(5, 10, (count,), generator=generator)
    return torch.randn(count, 9, 6, generator=generator), lengths


def built(name, seed=0):
    """An encoder in which every number is drawn, running statistics as well, and no unit is dead.

    Those that are cannot be told from one another.
    """
    torch.manual_seed(seed)
    encoder = BUILDS[name](modality(name), SETTINGS).double().eval()
    with torch.no_grad():
        for key, value in encoder.state_dict().items():
            if value.is_floating_point():
                value.normal_(std=0.2)
                if key.endswith(("running_var", "bias")):
                    value.abs_().add_(0.5)
    return encoder


@pytest.fixture(params=BUILDS)
def name(request):
    return request.param


def shuffled(encoder, seed=3):
    """A copy with the units of each group in another order, and the order of the embedding."""
    generator = torch.Generator().manual_seed(seed)
    maps, state = {}, encoder.state_dict()
    for group in groups_of(encoder):
        place = group.writers[0]
        units = state[place.tensor].shape[place.axis] // place.blocks
        order = torch.eye(units)[torch.randperm(units, generator=generator)]
        maps[group.name] = order, order.T
    other = averaged(encoder, carried(state, groups_of(encoder), maps), share=1.0)
    return other, maps[EMBEDDING][1].double()


def batch(name):
    values, lengths = items(name)
    return values.double(), lengths


def test_units_in_another_order_change_nothing_but_the_order_of_the_embedding(name):
    encoder = built(name)
    other, order = shuffled(encoder)
    (_, raw), (_, changed) = encoder(*batch(name)), other(*batch(name))
    torch.testing.assert_close(changed, raw @ order)
    assert not torch.allclose(changed, raw)


def test_every_weight_of_several_units_belongs_to_a_group(name):
    encoder = built(name)
    placed = {place.tensor for g in groups_of(encoder) for place in (*g.writers, *g.readers)}
    unused = {key for key in encoder.state_dict() if "batchnorm1" in key or "num_batches" in key}
    assert placed == encoder.state_dict().keys() - unused


def test_a_copy_in_another_order_is_recovered_exactly(name):
    first = built(name)
    second, order = shuffled(first)
    state = matched(second, first, [batch(name)], order.T)
    for key, value in first.state_dict().items():
        torch.testing.assert_close(state[key], value, msg=key)


def test_an_encoder_averaged_with_itself_is_itself(name):
    encoder = built(name)
    state = matched(encoder, encoder, [batch(name)], torch.eye(8).double())
    same = averaged(encoder, state).state_dict()
    assert all(torch.equal(same[key], value) for key, value in encoder.state_dict().items())


def test_the_two_ends_of_an_average_are_the_two_functions(name):
    first, second = built(name), built(name, seed=5)
    rotation = torch.eye(8)[torch.randperm(8)].double()
    state = matched(second, first, [batch(name)], rotation)
    zero, one = averaged(first, state, share=0.0), averaged(first, state, share=1.0)
    torch.testing.assert_close(zero(*batch(name))[1], first(*batch(name))[1])
    torch.testing.assert_close(one(*batch(name))[1], second(*batch(name))[1] @ rotation)


def test_half_of_the_units_doubled_become_them_again():
    """A text tower with each of four pooled units twice: the same embeddings after fusing."""
    encoder = built("published tokens")
    state, groups = encoder.state_dict(), groups_of(encoder)
    with torch.no_grad():
        state["words.weight"][4:], state["words.bias"][4:] = (
            state["words.weight"][:4],
            state["words.bias"][:4],
        )
    outgoing = torch.cat([torch.eye(4), torch.eye(4)], dim=1) / 2
    incoming = torch.cat([torch.eye(4), torch.eye(4)])
    less = carried(state, groups, {"pooled": (outgoing, incoming)})
    assert less["words.weight"].shape == (4, 6)
    assert less["unit.fc.weight"].shape == (8, 4)
    before = encoder(*batch("published tokens"))[1]
    encoder.load_state_dict(state)
    encoder.words = torch.nn.Linear(6, 4).double()
    encoder.unit.fc = torch.nn.Linear(4, 8).double()
    encoder.load_state_dict(less)
    torch.testing.assert_close(encoder(*batch("published tokens"))[1], before)


def test_roles_swap_with_the_order():
    """Where the units of a layer can be matched one to one, both orders give one function."""
    first, (second, order) = built("tokens"), shuffled(built("tokens", seed=2))
    there = averaged(first, matched(second, first, [batch("tokens")], order))
    back = averaged(second, matched(first, second, [batch("tokens")], order.T))
    torch.testing.assert_close(there(*batch("tokens"))[1], back(*batch("tokens"))[1] @ order)


def test_activations_are_seen_for_each_hidden_group(name):
    encoder = built(name)
    seen = activations(encoder, [batch(name)], groups_of(encoder))
    assert seen.keys() == {group.name for group in groups_of(encoder)} - {EMBEDDING}
    assert all(values.dim() == 2 and len(values) >= 60 for values in seen.values())


def test_a_module_of_unknown_parts_has_no_groups():
    given = Adapted(torch.nn.Linear(6, 5), Modality("m", Kind.VECTOR, (6,)), SETTINGS)
    with pytest.raises(ValueError, match="Adapted cannot be told"):
        groups_of(given)


def test_running_statistics_are_measured_anew():
    encoder = built("published spectrogram")
    values, lengths = batch("published spectrogram")
    reestimate_norms(encoder, [(values, lengths)])
    norm = encoder.net.bn1
    hidden = []
    norm.register_forward_pre_hook(lambda _module, given: hidden.append(given[0]))
    encoder(values, lengths)
    torch.testing.assert_close(norm.running_mean, hidden[0].mean((0, 2)))
    assert not encoder.training
    assert norm.momentum == 0.1


def test_a_merged_encoder_is_the_mean_of_turned_unit_vectors():
    parts = [built("vector"), built("vector", seed=1)]
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    merged = Merged(parts, [torch.eye(8), rotation], normalised=True).float()
    values = items("vector")[0]
    one, two = (part(values, None)[1] for part in parts)
    expected = (one / one.norm(dim=1, keepdim=True)).add(
        two / two.norm(dim=1, keepdim=True) @ rotation
    ) / 2
    torch.testing.assert_close(merged(values, None)[1], expected)
    again = Merged([merged], [rotation.T], normalised=True)
    torch.testing.assert_close(again(values, None)[1], expected @ rotation.T)
    assert len(again.encoders) == 2
