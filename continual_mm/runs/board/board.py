"""Writes the event files of a run for TensorBoard; every tag counts optimiser steps."""

import json
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import roles
from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.diagnosis import Diagnosis
from continual_mm.evaluation.drift import Geometry
from continual_mm.evaluation.pairs import Evaluation, Gallery, Observer
from continual_mm.learning.avalanche import (
    BaseLogger,
    BaseSGDPlugin,
    MetricValue,
    PluginMetric,
    TensorboardLogger,
)
from continual_mm.learning.learner import Learner
from continual_mm.learning.optimisation import learning_rate
from continual_mm.metrics.forgetting import forgetting
from continual_mm.plugins.plugin import Plugin
from continual_mm.runs.board import figures, projector, summaries
from continual_mm.runs.board.events import EventWriter
from continual_mm.runs.board.schedule import StageSchedule, schedule_table
from continual_mm.runs.history import History
from continual_mm.runs.session import Watchers
from continual_mm.system.files import writing

EVERY = 10  # optimiser steps between two points of a curve; each point waits for the device once


class Curves(PluginMetric[None]):
    """Loss terms, embedding norms per modality, the logit scale and the learning rate.

    A point at step n is of the space after n optimiser steps over all stages, as the recalls are;
    so it is taken before the next step.
    """

    def reset(self) -> None:
        """Nothing is accumulated."""

    def result(self) -> None:
        """Everything is published at once."""

    def before_update(self, strategy: Learner) -> list[MetricValue] | None:
        """Publish a point of every curve, every :data:`EVERY` steps."""
        if strategy.step % EVERY:
            return None
        values = {f"loss/{name}": value for name, value in strategy.terms.items()}
        values["loss/total"] = strategy.loss
        values |= {f"norm/{name}": part.norm.mean() for name, part in strategy.embedded.items()}
        values["logit scale"] = strategy.space.logit_scale
        for plugin in strategy.plugins:
            if isinstance(plugin, Plugin):
                values |= plugin.curves
        at = strategy.clock.train_iterations
        points = [MetricValue(self, name, float(v.detach()), at) for name, v in values.items()]
        reference = strategy.space.settings.reference
        rate = learning_rate(strategy.step, strategy.training, from_zero=reference)
        return [*points, MetricValue(self, "learning rate", rate, at)]

    def __str__(self) -> str:
        return "curves"


