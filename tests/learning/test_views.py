"""What pairs with towers of their own see, and what the objective makes of it."""

import pytest
import torch

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Kind, Modality, pair
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.learning.clusters import Clusters
from continual_mm.learning.growth import Views, of_pair, own_of
from continual_mm.learning.objective import Part, clustering, contrast, reconstruction
from continual_mm.space.space import JointSpace

ROWS = 8
VIDEO_TEXT, AUDIO_TEXT = pair("video", "text"), pair("audio", "text")


@pytest.fixture
def space():
    space = JointSpace(SpaceSettings(dim=6, clusters=3, feature_dropout=0.0))
    for name in ("video", "audio", "text"):
        space.add_modality(Modality(name, Kind.VECTOR, (5,)))
    space.centroids = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    return space.eval()


@pytest.fixture
def batch():
    torch.manual_seed(0)
    names = ("video", "audio", "text")
    every = torch.arange(ROWS)
    features = {name: torch.randn(ROWS, 5) for name in names}
    rows = dict.fromkeys(names, every)
    return Batch(features, {}, rows, every, torch.zeros(ROWS, dtype=torch.long))


def other(space, batch, name):
    """Another tower's idea of the same rows."""
    return space({name: torch.randn(ROWS, 5)}, {})[name]


def clusters(space):
    made = Clusters(space, seed=0)
    made.fixed = True
    return made


def test_without_towers_of_their_own_all_pairs_see_the_space(space, batch):
    plain = space(batch.features, batch.lengths)
    assert of_pair(plain, VIDEO_TEXT) is plain
    assert of_pair(Views(plain), VIDEO_TEXT) == plain
    assert own_of(plain, "text") == own_of(Views(plain), "text") == []


def test_each_pair_is_contrasted_as_if_its_own_towers_were_the_spaces(space, batch):
    plain = space(batch.features, batch.lengths)
    views = Views(plain)
    views.own = {VIDEO_TEXT: {"text": other(space, batch, "text")}}
    pairs, whole = {0: (VIDEO_TEXT, AUDIO_TEXT)}, Part(0, ROWS)
    found = contrast(space, batch, views, pairs, whole)
    bare = contrast(space, batch, plain, pairs, whole)
    replaced = {**plain, "text": views.own[VIDEO_TEXT]["text"]}
    expected = contrast(space, batch, replaced, pairs, whole)
    assert found["contrast/audio-text"] == bare["contrast/audio-text"]
    assert found["contrast/text-video"] == expected["contrast/text-video"]
    assert found["contrast/text-video"] != bare["contrast/text-video"]


def test_other_terms_are_means_over_the_pairs_that_see_a_modality_differently(space, batch):
    plain = space(batch.features, batch.lengths)
    first, second = other(space, batch, "text"), other(space, batch, "text")
    views = Views(plain)
    views.own = {VIDEO_TEXT: {"text": first}, AUDIO_TEXT: {"text": second}}
    whole = Part(0, ROWS)

    def terms(embedded):
        # Video alone says where a row lies, so labels are the same whatever text is.
        made = clusters(space)
        made.established = frozenset({"video"})
        return {
            **clustering(space, made, batch, embedded, whole),
            **reconstruction(space, batch, embedded, whole),
        }

    found, bare = terms(views), terms(plain)
    each = [terms({**plain, "text": view}) for view in (first, second)]
    assert found.keys() == bare.keys()
    for name, value in found.items():
        if name.endswith("/text"):
            torch.testing.assert_close(value, (each[0][name] + each[1][name]) / 2)
            assert value != bare[name]
        else:
            assert value == bare[name]
