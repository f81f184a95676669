"""The job from real clips to records: resumed, killed, refused, with faults in the midst of it."""

import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction import job
from continual_mm.preparation.extraction.clip_files import contents, records
from continual_mm.preparation.extraction.job import ExtractionReporter, Outcome
from continual_mm.preparation.extraction.manifest import Clip, open_manifest
from continual_mm.preparation.extraction.media import Notes, audio_wave
from continual_mm.preparation.extraction.spectrogram_tower import log_mel
from continual_mm.preparation.extraction.towers import Recipe
from continual_mm.preparation.extraction.word_towers import Vectors, file_vectors
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError

NETWORK = "frames:mobilenet_v3_small@random,side=64"
MOTION = "motion:mc3_18@random,side=32,rate=6"
AUDIO, TEXT = "audio=audio", "text=text"


class Reported(ExtractionReporter):
    """Stores what is reported, and does something whenever a clip is finished."""

    def __init__(self, at_clip=lambda clip: None):
        self.at_clip, self.left = at_clip, -1
        self.clips, self.problems = [], {}

    def begins(self, clips, left):
        self.left = left

    def finished(self, clip):
        self.at_clip(clip)
        self.clips.append(clip)

    def failed(self, clip, problem):
        self.problems[clip] = problem


def extract(manifest, out, *recipes, workers=0, at_clip=lambda clip: None, **options):
    """Extract audio, or what recipes say."""
    made = [Recipe.parse(recipe) for recipe in recipes or (AUDIO,)]
    reported = Reported(at_clip)
    outcome = job.extract(manifest, made, out, workers=workers, reporter=reported, **options)
    return outcome, reported


