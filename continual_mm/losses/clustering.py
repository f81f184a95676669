"""Clustering: k-means on the joint space, and the loss that pulls embeddings to centroids."""

import torch
from torch import Tensor
from torch.nn import functional

from continual_mm.losses.contrastive import unit

CHECK_EVERY = 10  # iterations of k-means on an accelerator between two checks of convergence


def centroid_cross_entropy(
    embeddings: Tensor, centroids: Tensor, labels: Tensor, *, margin: float = 0.001
) -> Tensor:
    r"""Mean cross-entropy of embeddings against the centroids of their clusters.

    The logits are :math:`\langle x_i, c_k\rangle - \delta [k = y_i]`, raw dot products as in MCN
    (arXiv 2104.12671); ``log K`` is chance. Computed in float32 or better, autocast or not.

    Args:
        embeddings: (N, features).
        centroids: (K, features); constants, they get no gradient.
        labels: (N,) indices of clusters, usually found for the mean of an item's modalities.
        margin: What the own cluster must win by, in units of the dot product.

    Returns:
        The loss, a scalar in nats.

    >>> centroids = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    >>> centroid_cross_entropy(torch.eye(2), centroids, torch.tensor([0, 1]))
    tensor(0.)
    """
    shared = torch.promote_types(embeddings.dtype, centroids.dtype)
    wide = torch.promote_types(shared, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        logits = embeddings.to(wide) @ centroids.detach().to(wide).T
        own = functional.one_hot(labels, len(centroids))
        return functional.cross_entropy(logits - margin * own, labels)


@torch.no_grad()
def nearest_centroid(points: Tensor, centroids: Tensor) -> Tensor:
    """Give the index of the centroid with the largest cosine, (N,); ties to the lowest index.

    The length of a point cannot change which centroid wins, so only centroids are normalised. A
    zero point ties with all of them. A zero centroid has cosine 0 with everything.
    """
    return _assigned(points, centroids)[1]


@torch.no_grad()
def cosine_kmeans(
    points: Tensor, centroids: Tensor, *, iterations: int, tolerance: float | None = None
) -> tuple[Tensor, Tensor]:
    """k-means as MCN publishes it: assigned by cosine, updated by the plain mean.

    An empty cluster becomes a zero centroid and hardly ever comes back, and long points pull more
    than short ones; :func:`spherical_kmeans` has neither weakness. Nothing synchronises with the
    device, unless there is a tolerance: then convergence is checked every ``CHECK_EVERY``
    iterations on an accelerator, and iterations after convergence change nothing.

    Args:
        points: (N, features), at their own scale.
        centroids: (K, features), where to start; K may exceed N.
        iterations: Number of assignments and updates, or the largest with a tolerance.
        tolerance: An iteration that moves the centroids by at most this, squared and summed, is
            the last. The published value is 1e-4, whatever the scale of the points. None makes all
            iterations.

    Returns:
        The labels (N,) that made the last update, and the centroids (K, features) it made.

    >>> labels, centroids = cosine_kmeans(torch.eye(2), torch.eye(3)[:, :2], iterations=1)
    >>> labels, centroids
    (tensor([0, 1]), tensor([[1., 0.],
            [0., 1.],
            [0., 0.]]))
    """
    points, centroids = _prepared(points, centroids, iterations)
    labels = torch.empty(len(points), dtype=torch.int64, device=points.device)
    still = torch.zeros((), dtype=torch.bool, device=points.device)
    for number in range(1, iterations + 1):
        found = nearest_centroid(points, centroids)
        sums, members = _totals(points, found, len(centroids))
        means = sums / members.clamp(min=1)[:, None]
        if tolerance is None:
            labels, centroids = found, means
            continue
        moved = (means - centroids).square().sum()
        labels, centroids = torch.where(still, labels, found), torch.where(still, centroids, means)
        still = still | (moved <= tolerance)
        if (still.device.type == "cpu" or number % CHECK_EVERY == 0) and bool(still):
            break
    return labels, centroids


@torch.no_grad()
def spherical_kmeans(
    points: Tensor, centroids: Tensor, *, iterations: int
) -> tuple[Tensor, Tensor]:
    """k-means on the unit sphere in which no cluster stays empty while points can be spared.

    Each iteration assigns by cosine and moves a centroid to the direction of its members' mean. A
    centroid without members, or whose members cancel, restarts at the point that is farthest from
    its own centroid, several such centroids at different points. Zero points and points alone in
    their cluster are not taken; when none is left to take, the centroid stays where it is. It is
    deterministic and does not synchronise with the device.

    Args:
        points: (N, features), at any scale: only directions count.
        centroids: (K, features), where to start; K may exceed N.
        iterations: Number of assignments and updates.

    Returns:
        The labels (N,), each point's nearest among the returned centroids, and those centroids
        (K, features), of length one (a zero centroid to start from may stay if K exceeds N).

    References:
        Dhillon and Modha, Concept decompositions for large sparse text data (2001).

    >>> points = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> labels, centroids = spherical_kmeans(points, torch.ones(2, 2), iterations=2)
    >>> labels, centroids
    (tensor([1, 1, 0]), tensor([[0., 1.],
            [1., 0.]]))
    """
    points, centroids = _prepared(points, centroids, iterations)
    points, centroids = unit(points), unit(centroids)
    for _ in range(iterations):
        closeness, labels = _assigned(points, centroids)
        sums, members = _totals(points, labels, len(centroids))
        means = unit(sums)
        lost = ~means.any(dim=1)
        needed = ~points.any(dim=1) | (members[labels] == 1)
        spare, found = _spared(closeness.masked_fill(needed, torch.inf), lost)
        restart = torch.where(found[:, None], points[spare], centroids)
        centroids = torch.where(lost[:, None], restart, means)
    return nearest_centroid(points, centroids), centroids


def _prepared(points: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Bring both to one dtype, float32 or better."""
    if iterations < 1:
        raise ValueError(f"{iterations} iterations of k-means; it needs at least 1")
    if not len(points) or points.shape[1:] != centroids.shape[1:]:
        raise ValueError(
            f"points of shape {tuple(points.shape)} and centroids of shape "
            f"{tuple(centroids.shape)}; k-means needs (N, features) and (K, features)"
        )
    shared = torch.promote_types(points.dtype, centroids.dtype)
    wide = torch.promote_types(shared, torch.float32)
    return points.to(wide), centroids.to(wide)


def _totals(points: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sum (K, features) and number (K,) of each cluster's points.

    Not ``bincount``, which synchronises with a GPU for the largest label.
    """
    sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, labels, points)
    members = points.new_zeros(clusters).index_add_(0, labels, points.new_ones(len(points)))
    return sums, members


def _assigned(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Give each point's largest dot product with a centroid's direction, and that centroid."""
    with torch.autocast(points.device.type, enabled=False):
        directions = unit(centroids)
        largest = (points.to(directions.dtype) @ directions.T).max(dim=1)
    return largest.values, largest.indices


def _spared(closeness: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """Give every lost centroid (K,) a point of its own to restart from, the farthest first.

    ``closeness`` (N,) is each point's cosine with its centroid, infinite if it cannot be spared.
    Gives indices of points (K,), meaningful where the second, (K,), says that one was found.
    """
    farthest = closeness.argsort(stable=True)
    turn = lost.cumsum(0) - 1
    found = lost & (turn < closeness.isfinite().sum())
    return farthest[turn.clamp(0, len(closeness) - 1)], found
