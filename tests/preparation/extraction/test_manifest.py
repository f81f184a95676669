"""Manifests: what they may say, and everything that may be wrong with them."""

import json
import os
from dataclasses import replace

import pytest

from continual_mm.preparation.extraction.manifest import (
    Clip,
    hashed_split,
    open_manifest,
    with_validation,
)
from continual_mm.system.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """A folder with six media files, whose contents are never read."""
    names = "a.mp4", "b.mkv", "deep/er/c.WAV", "deep/d.mp3", "notes.txt", "same.mp4", "same.wav"
    for name in names:
        path = tmp_path / "media" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "media"


def written(folder, contents, name="m.json"):
    """A file of bytes, of text or of JSON."""
    text = contents if isinstance(contents, str | bytes) else json.dumps(contents)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def refusals(path):
    with pytest.raises(InputError) as error:
        open_manifest(path)
    return [str(problem).removeprefix(str(path)) for problem in error.value.problems]


def test_a_table_may_give_every_column(folder):
    table = """id,path,start,end,text,split,group,label
one,a.mp4,0.5,2,"cut, then stir",train,video 1,3
two,deep/d.mp3,,,one\u2028two\x0bthree\x85four,test,,
"""
    assert open_manifest(written(folder, table, "m.csv")).clips == (
        Clip("one", "a.mp4", 0.5, 2.0, "cut, then stir", (), 0, "video 1", 3),
        # Characters that split lines elsewhere are kept.
        Clip("two", "deep/d.mp3", text="one\u2028two\x0bthree\x85four", split=2),
    )


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl"])
def test_every_kind_of_file_says_the_same(folder, ending):
    rows = [
        {"id": "ä", "path": "a.mp4", "end": 2.5, "text": "größer", "split": "val"},
        {"id": "2", "path": "b.mkv", "end": 3, "text": "x", "split": "2"},
    ]
    delimiter = {"csv": ",", "tsv": "\t"}.get(ending)
    if delimiter:
        lines = [delimiter.join(map(str, row)) for row in (rows[0], *(r.values() for r in rows))]
        text = "\ufeff" + "\r\n".join(lines)
    else:
        text = json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)) + "\n\n"
    manifest = open_manifest(written(folder, text, f"manifest.{ending}"))
    assert manifest.clips == (
        Clip("ä", "a.mp4", 0.0, 2.5, "größer", split=1),
        Clip("2", "b.mkv", 0.0, 3.0, "x", split=2),
    )


def test_a_folder_is_one_clip_per_media_file_sorted_but_for_hidden_ones(folder):
    (folder / "._a.mp4").write_bytes(b"x")
    (folder / ".Trash").mkdir()
    (folder / ".Trash" / "old.mp4").write_bytes(b"x")
    found = {clip.id: clip.path for clip in open_manifest(folder).clips}
    assert list(found) == ["a", "b", "deep/d", "deep/er/c", "same.mp4", "same.wav"]
    paths = ["a.mp4", "b.mkv", "deep/d.mp3", "deep/er/c.WAV", "same.mp4", "same.wav"]
    assert list(found.values()) == paths


def test_the_manifest_of_grid_is_read_as_it_is(test_data):
    manifest = open_manifest(test_data / "grid_raw60" / "manifest.json")
    assert len(manifest.clips) == 60
    assert [clip.split for clip in manifest.clips].count(2) == 30
    first = manifest.clips[0]
    assert (first.path, first.caption) == ("bbaf2n.mpg", "bin blue at f two now")
    # The words that are said in a part of it, without the silence.
    part = Clip("part", "bbaf2n.mpg", 1.2, 1.9, words=first.words)
    assert part.caption == "blue at f two"


