"""The job from real clips to records: resumed, killed, refused, with faults in the midst of it."""

import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.job import Outcome, extract
from continual_mm.preparation.extraction.listener import ExtractionListener
from continual_mm.preparation.extraction.manifest import Clip, Manifest, open_manifest
from continual_mm.preparation.extraction.media import Notes, sound
from continual_mm.preparation.extraction.records import contents, records
from continual_mm.preparation.extraction.spectrogram_tower import log_mel
from continual_mm.preparation.extraction.towers import Recipe
from continual_mm.preparation.extraction.word_towers import file_vectors
from continual_mm.system.errors import InputError

NETWORK = "frames:mobilenet_v3_small@random,side=64"
MOTION = "motion:mc3_18@random,side=32,rate=6"
SOUND = [Recipe.parse("audio=audio")]

Records = list[dict[str, Any]]


class Heard(ExtractionListener):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.left = -1
        self.clips: list[str] = []
        self.problems: dict[str, str] = {}

    def begins(self, clips: int, left: int) -> None:
        self.left = left

    def finished(self, clip: str) -> None:
        self.clips.append(clip)

    def failed(self, clip: str, problem: str) -> None:
        self.problems[clip] = problem


def same(first: Records, second: Records) -> bool:
    """Whether two jobs gave the same, bit for bit and in the same order."""
    return len(first) == len(second) and all(
        one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
        for one, other in zip(first, second, strict=True)
    )


def report(out: Path) -> list[list[str]]:
    with (out / "report.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


@pytest.fixture
def tones(tmp_path: Path, media_file: Callable[..., Path]) -> Manifest:
    """Three clips of sound."""
    folder = tmp_path / "tones"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        noise = 0.1 * rng.standard_normal((1, 8000))
        media_file(folder / f"{name}.wav", sound=noise, sample_rate=16_000)
    return open_manifest(folder)


def test_real_clips_become_records_of_every_modality(test_data: Path, tmp_path: Path):
    whole = open_manifest(test_data / "grid_raw60" / "manifest.json")
    manifest = replace(whole, clips=whole.clips[:2])
    recipes = [
        Recipe.parse(text)
        for text in (f"video={NETWORK},rate=2", f"pooled={NETWORK}+{MOTION}/max", "text=text")
    ]
    outcome = extract(manifest, [*recipes, *SOUND], tmp_path / "out", workers=0)
    assert outcome == Outcome(finished=2, failed=0)
    first, second = records(tmp_path / "out")
    assert (first["ids"], first["split"], first["text_raw"]) == (
        "bbaf2n",
        0,
        "bin blue at f two now",
    )
    assert list(first)[-4:] == ["video", "pooled", "text", "audio"]
    assert first["video"].shape == (6, 1024)
    # As published: the maximum of each half over time, each half of length 1.
    halves = first["pooled"][:1024], first["pooled"][1024:]
    assert [np.linalg.norm(half) for half in halves] == pytest.approx([1.0, 1.0])
    assert first["text"].shape == (6, 64)
    assert np.array_equal(first["text"][:2], second["text"][:2])  # both say "bin blue"
    wave = sound(manifest.folder / "bbaf2n.mpg", 0.0, 3.0, Notes())
    assert np.array_equal(first["audio"], log_mel(wave))

    found = contents(tmp_path / "out")
    assert {name: each.kind for name, each in found.items()} == {
        "video": Kind.FRAMES,
        "pooled": Kind.VECTOR,
        "text": Kind.TOKENS,
        "audio": Kind.SPECTROGRAM,
    }
    assert found["pooled"].features == 1024 + 512
    assert "random weights" in found["video"].told
    dataset = Dataset.from_arrays(
        {name: np.stack([first[name], second[name], second[name]]) for name in found},
        kinds={name: each.kind for name, each in found.items()},
        split=[0, 1, 2],
        standardise=False,
    )
    assert dataset.card["audio"].features == 40


def test_a_finished_job_has_nothing_left_to_do(tones: Manifest, tmp_path: Path):
    extract(tones, SOUND, tmp_path / "out", workers=0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "clips").iterdir()}
    heard = Heard()
    assert extract(tones, SOUND, tmp_path / "out", workers=0, listener=heard) == Outcome(3, 0)
    assert (heard.left, heard.clips) == (0, [])
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "clips").iterdir()
    }


