"""What was set and what came of it, for TensorBoard's page of hyper-parameters."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from continual_mm.definitions import Scenario, Strategy
from continual_mm.plugins.built_in import BUILT_IN

METRICS = ("harmonic_mean", "old_pairs", "new_pairs", "emergent_pairs", "forgetting")
"""The headline's keys, in the order of the columns."""
FIRST = ("memory.items", "scenario", "seed", "strategy")
"""Settings in which runs differ as a rule: the page shows these columns first."""

Setting = str | int | float


def settings(
    scenario: Scenario, strategy: Strategy, plugins: Mapping[str, Any], seed: int
) -> dict[str, Setting]:
    """Every setting of a run that is one value, by ``table.key``; truths are words.

    Args:
        scenario: The definition.
        strategy: The definition.
        plugins: Name -> plugin object: defaults are those of its constructor.
        seed: The run's.
    """
    values: dict[str, Any] = {
        "scenario": scenario.name,
        "strategy": strategy.name,
        "joint": strategy.joint,
        "cumulative": strategy.cumulative,
        "seed": str(seed),
        "memory.items": strategy.memory.items if strategy.memory else 0,
    }
    for name, plugin in plugins.items():
        given = {**_defaults(plugin), **strategy.plugins.get(name, {})}
        values |= {f"{name}.{key}": value for key, value in given.items()}
    for key in ("dataset", "items", "positives", "standardise"):
        values[key] = getattr(scenario, key)
    for table in ("training", "space"):
        found = getattr(scenario, table).model_dump()
        values |= {f"{table}.{key}": value for key, value in found.items()}
    for number, stage in enumerate(scenario.stages, start=1):
        own = stage.model_dump(exclude={"add", "pairs"}, exclude_none=True)
        values |= {f"stage.{number}.{key}": value for key, value in own.items()}
    return {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in values.items()
        if isinstance(value, str | int | float)
    }


def tag(metric: str) -> str:
    """The scalar that holds a metric: ``headline/harmonic mean``."""
    return f"headline/{metric.replace('_', ' ')}"


def metrics(headline: Mapping[str, float]) -> dict[str, float]:
    """Tag -> value of the metrics that are defined; a run of one stage forgets nothing."""
    return {tag(key): headline[key] for key in METRICS if math.isfinite(headline[key])}


def summaries(values: Mapping[str, Setting]) -> tuple[Summary, ...]:
    """What an event file says of settings and metrics; the metrics themselves are scalars.

    TensorBoard takes the columns of all runs from one of them. So each names all metrics, and the
    parameters of all built-in plugins.
    """
    columns = dict.fromkeys(
        (f"{name}.{key}" for name, known in BUILT_IN.items() for key in known.rule.parameters), 0.0
    )
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(name=name, type=_type(value), differs=name in FIRST)
            for name, value in {**columns, **values}.items()
        ],
        metric_infos=[
            MetricInfo(name=MetricName(tag=tag(key)), display_name=key.replace("_", " "))
            for key in METRICS
        ],
    )
    begin = SessionStartInfo()
    for name, value in values.items():
        if isinstance(value, str):
            begin.hparams[name].string_value = value
        else:
            begin.hparams[name].number_value = value
    end = SessionEndInfo(status=STATUS_SUCCESS)
    return (
        _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=begin)),
        _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    )


def _summary(name: str, content: HParamsPluginData) -> Summary:
    about = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=name, metadata=about, tensor=metadata.NULL_TENSOR)])


def _type(value: Setting) -> int:
    return int(DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64)


def _defaults(plugin: Any) -> dict[str, Any]:
    parameters = signature(type(plugin)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
