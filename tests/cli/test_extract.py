"""`data extract` and `data vectors`: from raw clips and captions to what conversions read."""

import json
from pathlib import Path

import numpy as np
import pytest

from continual_mm.cli.progress import ClipBar
from continual_mm.data import registry
from continual_mm.preparation.formats.word_vectors import open_vectors


def write_clip(media_file, path, seed=1):
    wave = np.random.default_rng(seed).normal(scale=0.1, size=(1, 8000)).astype(np.float32)
    media_file(path, audio=wave, sample_rate=16_000)


def test_raw_clips_become_a_store_that_a_scenario_takes(said, media_file, tmp_path):
    rows = []
    for number in range(12):
        write_clip(media_file, tmp_path / f"clip{number}.mkv", seed=number)
        split = ("train", "train", "train", "validation", "test", "test")[number % 6]
        rows.append({"path": f"clip{number}.mkv", "text": f"add salt {number}", "split": split})
    Path("clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    Path("clip11.mkv").write_bytes(b"no video")
    making = ("--make", "audio=audio", "--make", "text=text", "--workers", "0")
    answer = said("data", "extract", "clips.jsonl", "--to", "made", *making)
    assert answer.code == 1
    assert "made: 11 clips have features" in answer.out
    assert "clip11" in Path("made/report.csv").read_text()
    assert said("data", "convert", "clips", "made", "--to", "store").code == 0
    found = json.loads(said("data", "inspect", "store", "--format", "json").out)
    assert [one["present"] for one in found["modalities"]] == [[6, 2, 3]] * 2
    Path("mine.toml").write_text(
        'dataset = "store"\n[space]\ndim = 8\nclusters = 0\n[training]\nsteps = 1\nbatch_size = 4\n'
        '[[stage]]\nadd = ["audio", "text"]\n'
    )
    assert said("run", "mine.toml", "--no-board").code == 0


@pytest.mark.parametrize("target", ["store", "pack.npz"])
def test_clips_of_which_some_have_a_caption_a_label_and_a_group_become_a_dataset(
    said, media_file, tmp_path, target
):
    for name in "abcd":
        write_clip(media_file, tmp_path / f"{name}.wav", seed=ord(name))
    said_in = {"a": [["sil", 0, 0.5]], "b": [["hi", 0, 0.5]], "d": []}  # of a, no more than silence
    rows = [{"path": f"{name}.wav", "words": words} for name, words in said_in.items()]
    rows[0] |= {"label": 3, "split": "test"}
    rows[1] |= {"group": "v", "split": "train"}
    rows[2] |= {"split": "train"}
    rows.append({"path": "c.wav", "text": "hi ", "split": "test"})
    Path("some.json").write_text(json.dumps(rows))
    making = ("--make", "audio=audio", "--make", "text=text", "--workers", "0")
    assert said("data", "extract", "some.json", "--to", "made", *making).code == 0
    assert said("data", "convert", "clips", "made", "--to", target).code == 0
    dataset = registry.load(target, standardise=False, splits=())
    order = np.argsort(dataset.ids[np.arange(4)])  # a, b, c, d
    assert dataset.columns["audio"].present.all()
    assert dataset.columns["text"].present[order].tolist() == [False, True, True, False]
    assert dataset.text[order].tolist() == ["", "hi", "hi ", ""]
    assert dataset.label[order].tolist() == [3, -1, -1, -1]
    assert len(set(dataset.group.tolist())) == 4


def test_of_clips_that_fail_for_one_cause_the_first_few_are_named(said, media_file, tmp_path):
    write_clip(media_file, tmp_path / "a.wav")
    rows = [f"a.wav,{number + 2}.5,clip {number}" for number in range(40)]
    Path("late.csv").write_text(
        "\n".join(["wav,from,name", *rows, "a.wav,0,whole", "x.wav,0,gone"])
    )
    command = ["data", "extract", "late.csv", "--to", "made", "--make", "audio=audio"]
    command += ["--workers", "0", "--column", "start=from", "--column", "id=name"]
    answer = said(*command)
    assert "late.csv: reads from as start, name as id, wav as path;" in answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith(("clip", "35", "gone"))]
    late = "before the clip begins at 2.50 s; if it was cut out already, give it no start"
    assert lines[0] == f"clip 0: a.wav ends at 0.50 s, {late}"
    assert lines[5:] == ["gone: x.wav names no file", f"35 more failed like {lines[0]}"]
    assert "41 have none" in answer.out
    assert len(Path("made/report.csv").read_text().splitlines()) == 42
    again = said(*command, "--retry", "--verbose")
    assert sum(line.startswith("clip ") for line in again.err.splitlines()) == 40
    answer = said(*command[:-1], "name")
    assert (answer.code, "--column name: is no OURS=THEIRS; write path=fname" in answer.err) == (
        2,
        True,
    )


def test_what_no_clip_has_is_refused_before_the_work(said, media_file, tmp_path):
    write_clip(media_file, tmp_path / "a.wav")
    Path("list.csv").write_text("sound,text\n1,one\n")
    making = ("--to", "made", "--make", "audio=audio", "--make", "text=text")
    answer = said("data", "extract", "list.csv", *making)
    assert answer.code == 2
    problem = "modality 'audio': no clip has a file; name the column of the files: --column path"
    assert problem in answer.err
    assert "columns that are not used: sound;" in answer.err
    Path("list.csv").write_text("path,satz\na.wav,one\n")
    answer = said("data", "extract", "list.csv", *making)
    told = "no clip has a text, so that there will be no text; if a column has it: --column text=N"
    assert (answer.code, told in answer.err) == (0, True)


def test_ctrl_c_keeps_finished_clips_and_a_reserved_name_is_refused_at_once(
    said, media_file, tmp_path, monkeypatch
):
    for name in ("a.wav", "b.wav"):
        write_clip(media_file, tmp_path / name)
    command = ("data", "extract", ".", "--workers", "0", "--to", "made", "--make")
    answer = said(*command, "label=audio")
    assert (answer.code, "what datasets call something else" in answer.err) == (2, True)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ClipBar, "finished", interrupted)
        answer = said(*command, "audio=audio")
    kept = "finished clips are kept in made, the same command goes on from there"
    assert answer.code == 130
    assert answer.err.splitlines()[-1] == f"continual-mm: stopped; {kept}"
    answer = said(*command, "audio=audio")
    assert answer.code == 0
    assert "1 of 2 clips are there already" in answer.err
    assert answer.err.splitlines()[-1] == "2 of 2 clips are done"


def test_word_vectors_are_trained_on_captions_and_written_once(said):
    captions = {"start": [0, 1], "end": [1, 2], "text": ["add the salt", "stir; stir it"]}
    Path("caption.json").write_text(json.dumps({"aaa": captions}))
    answer = said("data", "vectors", "caption.json", "--to", "own.bin", "--features", "7")
    assert answer.code == 0
    assert "own.bin: 5 words of 7 numbers" in answer.out
    assert open_vectors(Path("own.bin")).values.shape == (5, 7)
    answer = said("data", "vectors", "caption.json", "--to", "own.bin")
    assert (answer.code, "is there already" in answer.err) == (2, True)
