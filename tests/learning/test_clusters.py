"""K-means beside training: the queue, its labels, robust and published."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.learning.clusters import Clusters, PublishedClusters, Ring, clusters_of
from continual_mm.space.space import JointSpace


def column(numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 2)


@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_it_keeps_the_latest_rows_in_the_order_in_which_they_came(batches, sizes):
    ring, known, room = Ring(batches), [], 0
    for number, size in enumerate(sizes):
        if size > room:
            known = []
        room = max(room, batches * size) if size > room else room
        new = [100 * number + place for place in range(size)]
        ring.push(column(new))
        known = [*known, *new]
        assert ring.full == (len(known) >= room)
        (filled,) = ring.filled()
        assert sorted(filled[:, 0].tolist()) == sorted(known[-room:])
        if ring.full:
            assert ring.latest_last()[:, 0].tolist() == known[-room:]
        else:
            with pytest.raises(ValueError, match="not full"):
                ring.latest_last()


def test_a_ring_for_no_batches_keeps_nothing():
    ring = Ring(0)
    ring.push(column([1, 2]))
    assert ring.filled() == ()
    assert not ring.full


def test_what_is_pushed_is_copied_without_its_graph():
    points = torch.ones(2, 2, requires_grad=True)
    ring = Ring(1)
    ring.push(points * 3)
    assert not ring.latest_last().requires_grad


def test_centroids_are_not_moved_by_a_modality_that_arrives_later():
    """A row's place is where its established modalities are; a new one is drawn there."""
    clusters = Clusters(JointSpace(SpaceSettings(dim=3, clusters=2)), seed=0)
    rows = torch.arange(2)
    video = torch.eye(3)[:2]
    text = torch.eye(3)[1:]
    clusters.established = frozenset({"video"})
    place = clusters.joint({"video": video, "text": text}, {"video": rows, "text": rows}, 2)
    assert torch.equal(place, video)
    clusters.established = frozenset()
    both = clusters.joint({"video": video, "text": text}, {"video": rows, "text": rows}, 2)
    torch.testing.assert_close(both[0], torch.tensor([1.0, 1.0, 0.0]) / 2**0.5)


def clusters_with(**settings):
    sizes = {"dim": 2, "clusters": 3, "queue_batches": 2, "refresh_every": 3, "clips": 4}
    space = JointSpace(SpaceSettings(mode="reference", **{**sizes, **settings}))
    clusters = clusters_of(space, seed=4)
    assert isinstance(clusters, PublishedClusters)
    return clusters


def points(step, count=8):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(step))


def queued(clusters):
    return sorted(clusters.state()["queue"][:, 0].tolist())


def test_the_first_half_of_each_group_of_clips_is_kept_and_of_a_last_smaller_one_too():
    for clips, count, kept in (
        (4, 8, [0, 1, 4, 5]),
        (4, 11, [0, 1, 4, 5, 8, 9]),
        (4, 9, [0, 1, 4, 5, 8]),
        (1, 3, [0, 1, 2]),
        (32, 6, [0, 1, 2]),
    ):
        clusters = clusters_with(clips=clips, queue_batches=1)
        clusters.at(0, 0, 5)
        rows = torch.arange(1.0, count + 1)[:, None].expand(-1, 2)
        clusters.labels(rows)
        assert queued(clusters) == [place + 1.0 for place in kept]


def test_the_mean_is_that_of_the_modalities_a_row_has_and_hands_on_its_gradient():
    clusters = clusters_with()
    video = torch.tensor([[2.0, 0.0], [4.0, 2.0]], requires_grad=True)
    text = torch.tensor([[6.0, 4.0]], requires_grad=True)
    rows = {"video": torch.tensor([0, 1]), "text": torch.tensor([1])}
    joint = clusters.joint({"video": video, "text": text}, rows, 3)
    assert joint.tolist() == [[2.0, 0.0], [5.0, 3.0], [0.0, 0.0]]
    joint.sum().backward()
    assert video.grad.tolist() == [[1.0, 1.0], [0.5, 0.5]]
    assert text.grad.tolist() == [[0.5, 0.5]]


def test_remembered_rows_get_labels_and_leave_everything_as_it_is():
    clusters = clusters_with()
    for step in range(3):
        clusters.at(0, step, 10)
        clusters.labels(points(step))
    before = {key: value.clone() for key, value in clusters.state().items()}
    centroids = clusters._space.centroids
    labels = clusters.labels(points(9, count=5), refit=False)
    cosines = torch.nn.functional.cosine_similarity(points(9, 5)[:, None], centroids[None], dim=2)
    assert labels.tolist() == cosines.argmax(1).tolist()
    assert clusters._space.centroids is centroids
    after = clusters.state()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_fixed_centroids_stay_and_a_new_pass_is_cold():
    clusters = clusters_with(refresh_every=100)
    found = []
    for step in range(4):
        clusters.at(0, step, 2)
        clusters.labels(points(0))
        found.append(clusters._space.centroids)
    assert found[0] is found[1]
    assert found[1] is not found[2]
    assert found[2] is found[3]
    clusters.fixed = True
    clusters.at(1, 0, 2)
    clusters.labels(points(5))
    assert clusters._space.centroids is found[3]


def test_it_goes_on_in_the_middle_of_a_pass_as_if_nothing_had_happened():
    whole, again = clusters_with(), clusters_with()
    labels = []
    for step in range(12):
        if step == 7:
            again.load_state({key: value.clone() for key, value in whole.state().items()})
            again._space.centroids = whole._space.centroids.clone()
        whole.at(0, step, 5)
        labels.append(whole.labels(points(step)))
        if step >= 7:
            again.at(0, step, 5)
            assert torch.equal(again.labels(points(step)), labels[-1])
            assert torch.equal(again._space.centroids, whole._space.centroids)
    assert len({tuple(one.tolist()) for one in labels}) > 6