def test_clips_that_were_added_or_changed_are_extracted_and_no_others(
    tones: Manifest, tmp_path: Path
):
    a, b, c = tones.clips
    extract(replace(tones, clips=(a, b)), SOUND, tmp_path / "out", workers=0)
    later = replace(tones, clips=(c, replace(b, end=0.25), replace(a, split=2, label=7)))
    heard = Heard()
    extract(later, SOUND, tmp_path / "out", workers=0, listener=heard)
    assert heard.clips == ["c", "b"]
    time = (tones.folder / "c.wav").stat().st_mtime_ns + 1_000_000_000
    os.utime(tones.folder / "c.wav", ns=(time, time))  # as if it was replaced by one of its size
    heard = Heard()
    extract(later, SOUND, tmp_path / "out", workers=0, listener=heard)
    assert heard.clips == ["c"]
    found = list(records(tmp_path / "out"))
    assert [(each["ids"], len(each["audio"])) for each in found] == [
        ("c", 51),
        ("b", 26),
        ("a", 51),
    ]
    assert (found[2]["split"], found[2]["label"]) == (2, 7)


def test_another_job_in_the_same_folder_is_refused_with_what_differs(
    tones: Manifest, tmp_path: Path
):
    extract(tones, SOUND, tmp_path / "out", workers=0)
    other = [Recipe.parse("audio=audio,mode=reference")]
    with pytest.raises(InputError) as error:
        extract(tones, other, tmp_path / "out", workers=0)
    (_, mode) = error.value.problems
    assert mode.place.endswith("job.json")
    assert mode.message == "modalities.audio.towers[1].mode was 'robust', is 'reference'"
    with pytest.raises(InputError, match=r"modalities\.sound was None, is \{'kind': "):
        extract(tones, [*SOUND, Recipe.parse("sound=audio")], tmp_path / "out", workers=0)


def test_what_cannot_be_decoded_is_listed_and_tried_again_when_asked(
    tones: Manifest, tmp_path: Path
):
    out = tmp_path / "out"
    (tones.folder / "b.wav").rename(tmp_path / "kept.wav")
    (tones.folder / "b.wav").write_text("hello")
    late = Clip("late", "c.wav", 5.0, 6.0)
    long = Clip("long", "c.wav", 0.0, 1e300)
    manifest = replace(tones, clips=(*tones.clips, late, long))
    heard = Heard()
    assert extract(manifest, SOUND, out, workers=0, listener=heard) == Outcome(3, 2)
    assert heard.problems["late"] == "c.wav ends at 0.50 s, before the clip begins at 5.00 s"
    assert heard.problems["b"].startswith("b.wav cannot be opened: ")
    expected = [
        ["b", "b.wav", "failed", "decoding", heard.problems["b"]],
        ["late", "c.wav", "failed", "decoding", heard.problems["late"]],
        ["long", "c.wav", "noted", "decoding", "the file ends at 0.50 s, the clip at 1e+300 s"],
    ]
    assert report(out) == expected
    assert [each["ids"] for each in records(out)] == ["a", "c", "long"]

    heard = Heard()
    assert extract(manifest, SOUND, out, workers=0, listener=heard) == Outcome(3, 2)
    assert (heard.left, report(out)) == (0, expected)
    shutil.copy(tmp_path / "kept.wav", tones.folder / "b.wav")
    heard = Heard()
    assert extract(manifest, SOUND, out, workers=0, retry=True, listener=heard) == Outcome(4, 1)
    assert (heard.left, heard.clips, [*heard.problems]) == (2, ["b"], ["late"])
    assert [row[0] for row in report(out)] == ["late", "long"]