class Board(TensorboardLogger):
    """Avalanche's TensorBoard logger, with texts, figures and a layout; an observer of evaluations.

    ``purge_step`` is the first step whose events, written by an earlier process that was killed,
    are hidden. For a run resumed after n steps it is n + 1: the scores at n still count. ``split``
    is whose scores the charts show; ``others`` are loggers that get the same numbers.
    """

    def __init__(
        self,
        folder: Path,
        definition: Mapping[str, Any],
        dataset: Dataset,
        schedule: StageSchedule,
        *,
        split: str = "test",
        purge_step: int | None = None,
        others: Sequence[BaseLogger] = (),
    ) -> None:
        self._split = split
        self._others = tuple(others)
        self._purge_step = purge_step
        with writing(folder):
            super().__init__(folder)
        self._folder = folder
        self._dataset = dataset
        self._schedule = schedule
        self._history: History | None = None
        self._roles = roles(schedule.arrivals).by_pair
        available = schedule.arrivals[-1].available
        plugins = definition.get("strategy", {}).get("plugins") or {}
        page = summaries.layout(
            self._roles,
            [modality.name for modality in available],
            split=split,
            plugins=plugins,
            staged=len(schedule.starts) > 1,
        )
        text = json.dumps(definition, indent=2)
        self.writer.add_text("definition", f"```json\n{text}\n```", global_step=0)
        self.writer.add_text("arrivals", schedule_table(schedule), global_step=0)
        self.writer.file_writer.add_summary(summaries.layout_summary(page), 0)

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Log it here, and to the others."""
        super().log_single_metric(name, value, x_plot)
        for other in self._others:
            other.log_single_metric(name, value, x_plot)

    def _make_writer(self, tb_log_dir: Path, filename_suffix: str) -> EventWriter:
        """Make the writer, as Avalanche does, but hide what a killed process wrote."""
        writer = EventWriter(tb_log_dir, self._purge_step)
        weakref.finalize(self, _close, writer)
        return writer

    def follow(self, history: History) -> None:
        """Set where scores come from; those of earlier stages show in the charts, too."""
        self._history = history

    def __call__(self, evaluation: Evaluation, gallery: Gallery) -> None:
        """Log an evaluation."""
        means = {
            found.pair: float(np.mean([found.scores(d)["recall@1"] for d in found.pair.directions]))
            for found in evaluation.pairs
        }
        for pair, mean in means.items():
            tag = summaries.mean_tag(evaluation.split, pair)
            self.log_single_metric(tag, mean, evaluation.step)
        if evaluation.split != self._split:
            return
        for step, stage in self._schedule.stages_at(evaluation).items():
            self.log_single_metric(summaries.STAGE, stage, step)
        if self._history is not None:
            for pair, lost in forgotten(self._history, evaluation, means).items():
                self.log_single_metric(summaries.forgetting_tag(pair), lost, evaluation.step)
        if evaluation.final:
            self._show_space(evaluation, gallery)

    def log_geometry(self, geometry: Geometry) -> None:
        """Log what is defined of the geometry of the space."""
        curves = {"rotation": geometry.rotation}
        for part in ("modality_gap", "moved", "residual", "plan_drift"):
            title, values = part.replace("_", " "), getattr(geometry, part)
            curves |= {f"{title}/{name}": value for name, value in values.items()}
        for name, value in curves.items():
            if value == value:
                self.log_single_metric(f"geometry/{name}", value, geometry.step)

    def log_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Log what became of old pairs."""
        curves = {f"inside/{name}": one.inside for name, one in diagnosis.modalities.items()}
        for pair, found in diagnosis.pairs.items():
            curves |= {f"between/{pair}": found.between, f"broken/{pair}": float(found.broken)}
            curves |= {f"hubness/{pair}/{way}": value for way, value in found.hubness.items()}
        for name, value in curves.items():
            if value == value:
                self.log_single_metric(f"why/{name}", value, diagnosis.step)

    def _show_space(self, evaluation: Evaluation, gallery: Gallery) -> None:
        """Transport plans and embeddings at a stage's end."""
        folder, arrivals = self._folder / "plans", self._schedule.arrivals
        repeated = {
            found.pair: torch.from_numpy(found.rows[np.isnan([*found.ranks.values()]).any(axis=0)])
            for found in evaluation.pairs
        }
        shown = figures.save_plans(folder, arrivals, evaluation.stage, gallery, repeated)
        for pair, plans in shown.items():
            figure = figures.transport_plans(pair, plans, split=self._split)
            self.log_single_metric(f"transport plans/{pair}", figure, evaluation.step)
        stage = evaluation.stage + 1
        name = f"{self._split} items after stage {stage}"
        points = projector.points_of(gallery)
        projector.write(self._folder, points, self._dataset, name=name, stage=stage)

    def stage_ends(self, history: History, step: int) -> None:
        """Add the matrix of all scores until now, and what protocols found."""
        births, table = history.births, history.matrix()
        columns = [list(births).index(pair) for pair in self._roles]
        born = {pair: births[pair] for pair in self._roles}
        figure = figures.recall_matrix(table[:, columns], born, self._roles, split=self._split)
        self.log_single_metric(f"recall matrix/{self._split} recall@1", figure, step)
        for score in history.protocols:
            if score.step == step:
                for name, value in score.measures.items():
                    self.log_single_metric(f"protocol/{score.name}/{name}", value, step)
        if history.choices:
            text = json.dumps(history.choices, indent=2)
            self.writer.add_text("choices", f"```json\n{text}\n```", global_step=step)
        self.writer.flush()

    def run_ends(
        self, history: History, settings: Mapping[str, summaries.Setting], step: int
    ) -> None:
        """Add the headline beside the settings that led to it, and close."""
        headline = history.headline()
        for tag, value in summaries.metrics(headline).items():
            self.log_single_metric(tag, value, step)
        for summary in summaries.hyperparameter_summaries(settings):
            self.writer.file_writer.add_summary(summary, step)
        self.writer.close()


def _close(writer: EventWriter) -> None:
    """Close what a run left open that failed, perhaps because it could not be written."""
    with suppress(OSError):
        writer.close()


def watchers(
    page: Board | None,
    observers: Sequence[Observer],
    plugins: Sequence[BaseSGDPlugin[Any]],
    loggers: Sequence[BaseLogger] = (),
) -> Watchers:
    """What observes a run; without a board or loggers nothing is computed for them alone."""
    if page is None:
        metrics = [Curves()] if loggers else []
        return Watchers(metrics=metrics, observers=observers, loggers=loggers, plugins=plugins)
    return Watchers(
        metrics=[Curves()],
        observers=[page, *observers],
        loggers=[page],
        plugins=plugins,
        geometry=[page.log_geometry],
        diagnosis=[page.log_diagnosis],
    )


def forgotten(
    history: History, evaluation: Evaluation, means: Mapping[Pair, float]
) -> dict[Pair, float]:
    """Best score at an earlier stage's end minus the present one, of pairs born before this stage.

    A pair's curve begins with 0 at the end of the stage in which it was born. There is none where
    scores of earlier stages are missing: joint training has one stage only.
    """
    stage = evaluation.stage
    born = {pair: birth for pair, birth in history.births.items() if birth < stage}
    columns = [list(history.births).index(pair) for pair in born]
    earlier = history.matrix()[:stage, columns]
    births = np.fromiter(born.values(), dtype=np.int64)
    if np.isnan(earlier[births, np.arange(len(births))]).any():
        return {}
    table = np.vstack([earlier, [means[pair] for pair in born]])
    lost = dict(zip(born, forgetting(table, births).tolist(), strict=True))
    if evaluation.final and stage + 1 < len(history.arrivals):
        lost |= dict.fromkeys((pair for pair in means if pair not in born), 0.0)
    return lost
