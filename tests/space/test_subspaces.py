"""A space that grows: old coordinates stay bit for bit, and a vector is all that an item needs."""

from copy import deepcopy
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import Encoder
from continual_mm.space.space import JointSpace, default_encoder
from continual_mm.space.subspaces import Adapters, Block, cliques
from continual_mm.space.towers import Tower

SETTINGS = SpaceSettings(dim=12, clusters=0, feature_dropout=0.0, width=4, depth=1)
VIDEO = Modality("video", Kind.VECTOR, (9,))
AUDIO = Modality("audio", Kind.SPECTROGRAM, (16, 10))
TEXT = Modality("text", Kind.TOKENS, (6, 5))


def items(modality: Modality, count: int = 7) -> Tensor:
    return torch.randn(count, *modality.shape, generator=torch.Generator().manual_seed(3))


def moved(module: nn.Module, seed: int = 0) -> None:
    """Change every weight, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)


@pytest.fixture
def space() -> JointSpace:
    """Video and audio; video and text have coordinates in a subspace of two heads of five."""
    space = JointSpace(SETTINGS, seed=1)
    space.add_modality(VIDEO)
    space.add_modality(AUDIO)
    subspace = space.append_subspace(5, ["video", "text"], heads=2, rank=3)
    space.add_modality(TEXT)
    moved(subspace)
    return space.eval()


def test_vectors_keep_the_bytes_that_they_had_and_grow_behind_them() -> None:
    space = JointSpace(SETTINGS)
    space.add_modality(VIDEO)
    space.add_modality(AUDIO)
    before = {each.name: space.encode(each.name, items(each)) for each in (VIDEO, AUDIO)}
    for number in range(2):
        moved(space.append_subspace(5, ["video", "text"], heads=2, rank=3))
        space.add_modality(TEXT)
        for name, old in before.items():
            after = space.encode(name, items(VIDEO if name == "video" else AUDIO))
            assert after.shape[1] == space.size == 12 + 10 * (number + 1)
            assert after[:, : old.shape[1]].contiguous().numpy().tobytes() == old.numpy().tobytes()
            before[name] = after


def test_what_a_modality_lacks_is_zeros_so_its_similarities_are_those_that_it_had(space) -> None:
    audio, video = space.encode("audio", items(AUDIO)), space.encode("video", items(VIDEO))
    assert not audio[:, 12:].any()
    torch.testing.assert_close(audio @ video.T, audio[:, :12] @ video[:, :12].T)


def test_similarity_is_the_sum_over_subspaces_of_weighted_cosines(space) -> None:
    subspace = space.grown[0]
    subspace.layout = (
        Block(0, {"video": 0.5, "text": 4.0}),
        Block(1, {"video": 3.0, "text": 1.0}),
    )
    sides = {each.name: space({each.name: items(each)}, {})[each.name] for each in (VIDEO, TEXT)}
    video, text = sides["video"], sides["text"]
    expected = video.embedding @ text.embedding.T
    for head, weight in ((0, 2.0), (1, 3.0)):
        expected += weight * video.units[0][:, head] @ text.units[0][:, head].T
    vectors = [space.encode(each.name, items(each)) for each in (VIDEO, TEXT)]
    torch.testing.assert_close(vectors[0] @ vectors[1].T, expected)
    torch.testing.assert_close(video.units[0].norm(dim=2), torch.ones(7, 2))


@pytest.mark.parametrize("modality", [VIDEO, AUDIO, TEXT], ids=lambda each: each.name)
def test_adapters_give_what_a_tower_with_the_changed_weights_gives(modality) -> None:
    tower = default_encoder(modality, SETTINGS)
    adapters = Adapters(tower, rank=3, seed=0)
    features = items(modality)
    lengths = torch.full((7,), modality.shape[0]) if modality.kind.has_length else None
    torch.testing.assert_close(
        adapters(tower, features, lengths)[1], tower(features, lengths)[1], rtol=0, atol=0
    )
    moved(adapters)
    changed = deepcopy(tower)
    layers = [each for each in changed.modules() if isinstance(each, (nn.Linear, nn.Conv1d))]
    assert len(layers) == len(adapters.down)
    with torch.no_grad():
        for layer, down, up in zip(layers, adapters.down, adapters.up, strict=True):
            layer.weight += (up @ down).reshape(layer.weight.shape)
    found = adapters(tower, features, lengths)[1]
    torch.testing.assert_close(found, changed(features, lengths)[1])
    assert not torch.allclose(found, tower(features, lengths)[1])


def test_a_space_is_rebuilt_from_its_description_and_its_weights(space) -> None:
    space.grown[0].layout = (Block(1, {"video": 0.1, "text": 3.3}),)
    again = JointSpace.rebuild(space.describe())
    again.load_state_dict(space.state_dict())
    for each in (VIDEO, AUDIO, TEXT):
        assert torch.equal(
            again.encode(each.name, items(each)), space.encode(each.name, items(each))
        )


class Own(Encoder):
    """Gives the size of the space, whatever is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled = 30
        self.map = nn.Linear(30, 12)

    def forward(self, values, lengths):
        values = values.flatten(1)
        return values, self.map(values)


