"""What a single file is that is no dataset: a film, a manifest, a published file."""

import csv
import json
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from continual_mm.data.cards import FORM
from continual_mm.system.errors import Problem

MEDIA_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts"),
        *("mxf", "ogv", "ts", "vob", "webm", "wmv"),
        *("aac", "aif", "aiff", "flac", "m4a", "mka", "mp2", "mp3", "oga", "ogg", "opus", "wav"),
    )
)
"""Endings, in lower case, of the files that are looked for in a folder."""

TABLES = frozenset({".parquet", ".arrow"})
MANIFESTS = frozenset({".csv", ".tsv", ".json", ".jsonl"})
PICKLES = frozenset({".pkl", ".pickle", ".p", ".pt", ".pth"})
VIDEO_FEATURES = ("_2d.npz", "_3d.npz", "_spec.npz")
"""How the names of HowTo100M's files of features end."""

_BY_NAME: Mapping[str, str] = MappingProxyType(
    {
        "youcook": "youcook2",
        "msrvtt": "msrvtt",
        "msr-vtt": "msrvtt",
        "msr_vtt": "msrvtt",
        "jsfusion": "msrvtt",
        "lsmdc": "lsmdc",
        "ucf": "ucf101",
        "hmdb": "hmdb51",
    }
)
"""What occurs in the names of published pickles -> what converts them."""

_BY_KEY: Mapping[bytes, str] = MappingProxyType(
    {b"eval_caption": "msrvtt", b"2d_pooled": "msrvtt", b"2d_full": "youcook2"}
)
"""What occurs in such pickles -> what converts them, where their names say nothing."""

_CLASSIFIED = ("ucf101", "hmdb51")
_CONVERT = "continual-mm data convert"
_VECTORS = "--vectors WORDS.bin"
_KEY = re.compile(r'"([^"\\]+)"\s*:')
_BEGINNING = 1 << 14  # characters of a JSON text that is cut
_LOOKED_AT = 1 << 20  # bytes


def file_is(path: Path) -> tuple[str, str] | None:
    """Problem and remedy of a file that is known and no dataset; None if it may be one.

    Raises:
        OSError: If it cannot be read.
    """
    ending = path.suffix.lower()
    if not path.stat().st_size:
        return "is empty", "copy or write it again"
    if path.name == FORM:
        return "is part of a store", f"name its folder: {path.parent}"
    if path.name.endswith(VIDEO_FEATURES) and not _has_ids(path):
        return "holds features of one video, as HowTo100M's", reading_howto100m()
    if ending in MEDIA_ENDINGS:
        return "is a film or a sound", extracting(path.parent)
    if ending in TABLES:
        return "is a table", f"name the folder that it lies in: {path.resolve().parent}"
    if ending in MANIFESTS:
        return _manifest_is(path)
    return _pickle_is(path) if ending in PICKLES or _begins_like_a_pickle(path) else None


