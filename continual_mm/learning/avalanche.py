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
    from avalanche.benchmarks import CLScenario, EagerCLStream
    from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
    from avalanche.benchmarks.utils import AvalancheDataset
    from avalanche.core import BaseSGDPlugin
    from avalanche.evaluation.metric_definitions import PluginMetric
    from avalanche.evaluation.metric_results import MetricValue
    from avalanche.logging import BaseLogger, TensorboardLogger
    from avalanche.models import DynamicModule
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates.base_sgd import BaseSGDTemplate
    from avalanche.training.templates.observation_type.batch_observation import BatchObservation
    from avalanche.training.templates.update_type.sgd_update import SGDUpdate

__all__ = [
    "AvalancheDataset",
    "BaseLogger",
    "BaseSGDPlugin",
    "BaseSGDTemplate",
    "BatchObservation",
    "CLScenario",
    "DatasetExperience",
    "DynamicModule",
    "EagerCLStream",
    "EvaluationPlugin",
    "MetricValue",
    "PluginMetric",
    "SGDUpdate",
    "TensorboardLogger",
]