def texts(manifest: Manifest, *said: str) -> Manifest:
    pairs = zip(manifest.clips, said, strict=True)
    return replace(manifest, clips=tuple(replace(clip, text=text, split=0) for clip, text in pairs))


def test_a_corrected_caption_makes_text_anew_and_leaves_film_and_sound_alone(
    tones: Manifest, tmp_path: Path
):
    recipes, out = [*SOUND, Recipe.parse("text=text")], tmp_path / "out"
    extract(texts(tones, "bin blue", "bin red", "set red"), recipes, out, workers=0)

    def sounds() -> dict[str, int]:
        files = (out / "clips").glob("*.safetensors")
        return {file.name: file.stat().st_mtime_ns for file in files if "-" not in file.name}

    before = sounds()
    assert len(before) == 3
    later = texts(tones, "bin blue", "bin red now", "set red")
    assert extract(later, recipes, out, workers=0) == Outcome(3, 0)
    assert sounds() == before
    assert len(list((out / "clips").glob("*-*.safetensors"))) == 3  # those of before are gone
    extract(later, recipes, tmp_path / "anew", workers=0)
    assert same(list(records(out)), list(records(tmp_path / "anew")))


def test_text_alone_is_seen_by_towers_that_read_and_by_no_others(tones: Manifest, tmp_path: Path):
    name = Clip("bin blue", "", text="bin blue", label=3)
    gone = Clip("gone", "gone.wav", text="set red", fault="names no file")
    manifest = replace(texts(tones, "bin", "set", "red"), clips=(*tones.clips, name, gone))
    both = [*SOUND, Recipe.parse("text=text")]
    heard = Heard()
    assert extract(manifest, both, tmp_path / "both", listener=heard) == Outcome(4, 1)
    assert heard.problems == {"gone": "gone.wav names no file"}
    found = {each["ids"]: each for each in records(tmp_path / "both")}
    assert [*found["bin blue"]] == ["ids", "split", "label", "text_raw", "text"]
    heard = Heard()
    extract(manifest, SOUND, tmp_path / "one", workers=0, listener=heard)
    assert heard.problems["bin blue"] == "is text alone, of which no modality is made"


def test_unknown_words_are_named_and_tried_again_with_other_vectors(
    tones: Manifest, tmp_path: Path
):
    recipes, out = [Recipe.parse("text=text")], tmp_path / "out"
    a, b, _ = tones.clips
    first = replace(a, text="bin blue", split=0), replace(b, text="quite unheard", split=2)
    heard, manifest = Heard(), replace(tones, clips=first)
    assert extract(manifest, recipes, out, workers=0, listener=heard) == Outcome(1, 1)
    assert heard.problems == {"b": "no word of 'quite unheard' has a vector"}
    extract(manifest, [*recipes, *SOUND], tmp_path / "both", workers=0)
    assert report(tmp_path / "both") == [
        ["b", "b.wav", "noted", "text", "no word of 'quite unheard' has a vector"]
    ]
    later = replace(first[0], text="bin unheard"), first[1]
    assert extract(replace(tones, clips=later), recipes, out, workers=0) == Outcome(2, 0)


def test_other_vectors_in_a_file_of_the_same_name_are_another_job(tones: Manifest, tmp_path: Path):
    recipes, out, path = [Recipe.parse("text=text")], tmp_path / "out", tmp_path / "words.txt"
    manifest = texts(tones, "bin", "blue", "bin")
    path.write_text("bin 1 2\nblue 0 1\n")
    extract(manifest, recipes, out, vectors=file_vectors(path), workers=0)
    kept = list(records(out))
    path.write_text("bin 1 3\nblue 0 1\n")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError) as error:
        extract(manifest, recipes, out, vectors=file_vectors(path), workers=0)
    assert "vectors was 'words.txt, 2 words, " in str(error.value)
    assert "choose another --to" in str(error.value)
    assert same(list(records(out)), kept)


