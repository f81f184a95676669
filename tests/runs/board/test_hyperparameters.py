"""Settings and metrics as the page of hyper-parameters wants them."""

from tensorboard.plugins.hparams import metadata

from continual_mm.definitions.scenario import MemorySettings, Scenario, Stage, Strategy, Training
from continual_mm.plugins.registry import build
from continual_mm.runs.board.pages import metrics, settings, summaries

SCENARIO = Scenario(
    name="mine",
    dataset="features.npz",
    training=Training(steps=9),
    stages=(Stage(add=("video", "audio")), Stage(add=("text",), steps=7)),
)
STRATEGY = Strategy(
    name="ours", memory=MemorySettings(items=12), plugins={"replay": {"rows": 8}, "ewc": {}}
)
VALUES = settings(SCENARIO, STRATEGY, build(STRATEGY), seed=3)


def contents(name: str) -> bytes:
    (found,) = (s.value[0] for s in summaries(VALUES) if s.value[0].tag == name)
    content: bytes = found.metadata.plugin_data.content
    return content


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


def test_tensorboard_reads_back_what_was_set():
    begin = metadata.parse_session_start_info_plugin_data(
        contents(metadata.SESSION_START_INFO_TAG)
    ).hparams
    back = {
        name: value.string_value if value.HasField("string_value") else value.number_value
        for name, value in begin.items()
    }
    assert back == VALUES


def test_every_run_names_the_columns_of_all_strategies_since_the_page_asks_only_one():
    page = metadata.parse_experiment_plugin_data(contents(metadata.EXPERIMENT_TAG))
    names = [info.name for info in page.hparam_infos]
    assert {*VALUES, "transport.weight", "transport.epsilon"} <= set(names)
    assert len(names) == len(set(names))
    first = {info.name for info in page.hparam_infos if info.differs}
    assert first == {"scenario", "strategy", "seed", "memory.items"}
    assert [info.display_name for info in page.metric_infos] == [
        "harmonic mean", "old pairs", "new pairs", "emergent pairs", "forgetting",
    ]  # fmt: skip
