"""MCN: DAVEnet's sizes, and the released weights under their published names."""

import pytest
import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.mcn import Davenet
from continual_mm.space.mcn_weights import load_published, published_state, published_tower
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError


@pytest.mark.parametrize(
    ("frames", "expected"), [(800, 50), (1000, 63), (1024, 64), (3072, 192), (5120, 320)]
)
def test_the_time_is_halved_four_times_and_rounded_up(frames, expected):
    with torch.device("meta"):
        net = Davenet(40, width=128, depth=4)
        assert net(torch.empty(2, frames, 40)).shape == (2, expected, 1024)


def test_the_first_weights_have_the_published_spread():
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


def test_nothing_goes_through_the_first_normalisation_and_nothing_is_negative():
    net = Davenet(5, width=4, depth=2)
    sounds = -80 * torch.rand(3, 20, 5, generator=torch.Generator().manual_seed(0))
    found = net(sounds)
    assert found.min() >= 0
    assert found.max() > 0
    found.sum().backward()
    assert net.batchnorm1.weight.grad is None
    assert int(net.batchnorm1.num_batches_tracked) == 0
    assert int(net.bn1.num_batches_tracked) == 1


SHAPES = {"video": (5,), "audio": (12, 3), "text": (4, 6)}
KINDS = {"video": Kind.VECTOR, "audio": Kind.SPECTROGRAM, "text": Kind.TOKENS}


def space_with(seed=0, names=None, **settings):
    sizes = {"dim": 8, "reconstruction_width": 7, "width": 2, "depth": 2, "clusters": 2}
    space = JointSpace(SpaceSettings(mode="reference", **{**sizes, **settings}), seed=seed)
    for name, shape in SHAPES.items():
        space.add_modality(Modality((names or {}).get(name, name), KINDS[name], shape))
    return space


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refusal(published, **options):
    space = space_with(seed=9)
    before = {name: value.clone() for name, value in space.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_published(space, published, source="mcn.pth", **options)
    assert same(dict(space.state_dict()), before)
    return str(caught.value)


def test_the_names_and_shapes_are_the_published_ones():
    state = published_state(space_with())
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for name, shape in {
        "DAVEnet.batchnorm1.running_var": (1,),
        "DAVEnet.conv1.weight": (2, 1, 3, 1),
        "DAVEnet.bn1.weight": (2,),
        "DAVEnet.layer2.0.conv1.weight": (4, 2, 1, 9),
        "DAVEnet.layer2.0.downsample.0.weight": (4, 2, 1, 1),
        "DAVEnet.layer2.0.downsample.1.bias": (4,),
        "DAVEnet.layer2.1.bn2.num_batches_tracked": (),
        "DAVEnet_projection.weight": (8, 4),
        "GU_audio.fc.weight": (4, 4),
        "GU_audio.cg.fc.bias": (4,),
        "GU_video.fc.weight": (8, 5),
        "GU_video.cg.fc.weight": (8, 8),
        "text_pooling_caption.fc.weight": (8, 6),
        "GU_text_captions.cg.fc.weight": (8, 8),
        "recon_v.2.weight": (5, 7),
        "recon_a.2.bias": (4,),
        "recon_t.0.weight": (7, 8),
    }.items():
        assert shapes.pop(name) == shape
    # Two stages of two blocks: 5 + 1 + 5, 4 * 12 and 2 * 6 tensors; 28 in all other modules.
    assert len(state) == 11 + 48 + 12 + 28


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_come_back_bit_for_bit_and_under_names_of_ones_own(prefix):
    source = space_with(seed=1)
    state = {prefix + name: value for name, value in published_state(source).items()}
    own = {"video": "clip", "audio": "voice", "text": "caption"}
    target = space_with(seed=2, names=own)
    assert not same(published_state(target, own), published_state(source))
    load_published(target, state, own, source="mcn.pth")
    assert same(published_state(target, own), published_state(source))
    features = torch.randn(3, 12, 3)
    assert torch.equal(target.encode("voice", features), source.encode("audio", features))


def test_one_tower_is_loaded_alone_and_the_others_stay():
    state, target = published_state(space_with(seed=1)), space_with(seed=2)
    before = {name: value.clone() for name, value in published_state(target).items()}
    load_published(target, state, {"audio": "audio"}, source="mcn.pth")
    for name, value in published_state(target).items():
        audio = name.startswith(("DAVEnet", "GU_audio", "recon_a"))
        assert torch.equal(value, (state if audio else before)[name])


def test_a_towers_tensors_fit_the_encoder_and_the_head():
    source, target = space_with(seed=1), space_with(seed=2)
    tower = published_tower(published_state(source), "text")
    for part, module in (
        ("encoder.", target.tower("text")),
        ("reconstruction.", target.reconstructions["text"]),
    ):
        own = {k.removeprefix(part): v for k, v in tower.items() if k.startswith(part)}
        module.load_state_dict(own)
    features = torch.randn(3, 4, 6)
    assert torch.equal(target.encode("text", features), source.encode("text", features))


def test_what_does_not_fit_is_refused_by_name_and_nothing_is_loaded():
    state = published_state(space_with(seed=1))
    missing = {name: value for name, value in state.items() if not name.startswith("recon_t")}
    assert "mcn.pth: missing: recon_t.0.weight, recon_t.0.bias" in refusal(missing)
    for name in ("layer_norm.weight", "DAVEnet.layer3.0.conv1.weight"):
        assert f"mcn.pth: unknown: {name};" in refusal({**state, name: torch.ones(3)})
    more = {**state, "fc1.bias": torch.ones(1)}
    assert "unknown: fc1.bias" in refusal(more, towers={"text": "text"})
    other = published_state(space_with(seed=1, reconstruction_width=6))
    assert "recon_v.0.weight (6, 8) instead of (7, 8)" in refusal(other)
    assert "set dim, reconstruction_width" in refusal(other)


def test_a_modality_of_another_kind_or_a_robust_space_has_no_published_tower():
    robust = JointSpace(SpaceSettings(dim=8))
    robust.add_modality(Modality("video", Kind.VECTOR, (5,)))
    with pytest.raises(InputError, match='mode = "reference"'):
        published_state(robust, {"video": "video"})
    with pytest.raises(InputError, match="no video tower"):
        published_state(space_with(), {"video": "audio"})
    with pytest.raises(KeyError, match="no modality 'smell'"):
        published_state(space_with(), {"video": "smell"})
