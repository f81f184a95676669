"""Adapters of a tower: a second tower on the same weights, which begins as the first."""

import pytest
import torch
from torch import Tensor, nn

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.plugins.pair_lora import adaptable, adapted, merge
from continual_mm.space.encoders import Encoder
from continual_mm.space.space import default_encoder
from continual_mm.space.towers import Adapted

SETTINGS = SpaceSettings(dim=12, clusters=0)
SHAPES = {Kind.VECTOR: (9,), Kind.TOKENS: (6, 9), Kind.SPECTROGRAM: (16, 10)}


class Attentive(nn.Module):
    """torch's own transformer, which has a fast path where it need not differentiate."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.layers(values).mean(1)


def tower(kind: Kind) -> Encoder:
    torch.manual_seed(0)
    return default_encoder(Modality("m", kind, SHAPES[kind]), SETTINGS).eval()


def published() -> Encoder:
    torch.manual_seed(0)
    settings = SpaceSettings(mode="reference", dim=12, clusters=0, width=4, reconstruction_width=4)
    encoder = default_encoder(Modality("m", Kind.SPECTROGRAM, (16, 40)), settings)
    return encoder.eval()


def output(tower: nn.Module, values: Tensor, *, timed: bool) -> Tensor:
    lengths = torch.tensor([values.shape[1], 5, 3]) if timed else None
    return tower(values, lengths)[1]


def trained(tower: nn.Module) -> nn.Module:
    """As if its adapters had learned something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in tower.named_parameters():
            if "lora_B" in name:
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return tower


def adapters_of(tower: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in tower.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("kind", SHAPES)
def test_at_first_it_gives_the_same_bits_and_later_others(kind: Kind) -> None:
    first, values = tower(kind), torch.randn(3, *SHAPES[kind])
    second = adapted(first, rank=2, scale=2.0, seed=0)
    timed = kind is not Kind.VECTOR
    before = output(first, values, timed=timed)
    assert torch.equal(before, output(second, values, timed=timed))
    assert not torch.allclose(before, output(trained(second), values, timed=timed))
    assert torch.equal(before, output(first, values, timed=timed))


def test_weights_are_shared_and_only_adapters_take_a_gradient() -> None:
    first = tower(Kind.TOKENS)
    names = set(first.state_dict())
    second = adapted(first, rank=2, scale=2.0, seed=0)
    shared = {id(value) for value in first.parameters()}
    mine = adapters_of(second)
    assert set(first.state_dict()) == names
    assert {id(p) for p in second.parameters()} - {id(p) for p in mine.values()} == shared
    assert all("lora_" in name for name in mine)
    # Rank 2 on words (9 -> 12), fc and gate (12 -> 12): 2 (9 + 12) + 2 * 2 (12 + 12) numbers.
    assert sum(value.numel() for value in mine.values()) == 2 * (9 + 12) + 2 * 2 * (12 + 12)


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv1d(5, 4, 3, stride=2, padding=1)])
def test_an_adapter_is_its_scale_times_its_product(layer: nn.Module) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer.eval()

        def forward(self, values: Tensor) -> Tensor:
            return self.layer(values)

    first = One()
    second = trained(adapted(first, rank=2, scale=3.0, seed=0))
    down, up = (value.detach() for value in adapters_of(second).values())
    values = torch.randn(3, 5) if isinstance(layer, nn.Linear) else torch.randn(3, 5, 7)
    change = 3 * torch.tensordot(up.reshape(4, 2), down, dims=1)
    with torch.no_grad():
        expected = first(values)
        if isinstance(layer, nn.Linear):
            expected = expected + values @ change.T
        else:
            expected = expected + nn.functional.conv1d(values, change, stride=2, padding=1)
        torch.testing.assert_close(second(values), expected)


def test_no_adapter_has_a_higher_rank_than_the_weight_that_it_is_added_to() -> None:
    first = tower(Kind.VECTOR)
    whole = {name: tuple(value.shape) for name, value in first.named_parameters()}
    mine = adapters_of(trained(adapted(first, rank=10, scale=1.0, seed=0)))
    for name, value in mine.items():
        layer, _, factor = name.partition(".lora_")
        out, inputs = whole[f"{layer}.weight"]
        rank = min(10, out, inputs)
        assert tuple(value.shape) == ((rank, inputs) if factor.startswith("A") else (out, rank))
    assert {value.shape[0] for name, value in mine.items() if ".lora_A." in name} == {9, 10}


@pytest.mark.parametrize("make", [lambda: tower(Kind.SPECTROGRAM), published])
def test_merged_adapters_give_what_unmerged_ones_give(make) -> None:
    first, features = make(), 10 if make is not published else 40
    values = torch.randn(3, 16, features)
    second = trained(adapted(first, rank=3, scale=2.0, seed=0))
    expected = output(second, values, timed=True).detach()
    mine = {name: value.detach() for name, value in adapters_of(second).items()}
    names, before = set(first.state_dict()), output(first, values, timed=True)
    merge(first, mine, scale=2.0)
    assert set(first.state_dict()) == names
    after = output(first, values, timed=True)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after, before, rtol=1e-4, atol=1e-5)


def test_what_is_not_called_as_a_layer_gets_no_adapter() -> None:
    module = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "grouped": nn.Conv1d(4, 4, 3, groups=4),
            "norm": nn.LayerNorm(4),
            "linear": nn.Linear(4, 4),
        }
    )
    assert adaptable(module) == ["linear"]
    assert adapted(nn.LayerNorm(4), rank=2, scale=2.0, seed=0) is None


def test_a_transformer_of_torch_learns_through_its_adapters_despite_its_fast_path() -> None:
    modality = Modality("m", Kind.TOKENS, (6, 8))
    first = Adapted(Attentive(), modality, SETTINGS).eval().requires_grad_(False)
    second = adapted(first, rank=2, scale=2.0, seed=0)
    values = torch.randn(3, 6, 8)
    output(second, values, timed=True).sum().backward()
    assert all(value.grad is not None for value in adapters_of(second).values())
    with torch.no_grad():
        before = output(first, values, timed=True)
        assert not torch.allclose(before, output(trained(second), values, timed=True))


def test_first_adapters_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    first = tower(Kind.VECTOR)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (adapted(first, rank=2, scale=2.0, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in adapters_of(one).items():
        assert torch.equal(value, adapters_of(same)[name])
        assert torch.equal(value, adapters_of(other)[name]) == ("lora_B" in name)
