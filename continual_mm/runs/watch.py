"""TensorBoard: what a run does while it runs, every tag at one global step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avalanche.evaluation.metric_definitions import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import TensorboardLogger

from continual_mm.learning.learner import Learner
from continual_mm.learning.schedule import learning_rate
from continual_mm.metrics.forgetting import forgetting
from continual_mm.runs.history import History

EVERY = 10
"""Optimiser steps between two points of a curve; each point waits for the device once."""


class Curves(PluginMetric[None]):
    """Loss terms, embedding norms per modality, the logit scale and the learning rate."""

    def reset(self) -> None:
        """Nothing is gathered."""

    def result(self) -> None:
        """Everything is published as it comes."""

    def after_training_iteration(self, strategy: Learner) -> list[MetricValue] | None:
        """Publish a point of every curve, now and then."""
        if strategy.step % EVERY:
            return None
        values = {f"loss/{name}": value for name, value in strategy.terms.items()}
        values["loss/total"] = strategy.loss
        values |= {f"norm/{name}": part.norm.mean() for name, part in strategy.embedded.items()}
        values["logit scale"] = strategy.space.logit_scale
        at = strategy.clock.train_iterations
        points = [MetricValue(self, name, float(v.detach()), at) for name, v in values.items()]
        rate = learning_rate(strategy.step, strategy.training)
        return [*points, MetricValue(self, "learning rate", rate, at)]

    def __str__(self) -> str:
        return "curves"


class Board(TensorboardLogger):
    """Avalanche's TensorBoard logger, with the definition as text and forgetting per pair."""

    def __init__(self, folder: Path, definition: Mapping[str, Any]) -> None:
        super().__init__(folder)
        text = json.dumps(definition, indent=2)
        self.writer.add_text("definition", f"```json\n{text}\n```", global_step=0)

    def forgetting(self, history: History, step: int) -> None:
        """Add the forgetting of every pair that an earlier stage trained.

        Args:
            history: The scores until now.
            step: Optimiser steps until now.
        """
        stages = max((score.stage for score in history.scores), default=0)
        table = history.matrix()[:stages]
        births = {pair: birth for pair, birth in history.births.items() if birth < stages - 1}
        columns = [list(history.births).index(pair) for pair in births]
        if not columns:
            return
        scores = table[:, columns]
        if any(scores[birth, k] != scores[birth, k] for k, birth in enumerate(births.values())):
            return
        lost = forgetting(scores, list(births.values()))
        for pair, value in zip(births, lost, strict=True):
            self.log_single_metric(f"forgetting/{pair}", float(value), step)
        self.writer.flush()
