"""Features as an extractor gives them are embedded as the run embedded those of its dataset."""

import shutil

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.data.pack import read_pack, write_pack
from continual_mm.system.errors import InputError

NAMES = ("video", "audio", "text")
SPLIT = np.repeat([0, 1, 2], [50, 10, 20])
NAIVE = cm.Strategy(name="naive")


@pytest.fixture(scope="module")
def arrays():
    """A vector far from zero, sounds of one to five steps, and words; with junk in the padding."""
    rng = np.random.default_rng(4)
    shared = rng.standard_normal((80, 4))
    lengths = rng.integers(1, 6, 80)
    sound = (shared @ rng.standard_normal((4, 3)))[:, None] * 7 - 40
    return {
        "video": (30 * shared @ rng.standard_normal((4, 6)) + 400).astype(np.float32),
        "audio": np.tile(sound, (1, 5, 1)).astype(np.float32),
        "audio_length": lengths,
        "audio_kind": np.array("spectrogram"),
        "text": (9 * shared @ rng.standard_normal((4, 5)) + 5)[:, None].astype(np.float32),
        "ids": np.arange(80).astype(str),
        "split": SPLIT,
    }


@pytest.fixture(scope="module")
def pack(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    write_pack(path, arrays)
    return path


@pytest.fixture(scope="module")
def scenario(pack):
    return cm.Scenario(
        name="raw",
        dataset=str(pack),
        space=cm.SpaceSettings(dim=8, clusters=3),
        training=cm.Training(steps=6, batch_size=16),
        stages=(cm.Stage(add=("video", "audio")), cm.Stage(add=("text",))),
    )


@pytest.fixture(scope="module")
def folder(scenario, pack, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    cm.run(scenario, NAIVE, read_pack(pack), out, device="cpu", board=False)
    return out / "raw" / "naive" / "seed-0"


def given(arrays, name, rows=slice(None)):
    """Raw features and their lengths."""
    lengths = arrays.get(f"{name}_length")
    return arrays[name][rows], None if lengths is None else lengths[rows]


def by_hand(arrays, name):
    """Standardised here, by the valid steps of the training items."""
    values, lengths = given(arrays, name)
    steps = values.reshape(80, -1, values.shape[-1]).astype(np.float64)
    valid = np.arange(steps.shape[1]) < (np.full(80, 1) if lengths is None else lengths)[:, None]
    seen = steps[SPLIT == 0][valid[SPLIT == 0]]
    found = (steps - seen.mean(axis=0)) / seen.std(axis=0)
    found[~valid] = 0.0
    return found.reshape(values.shape).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_raw_values_give_the_vectors_of_those_that_are_standardised_by_hand(folder, arrays, name):
    space = cm.open_run(folder)
    values, lengths = given(arrays, name)
    expected = space.encode(name, by_hand(arrays, name), lengths, standardised=True)
    torch.testing.assert_close(space.encode(name, values, lengths), expected)
    one = space.encode(name, values[3], None if lengths is None else [lengths[3]])
    torch.testing.assert_close(one, expected[3])
    wrong = space.encode(name, values, lengths, standardised=True)
    assert float((wrong * expected).sum(1).mean()) < 0.9  # unit vectors


def test_they_are_the_vectors_that_the_run_was_scored_by(folder, arrays):
    space, test = cm.open_run(folder), SPLIT == 2
    video, audio = (space.encode(n, *given(arrays, n, test)) for n in ("video", "audio"))
    similarity = (video @ audio.T).numpy()
    ranks = (similarity > similarity.diagonal()[:, None]).sum(axis=1)
    scored = np.load(folder / "ranks" / "stage-2.npz")["test/audio-video/video to audio"]
    assert np.array_equal(ranks, scored)


def test_the_space_in_python_and_that_of_a_consolidated_run_take_them_too(
    scenario, folder, pack, arrays, tmp_path
):
    history = cm.train(scenario, read_pack(pack), device="cpu")
    values, lengths = given(arrays, "audio")
    expected = cm.open_run(folder).encode("audio", values, lengths)
    torch.testing.assert_close(history.space.encode("audio", values, lengths), expected)
    small = cm.open_run(cm.consolidate(folder, 3, to=tmp_path / "small", device="cpu").folder)
    found = small.encode("audio", values, lengths)
    torch.testing.assert_close(found, expected @ small.projection)
    with pytest.raises(InputError, match="video is not standardised as in the run; read it with"):
        raw = read_pack(pack, standardise=False)
        cm.consolidate(folder, 2, to=tmp_path / "two", dataset=raw, device="cpu")


def test_what_a_run_left_alone_is_left_alone(scenario, pack, arrays):
    settings = scenario.model_copy(update={"standardise": ("audio",)})
    space = cm.train(settings, read_pack(pack, standardise=["audio"]), device="cpu").space
    values, _ = given(arrays, "video")
    expected = space.encode("video", values, standardised=True)
    assert torch.equal(space.encode("video", values), expected)


def test_a_run_that_starts_from_it_sees_other_data_as_it_did(folder, arrays, tmp_path, typed):
    """The new dataset's own mean and spread are others; its video must look as before."""
    other = {**arrays, "video": arrays["video"] * 3 + 1000}
    write_pack(tmp_path / "other.npz", other)
    (tmp_path / "next.toml").write_text(
        f'''
dataset = "other.npz"
start = "{folder}"
training = {{ steps = 2, batch_size = 16 }}
[[stage]]
pairs = ["video-text"]
'''
    )
    ended = typed(
        *("run", tmp_path / "next.toml", "--out", tmp_path / "runs", "--strategy", "freeze"),
        "--no-board",
    )
    assert not ended.code, ended.err
    old = cm.open_run(folder)
    new = cm.open_run(tmp_path / "runs" / "next" / "freeze" / "seed-0")
    assert np.array_equal(new.statistics["video"].mean, old.statistics["video"].mean)
    torch.testing.assert_close(
        new.encode("video", arrays["video"]), old.encode("video", arrays["video"])
    )
    scored = np.load(tmp_path / "runs/next/freeze/seed-0/ranks/stage-1.npz")
    test = SPLIT == 2
    video, audio = (old.encode(n, *given(other, n, test)) for n in ("video", "audio"))
    similarity = (audio @ video.T).numpy()
    ranks = (similarity > similarity.diagonal()[:, None]).sum(axis=1)
    assert np.array_equal(ranks, scored["test/audio-video/audio to video"])


def test_a_run_of_an_earlier_version_says_that_it_kept_nothing(folder, arrays, tmp_path, as_before):
    run = as_before(shutil.copytree(folder, tmp_path / "seed-0"))
    space = cm.open_run(run)
    with pytest.raises(InputError, match=r"modality 'video': a run of an earlier version .*=True"):
        space.encode("video", arrays["video"])
    prepared = by_hand(arrays, "video")
    expected = cm.open_run(folder).encode("video", arrays["video"])
    torch.testing.assert_close(space.encode("video", prepared, standardised=True), expected)