def test_everything_is_refused_at_once_with_its_rows(folder):
    table = """id,path,start,end,split,label
one,a.mp4,2,1,train,1
one,gone.mp4,0,1,training,2
three,../secret.mp4,-1,1,test,x
four,/etc/passwd,nan,1,,1
"""
    path = written(folder, table, "m.csv")
    assert refusals(path) == [
        ", column 'end': is not after 'start' in row 2 ('1'); both are seconds of the file",
        ", column 'split': is no split in row 3 ('training'); "
        "the splits are train, validation, val, valid, validate, dev, test, 0, 1, 2",
        ", column 'start': is no time in rows 4 ('-1'), 5 ('nan'); "
        "give seconds from the file's beginning, such as 61.5 for 1:01.5",
        ", column 'label': is no whole number in row 4 ('x'); number the classes from 0",
        ", column 'path': leaves the manifest's folder in rows 4 ('../secret.mp4'), "
        "5 ('/etc/passwd'); give files in it, relative to it",
        ", column 'id': is that of an earlier row in row 3 ('one'); give unique ids, or none",
        ", column 'split': is missing in row 5; give a split for every clip or for none",
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"path": "a.mp4", "end": "0"}, "column 'end': is not after 'start' in row 1 ('0')"),
        ({"path": "a.mp4", "end": "inf"}, "column 'end': is no time in row 1 ('inf')"),
        ({"path": "a.mp4", "end": "0:01"}, "is no time in row 1 ('0:01'); give seconds"),
        ({"path": "a.mp4", "start": True}, "column 'start': is no time in row 1"),
        ({"path": "a.mp4", "label": "1e30"}, "column 'label': is no whole number in row 1"),
        ({"path": "a.mp4", "label": True}, "column 'label': is no whole number in row 1"),
        ({"path": "a.mp4", "words": [["a", 0]]}, "is no list of words in row 1"),
        ({"path": "a.mp4", "id": "a\ud83d"}, "column 'id': is no valid text in row 1"),
        ({"path": "a.mp4", "id": "a\0"}, "column 'id': is no valid text in row 1"),
        ({"path": ["a.mp4"]}, "column 'path': is no valid text in row 1"),
        ({"path": "deep/../a.mp4"}, "leaves the manifest's folder in row 1"),
        ({"label": 1}, "'path': is missing in row 1"),
        ({"id": "gone"}, "is the name of no media file beside it in row 1"),
        ({"id": "same"}, "is the name of several media files beside it in row 1"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(folder, row, problem):
    refusal, *columns = refusals(written(folder, [row]))
    assert problem in refusal
    assert not columns or "its columns are label;" in columns[0]


LEAVES = "leaves the manifest's folder through a link"


def test_links_that_leave_the_folder_are_clips_that_fail(folder):
    outside = folder.parent / "secret.mp4"
    outside.write_bytes(b"x")
    (folder / "link.mp4").symlink_to(outside)
    (folder / "dead.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "within.mp4").symlink_to(folder / "a.mp4")
    path = written(folder, [{"path": "link.mp4"}, {"path": "within.mp4"}])
    manifest = open_manifest(path)
    assert [clip.fault for clip in manifest.clips] == [LEAVES, ""]
    assert manifest.warnings == (f"{path}, column 'path': {LEAVES} in row 1 ('link.mp4')",)
    found = open_manifest(folder)
    faults = {clip.path: clip.fault for clip in found.clips if clip.fault}
    assert faults == {"link.mp4": LEAVES, "dead.mp4": "names no file"}
    assert len(found.warnings) == 3
    (message,) = refusals(written(folder, [{"path": "link.mp4"}]))
    assert message == f", column 'path': {LEAVES} in row 1 ('link.mp4')"


def test_links_to_folders_and_names_that_are_no_text_are_ignored_with_a_warning(folder):
    (folder.parent / "more").mkdir()
    (folder / "more").symlink_to(folder.parent / "more")
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    found = open_manifest(folder)
    assert len(found.clips) == 6
    unsound, link, others = found.warnings
    reason = "ignored, since the name is no UTF-8; rename it"
    assert unsound == f"{folder}: {reason}: {str(folder)!r}/caf\\udce9.mp4'".replace("'/c", "/c")
    reason = "not searched, since they are links to folders"
    assert link == f"{folder}: {reason}: {folder / 'more'}"
    assert others.endswith("a list of clips is read if it is named: notes.txt")


def test_files_that_are_missing_make_clips_that_fail_unless_all_are(folder):
    rows = [{"path": "a.mp4"}, {"path": "gone.mp4", "text": "x"}]
    manifest = open_manifest(written(folder, rows))
    assert manifest.clips[1] == replace(
        manifest.clips[1], id="gone", path="gone.mp4", text="x", fault="names no file"
    )
    assert "column 'path': names no file in row 2 ('gone.mp4')" in manifest.warnings[0]
    by_ids = [{"id": "a"}, {"id": "gone", "text": "x"}]
    manifest = open_manifest(written(folder, by_ids))
    assert manifest.clips[1].fault == "names no media file beside the manifest"
    (message,) = refusals(written(folder, [rows[1], {"text": "alone"}]))
    assert "names no file in row 1 ('gone.mp4')" in message


def test_text_alone_is_a_clip_without_a_file(folder):
    rows = [
        {"path": "a.mp4", "label": 0, "split": "test"},
        {"text": "apply eye makeup", "label": 0, "split": "test"},
        {"id": "task/1", "text": "cut the mango", "split": "test"},
    ]
    manifest = open_manifest(written(folder, rows))
    assert manifest.clips[1:] == (
        Clip("apply eye makeup", "", text="apply eye makeup", split=2, label=0),
        Clip("task/1", "", text="cut the mango", split=2),
    )
    (message,) = manifest.warnings
    assert message.endswith("2 rows are text alone, without video and audio")
    # What is said of a part of a file is not said of text alone.
    timed = [*rows, {"id": "gone", "text": "x", "split": "test", "end": 2}]
    manifest = open_manifest(written(folder, timed))
    assert manifest.clips[3].fault == "names no media file beside the manifest"


@pytest.mark.parametrize(
    ("name", "contents", "problem"),
    [
        ("m.csv", b"path,text\na.mp4,caf\xe9\n", "is not UTF-8: byte 0xe9 in line 2"),
        ("m.csv", b"path\na.mp4,b\n", "line 2 has more cells than the 1 columns"),
        ("m.csv", b"path,path\na.mp4,b\n", "its first line names 'path' more than once"),
        ("m.csv", b"path;start\na.mp4;0\n", "its cells are separated by ';', not by ','"),
        ("m.csv", b'path\n"a.mp4\n', "is no row of a table"),
        ("m.csv", b"path\n", "lists no clip"),
        ("m.csv", b"", "lists no clip"),
        ("m.json", b"{}", "holds no list"),
        ("m.json", b"[1]", "entry 1: is int, not an object"),
        ("m.json", b"[" * 100_000, "is no JSON"),
        ("m.jsonl", b'{"path": "a.mp4"}\n{', "line 2: is no JSON"),
        ("m.jsonl", b'{"label": ' + b"9" * 5000 + b"}", "line 1: is no JSON: Exceeds the limit"),
        ("m.txt", b"a.mp4", "line 1: is 'a.mp4'; a .txt is read as UCF101 has them"),
        ("m.xml", b"a.mp4", "is no manifest: it ends with '.xml'"),
    ],
)
def test_what_is_no_manifest_is_refused(folder, name, contents, problem):
    (refusal,) = refusals(written(folder, contents, name))
    assert problem in refusal


@pytest.mark.parametrize(
    ("name", "problem"), [("", "holds no media file"), ("gone.csv", "no such file")]
)
def test_a_folder_without_media_and_a_missing_file_are_refused(tmp_path, name, problem):
    assert problem in refusals(tmp_path / name)[0]


def test_unknown_columns_are_ignored_with_a_warning(folder):
    (warning,) = open_manifest(written(folder, [{"path": "a.mp4", "txt": "hello"}])).warnings
    assert "columns that are not used: txt (did you mean 'text'?); the columns of a" in warning


def test_clips_of_one_video_are_a_group_and_never_straddle_splits(folder):
    rows = [{"path": "a.mp4", "start": start, "end": start + 1} for start in range(50)]
    close = [{"path": "b.mkv", "start": start, "end": 12346} for start in (12345.61, 12345.62)]
    clips = open_manifest(written(folder, [*rows, *close, {"path": "deep/d.mp3", "end": 1}])).clips
    assert {clip.group for clip in clips[:50]} == {"a.mp4"}
    assert len({clip.split for clip in clips[:50]}) == 1
    # Clips that lie close together have names of their own; a file's only clip has its name.
    ids = ["a_49-50", "b_12345.61-12346", "b_12345.62-12346", "deep/d"]
    assert [clip.id for clip in clips[49:]] == ids
    assert clips[-1].group is None


def test_where_there_is_no_validation_some_training_clips_become_it(folder):
    rows = [
        {"id": n, "path": "a.mp4", "split": "test" if n % 2 else "train", "group": n // 4}
        for n in range(400)
    ]
    without = open_manifest(written(folder, rows))
    later = with_validation(without)
    changed = [(a, b) for a, b in zip(without.clips, later.clips, strict=True) if a != b]
    assert 8 <= len(changed) <= 40
    assert {(before.split, after.split) for before, after in changed} == {(0, 1)}
    assert all(
        len({clip.split for clip in later.clips if clip.group == group and clip.split < 2}) == 1
        for group in {clip.group for clip in later.clips}
    )
    assert with_validation(later) == later


def test_the_hash_puts_four_fifths_into_training_whatever_the_other_names():
    splits = [hashed_split(f"video {number}") for number in range(5000)]
    shares = [splits.count(split) / 5000 for split in range(3)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (".", "names no file in row 2"),
        ("./", "names no file in row 2"),
        ("/", "leaves the manifest's folder in row 2"),
        ("..", "leaves the manifest's folder in row 2"),
    ],
)
def test_a_path_without_a_name_is_refused_in_a_line(tmp_path, path, problem):
    (tmp_path / "m.csv").write_text(f"path,text\n{path},red\n")
    (line,) = refusals(tmp_path / "m.csv")
    assert problem in line
