from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from continual_mm.losses.clustering import (
    centroid_cross_entropy,
    cosine_kmeans,
    nearest_centroid,
    spherical_kmeans,
)

KMEANS = [cosine_kmeans, spherical_kmeans]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(clusters, each, spread=0.1):
    centres = torch.eye(clusters, dtype=torch.float64).repeat_interleave(each, 0)
    return centres + spread * random(*centres.shape)


def cosine(x, y):
    return float(x @ y / max(np.linalg.norm(x), 1e-12) / max(np.linalg.norm(y), 1e-12))


def published_kmeans(points, centroids, iterations):
    labels: list[int] = []
    for _ in range(iterations):
        labels = [int(np.argmax([cosine(x, c) for c in centroids])) for x in points]
        groups = [
            [x for x, y in zip(points, labels, strict=True) if y == k]
            for k in range(len(centroids))
        ]
        centroids = np.array(
            [np.mean(group, axis=0) if group else np.zeros(points.shape[1]) for group in groups]
        )
    return labels, centroids


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_published_form_agrees_with_a_loop_over_points(count, clusters, iterations, seed):
    points, start = 3 * random(count, 3, seed=seed), random(clusters, 3, seed=seed + 1)
    labels, centroids = cosine_kmeans(points, start, iterations=iterations)
    expected_labels, expected = published_kmeans(points.numpy(), start.numpy(), iterations)
    assert labels.tolist() == expected_labels
    np.testing.assert_allclose(centroids, expected, atol=1e-12)


def test_the_published_form_stops_when_the_centroids_hardly_move():
    points, start = random(60, 4), random(4, 4, seed=50)
    rounds = [cosine_kmeans(points, start, iterations=count) for count in range(1, 13)]
    before = [start, *(centroids for _, centroids in rounds)]
    moves = [float((b - a).square().sum()) for a, b in pairwise(before)]
    last = next(number for number, move in enumerate(moves) if move <= 0.05)
    assert last > 2
    assert moves[last + 1] > 0  # it would go on, if it did not stop
    labels, centroids = cosine_kmeans(points, start, iterations=100, tolerance=0.05)
    assert torch.equal(labels, rounds[last][0])
    assert torch.equal(centroids, rounds[last][1])
    assert not torch.equal(labels, nearest_centroid(points, centroids))
    labels, centroids = cosine_kmeans(points, start, iterations=2, tolerance=0.05)
    assert torch.equal(centroids, rounds[1][1])


def test_a_point_between_two_centroids_goes_to_the_lower_index():
    start = torch.tensor([[0.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    assert nearest_centroid(torch.tensor([[2.0, 2.0]]), start).tolist() == [1]


def test_a_centroid_without_points_finds_the_blob_without_centroid():
    points = blobs(clusters=6, each=20)
    start = torch.eye(6, dtype=torch.float64)
    start[3] = -1
    labels, centroids = spherical_kmeans(points, start, iterations=3)
    assert torch.equal(labels, torch.arange(6).repeat_interleave(20))
    means = points.div(points.norm(dim=1, keepdim=True)).reshape(6, 20, 6).mean(1)
    torch.testing.assert_close(centroids, means / means.norm(dim=1, keepdim=True))
    labels, centroids = cosine_kmeans(points, start, iterations=3)
    assert not centroids[3].any()


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_spherical_labels_are_the_nearest_returned_centroids_of_length_one(
    count, clusters, iterations, seed
):
    points, start = random(count, 3, seed=seed), random(clusters, 3, seed=seed + 1)
    labels, centroids = spherical_kmeans(points, start, iterations=iterations)
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(clusters, dtype=torch.float64))
    assert torch.equal(labels, (points @ centroids.T).argmax(1))


def test_more_rounds_never_lower_the_mean_cosine():
    points, start = random(200, 8), random(10, 8, seed=1)
    directions = points / points.norm(dim=1, keepdim=True)
    closeness = [
        (directions * centroids[labels]).sum(1).mean().item()
        for rounds in range(1, 12)
        for labels, centroids in [spherical_kmeans(points, start, iterations=rounds)]
    ]
    assert closeness == sorted(closeness)


def test_empty_clusters_restart_at_the_farthest_points_each_at_its_own():
    degrees = torch.tensor([0.0, 5.0, 10.0, 40.0, 60.0])
    points = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)
    start = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    _, centroids = spherical_kmeans(points, start, iterations=1)
    torch.testing.assert_close(centroids[1], points[4])
    torch.testing.assert_close(centroids[2], points[3])
    mean = points.mean(0)
    torch.testing.assert_close(centroids[0], mean / mean.norm())


def test_a_point_alone_in_its_cluster_is_not_taken_from_it():
    points = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-0.6, 0.8]])
    start = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    labels, _ = spherical_kmeans(points, start, iterations=1)
    assert sorted(labels.tolist()) == [0, 1, 2]


