"""Drift of the embedding space since the end of the previous stage."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.evaluation.pairs import Evaluation, Gallery
from continual_mm.losses.contrastive import unit
from continual_mm.losses.transport import Potentials, log_transport_plan, plan_distillation_from
from continual_mm.metrics.geometry import Movement, modality_gap, movement

EPSILON = 0.07
# Plans in float32 to this tolerance: from 1e-3 nats on the divergence is off by less than 0.1 %,
# around 3e-5 by 1.5 %, and by less than a tenth further down, where next to nothing has moved.
TOLERANCE = 1e-5
ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class Geometry:
    """The geometry of the space; all but the gap is relative to the end of the stage before.

    Old modalities are those that the space had then. Before the first stage's end there are none.
    """

    stage: int  # 1-based stage
    step: int  # optimiser steps over all stages until then
    final: bool  # whether the stage was finished
    modality_gap: dict[str, float]  # pair -> distance of its modalities' mean embeddings, in [0, 2]
    rotation: float  # angle in radians that the old modalities turned as one; NaN without any
    moved: dict[str, float]  # old modality -> root mean square distance that its items moved
    residual: dict[str, float]  # old modality -> what is left of it without the shared rotation
    # Pair of old modalities -> divergence KL(P_old || P_new) of its entropic transport plans,
    # in nats.
    plan_drift: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The record as ``scores.json`` has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` gave, where a file has null for NaN."""
        return cls(**{key: _nan_for_null(value) for key, value in record.items()})


class Drift:
    """Measures the geometry at every evaluation of one split; an observer of evaluations.

    At a stage's end it keeps the embeddings of at most ``items`` evenly spaced items, and compares
    later embeddings of these items with them until the next stage has ended. It uses no RNG. The
    callbacks are called with each record.
    """

    on_device = False

    def __init__(
        self, *callbacks: Callable[[Geometry], None], split: str = "test", items: int = 96
    ) -> None:
        self._callbacks = callbacks
        self._split = split
        self._items = items
        self._embeddings: dict[str, Tensor] = {}
        self._rows: dict[str, Tensor] = {}
        self._plans: dict[Pair, tuple[Tensor, Potentials]] = {}

    def __call__(self, evaluation: Evaluation, gallery: Gallery) -> None:
        """Measure; at a stage's end, keep the embeddings to compare the next stage with."""
        if evaluation.split != self._split:
            return
        moved = self._movement(gallery)
        geometry = Geometry(
            stage=evaluation.stage + 1,
            step=evaluation.step,
            final=evaluation.final,
            modality_gap=_gaps(gallery),
            rotation=moved.rotation,
            moved=moved.moved,
            residual=moved.residual,
            plan_drift=self._plan_drift(gallery),
        )
        for callback in self._callbacks:
            callback(geometry)
        if evaluation.final:
            self._keep(gallery)

    def _movement(self, gallery: Gallery) -> Movement:
        if not self._embeddings:
            return Movement(math.nan, {}, {})
        now = self._in_old_coordinates(gallery)
        later = {name: _of(now, name, rows) for name, rows in self._rows.items()}
        return movement(self._embeddings, later)

    def _in_old_coordinates(self, gallery: Gallery) -> Gallery:
        """The gallery in those coordinates that the kept embeddings have."""
        known = {
            name: gallery.embeddings[name][:, : kept.shape[1]]
            for name, kept in self._embeddings.items()
        }
        return Gallery(known, gallery.rows)

    def _plan_drift(self, gallery: Gallery) -> dict[str, float]:
        drift, now = {}, self._in_old_coordinates(gallery)
        for pair in all_pairs(tuple(self._rows)):
            shared = _shared(self._rows, pair)
            if not len(shared):
                continue
            if pair not in self._plans:
                reference = Gallery(self._embeddings, self._rows)
                self._plans[pair] = log_transport_plan(
                    _cost(reference, pair, shared),
                    epsilon=EPSILON,
                    tolerance=TOLERANCE,
                    iterations=ITERATIONS,
                )
            # Each solve starts from the old potentials: a resumed run gives the same bits.
            plan, potentials = self._plans[pair]
            divergence, _ = plan_distillation_from(
                plan,
                _cost(now, pair, shared),
                epsilon=EPSILON,
                potentials=potentials,
                tolerance=TOLERANCE,
                iterations=ITERATIONS,
            )
            drift[str(pair)] = float(divergence)
        return drift

    def _keep(self, gallery: Gallery) -> None:
        known = [rows for rows in gallery.rows.values() if len(rows)]
        every = torch.unique(torch.cat(known)) if known else torch.empty(0, dtype=torch.int64)
        kept = min(len(every), self._items)
        chosen = every[torch.arange(kept) * len(every) // max(kept, 1)]
        rows = {name: of[torch.isin(of, chosen)] for name, of in gallery.rows.items()}
        # In order of name, as a file gives them back: sums are taken in this order.
        self._rows = {name: rows[name] for name in sorted(rows) if len(rows[name])}
        self._embeddings = {name: _of(gallery, name, of) for name, of in self._rows.items()}
        self._plans = {}

    def state(self) -> dict[str, Tensor]:
        """The kept embeddings and their dataset rows; plans are solved anew from them."""
        kept = {"embeddings": self._embeddings, "rows": self._rows}
        return {f"{kind}/{name}": v for kind, of in kept.items() for name, v in of.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._embeddings, self._rows = (
            {
                key.removeprefix(start): value.cpu()
                for key, value in sorted(state.items())
                if key.startswith(start)
            }
            for start in ("embeddings/", "rows/")
        )
        self._plans = {}


def _gaps(gallery: Gallery) -> dict[str, float]:
    """The gap of every pair, over the items that have both modalities."""
    gaps = {}
    for pair in all_pairs(tuple(gallery.embeddings)):
        shared = _shared(gallery.rows, pair)
        sides = (_at(gallery, name, shared) for name in (pair.first, pair.second))
        gaps[str(pair)] = modality_gap(*sides) if len(shared) else math.nan
    return gaps


def _shared(rows: Mapping[str, Tensor], pair: Pair) -> Tensor:
    """Dataset rows that have both modalities, ascending."""
    first = rows[pair.first]
    return first[torch.isin(first, rows[pair.second])]


def _at(gallery: Gallery, name: str, rows: Tensor) -> Tensor:
    """Unit embeddings of some of a modality's dataset rows, on the device."""
    embeddings = gallery.embeddings[name].detach()
    return unit(embeddings[torch.searchsorted(gallery.rows[name], rows).to(embeddings.device)])


def _of(gallery: Gallery, name: str, rows: Tensor) -> Tensor:
    """Embeddings of some of a modality's dataset rows, copied to the CPU."""
    return _at(gallery, name, rows).cpu()


def _cost(gallery: Gallery, pair: Pair, rows: Tensor) -> Tensor:
    """(n, n) one minus the cosines of some items."""
    first, second = (_of(gallery, name, rows) for name in (pair.first, pair.second))
    return 1 - first @ second.T


def _nan_for_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_for_null(inner) for key, inner in value.items()}
    return math.nan if value is None else value