def columns_of(path: Path) -> set[str]:
    """Names of the columns, or keys, that a table begins with; none if it is no table.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        text = stream.read(_LOOKED_AT).decode("utf-8-sig", "replace")
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        first = text.splitlines()[:1]
        cells = next(csv.reader(first, delimiter="," if ending == ".csv" else "\t"), [])
        return {name.strip() for name in cells}
    return set(_keys(text if ending == ".json" else text.partition("\n")[0]))


def extracting(source: Path) -> str:
    """The remedy that makes features of clips."""
    return f"make features of it: continual-mm data extract {quoted(source)} --to FEATURES"


def reading_howto100m(
    *, paths: Path | None = None, captions: Path | None = None, features: Path | None = None
) -> str:
    """The remedy that converts HowTo100M, with what is known of its files."""
    listed = quoted(paths) if paths else "PATHS.csv"
    said = quoted(captions) if captions else "CAPTIONS.pickle"
    folder = quoted(features) if features else "FOLDER"
    command = f"{_CONVERT} howto100m {listed} --captions {said} --features {folder} {_VECTORS}"
    return f"convert it: {command}"


def quoted(path: Path) -> str:
    """As a shell takes it."""
    return shlex.quote(str(path))


def _pickle_is(path: Path) -> tuple[str, str]:
    name = path.name.lower()
    if "caption" in name:
        return "holds captions of long videos", reading_howto100m(captions=path)
    with path.open("rb") as stream:
        start = stream.read(_LOOKED_AT)
    known = (
        *(command for part, command in _BY_NAME.items() if part in name),
        *(command for key, command in _BY_KEY.items() if key in start),
    )
    problem = "is a pickle, which is no dataset yet"
    if not known:
        return problem, f"{_CONVERT} --help names the published files that can be converted"
    which = "" if known[0] in _CLASSIFIED else "--train " if "train" in name else "--test "
    command = f"{_CONVERT} {known[0]} {which}{quoted(path)} {_VECTORS} --to {path.stem}.npz"
    return problem, f"convert it: {command}"


def _manifest_is(path: Path) -> tuple[str, str]:
    columns = columns_of(path)
    if columns & {"path", "id"} and columns & {"id", "text", "split", "start"}:
        return "is a list of clips", extracting(path)
    if {"start", "end", "text"} <= columns:
        return "holds captions of long videos", reading_howto100m(captions=path)
    if "video_id" in columns:
        return "is a list of videos, as HowTo100M's", reading_howto100m(paths=path)
    if "path" in columns:
        problem = "is a list of files"
        return problem, f"{extracting(path)}; or, of HowTo100M, {reading_howto100m(paths=path)}"
    remedy = "a list of clips has the columns path or id: continual-mm data extract --help"
    return "is a table without features", remedy


def _keys(text: str) -> Iterator[str]:
    """Keys of the first object in a JSON text, which may be cut, and of the first one in that."""
    place = text.find("{")
    try:
        first, _ = json.JSONDecoder().raw_decode(text, place) if place >= 0 else ({}, 0)
    except (ValueError, RecursionError):
        yield from _KEY.findall(text[:_BEGINNING])
        return
    yield from first
    inner = next(iter(first.values()), None)
    yield from inner if isinstance(inner, dict) else ()


def _has_ids(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "ids.npy" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _begins_like_a_pickle(path: Path) -> bool:
    """Whether it begins as pickles do; what torch saved is a zip file and known by its ending."""
    with path.open("rb") as stream:
        start = stream.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


EXTRACTED = ("job.json", "clips.jsonl")
"""What lies in a folder that ``data extract`` wrote."""

EXPORTED = ("runs.csv", "definitions.json", "ranks.npz")
"""What lies in a folder that ``export`` wrote."""

RUN = "definition.json"
"""What lies in the folder of a run, which is three below the one that runs go into."""

_MOST = 5000  # files of a folder

Said = tuple[str, str] | None
"""Problem and remedy; None if nothing is known."""


def recognised(path: Path) -> Problem | None:
    """What a file or folder is, if it is known and no dataset; None if it may be one.

    Args:
        path: It is there.
    """
    try:
        said: Said = _folder_is(path) if path.is_dir() else file_is(path)
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}", ""
    return None if said is None else Problem(str(path), *said)


def _folder_is(path: Path) -> Said:
    below = [one for one in islice(path.rglob("*"), _MOST) if one.name[0] != "."]
    answers: tuple[Callable[[Path, list[Path]], Said], ...] = (_our_own, _runs, _features)
    return next((said for answer in answers if (said := answer(path, below))), None)


def _our_own(path: Path, below: list[Path]) -> Said:
    names = {one.name for one in below if one.parent == path}
    if not names:
        problem = "is an empty folder"
        return problem, "a dataset is an .npz file, a store, or a folder of Parquet files"
    if names.issuperset(EXTRACTED):
        command = f"continual-mm data convert clips {quoted(path)} --to {path.resolve().name}.npz"
        problem = "holds features of single clips, as data extract wrote them"
        return problem, f"make a pack of it: {command}"
    if stores := sorted(
        one.parent for one in below if one.parent.parent == path if one.name == FORM
    ):
        return "is no store, but there is one in it", f"name it: {stores[0]}"
    return None


def _runs(path: Path, below: list[Path]) -> Said:
    remedy = f"look at them: continual-mm compare {quoted(path)}"
    if {one.name for one in below if one.parent == path}.issuperset(EXPORTED):
        return "holds exported runs", remedy
    if any(one.name == RUN and len(one.relative_to(path).parts) <= 4 for one in below):
        return "holds runs", remedy
    return None


def _features(path: Path, below: list[Path]) -> Said:
    files = sorted(one for one in below if one.is_file())
    endings = {one.suffix.lower() for one in files}
    if endings & TABLES:
        return None
    if endings & MEDIA_ENDINGS:
        return "holds films or sounds", extracting(_manifest_in(path) or path)
    if any(one.name.endswith(VIDEO_FEATURES) for one in files):
        return "holds features of whole videos, as HowTo100M's", reading_howto100m(features=path)
    single = [one for one in files if one.suffix.lower() in {".npz", *PICKLES}]
    if not single or endings & MANIFESTS:
        return None
    problem = f"is no dataset, but holds {single[0].name}"
    return file_is(single[0]) or (problem, f"name it: {single[0]}")


def _manifest_in(folder: Path) -> Path | None:
    found = (one for one in sorted(folder.iterdir()) if one.suffix.lower() in MANIFESTS)
    return next((one for one in found if columns_of(one) & {"path", "id"}), None)
