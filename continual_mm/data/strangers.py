"""What a path is that names no dataset, and the command that makes one of it.

Only names and beginnings of files are looked at; nothing is run or taken for granted.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from continual_mm.complaint import Complaint
from continual_mm.data.shelf import FORM
from continual_mm.data.stranger_files import (
    MANIFESTS,
    MEDIA_ENDINGS,
    PICKLES,
    TABLES,
    VIDEO_FEATURES,
    columns_of,
    extracting,
    file_is,
    quoted,
    reading_howto100m,
)

EXTRACTED = ("job.json", "clips.jsonl")
"""What lies in a folder that ``data extract`` wrote."""

EXPORTED = ("runs.csv", "definitions.json", "ranks.npz")
"""What lies in a folder that ``export`` wrote."""

RUN = "definition.json"
"""What lies in the folder of a run, which is three below the one that runs go into."""

_MOST = 5000  # files of a folder

Said = tuple[str, str] | None
"""Problem and remedy; None if nothing is known."""


def recognised(path: Path) -> Complaint | None:
    """What a file or folder is, if it is known and no dataset; None if it may be one.

    Args:
        path: It is there.
    """
    try:
        said: Said = _folder_is(path) if path.is_dir() else file_is(path)
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}", ""
    return None if said is None else Complaint(str(path), *said)


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