FULL = """
import resource, sys
from pathlib import Path
from continual_mm.system.errors import InputError
from continual_mm.preparation.extraction.job import extract
from continual_mm.preparation.extraction.manifest import open_manifest
from continual_mm.preparation.extraction.towers import Recipe

# Room for the settings and the list, and none for the features of a clip.
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
source, out, workers = sys.argv[1:]
try:
    extract(open_manifest(Path(source)), [Recipe.parse("audio=audio")], Path(out),
            workers=int(workers))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_full_disk_stops_the_job_in_one_line_and_fails_no_clip(
    tones: Manifest, tmp_path: Path, workers: str
):
    out = tmp_path / "out"
    given = sys.executable, "-c", FULL, tones.folder, out, workers
    ended = subprocess.run(given, capture_output=True, text=True, check=True)
    assert ended.stdout == (
        f"{out}: cannot be written: File too large; "
        "mend that and extract again: what is finished is kept\n"
    )
    assert ended.stderr == ""
    assert report(out) == []
    assert list((out / "clips").iterdir()) == []
    assert extract(tones, SOUND, out, workers=0) == Outcome(3, 0)


def test_a_clip_may_lack_a_modality_but_not_all(
    tmp_path: Path, media_file: Callable[..., Path], tones: Manifest
):
    film = np.full((25, 64, 64, 3), 100, dtype=np.uint8)
    media_file(tones.folder / "d.mkv", film)
    manifest = open_manifest(tones.folder)
    both = [*SOUND, Recipe.parse(f"video={NETWORK}"), Recipe.parse(f"two={NETWORK}+audio/mean")]
    extract(manifest, both, tmp_path / "both", workers=0)
    found = {each["ids"]: each for each in records(tmp_path / "both")}
    assert "video" not in found["a"] and "audio" not in found["d"]
    assert "two" not in found["a"] and "two" not in found["d"]
    assert found["d"]["video"].shape == (1, 1024)
    heard = Heard()
    extract(manifest, SOUND, tmp_path / "one", workers=0, listener=heard)
    assert heard.problems == {"d": "d.mkv has none of the modalities"}


def test_features_that_are_not_finite_are_no_features(tones: Manifest, tmp_path: Path):
    class Broken:
        name, features, fingerprint = "broken", 2, "0"

        def __contains__(self, word: object) -> bool:
            return True

        def vector(self, word: str) -> np.ndarray:
            return np.array([1.0, np.nan])

    clips = tuple(replace(clip, text="a word") for clip in tones.clips[:1])
    heard = Heard()
    manifest = replace(tones, clips=clips)
    recipes = [Recipe.parse("text=text")]
    extract(manifest, recipes, tmp_path / "out", vectors=Broken(), workers=0, listener=heard)
    assert heard.problems == {"a": "text would hold NaN or infinity"}


def in_a_fork(work: Callable[[], object]) -> int:
    """The signal, or else the exit code, that a copy of this process ends with after some work."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_file_event(number: int, folder: Path) -> None:
    """Die when the folder is about to be changed for the n-th time."""
    left = [number]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
            return
        if str(arguments[0]).startswith(str(folder)):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_a_job_that_is_killed_at_any_moment_goes_on_to_the_same(tones: Manifest, tmp_path: Path):
    a, _, c = tones.clips
    # One clip that there is something to say about, and one that fails.
    told = replace(tones, clips=(a, replace(c, end=6.0), Clip("late", "c.wav", 5.0, 6.0)))
    extract(told, SOUND, tmp_path / "whole", workers=0)
    whole, problems = list(records(tmp_path / "whole")), report(tmp_path / "whole")
    assert [row[2] for row in problems] == ["noted", "failed"]
    out, kills = tmp_path / "out", 0

    def work(number: int) -> None:
        die_at_file_event(number, out)
        extract(told, SOUND, out, workers=0)

    for number in range(1, 100, 3):
        shutil.rmtree(out, ignore_errors=True)
        code = in_a_fork(lambda: work(number))  # noqa: B023 - it is called at once
        heard = Heard()
        assert extract(told, SOUND, out, workers=0, listener=heard) == Outcome(2, 1)
        assert same(list(records(out)), whole)
        assert report(out) == problems
        assert len(list((out / "clips").iterdir())) == 4
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 10


