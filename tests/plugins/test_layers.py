"""What goes into layers: the vectors that a weight multiplies, found from outside."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from continual_mm.plugins.nullspace import LayerInputs


def gathered(module: nn.Module, *batches: Tensor) -> dict[tuple[str, ...], Tensor]:
    inputs = LayerInputs(dict(module.named_parameters()))
    with inputs:
        for batch in batches:
            module(batch)
    return inputs.covariances()


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_linear_layer_is_given_its_inputs_and_a_constant_one():
    first, second = rand(5, 3), rand(9, 3)
    found = gathered(nn.Linear(3, 2), first, second)
    vectors = torch.cat([torch.cat([first, second]), torch.ones(14, 1)], dim=1).double()
    assert list(found) == [("weight", "bias")]
    torch.testing.assert_close(found["weight", "bias"], (vectors.T @ vectors / 14)[None])


def test_without_a_bias_there_is_no_constant_and_every_time_step_counts():
    values = rand(4, 6, 3)
    found = gathered(nn.Linear(3, 2, bias=False), values)
    steps = values.reshape(24, 3).double()
    torch.testing.assert_close(found["weight",], (steps.T @ steps / 24)[None])


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}]
)
def test_a_convolution_is_given_the_patches_that_unfold_gives(options):
    values = rand(4, 3, 9, 8)
    found = gathered(nn.Conv2d(3, 5, 3, bias=False, **options), values)
    patches = functional.unfold(values, 3, **options).double()
    expected = torch.einsum("nip,njp->ij", patches, patches) / (4 * patches.shape[2])
    torch.testing.assert_close(found["weight",], expected[None])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, padding=1),
        nn.Conv1d(4, 6, 5, padding="same"),
        nn.Conv1d(4, 6, 3, padding="valid", stride=2),
        nn.Conv1d(4, 6, 9, stride=2, padding=4, groups=2),
        nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"),
        nn.Conv2d(4, 6, (1, 3), padding=(0, 1), groups=2, bias=False),
        nn.Conv3d(4, 4, (2, 1, 2), dilation=(1, 1, 2), groups=4),
        nn.Linear(4, 6),
    ],
    ids=str,
)
def test_the_covariance_foretells_the_energy_of_the_outputs(layer):
    """``mean |W x + b|^2 = tr((W, b) C (W, b)^T)``, whatever the layer does with its input."""
    shapes = {nn.Conv1d: (3, 4, 11), nn.Conv2d: (3, 4, 5, 6), nn.Conv3d: (2, 4, 3, 4, 5)}
    values = rand(*shapes.get(type(layer), (7, 4)))
    (covariance,) = gathered(layer, values).values()
    parameters = [layer.weight.flatten(1)] + ([] if layer.bias is None else [layer.bias[:, None]])
    rows = torch.cat(parameters, dim=1).double().unflatten(0, (covariance.shape[0], -1))
    outputs = layer(values).detach().double()
    places = outputs.numel() / layer.weight.shape[0]
    found = (rows @ covariance @ rows.mT).diagonal(dim1=1, dim2=2).sum()
    torch.testing.assert_close(found, outputs.square().sum() / places, rtol=1e-5, atol=0)


def test_a_weight_that_is_multiplied_without_its_module_is_found_without_the_bias():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Linear(3, 2)

        def forward(self, values: Tensor) -> Tensor:
            return functional.linear(values, self.words.weight).amax(1) + self.words.bias

    assert list(gathered(Own(), rand(4, 6, 3))) == [("words.weight",)]


def test_what_is_not_looked_for_or_not_multiplied_alone_is_left_out():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.bias = self.one.bias
            self.norm = nn.LayerNorm(3)
            self.recurrent = nn.GRU(3, 3)

        def forward(self, values: Tensor) -> Tensor:
            return self.norm(self.recurrent(self.three(self.two(self.one(values))))[0])

    assert list(gathered(Tied(), rand(4, 3))) == [("three.weight", "three.bias")]
    inputs = LayerInputs({})
    with inputs:
        nn.Linear(3, 2)(rand(4, 3))
    assert inputs.covariances() == {}


def test_looking_on_changes_no_output_and_no_gradient():
    layer, values = nn.Conv1d(4, 6, 3), rand(3, 4, 11)
    layer(values).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    with LayerInputs(dict(layer.named_parameters())):
        layer(values).square().sum().backward()
    assert torch.equal(layer.weight.grad, expected)
