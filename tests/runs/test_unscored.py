"""Pairs that no item could be scored on are refused before anything is trained."""

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.runs.run import train
from continual_mm.system.errors import InputError

SPLIT = np.repeat([0, 1, 2], [20, 4, 6])


def dataset(heard: np.ndarray) -> Dataset:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((30, 3)) for name in ("video", "audio", "text")}
    # What is heard has no caption, save where it is trained on.
    present = {"audio": heard, "text": ~heard | (SPLIT == 0)}
    return Dataset.from_arrays(arrays, split=SPLIT, present=present, name="mine")


def scenario(*stages: Stage) -> Scenario:
    return Scenario(
        name="small",
        space=SpaceSettings(dim=4, clusters=0),
        training=Training(steps=1, batch_size=4),
        stages=stages,
    )


def test_a_pair_that_no_test_item_has_is_refused_and_one_that_a_single_item_has_is_not() -> None:
    heard = np.ones(30, dtype=bool)
    heard[24:] = False
    stages = Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))
    with pytest.raises(InputError) as caught:
        train(scenario(*stages), dataset(heard), device="cpu")
    assert [one.message for one in caught.value.problems] == [
        "no validation item has both audio and text",
        "no validation item has both text and video",
        "no test item has both audio and text",
        "no test item has both audio and video",
    ]
    heard[24] = True
    history = train(scenario(Stage(add=("video", "audio"))), dataset(heard), device="cpu")
    assert {score.queries for score in history.scores if score.split == "test"} == {1}
