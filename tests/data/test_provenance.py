"""How data were converted is kept, shown, and held against what they are scored with."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from continual_mm.cli.app import main
from continual_mm.data.pack import PROVENANCE, read_card, read_pack, write_pack
from continual_mm.data.registry import card, load
from continual_mm.data.store.form import read_store_card
from continual_mm.definitions import catalog
from continual_mm.evaluation.checks import mode_mismatches
from continual_mm.preparation.formats.word_vectors import digest_of, open_vectors
from continual_mm.runs.opening import open_scenario
from continual_mm.system.errors import InputError

RNG = np.random.default_rng

SCENARIO = """
dataset = "{trained}"
[space]
mode = "{mode}"
[[stage]]
add = ["video", "audio"]
[[stage]]
add = ["text"]
[[protocol]]
name = "one"
dataset = "{scored}"
query = ["{query}"]
gallery = ["video"]
"""


def clip(number, **changed):
    return {
        "id": f"video{number:06d}_{number}",
        "2d": RNG(number).normal(size=4).astype(np.float32),
        "3d": RNG(number + 99).normal(size=3).astype(np.float32),
        "audio": RNG(number).uniform(-80, 0, (2, 5)).astype(np.float32),
        "caption": "add the salt",
    } | changed


@pytest.fixture
def converted(tmp_path, monkeypatch, capsys):
    """(target, options) -> the card of clips converted to it."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("add 0.1 0.2\nsalt 0.3 0.4\n")
    Path("others.txt").write_text("add 0.1 0.2\nsalt 0.3 0.5\n")

    def convert(to, *options, words="words.txt", clips=40):
        Path("clips.pkl").write_bytes(pickle.dumps([clip(number) for number in range(clips)]))
        files = ("--train", "clips.pkl", "--validation", "0.3")
        Path("test.pkl").write_bytes(pickle.dumps([clip(500 + number) for number in range(3)]))
        with pytest.raises(SystemExit) as caught:
            command = ("data", "convert", "youcook2", *files, "--test", "test.pkl", "--to", to)
            main((*command, "--vectors", words, *options))
        assert caught.value.code == 0
        return card(to)

    return convert


def scenario(mode="robust", *, trained, scored, query="text"):
    Path("mine.toml").write_text(
        SCENARIO.format(mode=mode, trained=trained, scored=scored, query=query)
    )
    return open_scenario(catalog.open_definition("scenarios", Path("mine.toml")))


@pytest.mark.parametrize("to", ["out", "out.npz"])
def test_packs_and_stores_say_how_they_were_converted(converted, to):
    for options, mode in (((), "robust"), (("--reference",), "reference")):
        found = converted(f"{mode}{to}", *options).provenance
        expected = ("youcook2", mode, 20, None)
        assert (found.reader, found.mode, found.max_words, found.min_time) == expected
        assert found.vectors == digest_of(open_vectors(Path("words.txt")))
        assert load(f"{mode}{to}").card.provenance == found


def test_what_was_written_before_is_read_as_it_was(converted):
    new = converted("out")
    form = json.loads(Path("out/store.json").read_text())
    del form["provenance"]
    Path("out/store.json").write_text(json.dumps(form))
    assert read_store_card("out") == replace(new, provenance=None)
    converted("out.npz")
    with np.load("out.npz") as columns:
        write_pack("old.npz", {name: columns[name] for name in columns if name != PROVENANCE})
        write_pack("own.npz", {**columns, PROVENANCE: np.array("from my own camera")})
    for own in ("old.npz", "own.npz"):
        assert read_card(own).provenance is None
        assert read_pack(own).card == read_card(own)


@pytest.mark.parametrize("text", ['{"reader": "youcook2"}', "{", '{"reader": 1, "more": 2}'])
def test_a_provenance_that_is_none_is_refused_by_name(converted, text):
    converted("out.npz")
    with np.load("out.npz") as columns:
        write_pack("odd.npz", {**columns, PROVENANCE: np.array(text)})
    for read in (read_card, read_pack):
        with pytest.raises(InputError, match="column 'provenance': does not say how"):
            read("odd.npz")
    converted("out")
    form = json.loads(Path("out/store.json").read_text())
    form["provenance"]["more"] = 1
    Path("out/store.json").write_text(json.dumps(form))
    with pytest.raises(InputError, match="provenance"):
        read_store_card("out")


def test_inspecting_tells_it_in_one_line(converted, capsys):
    digest = converted("out", "--reference").provenance.vectors
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(("data", "inspect", "out"))
    (line,) = (one for one in capsys.readouterr().out.splitlines() if "converted" in one)
    assert line.startswith("converted: youcook2 in reference mode, texts of at most 20 words,")
    assert line.endswith(f"word vectors {digest[:8]}")


def test_texts_of_other_word_vectors_are_not_scored(converted):
    converted("trained")
    converted("same.npz")
    converted("other", words="others.txt")
    assert scenario(trained="trained", scored="same.npz").card.name == "trained"
    with pytest.raises(InputError, match="texts of 'other' are made of other word vectors"):
        scenario(trained="trained", scored="other")
    # Audio and video do not depend on word vectors.
    assert scenario(trained="trained", scored="other", query="audio").card.name == "trained"


def test_data_of_another_mode_than_the_space_are_told(converted, capsys):
    converted("robust")
    converted("reference", "--reference")
    for mode in ("robust", "reference"):
        opened = scenario(mode, trained=mode, scored=mode)
        assert list(mode_mismatches(opened.scenario, opened.cards)) == []
        other = "robust" if mode == "reference" else "reference"
        opened = scenario(mode, trained=mode, scored=other)
        (problem,) = mode_mismatches(opened.scenario, opened.cards)
        assert problem.startswith(f"dataset '{other}' was read in {other} mode, but the space of")
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(("validate", "mine.toml"))
    out = capsys.readouterr().out
    assert (caught.value.code, "note: dataset 'robust' was read in robust mode" in out) == (0, True)


def test_converting_ends_with_what_test_clips_lack(converted, capsys):
    converted("out")
    assert "lack" not in capsys.readouterr().out
    silent = [clip(0, caption="zzz"), clip(1, audio=np.zeros((2, 0), np.float32)), clip(2)]
    Path("silent.pkl").write_bytes(pickle.dumps(silent))
    files = ("--test", "silent.pkl", "--to", "silent.npz", "--vectors", "words.txt")
    with pytest.raises(SystemExit):
        main(("data", "convert", "youcook2", *files))
    out = " ".join(capsys.readouterr().out.split())
    assert "of 3 test items 1 lack audio and 1 lack text: retrieval counts them as missed" in out
