"""The generated solids: what items show, and that both datasets agree in all but pictures."""

import numpy as np
import pytest
import torch

from continual_mm.data import registry
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.solids.card import CARD, CLASSES, GAP
from continual_mm.data.solids.generate import cloud, columns, make_object, word_vector
from continual_mm.data.solids.shapes import Solid, surface
from continual_mm.rendering.depth import normalise_depth, render_depth

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def pack():
    return columns(CARD, objects=(20, 4, 6))


def points_of(shape, *, turn=None, count=4000):
    solid = Solid(shape, "even", "standing", np.eye(3) if turn is None else turn)
    return surface(solid, count, RNG)


def test_points_of_a_ball_are_on_it_and_those_of_a_cube_on_its_six_faces():
    ball, _ = points_of("ball")
    assert np.linalg.norm(ball, axis=1).min() > 0.95
    cube, normals = points_of("cube")
    half = np.abs(cube).max(1)
    np.testing.assert_allclose(half, half.mean(), rtol=0.05)
    faces = np.abs(normals).argmax(1) * 2 + (cube[np.arange(4000), np.abs(normals).argmax(1)] > 0)
    assert np.bincount(faces, minlength=6).min() > 500  # 4000 points, evenly by area


@pytest.mark.parametrize("shape", CLASSES)
def test_every_shape_fills_the_unit_ball_and_normals_have_length_one(shape):
    points, normals = points_of(shape)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1.0)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)


def test_a_ring_has_a_hole_that_a_bowl_has_not():
    around, _ = points_of("ring")
    assert np.hypot(around[:, 0], around[:, 2]).min() > 0.3
    bowl, _ = points_of("bowl")
    assert np.hypot(bowl[:, 0], bowl[:, 2]).min() < 0.2


def test_the_depth_maps_are_those_of_the_items_cloud(pack):
    for item in (0, 29):
        maps = normalise_depth(render_depth(torch.from_numpy(cloud(item)), size=24, radius=0.08))
        np.testing.assert_array_equal(pack["depth"][item], maps.numpy())


def test_an_item_is_the_same_however_many_are_made_and_captions_name_its_shape(pack):
    assert len(CLASSES) >= 10
    one = make_object(25)
    np.testing.assert_array_equal(pack["image"][25], one.image)
    assert pack["text_raw"][25] == one.caption
    assert pack["label"][25] == CLASSES.index(one.solid.shape)
    words = one.caption.split()
    expected = np.stack([word_vector(word) for word in words])
    np.testing.assert_array_equal(pack["text"][25, : len(words)], expected)
    assert pack["text_length"][25] == len(words)


def test_the_last_test_items_are_the_names_of_the_classes_and_nothing_else(pack):
    names = slice(30, None)
    assert pack["text_raw"][names].tolist() == list(CLASSES)
    assert pack["label"][names].tolist() == list(range(len(CLASSES)))
    assert not pack["image_present"][names].any()
    assert not pack["depth_present"][names].any()
    assert set(pack["split"][names]) == {int(Split.TEST)}


def test_with_the_gap_pictures_differ_and_depth_maps_and_captions_do_not(pack):
    gap = columns(GAP, objects=(20, 4, 6))
    for name in ("depth", "text", "label", "text_raw"):
        np.testing.assert_array_equal(gap[name], pack[name])
    empty = pack["image"][:30] == 1.0
    assert (pack["image"][:30][~empty] <= 0.8).all()  # darker than the background
    darker = gap["image"][:30][empty].mean()
    assert gap["image"][:30][~empty].mean() > darker  # a negative, on grey


def test_a_pack_of_it_is_a_dataset_and_its_card_is_known_beforehand(pack):
    pack = dict(pack)
    arrays = {name: pack[name] for name in CARD.names}
    made = Dataset.from_arrays(
        arrays,
        split=pack["split"],
        kinds={name: str(pack[f"{name}_kind"]) for name in CARD.names},
        lengths={"text": pack["text_length"]},
        present={name: pack[f"{name}_present"] for name in ("image", "depth")},
        standardise=False,
    )
    assert made.card.modalities == registry.card("solids").modalities
    assert {names for names, _ in made.card.presence} == {names for names, _ in CARD.presence}
    assert registry.card("solids_with_gap").fingerprint != CARD.fingerprint
