"""What a path is that is no dataset, and the command that makes a dataset of it."""

from itertools import islice
from pathlib import Path
from shlex import quote

from continual_mm.data.cards import FORM
from continual_mm.system.errors import Problem

CLOUD_ENDINGS = frozenset((".off", ".ply", ".xyz"))
"""Endings of point clouds by which files in a folder are known; a list may also name .npy, .npz."""

MEDIA_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("3g2", "3gp", "asf", "avi", "f4v", "flv", "gif", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm", "wmv", "aac"),
        *("ac3", "aif", "aifc", "aiff", "amr", "ape", "au", "caf", "flac", "m4a", "mka"),
        *("mp2", "mp3", "oga", "ogg", "opus", "spx", "tta", "wav", "wma", "wv"),
    )
)
"""Endings, in lower case, of the files that are looked for in a folder."""

_TABLES = frozenset({".parquet", ".arrow"})
_LISTS = frozenset({".csv", ".tsv", ".json", ".jsonl"})
_PICKLES = frozenset({".pkl", ".pickle", ".p", ".pt", ".pth"})
_FEATURES = ("_2d.npz", "_3d.npz", "_spec.npz")  # of a video of HowTo100M

_READERS = {
    "caption": "howto100m PATHS.csv --features FOLDER --captions {path}",
    "youcook": "youcook2 --{split} {path}",
    "msr": "msrvtt --{split} {path}",
    "jsfusion": "msrvtt --{split} {path}",
    "lsmdc": "lsmdc --{split} {path}",
    "ucf": "ucf101 {path}",
    "hmdb": "hmdb51 {path}",
}
"""What occurs in the names of published pickles -> how they are converted."""

_CONTENTS = {
    frozenset({"job.json", "clips.jsonl"}): (
        "holds features of single clips, as data extract wrote them",
        "make a pack of it: continual-mm data convert clips {path} --to {name}.npz",
    ),
    frozenset({"runs.csv", "definitions.json", "ranks.npz"}): (
        "holds exported runs",
        "look at them: continual-mm compare {path}",
    ),
}
"""Files that lie together in the folders of other commands -> problem and remedy."""

_CONVERT = "continual-mm data convert"
_MOST = 5000  # files of a folder that are looked at

Hint = tuple[str, str] | None  # problem and remedy; None if nothing is known


def recognised(path: Path) -> Problem | None:
    """What an existing file or folder is, by its name alone; None if it may be a dataset."""
    try:
        hint = _folder_hint(path) if path.is_dir() else _file_hint(path)
    except OSError as error:
        hint = f"cannot be read: {error.strerror or error}", ""
    return None if hint is None else Problem(str(path), *hint)


def _file_hint(path: Path) -> Hint:
    ending, given = path.suffix.lower(), quote(str(path))
    if path.name == FORM:
        return "is part of a store", f"name its folder: {path.parent}"
    if ending in MEDIA_ENDINGS:
        return "is a video or audio file", _extracting(path.parent)
    if ending in _TABLES:
        return "is a table", f"name the folder that it lies in: {path.resolve().parent}"
    if ending in _LISTS:
        howto = f"if HowTo100M's videos: {_CONVERT} howto100m {given} --help"
        return "is a list", f"if it lists clips, {_extracting(path)}; {howto}"
    if ending not in _PICKLES:
        return None
    name = path.name.lower()
    split = "train" if "train" in name else "test"
    for part, reader in _READERS.items():
        if part in name:
            command = f"{_CONVERT} {reader.format(path=given, split=split)} --vectors WORDS.bin"
            return "is a pickle", f"convert it: {command}"
    return "is a pickle", f"{_CONVERT} --help names the published files that can be converted"


def _folder_hint(path: Path) -> Hint:
    below = sorted(one for one in islice(path.rglob("*"), _MOST) if one.name[0] != ".")
    if not below:
        problem = "is an empty folder"
        return problem, "a dataset is an .npz file, a store, or a folder of Parquet files"
    names = {one.name for one in below if one.parent == path}
    for files, (problem, remedy) in _CONTENTS.items():
        if names >= files:
            return problem, remedy.format(path=quote(str(path)), name=path.resolve().name)
    if stores := [one.parent for one in below if one.name == FORM]:
        return "is no store, but there is one in it", f"name it: {stores[0]}"
    if any(one.name == "definition.json" for one in below):
        return "holds runs", f"look at them: continual-mm compare {quote(str(path))}"
    return _files_hint(path, [one for one in below if one.is_file()])


def _files_hint(path: Path, files: list[Path]) -> Hint:
    """Of a folder by the endings of the files below it."""
    endings = {one.suffix.lower() for one in files}
    if endings & _TABLES:
        return None
    if endings & MEDIA_ENDINGS:
        lists = (one for one in files if one.parent == path and one.suffix.lower() in _LISTS)
        return "holds video or audio files", _extracting(next(lists, path))
    if any(one.name.endswith(_FEATURES) for one in files):
        command = f"{_CONVERT} howto100m PATHS.csv --captions CAPTIONS.pickle"
        remedy = f"convert it: {command} --features {quote(str(path))} --vectors WORDS.bin"
        return "holds features of whole videos, as HowTo100M's", remedy
    single = [one for one in files if one.suffix.lower() in {".npz", *_PICKLES}]
    if not single or endings & _LISTS:
        return None
    return f"is no dataset, but holds {single[0].name}", f"name it: {single[0]}"


def _extracting(source: Path) -> str:
    return f"make features of it: continual-mm data extract {quote(str(source))} --to FEATURES"
