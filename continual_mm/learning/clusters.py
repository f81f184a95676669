"""MCN's clustering beside training: a queue of joint embeddings, k-means now and then, labels."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.dice import seed_for
from continual_mm.learning.ring import Ring
from continual_mm.losses.clustering import spherical_kmeans
from continual_mm.space.space import JointSpace

KMEANS_ROUNDS = 10


class Clusters:
    """Labels for a batch, from centroids that follow the embeddings slowly.

    Nothing here waits for the device.

    Attributes:
        established: Modalities of earlier stages. They alone say where a row lies, if it has any
            of them: when one more modality joined the mean, every old centroid would stand for
            something else.
        fixed: Whether the centroids stay as they are.
    """

    def __init__(self, space: JointSpace, *, seed: int) -> None:
        settings = space.settings
        self.established: frozenset[str] = frozenset()
        self.fixed = False
        self._space = space
        self._seed = seed
        self._queue = Ring(settings.queue_batches)
        self._refresh_every = settings.refresh_every
        self._step = 0

    def at(self, stage: int, step: int, steps_per_pass: int) -> None:
        """Say which step of a stage is made, and how many show each of its items once.

        These clusters do not care; :class:`~continual_mm.learning.published_clusters` does.
        """

    @property
    def active(self) -> bool:
        """Whether the space has centroids at all."""
        return self._space.settings.clusters > 0

    def joint(self, parts: dict[str, Tensor], rows: dict[str, Tensor], count: int) -> Tensor:
        """(count, D) unit mean of each row's embeddings: of its established ones, if it has any."""
        first = next(iter(parts.values()))
        old, new = torch.zeros(2, count, first.shape[1], device=first.device).unbind(0)
        for name, values in parts.items():
            total = old if name in self.established else new
            total.index_add_(0, rows[name].to(first.device), values.detach())
        has_old = (old.square().sum(1, keepdim=True) > 0).to(old.dtype)
        return normalize(old * has_old + new * (1 - has_old), dim=1)

    @torch.no_grad()
    def labels(self, points: Tensor, *, refit: bool = True) -> Tensor:
        """Give the nearest centroids, (n, D) -> (n,), and remember the points in the queue.

        Args:
            points: Joint embeddings.
            refit: Whether this counts as a step; every ``refresh_every`` steps k-means runs.
        """
        if refit:
            if not self.fixed and self._step % self._refresh_every == 0:
                start = self._space.centroids if self._begun() else self._drawn(points)
                known = torch.cat([*self._queue.filled(), points])
                # A new tensor: the losses of this step may still need the old one.
                _, self._space.centroids = spherical_kmeans(known, start, iterations=KMEANS_ROUNDS)
            self._step += 1
        self._queue.push(points)
        return (points @ self._space.centroids.T).argmax(1)

    def _begun(self) -> bool:
        """Whether there are centroids to start from: earlier ones, or those of an earlier run."""
        return self._step > 0 or bool(self._space.centroids.any())

    def _drawn(self, points: Tensor, *purpose: int) -> Tensor:
        """K of the points to start k-means from, the fewer there are the more often."""
        dice = torch.Generator().manual_seed(seed_for(self._seed, "centroids", *purpose))
        count = self._space.settings.clusters
        if count <= points.shape[0]:
            chosen = torch.randperm(points.shape[0], generator=dice)[:count]
        else:
            chosen = torch.randint(points.shape[0], (count,), generator=dice)
        return points[chosen.to(points.device)]

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on; the centroids themselves belong to the space."""
        return {"step": torch.tensor(self._step), **self._queue.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self._step = int(state["step"])
        self._queue.load_state(state)
