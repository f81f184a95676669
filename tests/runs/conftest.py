"""A small scenario of two stages, runs that are stopped, and what runs leave in their folders."""

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.data.pack import write_pack
from continual_mm.runs.reporter import RunReporter


@pytest.fixture(scope="module")
def scenario():
    """Video and audio, then text with video; nine steps each, evaluated every four."""
    return cm.Scenario(
        name="small",
        space=cm.SpaceSettings(dim=8, clusters=3, refresh_every=4),
        training=cm.Training(steps=9, batch_size=8, learning_rate=1e-2, evaluate_every=4),
        stages=(cm.Stage(add=("video", "audio")), cm.Stage(add=("text",), pairs=("video-text",))),
    )


@pytest.fixture(scope="session")
def naive():
    """Nothing protects the pairs already aligned."""
    return cm.Strategy(name="naive")


@pytest.fixture(scope="session")
def replay():
    """Twelve past items, of which each step shows eight."""
    memory = cm.MemorySettings(items=12)
    return cm.Strategy(name="replay", memory=memory, plugins={"replay": {"rows": 8}})


class StopAt(RunReporter):
    """Ends a run the way Ctrl-C does, after some optimiser steps; notes where the run resumed."""

    def __init__(self, steps):
        self.left, self.resumed = steps, (0, 0)

    def resumes(self, stage, step):
        self.resumed = (stage, step)

    def steps(self, count):
        self.left -= count
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def stop_at():
    """(steps) -> a reporter that ends the run after so many optimiser steps."""
    return StopAt


@pytest.fixture(scope="session")
def results():
    """(folder) -> the files below it that a resumed run must leave bit for bit, by path."""
    patterns = ("scores.json", "definition.json", "ranks/*.npz", "checkpoints/*/*.safetensors")

    def read(folder):
        found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    return read


@pytest.fixture(scope="session")
def features():
    """(names, items) -> features of size 6 that have five numbers in common, by name."""

    def draw(names=("video", "audio", "text"), items=90):
        rng = np.random.default_rng(3)
        shared = rng.standard_normal((items, 5))
        return {name: shared @ rng.standard_normal((5, 6)) for name in names}

    return draw


@pytest.fixture(scope="session")
def written(features):
    """(path, arrays of 90 items) -> the path of a pack of them, a third in each split."""

    def write(path, **arrays):
        ids = np.array([f"item{row}" for row in range(90)])
        write_pack(path, {**features(), **arrays, "ids": ids, "split": np.repeat([0, 1, 2], 30)})
        return path

    return write


@pytest.fixture(scope="session")
def scenario_text():
    """A scenario file of two stages on ``mine.npz`` beside it."""
    return """
dataset = "mine.npz"
space = { dim = 8, clusters = 3 }
training = { steps = 3, batch_size = 8 }
stage = [{ add = ["video", "audio"] }, { add = ["text"] }]
"""
