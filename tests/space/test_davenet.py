"""DAVEnet's lengths, sizes and first weights, as published."""

import pytest
import torch

from continual_mm.space.mcn import Davenet


@pytest.mark.parametrize(
    ("frames", "expected"), [(800, 50), (1000, 63), (1024, 64), (3072, 192), (5120, 320)]
)
def test_the_time_is_halved_four_times_and_rounded_up(frames: int, expected: int) -> None:
    with torch.device("meta"):
        net = Davenet(40, width=128, depth=4)
        assert net(torch.empty(2, frames, 40)).shape == (2, expected, 1024)


def test_each_part_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        net = Davenet(40, width=128, depth=4)
    sizes = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in net.named_children()
    }
    assert sizes == {
        "batchnorm1": 2,
        "conv1": 5_120,
        "bn1": 256,
        "layer1": 607_488,
        "layer2": 2_099_712,
        "layer3": 8_393_728,
        "layer4": 33_564_672,
    }
    assert sum(sizes.values()) == 44_670_978
    assert len(net.state_dict()) == 131


def test_the_first_weights_have_the_published_spread() -> None:
    torch.manual_seed(0)
    net = Davenet(40, width=64, depth=2)
    for convolution, area in (
        (net.conv1, 40),
        (net.get_submodule("layer1.0.conv1"), 9),
        (net.get_submodule("layer2.1.conv2"), 9),
        (net.get_submodule("layer2.0.downsample.0"), 1),
    ):
        assert isinstance(convolution, torch.nn.Conv1d)
        assert convolution.bias is None
        expected = (2 / (area * convolution.out_channels)) ** 0.5
        assert convolution.weight.std().item() == pytest.approx(expected, rel=0.06)
    assert torch.equal(net.bn1.weight, torch.ones(64))
    assert (net.bn1.momentum, net.bn1.eps) == (0.1, 1e-5)


def test_nothing_goes_through_the_first_normalisation_and_nothing_is_negative() -> None:
    net = Davenet(5, width=4, depth=2)
    sounds = -80 * torch.rand(3, 20, 5, generator=torch.Generator().manual_seed(0))
    found = net(sounds)
    assert found.min() >= 0
    assert found.max() > 0
    found.sum().backward()
    assert net.batchnorm1.weight.grad is None
    assert int(net.batchnorm1.num_batches_tracked) == 0
    assert int(net.bn1.num_batches_tracked) == 1
