"""Maps of vectors to fewer numbers: what they keep, and what the learned one keeps besides."""

from itertools import combinations

import numpy as np
import pytest
import torch

from continual_mm.definitions.modality import pair
from continual_mm.learning.projection import (
    Distillation,
    Moments,
    Vectors,
    distilled_projection,
    divergence,
    random_axes,
    spread,
    temperatures_of,
)

NAMES = ("audio", "text", "video")


def vectors_in(dim, size, *, items=60, noise=0.0, seed=0):
    """Vectors of three modalities in one random subspace of so many dimensions."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(dim, size, generator=generator)
    shared = torch.randn(items, dim, generator=generator)
    of = {}
    for name in NAMES:
        own = shared + 0.3 * torch.randn(items, dim, generator=generator)
        of[name] = own @ basis + noise * torch.randn(items, size, generator=generator)
        of[name] /= of[name].norm(dim=1, keepdim=True)
    return Vectors(of, {name: torch.arange(items) for name in NAMES})


def moments_of(vectors):
    found = Moments()
    for name, each in vectors.of.items():
        for block in each.split(7):
            found.add(name, block)
    return found


def test_principal_axes_keep_similarities_of_vectors_in_a_subspace_of_their_number():
    vectors = vectors_in(5, 40)
    axes = moments_of(vectors).principal_axes(5, {})
    for one, two in combinations(NAMES, 2):
        before = vectors.of[one] @ vectors.of[two].T
        after = (vectors.of[one] @ axes) @ (vectors.of[two] @ axes).T
        assert torch.allclose(before, after, atol=1e-5)


def test_principal_axes_are_those_of_a_singular_value_decomposition_with_factors():
    vectors, factors = vectors_in(9, 12, noise=0.1), {"audio": 3.0}
    axes = moments_of(vectors).principal_axes(4, factors)
    stacked = np.concatenate([factors.get(n, 1.0) * vectors.of[n].numpy() for n in NAMES])
    right = np.linalg.svd(stacked.astype(float))[2][:4].T
    assert np.allclose(np.abs(np.sum(axes.numpy() * right, axis=0)), 1, atol=1e-4)


def test_a_modality_of_many_items_counts_as_much_as_one_of_few():
    along = torch.eye(2)
    found = Moments()
    found.add("audio", along[:1].expand(1000, 2))
    found.add("video", 1.1 * along[1:].expand(3, 2))
    assert torch.allclose(found.principal_axes(1, {}).abs(), along[:, 1:])


def test_random_axes_are_orthonormal_and_follow_from_the_seed():
    axes = random_axes(30, 6, seed=3)
    assert torch.allclose(axes.T @ axes, torch.eye(6), atol=1e-6)
    assert torch.equal(axes, random_axes(30, 6, seed=3))
    assert not torch.equal(axes, random_axes(30, 6, seed=4))


def test_the_spread_is_that_of_similarities_without_what_rows_and_columns_have_in_common():
    vectors = vectors_in(4, 6, noise=0.2)
    found = (vectors.of["audio"] @ vectors.of["text"].T).double().numpy()
    centred = found - found.mean(0) - found.mean(1, keepdims=True) + found.mean()
    assert spread(vectors.of["audio"], vectors.of["text"]) == pytest.approx(centred.std())


def test_a_map_that_turns_vectors_changes_no_choice_and_one_that_drops_numbers_does():
    vectors = vectors_in(8, 8)
    temperatures = temperatures_of(vectors, 0.35)
    turned = random_axes(8, 8, seed=0)
    assert divergence(vectors, turned, temperatures) == pytest.approx(0, abs=1e-4)
    assert divergence(vectors, turned[:, :3], temperatures) > 0.01


LEARNING = Distillation(steps=100, items=48, rate=0.01)


def test_the_learned_map_leaves_out_what_one_modality_has_alone_however_large_it_is():
    # All have five numbers in common; each has two more, in which the others are zero.
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(300, 5, generator=generator)
    basis = random_axes(11, 11, seed=0)
    of = {}
    for place, name in enumerate(NAMES):
        plain = torch.zeros(300, 11)
        plain[:, :5] = shared + 0.2 * torch.randn(300, 5, generator=generator)
        plain[:, 5 + 2 * place : 7 + 2 * place] = 1.5 * torch.randn(300, 2, generator=generator)
        of[name] = plain @ basis
    vectors = Vectors(of, dict.fromkeys(NAMES, torch.arange(300)))
    known, other = (vectors.select(rows) for rows in torch.arange(300).split(200))
    axes = moments_of(known).principal_axes(5, {})
    steps = Distillation(steps=200, items=64, rate=0.02)
    learned = distilled_projection(known, axes, steps, seed=0)
    temperatures = temperatures_of(known, 0.35)
    assert float(divergence(other, axes, temperatures)) > 0.5
    assert float(divergence(other, learned, temperatures)) < 0.01


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    vectors = vectors_in(6, 10, noise=0.1)
    axes = moments_of(vectors).principal_axes(3, {})
    short = Distillation(steps=5, items=16)
    state = torch.get_rng_state()
    first, again, other = (
        distilled_projection(vectors, axes, short, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_items_may_lack_modalities_and_pairs_may_have_no_item_in_common():
    whole = vectors_in(6, 10, noise=0.1)
    parts = {"audio": slice(0, 30), "text": slice(30, 60), "video": slice(0, 60, 2)}
    vectors = Vectors(
        {name: whole.of[name][part] for name, part in parts.items()},
        {name: whole.rows[name][part] for name, part in parts.items()},
    )
    assert not torch.isin(vectors.rows["audio"], vectors.rows["text"]).any()
    axes = moments_of(vectors).principal_axes(3, {})
    learned = distilled_projection(vectors, axes, LEARNING, seed=0)
    temperatures = temperatures_of(vectors, 0.35)
    assert pair("audio", "text") in temperatures
    before, after = (divergence(vectors, w, temperatures) for w in (axes, learned))
    assert after < before


def test_one_modality_has_no_pair_and_the_map_stays():
    vectors = vectors_in(6, 10)
    alone = Vectors({"text": vectors.of["text"]}, {"text": vectors.rows["text"]})
    axes = random_axes(10, 3, seed=0)
    assert torch.equal(distilled_projection(alone, axes, Distillation(steps=3), seed=0), axes)