def same(first, second):
    """Whether two jobs gave the same, bit for bit and in the same order."""
    one, other = list(records(first)), list(records(second))
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def report(out):
    with (out / "report.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def with_texts(manifest, *texts):
    """The manifest's first clips with texts, for training."""
    pairs = zip(manifest.clips, texts, strict=False)
    return replace(manifest, clips=tuple(replace(clip, text=text, split=0) for clip, text in pairs))


@pytest.fixture
def tones(tmp_path, media_file):
    """Three clips of audio."""
    folder = tmp_path / "tones"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        noise = 0.1 * rng.standard_normal((1, 8000))
        media_file(folder / f"{name}.wav", audio=noise, sample_rate=16_000)
    return open_manifest(folder)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_real_clips_become_records_of_every_modality(test_data, out):
    whole = open_manifest(test_data / "grid_raw60" / "manifest.json")
    manifest = replace(whole, clips=whole.clips[:2])
    recipes = f"video={NETWORK},rate=2", f"pooled={NETWORK}+{MOTION}/max", TEXT, AUDIO
    assert extract(manifest, out, *recipes)[0] == Outcome(finished=2, failed=0)
    first, second = records(out)
    assert (first["ids"], first["split"]) == ("bbaf2n", 0)
    assert first["text_raw"] == "bin blue at f two now"
    assert (first["video"].shape, first["text"].shape) == ((6, 1024), (6, 64))
    # As published: the maximum of each half over time, each half of length 1.
    halves = first["pooled"][:1024], first["pooled"][1024:]
    assert [np.linalg.norm(half) for half in halves] == pytest.approx([1.0, 1.0])
    assert np.array_equal(first["text"][:2], second["text"][:2])  # both say "bin blue"
    wave = audio_wave(manifest.folder / "bbaf2n.mpg", 0.0, 3.0, Notes())
    assert np.array_equal(first["audio"], log_mel(wave))

    found = contents(out)
    assert {name: (each.kind, each.features) for name, each in found.items()} == {
        "video": (Kind.FRAMES, 1024),
        "pooled": (Kind.VECTOR, 1024 + 512),
        "text": (Kind.TOKENS, 64),
        "audio": (Kind.SPECTROGRAM, 40),
    }
    assert list(first)[-4:] == [*found]
    assert "random weights" in found["video"].description


@pytest.mark.parametrize("workers", [0, 2])
def test_captions_of_one_clip_share_its_features(tones, out, workers):
    a, b, _ = tones.clips
    captions = [replace(a, id=f"a#{n}", text=text) for n, text in ((1, "hi"), (2, "ho"), (3, "hi"))]
    manifest = replace(tones, clips=tuple(replace(one, split=0) for one in (*captions, b)))
    outcome, reported = extract(manifest, out, AUDIO, TEXT, workers=workers)
    assert outcome == Outcome(finished=4, failed=0)
    assert len(reported.clips) == 4
    assert len(list((out / "clips").glob("*.safetensors"))) == 2 + 4, "of two sounds and four texts"
    one, two, three, other = records(out)
    assert [each["text_raw"] for each in (one, two, three)] == ["hi", "ho", "hi"]
    assert np.array_equal(one["audio"], two["audio"])
    assert np.array_equal(one["text"], three["text"])
    assert not np.array_equal(one["audio"], other["audio"])
    assert extract(manifest, out, AUDIO, TEXT)[1].left == 0


def test_clips_that_were_added_or_changed_are_extracted_and_no_others(tones, out):
    a, b, c = tones.clips
    extract(replace(tones, clips=(a, b)), out)
    later = replace(tones, clips=(c, replace(b, end=0.25), replace(a, split=2, label=7)))
    assert extract(later, out)[1].clips == ["c", "b"]
    time = (tones.folder / "c.wav").stat().st_mtime_ns + 1_000_000_000
    os.utime(tones.folder / "c.wav", ns=(time, time))  # as if it was replaced by one of its size
    assert extract(later, out)[1].clips == ["c"]
    found = list(records(out))
    lengths = [(each["ids"], len(each["audio"])) for each in found]
    assert lengths == [("c", 51), ("b", 26), ("a", 51)]
    assert (found[2]["split"], found[2]["label"]) == (2, 7)


def test_another_job_in_the_same_folder_is_refused_with_what_differs(tones, out):
    extract(tones, out)
    with pytest.raises(InputError) as error:
        extract(tones, out, "audio=audio,mode=reference")
    (_, mode) = error.value.problems
    assert mode.place.endswith("job.json")
    assert mode.message == "modalities.audio.towers[1].mode was 'robust', is 'reference'"
    with pytest.raises(InputError, match=r"modalities\.sound was None, is \{'kind': "):
        extract(tones, out, AUDIO, "sound=audio")


def test_what_cannot_be_decoded_is_listed_and_tried_again_when_asked(tones, tmp_path, out):
    (tones.folder / "b.wav").rename(tmp_path / "kept.wav")
    (tones.folder / "b.wav").write_text("hello")
    late, long = Clip("late", "c.wav", 5.0, 6.0), Clip("long", "c.wav", 0.0, 1e300)
    manifest = replace(tones, clips=(*tones.clips, late, long))
    outcome, reported = extract(manifest, out)
    assert outcome == Outcome(3, 2)
    late = "c.wav ends at 0.50 s, before the clip begins at 5.00 s"
    assert reported.problems["late"] == f"{late}; if it was cut out already, give it no start"
    assert reported.problems["b"].startswith("b.wav cannot be opened: ")
    expected = [
        ["b", "b.wav", "failed", "decoding", reported.problems["b"]],
        ["late", "c.wav", "failed", "decoding", reported.problems["late"]],
        ["long", "c.wav", "noted", "decoding", "the file ends at 0.50 s, the clip at 1e+300 s"],
    ]
    assert report(out) == expected
    assert [each["ids"] for each in records(out)] == ["a", "c", "long"]

    outcome, reported = extract(manifest, out)
    assert (outcome, reported.left, report(out)) == (Outcome(3, 2), 0, expected)
    shutil.copy(tmp_path / "kept.wav", tones.folder / "b.wav")
    outcome, reported = extract(manifest, out, retry=True)
    assert (outcome, reported.left) == (Outcome(4, 1), 2)
    assert (reported.clips, [*reported.problems]) == (["b"], ["late"])
    assert [row[0] for row in report(out)] == ["late", "long"]


def test_a_corrected_caption_extracts_text_again_and_nothing_else(tones, tmp_path, out):
    def audio_files():
        files = (out / "clips").glob("*.safetensors")
        return {file.name: file.stat().st_mtime_ns for file in files if "-" not in file.name}

    extract(with_texts(tones, "bin blue", "bin red", "set red"), out, AUDIO, TEXT)
    before = audio_files()
    assert len(before) == 3
    later = with_texts(tones, "bin blue", "bin red now", "set red")
    assert extract(later, out, AUDIO, TEXT)[0] == Outcome(3, 0)
    assert audio_files() == before
    assert len(list((out / "clips").glob("*-*.safetensors"))) == 3  # those of before are gone
    extract(later, tmp_path / "anew", AUDIO, TEXT)
    assert same(out, tmp_path / "anew")


def test_text_alone_has_features_of_towers_that_read_and_of_no_others(tones, tmp_path, out):
    name = Clip("bin blue", "", text="bin blue", label=3)
    gone = Clip("gone", "gone.wav", text="set red", fault="names no file")
    texts = with_texts(tones, "bin", "set", "red")
    manifest = replace(texts, clips=(*texts.clips, name, gone))
    outcome, reported = extract(manifest, out, AUDIO, TEXT)
    assert outcome == Outcome(4, 1)
    assert reported.problems == {"gone": "gone.wav names no file"}
    found = {each["ids"]: each for each in records(out)}
    assert [*found["bin blue"]] == ["ids", "split", "label", "text_raw", "text"]
    _, reported = extract(manifest, tmp_path / "one")
    assert reported.problems["bin blue"] == "is text alone, of which no modality is made"


def test_unknown_words_are_named_and_tried_again_with_other_vectors(tones, tmp_path, out):
    a, b = with_texts(tones, "bin blue", "quite unheard").clips
    manifest = replace(tones, clips=(a, replace(b, split=2)))
    outcome, reported = extract(manifest, out, TEXT)
    unknown = "no word of 'quite unheard' has a vector"
    assert (outcome, reported.problems) == (Outcome(1, 1), {"b": unknown})
    extract(manifest, tmp_path / "both", TEXT, AUDIO)
    assert report(tmp_path / "both") == [["b", "b.wav", "noted", "text", unknown]]
    later = replace(tones, clips=(replace(a, text="bin unheard"), replace(b, split=2)))
    assert extract(later, out, TEXT)[0] == Outcome(2, 0)


def test_other_vectors_in_a_file_of_the_same_name_are_another_job(tones, tmp_path, out):
    path, manifest = tmp_path / "words.txt", with_texts(tones, "bin", "blue", "bin")
    path.write_text("bin 1 2\nblue 0 1\n")
    extract(manifest, out, TEXT, vectors=file_vectors(path))
    shutil.copytree(out, tmp_path / "before")
    path.write_text("bin 1 3\nblue 0 1\n")
    os.utime(path, ns=(1, 1))
    problem = r"vectors was 'words\.txt, 2 words, .*choose another --to"
    with pytest.raises(InputError, match=problem):
        extract(manifest, out, TEXT, vectors=file_vectors(path))
    assert same(out, tmp_path / "before")


FULL_DISK = """
import resource, sys
from pathlib import Path
from continual_mm.system.errors import InputError
from continual_mm.preparation.extraction.job import extract
from continual_mm.preparation.extraction.manifest import open_manifest
from continual_mm.preparation.extraction.towers import Recipe

source, out, workers = sys.argv[1:]
# Room for the settings and the list, and none for the features of a clip.
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    extract(open_manifest(Path(source)), [Recipe.parse("audio=audio")], Path(out),
            workers=int(workers))
except InputError as error:
    print(error)
"""


def test_a_full_disk_stops_the_job_in_one_line_and_fails_no_clip(tones, out):
    given = sys.executable, "-c", FULL_DISK, tones.folder, out, "1"
    ended = subprocess.run(given, capture_output=True, text=True, check=True)
    assert ended.stdout == (
        f"{out}: cannot be written: File too large; "
        "correct that and extract again: what is finished is kept\n"
    )
    assert ended.stderr == ""
    assert report(out) == list((out / "clips").iterdir()) == []
    assert extract(tones, out)[0] == Outcome(3, 0)


def test_a_clip_may_lack_a_modality_but_not_all(tmp_path, media_file, tones, out):
    media_file(tones.folder / "d.mkv", np.full((25, 64, 64, 3), 100, dtype=np.uint8))
    manifest = open_manifest(tones.folder)
    extract(manifest, out, AUDIO, f"video={NETWORK}", f"two={NETWORK}+audio/mean")
    found = {each["ids"]: each for each in records(out)}
    assert "video" not in found["a"] and "audio" not in found["d"]
    assert "two" not in found["a"] and "two" not in found["d"]
    assert found["d"]["video"].shape == (1, 1024)
    _, reported = extract(manifest, tmp_path / "one")
    assert reported.problems == {"d": "d.mkv has none of the modalities"}


def test_features_that_are_not_finite_are_no_features(tones, out):
    values = np.array([[1.0, 2.0], [1.0, np.nan]], dtype=np.float32)
    broken = Vectors("broken", WordVectors({"a": 0, "word": 1}, values, "0"))
    _, reported = extract(with_texts(tones, "a word"), out, TEXT, vectors=broken)
    assert reported.problems == {"a": "text would hold NaN or infinity"}


def killed_at_file_event(number, folder, work):
    """Whether a copy of this process was killed, when it changed a folder for the n-th time."""
    left = [number]

    def hook(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            left[0] -= str(arguments[0]).startswith(str(folder))
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        code = 1
        try:
            sys.addaudithook(hook)
            work()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_job_that_is_killed_at_any_moment_resumes_to_the_same(tones, tmp_path, out):
    a, _, c = tones.clips
    # One clip with a note, and one that fails.
    manifest = replace(tones, clips=(a, replace(c, end=6.0), Clip("late", "c.wav", 5.0, 6.0)))
    whole, kills = tmp_path / "whole", 0
    extract(manifest, whole)
    assert [row[2] for row in report(whole)] == ["noted", "failed"]

    for number in range(1, 100, 3):
        shutil.rmtree(out, ignore_errors=True)
        was_killed = killed_at_file_event(number, out, lambda: extract(manifest, out))
        assert extract(manifest, out)[0] == Outcome(2, 1)
        assert same(out, whole)
        assert report(out) == report(whole)
        assert len(list((out / "clips").iterdir())) == 4
        if not was_killed:
            break
        kills += 1
    assert kills > 10


def kill_processes_at(*deadly):
    """Kills all processes when one of some clips is finished."""

    def kill(clip):
        for process in multiprocessing.active_children() if clip in deadly else ():
            process.kill()
            process.join()

    return kill


def test_processes_give_the_same_bits_and_a_clip_that_ends_two_of_them_fails_alone(
    tones, tmp_path, out
):
    more = replace(tones, clips=(*tones.clips, Clip("d", "c.wav", 0.1, 0.3)))
    recipes = AUDIO, f"video={NETWORK}"
    outcome, twice = extract(more, out, *recipes, workers=1, at_clip=kill_processes_at("a", "d"))
    assert (outcome, twice.clips) == (Outcome(3, 1), ["a", "c", "d"])
    assert twice.problems == {"b": "its process was killed by SIGKILL, perhaps for lack of memory"}
    assert report(out)[0][2:4] == ["failed", "process"]
    again = tmp_path / "again"
    outcome, once = extract(more, again, *recipes, workers=1, at_clip=kill_processes_at("a"))
    assert (outcome, once.clips, once.problems) == (Outcome(4, 0), ["a", "c", "d", "b"], {})
    assert multiprocessing.active_children() == []
    assert extract(more, out, *recipes, retry=True)[0] == Outcome(4, 0)
    extract(more, tmp_path / "here", *recipes)
    assert same(out, tmp_path / "here") and same(again, out)


def test_a_folder_without_a_job_or_with_a_damaged_file_has_no_records(tones, out):
    with pytest.raises(InputError, match="is no folder that an extraction wrote"):
        next(records(out))
    extract(tones, out)
    broken = next((out / "clips").iterdir())
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(InputError, match=r"cannot be read: .*; remove the file and extract again"):
        list(records(out))


def test_a_job_imports_neither_av_nor_torch_before_it_has_work():
    code = (
        "import sys, continual_mm.preparation.extraction.job\n"
        "sys.exit(', '.join({'av', 'torch'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
