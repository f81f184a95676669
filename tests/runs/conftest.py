"""A small scenario of two stages, strategies, and what runs leave in their folders."""

import pytest

import continual_mm as cm


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


@pytest.fixture(scope="session")
def results():
    """(folder) -> the files below it that a resumed run must leave bit for bit, by path."""
    patterns = ("scores.json", "definition.json", "ranks/*.npz", "checkpoints/*/*.safetensors")

    def read(folder):
        found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    return read


@pytest.fixture(scope="session")
def brief(changed):
    """(pack, settings) -> the same two stages on a pack, six steps each, with these settings."""
    space = cm.SpaceSettings(dim=8, clusters=3)
    training = cm.Training(steps=6, batch_size=8, learning_rate=1e-2)
    stages = (cm.Stage(add=("video", "audio")), cm.Stage(add=("text",), pairs=("video-text",)))
    made = cm.Scenario(name="small", space=space, training=training, stages=stages)
    return lambda pack, **settings: changed(made, dataset=str(pack), **settings)


@pytest.fixture(scope="session")
def scenario_text():
    """A scenario file of two stages on ``mine.npz`` beside it."""
    return """
dataset = "mine.npz"
space = { dim = 8, clusters = 3 }
training = { steps = 3, batch_size = 8 }
stage = [{ add = ["video", "audio"] }, { add = ["text"] }]
"""
