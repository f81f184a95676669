"""The order of the charts on TensorBoard's page of custom scalars."""

import re
from collections.abc import Iterable, Mapping, Sequence

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MultilineChartContent,
)

from continual_mm.modality import Pair

MARK = "stage begins"
"""Tags that begin like this hold the lines at the beginning of a stage."""

_CONFIGURATION, _PLUGIN = "custom_scalars__config__", "custom_scalars"


def mean_tag(split: str, pair: Pair) -> str:
    """Recall at 1 of a pair, mean of both directions."""
    return f"{split}/recall@1/{pair}/mean"


def mark_tag(pair: Pair) -> str:
    """The lines where stages begin, in the chart of a pair."""
    return f"{MARK}/{pair}"


def forgetting_tag(pair: Pair) -> str:
    """How much of a pair was forgotten, of its recall at 1."""
    return f"forgetting/{pair}"


def layout(roles: Mapping[Pair, str], modalities: Sequence[str]) -> Layout:
    """The page: recalls first, then what is forgotten, then how training goes.

    Args:
        roles: Pair -> old, new or emergent, in the order of the charts.
        modalities: Their names, in order of arrival.
    """
    titles = {pair: f"{pair} ({role})" for pair, role in roles.items()}
    means = {
        title: [_exactly(mean_tag("test", pair)), _exactly(mark_tag(pair))]
        for pair, title in titles.items()
    }
    ways = {
        f"{first} to {second}": [_exactly(f"test/recall@1/{pair}/{first} to {second}")]
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
        "what protects old pairs": ["^loss/(?!total|contrast/|cluster/|reconstruction/)"],
    }
    norms = {name: [_exactly(f"norm/{name}")] for name in modalities}
    geometry = {
        "plan drift of old pairs, in nats": ["^geometry/plan drift/"],
        "rotation that old modalities share, in radians": [_exactly("geometry/rotation")],
        "residual of old modalities without it": ["^geometry/residual/"],
        "modality gap": ["^geometry/modality gap/"],
    }
    rest = {name: [_exactly(name)] for name in ("learning rate", "logit scale")}
    categories = (
        ("Recall at 1 on the test split, mean of both directions", means, False),
        ("Forgetting: the best recall at 1 at an earlier stage's end minus today's", lost, False),
        ("Loss", losses, False),
        ("Mean norm of embeddings before they are scaled to length 1", norms, False),
        ("How the space has moved since the end of the stage before", geometry, True),
        ("Learning rate and logit scale", rest, True),
        ("Recall at 1 on the test split, one direction", ways, True),
    )
    return Layout(
        category=[
            Category(title=title, chart=_charts(charts.items()), closed=closed)
            for title, charts, closed in categories
            if charts
        ]
    )


def summary(page: Layout) -> Summary:
    """What an event file says of the page."""
    plugin = SummaryMetadata.PluginData(plugin_name=_PLUGIN)
    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[page.SerializeToString()],
        tensor_shape=TensorShapeProto(),
    )
    value = Summary.Value(
        tag=_CONFIGURATION, tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin)
    )
    return Summary(value=[value])


def _exactly(tag: str) -> str:
    return f"^{re.escape(tag)}$"


def _charts(charts: Iterable[tuple[str, list[str]]]) -> list[Chart]:
    return [Chart(title=title, multiline=MultilineChartContent(tag=tags)) for title, tags in charts]
