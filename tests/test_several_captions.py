"""Five captions of each sound, as in Clotho and AudioCaps, from validation to an export."""

import json

import numpy as np
import pytest

SCENARIO = """description = "captions of sounds"
dataset = "five.npz"
standardise = false
[space]
dim = 32
clusters = 0
[tower.audio]
kind = "identity"
[tower.text]
kind = "identity"
[[stage]]
add = ["audio", "text"]
steps = 0
[[protocol]]
name = "book"
query = ["text"]
gallery = ["audio"]
[[protocol]]
name = "turned"
query = ["audio"]
gallery = ["text"]
[[protocol]]
name = "video"
kind = "video_retrieval"
query = ["text"]
gallery = ["audio"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pack of 60 sounds that lie where their five captions do, 30 of them to be tested."""
    path = tmp_path_factory.mktemp("captions")
    rng = np.random.default_rng(0)
    topic = rng.standard_normal((60, 32)).astype("f4")
    clip = np.repeat(np.arange(60), 5)
    audio = (topic / np.linalg.norm(topic, axis=1, keepdims=True))[clip]
    text = audio + 0.02 * rng.standard_normal(audio.shape).astype("f4")
    split = np.array([0] * 20 + [1] * 10 + [2] * 30)[clip]
    ids = [f"{each}#{number}" for number, each in enumerate(clip)]
    np.savez(path / "five.npz", ids=ids, split=split, audio=audio, text=text, group=clip)
    (path / "mine.toml").write_text(SCENARIO, encoding="utf-8")
    return path


def test_a_space_that_is_right_by_construction_has_full_recall(folder, typed, monkeypatch):
    monkeypatch.chdir(folder)
    told = typed("validate", "mine.toml").out
    assert "note: 150 test items have 30 different audio: what is the same is asked and" in told
    assert "300 items have the audio of another item: what is" in typed(
        "data", "inspect", "five.npz"
    ).out.replace("\n", " ")
    assert not typed("run", "mine.toml", "--strategy", "naive", "--out", "runs").code
    scores = json.loads((folder / "runs/mine/naive/seed-0/scores.json").read_text())
    found = {one["direction"]: one for one in scores["evaluations"] if one["split"] == "test"}
    assert [one["recall@1"] for one in found.values()] == [1.0, 1.0]
    assert {one["chance"] for one in found.values()} == {5 / 150}
    sizes = {way: (one["queries"], one["gallery"]) for way, one in found.items()}
    assert sizes == {"audio to text": (30, 150), "text to audio": (150, 30)}
    for protocol, queries in zip(scores["protocols"], (150, 30, 150), strict=True):
        assert protocol["queries"] == protocol["expected"] == queries
        shares = {k: v for k, v in protocol["measures"].items() if not k.endswith("rank")}
        assert set(shares.values()) == {1.0}
    table = typed("compare", "runs").out
    assert "100.0" in table
    assert "150 different text and 30 different audio; what is the same" in table.replace("\n", " ")
    assert not typed("compare", "--protocol", "book", "runs").code
    assert not typed("export", "runs", "--to", "small").code
    assert typed("compare", "small").out == table
