"""The layout of TensorBoard's charts, and settings of a run as its hyper-parameters."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MultilineChartContent,
)
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

from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import Scenario, Strategy
from continual_mm.plugins.registry import defaults

_CONFIGURATION, _PLUGIN = "custom_scalars__config__", "custom_scalars"

METRICS = ("harmonic_mean", "old_pairs", "new_pairs", "emergent_pairs", "forgetting")
"""The headline's keys, in the order of the columns."""
FIRST = ("memory.items", "scenario", "seed", "strategy")
"""Settings in which runs usually differ: their columns come first."""

STAGE = "stage"
"""The curve that says which stage is trained, from 1."""
TERMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cross_intra": ("cross/", "intra/"),
        "distill": ("distill/",),
        "ewc": ("ewc",),
        "expand": ("expand/",),
        "joint_lora": ("bare/",),
        "mas": ("mas",),
        "match": ("match/",),
        "mmlora": ("mean_logits",),
        "partners": ("partners/",),
        "prototypes": ("prototypes/",),
        "relational": ("relational/",),
        "replay": ("replay/",),
        "row_kl": ("row_kl/",),
        "si": ("si",),
        "transport": ("transport/", "gauge"),
    }
)
"""Plugin -> where the names of its loss terms begin."""
NEW: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: TERMS[name] for name in ("cross_intra", "expand", "joint_lora", "match", "mmlora")}
)
"""Those by which new pairs learn."""

Setting = str | int | float


def mean_tag(split: str, pair: Pair) -> str:
    """Recall at 1 of a pair, mean of both directions."""
    return f"{split}/recall@1/{pair}/mean"


def forgetting_tag(pair: Pair) -> str:
    """How much of a pair was forgotten, of its recall at 1."""
    return f"forgetting/{pair}"


def layout(
    roles: Mapping[Pair, str],
    modalities: Sequence[str],
    *,
    split: str = "test",
    plugins: Collection[str] = (),
    staged: bool = True,
) -> Layout:
    """The layout of the charts: recalls first, then forgetting, then training.

    Charts of what a run has no curves of are left out: of terms that none of its ``plugins`` has,
    and of what is compared with an earlier stage, unless it is ``staged``.
    """
    titles = {pair: f"{pair} ({role})" for pair, role in roles.items()}
    means = {title: [_exactly(mean_tag(split, pair))] for pair, title in titles.items()}
    means["the stage that is trained"] = [_exactly(STAGE)]
    ways = {
        f"{first} to {second}": [_exactly(f"{split}/recall@1/{pair}/{first} to {second}")]
        for pair in roles
        for first, second in pair.directions
    }
    lost = {
        title: [_exactly(forgetting_tag(pair))]
        for pair, title in titles.items()
        if roles[pair] == "old"
    }
    losses = {
        "total": [_exactly("loss/total")],
        "contrast": ["^loss/contrast/"],
        "clustering and reconstruction": ["^loss/(cluster|reconstruction)/"],
    }
    if set(plugins) & TERMS.keys() - NEW.keys():
        losses["what protects old pairs"] = [_terms(TERMS.keys() - NEW.keys())]
    if set(plugins) & NEW.keys():
        losses["what else new pairs learn by"] = [_terms(NEW)]
    norms = {name: [_exactly(f"norm/{name}")] for name in modalities}
    geometry = {
        "plan drift of old pairs, in nats": ["^geometry/plan drift/"],
        "rotation that old modalities share, in radians": [_exactly("geometry/rotation")],
        "distance that old modalities moved": ["^geometry/moved/"],
        "what is left of it without the rotation": ["^geometry/residual/"],
        "modality gap": ["^geometry/modality gap/"],
    }
    why = {
        "changed between the modalities of old pairs": ["^why/between/"],
        "changed inside old modalities": ["^why/inside/"],
        "queries that were answered right and are not any more": ["^why/broken/"],
        "hubness": ["^why/hubness/"],
    }
    rest = {name: [_exactly(name)] for name in ("learning rate", "logit scale")}
    categories = (
        (f"Recall at 1 on the {split} split, mean of both directions", means, False),
        (
            "Forgetting: the best recall at 1 at an earlier stage's end minus today's",
            lost if staged else {},
            False,
        ),
        ("Loss", losses, False),
        ("Mean norm of embeddings before they are scaled to length 1", norms, False),
        (
            "Why old pairs forget: changes since the end of the stage before, 0 to 1",
            why if staged and lost else {},
            True,
        ),
        ("How the space has moved since the end of the stage before", geometry, True),
        ("Learning rate and logit scale", rest, True),
        (f"Recall at 1 on the {split} split, one direction", ways, True),
    )
    return Layout(
        category=[
            Category(
                title=title,
                chart=[
                    Chart(title=name, multiline=MultilineChartContent(tag=tags))
                    for name, tags in charts.items()
                ],
                closed=closed,
            )
            for title, charts, closed in categories
            if charts
        ]
    )


def layout_summary(page: Layout) -> Summary:
    """The layout, for an event file."""
    plugin = SummaryMetadata.PluginData(plugin_name=_PLUGIN)
    tensor = TensorProto(
        dtype="DT_STRING", string_val=[page.SerializeToString()], tensor_shape=TensorShapeProto()
    )
    value = Summary.Value(
        tag=_CONFIGURATION, tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin)
    )
    return Summary(value=[value])


def _terms(plugins: Iterable[str]) -> str:
    names = sorted(name for plugin in plugins for name in TERMS[plugin])
    return f"^loss/({'|'.join(map(re.escape, names))})"


def _exactly(tag: str) -> str:
    return f"^{re.escape(tag)}$"


def settings(scenario: Scenario, strategy: Strategy, *, seed: int) -> dict[str, Setting]:
    """Every setting of a run that is one value, plugins' defaults among them, by ``table.key``."""
    values: dict[str, Any] = {
        "scenario": scenario.name,
        "strategy": strategy.name,
        "joint": strategy.joint,
        "cumulative": strategy.cumulative,
        "seed": str(seed),
        "memory.items": strategy.memory.items if strategy.memory else 0,
    }
    for name, given in strategy.plugins.items():
        values |= {f"{name}.{key}": value for key, value in {**defaults(name), **given}.items()}
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


def headline_tag(metric: str) -> str:
    """The scalar that holds a metric: ``headline/harmonic mean``."""
    return f"headline/{metric.replace('_', ' ')}"


def metrics(headline: Mapping[str, float]) -> dict[str, float]:
    """Tag -> value of the metrics that are defined; a run of one stage forgets nothing."""
    return {headline_tag(key): headline[key] for key in METRICS if math.isfinite(headline[key])}


def hyperparameter_summaries(values: Mapping[str, Setting]) -> tuple[Summary, ...]:
    """Settings and names of metrics, for an event file; the metrics themselves are scalars.

    TensorBoard takes all columns from one run and draws no line of a run that lacks one which is
    shown: shown are those that all runs have.
    """
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(
                name=name,
                type=DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64,
                differs=name in FIRST,
            )
            for name, value in values.items()
        ],
        metric_infos=[
            MetricInfo(name=MetricName(tag=headline_tag(key)), display_name=key.replace("_", " "))
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
