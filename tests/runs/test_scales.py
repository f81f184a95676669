"""What a run keeps is weighed while it protects something."""

import json
from pathlib import Path

import numpy as np

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import (
    MemorySettings,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    Training,
)
from continual_mm.runs.run import run

FLOAT, INDEX = 4, 8


def test_a_memory_is_weighed_with_the_items_that_it_has_while_the_last_stage_is_trained(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, size)) for name, size in SIZES.items()}
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [20, 10, 10]))
    scenario = Scenario(
        name="two",
        space=SpaceSettings(dim=4, clusters=0),
        training=Training(steps=2, batch_size=4),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    )
    replay = Strategy(name="r", memory=MemorySettings(items=6), plugins={"replay": {}})
    run(scenario, replay, dataset, tmp_path, device="cpu", board=False)
    cost = json.loads((tmp_path / "two" / "r" / "seed-0" / "cost.json").read_text())
    features = 6 * (SIZES["video"] + SIZES["audio"]) * FLOAT
    # At the end half of the items would be of the second stage, which has no audio.
    assert features < cost["memory_bytes"] < features + 6 * 16 * INDEX
    assert cost["memory_items"] == 6


SIZES = {"video": 800, "audio": 700, "text": 5}