@pytest.mark.parametrize(
    ("tower", "kind"),
    [
        (None, "own"),
        (Tower.of(nn.Sequential(nn.Flatten(), nn.Linear(30, 4))), "own"),
        (Tower.of(nn.Sequential(nn.Flatten(), nn.Linear(30, 4)), trained=False), "head"),
        (Tower.of(Own()), "head"),
    ],
    ids=["default", "module", "not trained", "of a size of its own"],
)
def test_a_modality_that_arrives_gets_one_more_tower_or_a_head_on_its_own(tower, kind) -> None:
    space = JointSpace(SETTINGS, towers={} if tower is None else {"text": tower})
    space.add_modality(VIDEO)
    subspace = space.append_subspace(5, ["video", "text"], heads=2)
    space.add_modality(TEXT)
    assert subspace.kinds == {"video": "adapted", "text": kind}
    assert any(value.requires_grad for value in subspace.part("text").parameters())
    found = space({"text": items(TEXT)}, {})["text"]
    assert found.units[0].shape == (7, 2, 5)


def test_layers_whose_weight_is_not_theirs_alone_get_no_adapters_of_their_own() -> None:
    shared = nn.Linear(9, 9)
    twin = nn.Linear(9, 9)
    twin.weight = shared.weight
    made = nn.utils.spectral_norm(nn.Linear(9, 9))
    adapters = Adapters(nn.Sequential(shared, twin, made), rank=2, seed=0)
    assert len(adapters.down) == 1


def test_in_training_only_what_is_trained_sees_hidden_features() -> None:
    space = JointSpace(SETTINGS.model_copy(update={"feature_dropout": 0.5}))
    space.add_modality(VIDEO)
    space.append_subspace(5, ["video"])
    space.tower("video").eval()
    space.dropout.set_step(0, 0)
    seen = space({"video": items(VIDEO)}, {})["video"]
    whole = space.eval()({"video": items(VIDEO)}, {})["video"]
    assert torch.equal(seen.embedding, whole.embedding)
    assert not torch.allclose(seen.units[0], whole.units[0])


@pytest.fixture
def mapping() -> JointSpace:
    """Video and audio are mapped, text has a head; text shares coordinates with audio alone."""
    space = JointSpace(SETTINGS, seed=1)
    space.add_modality(VIDEO)
    space.add_modality(AUDIO)
    subspace = space.append_subspace(5, ["video", "audio", "text"], mapped=True, noise=1.5)
    space.add_modality(TEXT)
    subspace.layout = (Block(0, {"audio": 2.0, "text": 2.0}),)
    moved(subspace)
    return space.eval()


def test_old_modalities_share_one_map_of_their_embeddings(mapping) -> None:
    subspace = mapping.grown[0]
    assert subspace.kinds == {"video": "mapped", "audio": "mapped", "text": "head"}
    for each in (VIDEO, AUDIO):
        found = mapping({each.name: items(each)}, {})[each.name]
        torch.testing.assert_close(
            found.units[0][:, 0], nn.functional.normalize(subspace.map(found.embedding), dim=1)
        )
    assert not mapping.encode("video", items(VIDEO))[:, 12:].any()


def test_only_in_training_a_map_sees_noise_which_the_step_alone_decides(mapping) -> None:
    def units(step: int) -> Tensor:
        mapping.dropout.set_step(0, step)
        return mapping({"video": items(VIDEO)}, {})["video"].units[0]

    quiet = units(0)
    assert torch.equal(units(1), quiet)
    mapping.train()
    assert torch.equal(units(0), units(0))
    assert not torch.allclose(units(0), units(1))
    assert not torch.allclose(units(0), quiet)


def test_a_mapped_subspace_is_rebuilt_from_its_description_and_its_weights(mapping) -> None:
    again = JointSpace.rebuild(mapping.describe())
    again.load_state_dict(mapping.state_dict())
    assert again.grown[0].noise == 1.5
    for each in (VIDEO, AUDIO, TEXT):
        assert torch.equal(
            again.encode(each.name, items(each)), mapping.encode(each.name, items(each))
        )


def test_a_space_in_reference_mode_does_not_grow() -> None:
    space = JointSpace(SpaceSettings(mode="reference", dim=12, clusters=0))
    with pytest.raises(ValueError, match="reference mode cannot grow"):
        space.append_subspace(5, ["video"])


@pytest.mark.parametrize("seed", range(20))
def test_every_edge_lies_in_one_clique_and_no_other_pair_in_any(seed) -> None:
    members = list("abcde")
    chosen = torch.rand(10, generator=torch.Generator().manual_seed(seed)) < 0.6
    edges = [two for two, kept in zip(combinations(members, 2), chosen, strict=True) if kept]
    inside = [two for group in cliques(members, edges) for two in combinations(group, 2)]
    assert sorted(inside) == sorted(edges)