def test_a_centroid_for_which_no_point_can_be_spared_stays_where_it_is():
    start = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    _, centroids = spherical_kmeans(torch.eye(2), start, iterations=2)
    assert centroids.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]


def test_members_that_cancel_make_their_cluster_restart():
    points = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    _, centroids = spherical_kmeans(points, torch.tensor([[1.0, 0.0]]), iterations=1)
    assert centroids.tolist() == [[0.0, 1.0]]


def test_fewer_points_than_clusters_end_up_each_in_a_cluster_of_its_own():
    points = torch.eye(3)
    for rounds in (2, 3, 7):
        labels, centroids = spherical_kmeans(points, torch.ones(5, 3), iterations=rounds)
        assert labels.unique().numel() == 3
        torch.testing.assert_close(centroids[labels], points)
    labels, centroids = cosine_kmeans(points, torch.ones(5, 3), iterations=2)
    assert labels.tolist() == [0, 0, 0]
    assert centroids.isfinite().all()


@pytest.mark.parametrize("kmeans", KMEANS)
def test_points_and_centroids_of_zero_make_no_nan(kmeans):
    points = torch.zeros(6, 3)
    points[4:] = torch.eye(3)[:2]
    for start in (torch.zeros(4, 3), torch.eye(3), -torch.ones(4, 3)):
        labels, centroids = kmeans(points, start, iterations=3)
        assert centroids.isfinite().all()
        assert 0 <= labels.min() <= labels.max() < len(start)
        labels, centroids = kmeans(torch.zeros(2, 3), start, iterations=2)
        assert centroids.isfinite().all()


@pytest.mark.parametrize("kmeans", KMEANS)
def test_kmeans_keeps_single_precision_under_autocast(kmeans):
    points, start = random(200, 64).float(), random(20, 64, seed=1).float()
    plain = kmeans(points, start, iterations=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = kmeans(points, start, iterations=3)
    assert torch.equal(plain[0], inside[0])
    assert torch.equal(plain[1], inside[1])
    assert kmeans(points.half(), start.half(), iterations=1)[1].dtype == torch.float32


class Waits(TorchDispatchMode):
    """Collects the operators for which a GPU has to report back to the host."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen += 1
        if name in {"_local_scalar_dense", "nonzero", "bincount", "equal", "unique", "item"}:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kmeans", KMEANS)
def test_kmeans_never_waits_for_the_device(kmeans):
    points, start = random(20, 4), random(5, 4)
    with Waits() as waits:
        kmeans(points, start, iterations=2)
    assert waits.seen > 10
    assert waits.found == []


@pytest.mark.parametrize("kmeans", KMEANS)
def test_kmeans_refuses_what_it_cannot_cluster(kmeans):
    with pytest.raises(ValueError, match="0 iterations"):
        kmeans(torch.eye(3), torch.eye(3), iterations=0)
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(2, 2\)"):
        kmeans(torch.eye(3), torch.eye(2), iterations=1)
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        kmeans(torch.zeros(0, 3), torch.eye(3), iterations=1)


def test_centroid_cross_entropy_is_a_log_softmax_picked_by_label():
    embeddings, centroids = random(8, 5), random(4, 5, seed=1)
    labels = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    logits = embeddings.numpy() @ centroids.numpy().T
    logits[np.arange(8), labels.numpy()] -= 0.001
    exponentials = np.exp(logits)
    own = exponentials[np.arange(8), labels.numpy()] / exponentials.sum(1)
    loss = centroid_cross_entropy(embeddings, centroids, labels)
    assert loss.item() == pytest.approx(-np.log(own).mean())


def test_centroids_get_no_gradient():
    embeddings, centroids = random(4, 3).requires_grad_(), random(2, 3).requires_grad_()
    centroid_cross_entropy(embeddings, centroids, torch.tensor([0, 1, 0, 1])).backward()
    assert embeddings.grad is not None
    assert centroids.grad is None


def test_centroid_cross_entropy_agrees_with_finite_differences():
    centroids, labels = random(3, 4, seed=1), torch.tensor([0, 1, 2, 1, 0])
    assert torch.autograd.gradcheck(
        lambda x: centroid_cross_entropy(x, centroids, labels, margin=0.2),
        (random(5, 4).requires_grad_(),),
    )


def test_centroid_cross_entropy_multiplies_in_single_precision_under_autocast():
    embeddings, centroids = random(16, 512).half(), random(4, 512, seed=1).float()
    labels = torch.arange(16) % 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = centroid_cross_entropy(embeddings, centroids, labels)
    assert loss.dtype == torch.float32
    exact = centroid_cross_entropy(embeddings.double(), centroids.double(), labels)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