SUICIDE = """
import multiprocessing, os, signal, sys
from multiprocessing import forkserver
from pathlib import Path
from continual_mm.preparation.extraction.job import ExtractionListener, extract
from continual_mm.preparation.extraction.manifest import open_manifest
from continual_mm.preparation.extraction.towers import Recipe

class Suicidal(ExtractionListener):
    def finished(self, clip):
        children = [child.pid for child in multiprocessing.active_children()]
        print(*children, forkserver._forkserver._forkserver_pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

source, out = map(Path, sys.argv[1:])
extract(open_manifest(source), [Recipe.parse("audio=audio")], out, listener=Suicidal())
"""


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_when_who_started_processes_is_killed_they_end_and_nothing_is_lost(
    tones: Manifest, tmp_path: Path
):
    out = tmp_path / "out"
    given = sys.executable, "-c", SUICIDE, tones.folder, out
    ended = subprocess.run(given, stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    left = [int(number) for number in ended.stdout.split()]
    assert len(left) == 2
    end = time.monotonic() + 60
    while any(map(is_there, left)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_there, left))
    heard = Heard()
    assert extract(tones, SOUND, out, workers=0, listener=heard) == Outcome(3, 0)
    assert 1 <= heard.left < 3  # the process may have had time for its second clip
    extract(tones, SOUND, tmp_path / "whole", workers=0)
    assert same(list(records(out)), list(records(tmp_path / "whole")))


def test_processes_give_the_same_bits_and_a_clip_that_ends_two_of_them_fails_alone(
    tones: Manifest, tmp_path: Path
):
    out = tmp_path / "out"

    class Murderer(Heard):
        def finished(self, clip: str) -> None:
            if clip in deadly:
                for process in multiprocessing.active_children():
                    process.kill()
                    process.join()
            super().finished(clip)

    heard, deadly = Murderer(), {"a", "d"}
    more = replace(tones, clips=(*tones.clips, Clip("d", "c.wav", 0.1, 0.3)))
    recipes = [*SOUND, Recipe.parse(f"video={NETWORK}")]
    assert extract(more, recipes, out, workers=1, listener=heard) == Outcome(3, 1)
    assert heard.clips == ["a", "c", "d"]
    assert heard.problems == {"b": "its process was killed by SIGKILL, perhaps for lack of memory"}
    assert report(out)[0][2:4] == ["failed", "process"]
    deadly, again = {"a"}, Murderer()
    assert extract(more, recipes, tmp_path / "again", listener=again) == Outcome(4, 0)
    assert (again.clips, again.problems) == (["a", "c", "d", "b"], {})
    assert multiprocessing.active_children() == []
    assert extract(more, recipes, out, workers=0, retry=True) == Outcome(4, 0)
    extract(more, recipes, tmp_path / "here", workers=0)
    assert same(list(records(out)), list(records(tmp_path / "here")))


def test_ctrl_c_ends_the_job_with_a_report_and_what_is_finished(tones: Manifest, tmp_path: Path):
    class Impatient(Heard):
        def finished(self, clip: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tones, SOUND, tmp_path / "out", workers=0, listener=Impatient())
    assert report(tmp_path / "out") == []
    assert [each["ids"] for each in records(tmp_path / "out")] == ["a"]
    assert extract(tones, SOUND, tmp_path / "out", workers=0) == Outcome(3, 0)


def test_a_folder_of_something_else_has_no_records(tmp_path: Path, tones: Manifest):
    with pytest.raises(InputError, match="is no folder that an extraction wrote"):
        next(records(tmp_path))
    extract(tones, SOUND, tmp_path / "out", workers=0)
    broken = next((tmp_path / "out" / "clips").iterdir())
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(InputError, match=r"cannot be read: .*; remove the file and extract again"):
        list(records(tmp_path / "out"))
