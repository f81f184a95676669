"""Scorers as the MERU objective trains them, on pairs with a common cause."""

import math

import pytest
import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.losses.entailment import entailment_loss, hyperbolic_contrast
from continual_mm.preparation.filtering.scorers import (
    CosineScorer,
    HyperbolicScorer,
    ScorerSettings,
    train,
)

CPU = torch.device("cpu")
KINDS = {
    "text": Modality("text", Kind.TOKENS, (5, 6)),
    "image": Modality("image", Kind.VECTOR, (9,)),
    "audio": Modality("audio", Kind.SPECTROGRAM, (12, 4)),
    "video": Modality("video", Kind.FRAMES, (3, 2, 4)),
}
SMALL = ScorerSettings(steps=60, batch_size=24, dim=6, hidden=12)


def sides(general, other, count=24, seed=0):
    """Items of two modalities that one latent vector makes."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(count, 4, generator=generator)
    found = []
    for place, name in enumerate((general, other)):
        shape = KINDS[name].shape
        maps = torch.randn(4, math.prod(shape), generator=torch.Generator().manual_seed(place))
        lengths = None
        if KINDS[name].kind.has_length:
            lengths = 1 + torch.arange(count) % shape[0]
        found.append(((latent @ maps).reshape(count, *shape), lengths))
    return tuple(found)


def batches(*names):
    while True:
        yield sides(*names), None


def fitted(kind, names=("text", "image"), settings=SMALL):
    modalities = tuple(KINDS[name] for name in names)
    how = {"device": CPU, "after_step": lambda: None}
    return train(kind, modalities, batches(*names), settings, **how)


@pytest.mark.parametrize("kind", [HyperbolicScorer, CosineScorer])
@pytest.mark.parametrize("names", [("text", "image"), ("audio", "video")])
def test_training_brings_partners_together_for_every_kind_of_signal(kind, names):
    before, after = (
        fitted(kind, names, ScorerSettings(**{**vars_of(SMALL), "steps": steps}))
        for steps in (1, 60)
    )
    losses = [each.eval().loss(sides(*names)).item() for each in (before, after)]
    assert losses[1] < 0.7 * losses[0]


def vars_of(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_scalars_stay_in_their_ranges_whatever_the_gradient_asks_for():
    scorer = HyperbolicScorer(KINDS["text"], KINDS["image"], SMALL)
    assert scorer.log_lengths.exp().tolist() == pytest.approx([6**-0.5] * 2)
    for far in (-9.0, 9.0):
        with torch.no_grad():
            for scalar in (scorer.log_scale, scorer.log_curvature, scorer.log_lengths):
                scalar.fill_(far)
        scorer.clamp()
        assert scorer.curvature.item() * (1 + 1e-6) >= 0.1
        assert scorer.curvature.item() <= 10 * (1 + 1e-6)
        assert scorer.log_lengths.max() <= 0
        assert scorer.log_scale.exp().item() <= 100 * (1 + 1e-6)


def test_beside_the_contrast_a_pair_costs_what_its_general_item_does_not_entail():
    scorer = HyperbolicScorer(KINDS["text"], KINDS["image"], SMALL)
    batch = sides("text", "image")
    texts, images = scorer.embed(batch)
    how = {"scale": scorer.log_scale.exp(), "curvature": scorer.curvature}
    entailment = scorer.loss(batch) - hyperbolic_contrast(texts, images, **how)
    right = 0.2 * entailment_loss(texts, images, curvature=1.0)
    wrong = 0.2 * entailment_loss(images, texts, curvature=1.0)
    assert entailment.item() == pytest.approx(right.item(), abs=1e-5)
    assert abs(right.item() - wrong.item()) > 1e-3


def test_how_long_a_feature_is_tells_how_far_from_the_root_an_item_lies():
    scorer = HyperbolicScorer(KINDS["text"], KINDS["image"], SMALL)
    texts, (image, _) = sides("text", "image")
    lengths = [scorer.embed((texts, (f * image, None)))[1].norm(dim=1) for f in (0.1, 1.0, 3.0)]
    assert bool((lengths[0] < lengths[1]).all())
    assert bool((lengths[1] < lengths[2]).all())


def test_weights_are_those_of_the_seed_and_of_nothing_else():
    torch.manual_seed(1)
    first = fitted(HyperbolicScorer)
    state = torch.random.get_rng_state()
    second = fitted(HyperbolicScorer)
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    third = fitted(HyperbolicScorer, settings=ScorerSettings(**{**vars_of(SMALL), "seed": 1}))
    assert not torch.equal(first.towers[0].map.weight, third.towers[0].map.weight)


def test_scores_are_in_float64_and_the_scorer_stays_in_float32():
    scorer = fitted(HyperbolicScorer)
    batch = tuple((values.double(), lengths) for values, lengths in sides("text", "image"))
    exact = scorer.double_precision().embed(batch)
    assert {each.dtype for each in exact} == {torch.float64}
    assert {each.dtype for each in scorer.parameters()} == {torch.float32}
    rough = scorer.eval().embed(sides("text", "image"))
    for one, other in zip(exact, rough, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_ends_the_training():
    def broken():
        text, (image, _) = sides("text", "image")
        yield (text, (image * math.inf, None)), None

    how = {"device": CPU, "after_step": lambda: None}
    with pytest.raises(FloatingPointError, match="loss at step 0 is not finite"):
        train(CosineScorer, (KINDS["text"], KINDS["image"]), broken(), SMALL, **how)


@pytest.mark.parametrize("kind", [HyperbolicScorer, CosineScorer])
def test_captions_of_one_image_are_no_negatives_of_each_other(kind):
    scorer = kind(KINDS["text"], KINDS["image"], SMALL).eval()
    batch = sides("text", "image", count=4)
    right = torch.eye(4, dtype=torch.bool)
    assert scorer.loss(batch, right) == scorer.loss(batch)
    right[0, 1] = right[1, 0] = True
    assert scorer.loss(batch, right) < scorer.loss(batch)
