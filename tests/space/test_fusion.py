"""A space whose modalities share a transformer: what it ignores, what it fuses, what it keeps."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.fusion import Attention, FusionSpace
from continual_mm.space.kinds import new_space, rebuilt
from continual_mm.space.space import JointSpace
from continual_mm.space.towers import Tower
from continual_mm.system.errors import InputError

MODALITIES = {
    "text": Modality("text", Kind.TOKENS, (5, 4)),
    "audio": Modality("audio", Kind.TOKENS, (7, 3)),
    "video": Modality("video", Kind.VECTOR, (6,)),
}
EXACT = {"rtol": 0, "atol": 2e-7}
"""Weights and features are float64; embeddings are rounded to float32 at the end."""


def fusion(names=("text", "audio", "video"), *, blocks=1, seed=0, **settings):
    given = {"dim": 8, "token_width": 12, "heads": 3, "feature_dropout": 0.0, **settings}
    space = new_space(SpaceSettings(kind="fusion", blocks=blocks, **given), seed=seed)
    for name in names:
        space.add_modality(MODALITIES[name])
    return space.double().eval()


def items(count=4, seed=1):
    rng = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(count, *each.shape, generator=rng, dtype=torch.float64)
        for name, each in MODALITIES.items()
    }
    lengths = {"text": torch.tensor([5, 3, 1, 4])[:count], "audio": torch.full((count,), 7)}
    return features, lengths


def together(space, features, lengths, names, rows=None):
    """(n, D) of all rows, or of those of each modality that are given."""
    embedded = space(features, lengths)
    every = torch.arange(len(next(iter(features.values()))))
    places = {name: (rows or {}).get(name, every) for name in names}
    return space.fused(names, embedded, places)


def test_attention_is_the_softmax_of_scaled_products_over_valid_keys():
    attention = Attention(6, heads=2).double()
    values = torch.randn(1, 3, 6, dtype=torch.float64)
    keys = torch.tensor([[True, True, False]])
    joined = values[0] @ attention.joined.weight.T + attention.joined.bias
    query, key, value = joined.split(6, dim=1)
    mixed = []
    for head in (slice(0, 3), slice(3, 6)):
        weights = torch.zeros(3, 3, dtype=torch.float64)
        for i in range(3):
            scores = [
                math.exp(float(query[i, head] @ key[j, head]) / math.sqrt(3)) for j in range(2)
            ]
            weights[i, :2] = torch.tensor(scores) / sum(scores)
        mixed.append(weights @ value[:, head])
    expected = torch.cat(mixed, dim=1) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(values, keys)[0], expected)


@pytest.mark.parametrize("names", [("text",), ("text", "video"), ("text", "audio", "video")])
def test_padding_changes_nothing(names):
    space, (features, lengths) = fusion(), items()
    before = together(space, features, lengths, names)
    padded = torch.randn(4, 9, 4, dtype=torch.float64)
    padded[:, :5] = features["text"]
    after = together(space, features | {"text": padded}, lengths, names)
    torch.testing.assert_close(before, after, **EXACT)
    dirty = features["text"].clone()
    dirty[1, 3:] = 1e6
    torch.testing.assert_close(
        before, together(space, features | {"text": dirty}, lengths, names), **EXACT
    )


def test_the_order_of_tokens_and_of_modalities_changes_nothing():
    space, (features, lengths) = fusion(), items()
    before = together(space, features, lengths, ("text", "audio"))
    turned = features["text"].clone()
    turned[0] = turned[0].flip(0)
    turned[1, :3] = turned[1, :3].roll(1, 0)
    after = together(space, features | {"text": turned}, lengths, ("audio", "text"))
    torch.testing.assert_close(before, after, **EXACT)


def test_without_a_transformer_modalities_meet_in_the_mean_of_their_embeddings():
    space, (features, lengths) = fusion(blocks=0), items()
    found = together(space, features, lengths, ("text", "audio", "video"))
    alone = space(features, lengths)
    late = normalize(sum(each.embedding for each in alone.values()), dim=1)
    torch.testing.assert_close(found, late, **EXACT)
    with_one = fusion(blocks=1)
    alone = with_one(features, lengths)
    late = normalize(sum(each.embedding for each in alone.values()), dim=1)
    fused = together(with_one, features, lengths, ("text", "audio", "video"))
    assert (fused - late).abs().max() > 1e-3


def test_one_modality_together_with_none_is_its_own_embedding():
    space, (features, lengths) = fusion(), items()
    found = together(space, features, lengths, ("text",))
    torch.testing.assert_close(found, space(features, lengths)["text"].embedding, **EXACT)


@pytest.mark.parametrize("blocks", [0, 2])
def test_what_an_item_lacks_is_left_out(blocks):
    space, (features, lengths) = fusion(blocks=blocks), items()
    names = ("text", "video")
    pair, alone = (together(space, features, lengths, each) for each in (names, ("video",)))
    # Rows 1 and 3 have no text, whose features are those of the two others.
    some = torch.tensor([0, 2])
    features["text"], lengths["text"] = features["text"][some], lengths["text"][some]
    rows = {"text": torch.tensor([0, -1, 1, -1])}
    rows["video"] = torch.arange(4)
    found = together(space, features, lengths, names, rows)
    torch.testing.assert_close(found[some], pair[some], **EXACT)
    torch.testing.assert_close(found[[1, 3]], alone[[1, 3]], **EXACT)


def test_an_item_that_lacks_everything_is_finite_and_gives_finite_gradients():
    space, (features, lengths) = fusion(blocks=2), items()
    rows = dict.fromkeys(("text", "video"), torch.tensor([0, -1, 2, 3]))
    found = together(space, features, lengths, tuple(rows), rows)
    assert found[1].tolist() == [0.0] * 8
    found.sum().backward()
    gradients = [value.grad for value in space.parameters() if value.grad is not None]
    assert gradients
    assert all(bool(each.isfinite().all()) for each in gradients)


def test_a_row_without_a_token_has_the_learned_one_and_nothing_given_is_written():
    space, (features, lengths) = fusion(), items()
    lengths["text"] = torch.tensor([5, 0, 1, 0])
    kept = {name: each.clone() for name, each in (features | lengths).items()}
    found = space({"text": features["text"]}, {"text": lengths["text"]})["text"]
    assert all(torch.equal(each, (features | lengths)[name]) for name, each in kept.items())
    assert bool(found.embedding.isfinite().all())
    torch.testing.assert_close(found.embedding[1], found.embedding[3])
    torch.testing.assert_close(found.tokens.values[1, 0], space.tower("text").own.mask)
    assert found.tokens.valid[1].tolist() == [True, False, False, False, False]


def test_half_precision_with_a_row_without_tokens_stays_finite():
    space, (features, lengths) = fusion().float(), items()
    lengths["text"] = torch.tensor([5, 0, 1, 0])
    narrow = {"text": features["text"].to(torch.float32)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = space(narrow, lengths)["text"]
    assert bool(found.embedding.isfinite().all())


def test_weights_of_a_modality_do_not_depend_on_when_it_is_added():
    first, second = fusion(("text", "audio")), fusion(("audio", "text"))
    features, lengths = items()
    one, two = (together(each, features, lengths, ("text", "audio")) for each in (first, second))
    torch.testing.assert_close(one, two, **EXACT)


def test_it_is_rebuilt_from_its_description_and_weights():
    space, (features, lengths) = fusion(seed=3), items()
    space.append_subspace(4, ["text", "video"])
    space.double().eval()
    again = rebuilt(space.describe()).double().eval()
    assert isinstance(again, FusionSpace)
    again.load_state_dict(space.state_dict())
    names = ("text", "video")
    places = dict.fromkeys(names, torch.arange(4))
    one, two = (each.combined(names, each(features, lengths), places) for each in (space, again))
    assert one.shape == (4, 12)
    torch.testing.assert_close(one, two, **EXACT)


@pytest.mark.parametrize("kind", ["fusion", "mcn"])
def test_coordinates_of_subspaces_behind_several_modalities_are_the_mean_of_theirs(kind):
    settings = SpaceSettings(kind=kind, dim=8, feature_dropout=0.0)
    space = new_space(settings)
    for each in MODALITIES.values():
        space.add_modality(each)
    space.append_subspace(4, ["text", "video"])
    space.double().eval()
    features, lengths = items()
    embedded = space(features, lengths)
    names, every = ("text", "audio", "video"), torch.arange(4)
    found = space.combined(names, embedded, dict.fromkeys(names, every))
    vectors = torch.stack([space.vectors(name, embedded[name]) for name in names])
    torch.testing.assert_close(found[:, 8:], vectors[:, :, 8:].mean(0), **EXACT)
    fused = space.fused(names, embedded, dict.fromkeys(names, every))
    torch.testing.assert_close(found[:, :8], fused, **EXACT)


def test_settings_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="settings of kind 'fusion' are not those of this space"):
        JointSpace(SpaceSettings(kind="fusion"))


@pytest.mark.parametrize("kind", ["fusion", "mcn"])
def test_items_are_encoded_together_as_the_forward_pass_embeds_them(kind):
    space = fusion() if kind == "fusion" else new_space(SpaceSettings(dim=8))
    for each in MODALITIES.values():
        space.add_modality(each)
    space.float().eval()
    features, lengths = items()
    features = {name: each.to(torch.float32) for name, each in features.items()}
    names = ("text", "video")
    found = space.encode_together({n: features[n] for n in names}, lengths)
    expected = together(space, features, lengths, names)
    torch.testing.assert_close(found, expected.detach())
    single = space.encode_together({n: features[n][0] for n in names}, {"text": 5})
    torch.testing.assert_close(single, found[0])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "of no modality"),
        ({"text": torch.zeros(2, 5, 4), "video": torch.zeros(3, 6)}, "2 of text, 3 of video"),
        ({"video": torch.zeros(3, 7)}, "one item is"),
    ],
)
def test_items_that_do_not_belong_together_are_refused(given, problem):
    space = fusion().float()
    with pytest.raises(InputError, match=problem):
        space.encode_together(given)


def test_a_module_of_ones_own_makes_one_token():
    own = torch.nn.Linear(6, 5)
    space = new_space(SpaceSettings(kind="fusion", dim=8), towers={"video": Tower.of(own)})
    space.add_modality(MODALITIES["video"])
    found = space({"video": torch.randn(3, 6)}, {})["video"]
    assert found.tokens.values.shape == (3, 1, 8)
    frozen = Tower.of(own, trained=False)
    kept = new_space(SpaceSettings(kind="fusion", dim=8), towers={"video": frozen})
    kept.add_modality(MODALITIES["video"])
    taking = {name for name, value in kept.encoders.named_parameters() if value.requires_grad}
    assert taking
    assert not any(name.startswith("video.reader.encoder.own") for name in taking)
