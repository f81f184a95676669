"""A grown space, and its dataset as a pack."""

import numpy as np
import pytest

import continual_mm as cm

GROWN = {"expand": {"size": 4, "rank": 2}}


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """A pack of 90 items: a vector, a spectrogram of two to eight steps, and one more vector."""
    rng = np.random.default_rng(7)
    shared = rng.standard_normal((90, 5))
    sound = (shared @ rng.standard_normal((5, 4)))[:, None] + rng.standard_normal((90, 8, 4))
    arrays = {
        "video": shared @ rng.standard_normal((5, 6)) + 3,
        "audio": 10 * sound - 40,
        "text": shared @ rng.standard_normal((5, 6)),
    }
    path = tmp_path_factory.mktemp("pack") / "mine.npz"
    np.savez(
        path,
        **{name: values.astype(np.float32) for name, values in arrays.items()},
        audio_length=rng.integers(2, 9, 90),
        audio_kind="spectrogram",
        ids=np.arange(90).astype(str),
        split=np.repeat([0, 1, 2], [60, 10, 20]),
    )
    return path


@pytest.fixture(scope="session")
def trained_on(tmp_path_factory):
    """(pack, plugins; settings of the scenario) -> a finished run, by default of a grown space."""

    def train(pack, plugins=GROWN, **settings):
        scenario = cm.Scenario(
            name="small",
            dataset=str(pack),
            space=cm.SpaceSettings(dim=8, clusters=3),
            training=cm.Training(steps=4, batch_size=16),
            stages=(cm.Stage(add=("video", "audio")), cm.Stage(add=("text",))),
            **settings,
        )
        strategy = cm.Strategy(name="grown", plugins=plugins)
        out = tmp_path_factory.mktemp("runs")
        wanted = scenario.standardise
        cm.run(scenario, strategy, cm.read_pack(pack, standardise=wanted), out, board=False)
        return out / "small" / "grown" / "seed-0"

    return train


@pytest.fixture(scope="session")
def finished(trained_on, pack):
    """The run on the pack."""
    return trained_on(pack)


@pytest.fixture(scope="session")
def described(pack, encoder, colours, tmp_path_factory):
    """The pack with sentences of colours, which the encoder made its text of."""
    from sentence_transformers import SentenceTransformer

    rng = np.random.default_rng(8)
    sentences = [" ".join(rng.choice(colours, 3)) for _ in range(90)]
    arrays = dict(np.load(pack))
    arrays["text"] = SentenceTransformer(str(encoder), device="cpu").encode(sentences)
    path = tmp_path_factory.mktemp("described") / "described.npz"
    np.savez(path, **arrays, text_raw=np.array(sentences))
    return path
