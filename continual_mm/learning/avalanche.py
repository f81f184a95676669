"""All that is used of Avalanche. The rest of it takes seconds to import: solvers, wandb, models."""

from continual_mm.system.imports import in_parts

with in_parts(
    "avalanche",
    "avalanche.benchmarks",
    "avalanche.benchmarks.utils",
    "avalanche.evaluation",
    "avalanche.evaluation.metrics",
    "avalanche.logging",
    "avalanche.models",
    "avalanche.training",
    "avalanche.training.plugins",
    "avalanche.training.templates",
):
    from avalanche.benchmarks import CLScenario as CLScenario
    from avalanche.benchmarks import EagerCLStream as EagerCLStream
    from avalanche.benchmarks.scenarios.dataset_scenario import (
        DatasetExperience as DatasetExperience,
    )
    from avalanche.benchmarks.utils import AvalancheDataset as AvalancheDataset
    from avalanche.core import BaseSGDPlugin as BaseSGDPlugin
    from avalanche.evaluation.metric_definitions import PluginMetric as PluginMetric
    from avalanche.evaluation.metric_results import MetricValue as MetricValue
    from avalanche.logging import BaseLogger as BaseLogger
    from avalanche.logging import TensorboardLogger as TensorboardLogger
    from avalanche.models import DynamicModule as DynamicModule
    from avalanche.training.plugins import EvaluationPlugin as EvaluationPlugin
    from avalanche.training.templates.base_sgd import BaseSGDTemplate as BaseSGDTemplate
    from avalanche.training.templates.observation_type.batch_observation import (
        BatchObservation as BatchObservation,
    )
    from avalanche.training.templates.update_type.sgd_update import SGDUpdate as SGDUpdate
