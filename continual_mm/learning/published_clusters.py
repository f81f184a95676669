"""The published clustering: plain means, a queue of half of each video's clips, cold every pass."""

import torch
from torch import Tensor

from continual_mm.learning.clusters import Clusters
from continual_mm.losses.clustering import cosine_kmeans, nearest_centroid
from continual_mm.space.space import JointSpace

ROUNDS = 100
TOLERANCE = 1e-4


class PublishedClusters(Clusters):
    """MCN's schedule: a fit every ``refresh_every`` steps of a pass, labels in every step.

    A fit starts from the centroids before it, the first of each pass over the stage's items from
    rows drawn anew. It is made on ``[queue ; batch]``, newest queue rows first, once the queue
    was full before the batch came; until then on the batch alone. The queue outlives passes and
    stages. Centroids without members stay zero.

    Remembered rows get labels, but neither count as a step nor enter the queue: the published
    program has none. ``established`` plays no role.
    """

    def __init__(self, space: JointSpace, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._stage, self._place = 0, 0

    def at(self, stage: int, step: int, steps_per_pass: int) -> None:
        """Say which step of a stage is made; a function of it is where the pass stands."""
        self._stage, self._step = stage, step
        self._place = step % max(steps_per_pass, 1)

    def joint(self, parts: dict[str, Tensor], rows: dict[str, Tensor], count: int) -> Tensor:
        """(count, D) plain mean of each row's embeddings, with gradient; zero where it has none."""
        first = next(iter(parts.values()))
        total, having = first.new_zeros(count, first.shape[1]), first.new_zeros(count, 1)
        for name, values in parts.items():
            where = rows[name].to(first.device)
            total = total.index_add(0, where, values)
            having.index_add_(0, where, having.new_ones(where.shape[0], 1))
        return total / having.clamp(min=1)

    @torch.no_grad()
    def labels(self, points: Tensor, *, refit: bool = True) -> Tensor:
        """Give the cluster of each row, (n, D) -> (n,).

        Args:
            points: Joint embeddings.
            refit: Whether these are the step's current rows, which may fit the centroids anew and
                enter the queue.

        Returns:
            In a step that fits, the labels that made the centroids, found with those before them.
        """
        points = points.detach()
        if refit and not self.fixed and self._place % self._refresh_every == 0:
            known = self._known(points)
            cold = self._place == 0
            start = self._drawn(known, self._stage, self._step) if cold else self._space.centroids
            # A new tensor: the losses of this step may still need the old one.
            found, self._space.centroids = cosine_kmeans(
                known, start, iterations=ROUNDS, tolerance=TOLERANCE
            )
            labels = found[-points.shape[0] :]
        else:
            labels = nearest_centroid(points, self._space.centroids)
        if refit:
            # Backwards, so that reading the ring backwards gives each batch in its own order.
            kept = self._kept(points.shape[0]).to(points.device)
            self._queue.push(points[kept].flip(0))
        return labels

    def _known(self, points: Tensor) -> Tensor:
        """What k-means sees: the queue, if it is full, and the batch behind it."""
        if not self._queue.full:
            return points
        return torch.cat([self._queue.latest_last().flip(0), points])

    def _kept(self, count: int) -> Tensor:
        """(kept,) rows of a batch that enter the queue: the first half of each group of clips."""
        clips = self._space.settings.clips
        place = torch.arange(count) % clips
        size = torch.full((count,), clips)
        size[count - count % clips :] = count % clips
        return (place < (size + 1) // 2).nonzero().squeeze(1)


def clusters_of(space: JointSpace, *, seed: int) -> Clusters:
    """The clustering that the space's mode asks for."""
    return (PublishedClusters if space.settings.reference else Clusters)(space, seed=seed)
