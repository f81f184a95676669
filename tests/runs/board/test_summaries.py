"""The layout of the charts, and settings and metrics as TensorBoard reads them."""

import re
from pathlib import Path

from tensorboard.plugins.hparams import metadata

from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import MemorySettings, Scenario, Stage, Strategy, Training
from continual_mm.plugins.registry import build
from continual_mm.runs.board.summaries import (
    STAGE,
    TERMS,
    forgetting_tag,
    hyperparameter_summaries,
    layout,
    mean_tag,
    metrics,
    settings,
)

PAIRS = {pair("a", "b"): "old", pair("a", "bc"): "new", pair("b", "bc"): "emergent"}
LOSSES = (
    "contrast/a-b",
    "cluster/a",
    "reconstruction/bc",
    "replay/contrast/a-b",
    "ewc",
    "gauge",
    "match/a-bc",
)
TAGS = [
    *(mean_tag(split, p) for p in PAIRS for split in ("test", "validation")),
    *(f"test/recall@{k}/{p}/{q} to {g}" for k in (1, 5) for p in PAIRS for q, g in p.directions),
    STAGE,
    *(forgetting_tag(p) for p in PAIRS),
    *(f"loss/{name}" for name in ("total", *LOSSES)),
    *(f"norm/{name}" for name in ("a", "b", "bc")),
    *("geometry/rotation", "geometry/plan drift/a-b", "geometry/residual/a", "geometry/moved/a"),
    *("why/inside/a", "why/between/a-b", "why/broken/a-b", "why/hubness/a-b/a to b"),
]


def test_charts_of_what_a_run_has_no_curves_of_are_left_out():
    page = layout(PAIRS, ["a", "b", "bc"], staged=False)
    titles = {chart.title for category in page.category for chart in category.chart}
    assert not titles & {"what protects old pairs", "what else new pairs learn by"}
    assert not [one.title for one in page.category if one.title.startswith(("Why", "Forgetting"))]


def test_every_plugin_that_adds_a_term_has_it_in_a_chart():
    folder = Path(__file__).parents[3] / "continual_mm" / "plugins"
    adding = {file.stem for file in folder.glob("*.py") if "add_term(" in file.read_text("utf-8")}
    assert adding - {"importance", "plugin"} <= TERMS.keys()
    assert {"ewc", "mas", "si"} <= TERMS.keys()


def test_pages_are_sorted_and_charts_take_their_own_curves_only():
    page = layout(PAIRS, ["a", "b", "bc"], plugins=["replay", "ewc", "match"])
    shown = {
        (number, chart.title): [t for t in TAGS if any(re.match(r, t) for r in chart.multiline.tag)]
        for number, category in enumerate(page.category)
        for chart in category.chart
    }
    assert shown[0, "a-b (old)"] == ["test/recall@1/a-b/mean"]
    assert shown[0, "a-bc (new)"] == ["test/recall@1/a-bc/mean"]
    assert shown[0, "the stage that is trained"] == [STAGE]
    assert shown[1, "a-b (old)"] == ["forgetting/a-b"]
    assert (1, "a-bc (new)") not in shown
    assert shown[2, "total"] == ["loss/total"]
    assert shown[2, "contrast"] == ["loss/contrast/a-b"]
    kept = ["loss/replay/contrast/a-b", "loss/ewc", "loss/gauge"]
    assert shown[2, "what protects old pairs"] == kept
    assert shown[3, "b"] == ["norm/b"]
    assert shown[2, "what else new pairs learn by"] == ["loss/match/a-bc"]
    assert shown[4, "changed inside old modalities"] == ["why/inside/a"]
    assert shown[5, "plan drift of old pairs, in nats"] == ["geometry/plan drift/a-b"]
    assert shown[5, "rotation that old modalities share, in radians"] == ["geometry/rotation"]
    assert shown[5, "distance that old modalities moved"] == ["geometry/moved/a"]
    assert shown[7, "bc to a"] == ["test/recall@1/a-bc/bc to a"]
    losses = [tag for (number, _), tags in shown.items() if number == 2 for tag in tags]
    assert sorted(losses) == sorted(tag for tag in TAGS if tag.startswith("loss/"))


SCENARIO = Scenario(
    name="mine",
    dataset="features.npz",
    training=Training(steps=9),
    stages=(Stage(add=("video", "audio")), Stage(add=("text",), steps=7)),
)
STRATEGY = Strategy(
    name="ours", memory=MemorySettings(items=12), plugins={"replay": {"rows": 8}, "ewc": {}}
)
VALUES = settings(SCENARIO, STRATEGY, seed=3)


def contents(name):
    (found,) = (s.value[0] for s in hyperparameter_summaries(VALUES) if s.value[0].tag == name)
    return found.metadata.plugin_data.content


def test_settings_are_flat_with_what_was_given_and_defaults_where_nothing_was():
    chosen = ("scenario", "strategy", "seed", "memory.items", "replay.rows", "training.steps")
    assert [VALUES[key] for key in chosen] == ["mine", "ours", "3", 12, 8, 9]
    assert VALUES["stage.2.steps"] == 7
    assert "stage.1.steps" not in VALUES
    assert VALUES["replay.weight"] == 1.0
    assert VALUES["ewc.weight"] == build(STRATEGY)["ewc"].weight
    assert VALUES["standardise"] == "true"
    assert VALUES["space.dim"] == 256
    assert all(isinstance(value, str | int | float) for value in VALUES.values())


def test_metrics_that_are_not_defined_are_left_out():
    nan = float("nan")
    headline = {"old_pairs": 0.2, "new_pairs": 0.3, "harmonic_mean": 0.24}
    assert metrics({**headline, "emergent_pairs": nan, "forgetting": nan}) == {
        "headline/harmonic mean": 0.24,
        "headline/old pairs": 0.2,
        "headline/new pairs": 0.3,
    }


def test_columns_are_what_the_run_has_since_a_run_that_lacks_one_is_not_drawn():
    page = metadata.parse_experiment_plugin_data(contents(metadata.EXPERIMENT_TAG))
    names = [info.name for info in page.hparam_infos]
    assert sorted(names) == sorted(VALUES)
    first = {info.name for info in page.hparam_infos if info.differs}
    assert first == {"scenario", "strategy", "seed", "memory.items"}
    assert [info.display_name for info in page.metric_infos] == [
        "harmonic mean", "old pairs", "new pairs", "emergent pairs", "forgetting",
    ]  # fmt: skip
