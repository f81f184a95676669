"""MCN's clustering during training: a queue of joint embeddings, periodic k-means, labels."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.losses.clustering import cosine_kmeans, nearest_centroid, spherical_kmeans
from continual_mm.space.space import JointSpace
from continual_mm.system.seeds import seed_for


class Ring:
    """A ring buffer of rows: the oldest are overwritten.

    Its size follows from the largest batch that came: ``batches`` of those fit in (none, if 0).
    When a still larger one comes it starts anew.
    """

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._rows: Tensor | None = None
        self._pushed = 0

    @property
    def full(self) -> bool:
        """Whether every place has been written."""
        return self._rows is not None and self._pushed >= self._rows.shape[0]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Copy (n, D) rows in, behind those that came before."""
        count = rows.shape[0]
        if not self._batches:
            self._pushed += count
            return
        if self._rows is None or self._rows.shape[0] < count:
            self._rows = rows.new_zeros(self._batches * count, rows.shape[1])
            self._pushed = 0
        size = self._rows.shape[0]
        start = self._pushed % size
        head = min(count, size - start)
        self._rows[start : start + head] = rows[:head]
        self._rows[: count - head] = rows[head:]
        self._pushed += count

    def filled(self) -> tuple[Tensor, ...]:
        """The rows that have been written, in no promised order, as one tensor; or none."""
        if self._rows is None:
            return ()
        return (self._rows[: min(self._pushed, self._rows.shape[0])],)

    def latest_last(self) -> Tensor:
        """All rows of a full ring in the order in which they came."""
        if self._rows is None or not self.full:
            raise ValueError(f"{self._pushed} rows are in the ring so far; it is not full")
        return self._rows.roll(-(self._pushed % self._rows.shape[0]), dims=0)

    def state(self) -> dict[str, Tensor]:
        """The state to resume from."""
        counter = {"pushed": torch.tensor(self._pushed)}
        return counter if self._rows is None else {**counter, "queue": self._rows}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self._pushed = int(state["pushed"])
        self._rows = state.get("queue")


KMEANS_ROUNDS = 10


class Clusters:
    """Labels for a batch, from centroids that follow the embeddings slowly.

    ``established`` are the modalities of earlier stages. They alone say where a row lies, if it has
    any: with one more modality in the mean every old centroid would stand for something else.
    ``fixed``: the centroids stay as they are. Nothing here waits for the device.
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
        """Set the current 0-based step of the stage; only :class:`PublishedClusters` needs it."""

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

        With ``refit`` this counts as a step; every ``refresh_every`` steps k-means runs.
        """
        if refit:
            if not self.fixed and self._step % self._refresh_every == 0:
                # Earlier centroids, or those of an earlier run, if there are any.
                begun = self._step > 0 or bool(self._space.centroids.any())
                start = self._space.centroids if begun else self._drawn(points)
                known = torch.cat([*self._queue.filled(), points])
                # A new tensor: the losses of this step may still need the old one.
                _, self._space.centroids = spherical_kmeans(known, start, iterations=KMEANS_ROUNDS)
            self._step += 1
        self._queue.push(points)
        return (points @ self._space.centroids.T).argmax(1)

    def _drawn(self, points: Tensor, *purpose: int) -> Tensor:
        """K of the points to start k-means from, the fewer there are the more often."""
        generator = torch.Generator().manual_seed(seed_for(self._seed, "centroids", *purpose))
        count = self._space.settings.clusters
        if count <= points.shape[0]:
            chosen = torch.randperm(points.shape[0], generator=generator)[:count]
        else:
            chosen = torch.randint(points.shape[0], (count,), generator=generator)
        return points[chosen.to(points.device)]

    def state(self) -> dict[str, Tensor]:
        """The state to resume from; the centroids themselves belong to the space."""
        return {"step": torch.tensor(self._step), **self._queue.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self._step = int(state["step"])
        self._queue.load_state(state)


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
        """Set the current step, from which the place within the pass follows."""
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

        With ``refit`` the rows may fit the centroids anew and enter the queue. A step that fits
        gives the labels that made the centroids, found with those before them.
        """
        points = points.detach()
        if refit and not self.fixed and self._place % self._refresh_every == 0:
            queue = [self._queue.latest_last().flip(0)] if self._queue.full else []
            known = torch.cat([*queue, points])
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
