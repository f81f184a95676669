"""Hugging Face datasets by name, and folders of Parquet files, each made into a store once."""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import load_dataset_builder
from datasets.exceptions import DatasetsError
from datasets.utils import logging as datasets_logging
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # re-exported by it
from numpy.typing import NDArray

from continual_mm.data.cache import cache_folder, no_cache
from continual_mm.data.cards import FORM, ON_THE_HUB
from continual_mm.data.schema import KIND, LENGTH, PRESENT, is_taken, natural_kind
from continual_mm.data.splits import HeldOut
from continual_mm.data.store.form import read_form
from continual_mm.data.store.records import OPTIONAL
from continual_mm.data.store.tables import shard_name
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError, first_few, first_line
from continual_mm.system.reading import user_path

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    "test": 2,
}
"""Names of splits -> the number of the split."""

PREFIX = "hf:"  # how names of Hugging Face datasets begin: `hf:owner/name@revision#configuration`

READABLE = ("arrow", "csv", "json", "parquet")
"""Kinds of files that hold values and nothing else. Others may hold pickles, or run code."""

HELD_OUT = 0.1  # share of the training items that stands in for a split that is not there

_LOOKED_AT = 1000  # rows of which at least one must have a modality, so that its size is known
_FORMAT = "2"  # changes whenever something else is made of the same rows
_MOST_FILES = 100_000  # in a folder; one that holds more is a home directory and no dataset
_MEDIA = ("audiofolder", "imagefolder", "videofolder")
_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(#(?P<config>[\w.-]+))?")
_UNREADABLE = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError),
    *(DatasetsError, HTTPError, pa.ArrowException),
)
"""Errors that ``datasets`` raises on names, networks and damaged files."""

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of a dataset mean."""

    modalities: tuple[Modality, ...]  # columns of floats, or of uint8, with at least one axis
    described: frozenset[str]  # the other columns that items have in a store
    ignored: tuple[str, ...]  # the rest

    @classmethod
    def of(cls, rows: Iterable[Row], source: str) -> "Roles":
        """Conclude them from the first rows."""
        seen: dict[str, Any] = {}
        for row in rows:
            seen |= {key: value for key, value in row.items() if seen.get(key) is None}
        modalities = tuple(
            Modality(name, _kind(name, array.ndim, seen, source), array.shape)
            for name, array in ((name, features_of(value)) for name, value in seen.items())
            if array is not None and not is_taken(name)
        )
        if not modalities:
            problem = f"has no modality; its columns are {', '.join(map(str, seen)) or 'none'}"
            remedy = f"a modality is a column of floats that one of the first {_LOOKED_AT} rows has"
            raise InputError.at(source, problem, remedy)
        columns = ("ids", "split", *OPTIONAL)
        described = frozenset(name for name in columns if seen.get(name) is not None)
        names = [one.name for one in modalities]
        own = {name + end for name in names for end in ("", KIND, LENGTH, PRESENT)}
        ignored = tuple(name for name in seen if name not in described | own)
        return cls(modalities, described, ignored)

    def records(self, rows: Iterable[Row], split_name: str) -> Iterator[dict[str, Any]]:
        """Rows of one split as records; items without ids are named by split and row."""
        for number, row in enumerate(rows):
            record: dict[str, Any] = {"ids": f"{split_name}-{number}", "split": split_name}
            record |= {column: row[column] for column in self.described}
            for column in {"ids", "group"} & self.described:
                record[column] = str(row[column])
            record["split"] = SPLIT_NAMES.get(record["split"], record["split"])
            for one in self.modalities:
                record[one.name] = _valid_steps(one.name, row, record["ids"])
            yield record

    def notes(self, held_out: HeldOut) -> Iterator[str]:
        """What a user may not expect of the store that is made."""
        shares = {"validation": held_out.validation, "test": held_out.test}
        if named := [f"{share:.0%} for {name}" for name, share in shares.items() if share]:
            what = "groups" if "group" in self.described else "items"
            yield (
                f"of the training split, {' and '.join(named)} were held out by hashes of the"
                f" {what}' names: there are no such splits"
            )
        if self.ignored:
            yield f"columns that are no modality were left out: {', '.join(self.ignored)}"


def features_of(value: Any) -> NDArray[Any] | None:
    """A value as features; None if it is anything else."""
    try:
        array = np.asarray(value)
        if array.dtype == object and array.size:
            array = np.stack([np.asarray(each, dtype=np.float32) for each in array])
    except (TypeError, ValueError):
        return None
    is_signal = array.dtype.kind == "f" or array.dtype == np.uint8
    return array if is_signal and array.ndim > 0 and array.size else None


def _kind(name: str, axes: int, seen: Row, source: str) -> Kind:
    text = str(seen.get(name + KIND, natural_kind(axes)))
    if text not in list(Kind):
        remedy = f"the kinds of signal are {', '.join(Kind)}"
        raise InputError.at(f"{source}, column {name + KIND!r}", f"{text!r}", remedy)
    return Kind(text)


def _valid_steps(name: str, row: Row, item: str) -> NDArray[Any] | None:
    """The valid steps of a modality in a row; None if it lacks it."""
    value = row.get(name)
    if value is None or row.get(name + PRESENT) is False or row.get(name + PRESENT) == 0:
        return None
    found = features_of(value)
    if found is None:
        # A value that is no signal is refused with the item's name when it is written.
        other = np.asarray(value, dtype=object)
        return other if other.size else None
    steps = row.get(name + LENGTH)
    if steps is None:
        return found
    if 1 <= steps <= len(found):
        return found[: int(steps)]
    place = f"item {item!r}, column {name + LENGTH!r}"
    raise InputError.at(place, f"{steps} is not within 1..{len(found)}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A dataset that Hugging Face ``datasets`` can open: a folder, or an owner and a name."""

    text: str
    path: str
    revision: str | None = None
    config: str | None = None

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> "Reference":
        """Read a name, with or without :data:`PREFIX`, or the path of a folder that is there."""
        plain, _, config = text.removeprefix(PREFIX).partition("#")
        path = user_path(plain, folder or "")
        if plain and path.is_dir():
            return cls(text, str(path.resolve()), None, config or None)
        if match := _NAME.fullmatch(text.removeprefix(PREFIX)):
            return cls(text, match["path"], match["revision"], match["config"])
        remedy = "write hf:owner/name, if need be with @revision and #configuration, or a folder"
        raise InputError.at(f"dataset {text!r}", f"no folder {path}", remedy)

    @property
    def source(self) -> str:
        """What to call it in problems."""
        return f"dataset {self.text!r}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return Path(self.path).name

    @property
    def key_start(self) -> str:
        """How the keys of all states of a folder begin."""
        words = (_FORMAT, self.path, str(self.revision), str(self.config))
        return f"hf-{self.name}-{_hash(words)}-"

    @property
    def key(self) -> str:
        """Another one for every name, and for every state of a folder."""
        folder = Path(self.path)
        with self.refusals():
            files = sorted(islice(folder.rglob("*"), _MOST_FILES + 1)) if folder.is_dir() else []
            states = [(file, file.stat()) for file in files]
        if len(files) > _MOST_FILES:
            remedy = "name the folder that its Parquet files lie in"
            raise InputError.at(self.source, f"has more than {_MOST_FILES} files in it", remedy)
        return self.key_start + _hash(
            f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in states
        )

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Raise errors of loading it in the block as an InputError."""
        try:
            yield
        except InputError:
            raise
        except _UNREADABLE as error:
            problem = f"cannot be loaded ({first_line(error)})"
            remedy = "check its name and the network; what was loaded once is kept and needs none"
            if Path(self.path).is_dir():
                remedy = "its files must be whole, of one kind, and have the same columns"
            raise InputError.at(self.source, problem, remedy) from error

    def refusing(self, rows: Iterator[Any]) -> Iterator[Any]:
        """The rows; an error while they are fetched becomes an InputError."""
        with self.refusals():
            yield from rows


def _hash(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def cached_store(text: str, folder: Path | None = None) -> Path:
    """The store that a dataset is made into, once, in the user's cache folder.

    A name without a revision stands for what was there when it was first loaded. The log says which
    splits were held out, where the copy is, and which former copies of a folder may go. Relative
    paths start in ``folder``, or else in the working folder.
    """
    reference = Reference.parse(text, folder)
    if name := ON_THE_HUB.get(reference.path):
        remedy = f"convert it: continual-mm data convert {name}, and name dataset {name!r}"
        raise InputError.at(reference.source, "consists of arrays, not of tables", remedy)
    store = cache_folder() / reference.key
    there = store.exists()
    if not _is_whole(store):
        # A store that another process has made since then stays.
        if there:
            shutil.rmtree(store)
        _make(reference, store)
    return store


def _is_whole(store: Path) -> bool:
    """Whether a store is there with all of its files: cache folders get tidied up."""
    try:
        return all(
            (store / table / shard_name(number)).stat().st_size == shard.bytes
            for table, shards in read_form(store).tables.items()
            for number, shard in enumerate(shards)
        )
    except (InputError, OSError):
        return False


def _make(reference: Reference, store: Path) -> None:
    source, streams = reference.source, _opened(reference)
    first = chain.from_iterable(islice(rows, _LOOKED_AT) for rows in streams.values())
    roles = Roles.of(reference.refusing(first), source)
    held_out, there = HeldOut(), {SPLIT_NAMES[name] for name in streams}
    if "split" not in roles.described and 0 in there:
        validation, test = (0.0 if split in there else HELD_OUT for split in (1, 2))
        held_out = HeldOut(validation=validation, test=test)
    notes = tuple(roles.notes(held_out))
    records = chain.from_iterable(roles.records(rows, name) for name, rows in streams.items())
    assigned = held_out.assigned(reference.refusing(records))
    try:
        write_store(assigned, store, layout=roles.modalities, name=reference.name, notes=notes)
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.problems[0].place == str(store):
            raise no_cache(store.parent, error.__cause__) from error
        # Users know the dataset by its name, not by where its copy is kept.
        raise InputError(
            replace(one, place=one.place.replace(str(store), source, 1)) for one in error.problems
        ) from error
    for note in (*notes, _kept(reference, store)):
        _log.warning("%s: %s", source, note)


def _kept(reference: Reference, store: Path) -> str:
    """Where the copy is, and those of former states of the same folder."""
    size = sum(file.stat().st_size for file in store.rglob("*")) / 1e6
    text = f"is kept as a store of {size:,.1f} MB in {store}"
    others = store.parent.glob(f"{reference.key_start}*")
    if older := sorted(str(other) for other in others if other != store):
        text += f"; copies of what it was before may be removed: {first_few(older)}"
    return text


def _opened(reference: Reference) -> dict[str, Any]:
    """Rows by the name of their split, not read yet."""
    if (Path(reference.path) / "items" / shard_name(0)).exists():
        problem = f"is a store without its {FORM}"
        raise InputError.at(reference.source, problem, "copy the store whole")
    # It also prints the errors that it raises.
    verbosity = datasets_logging.get_verbosity()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)
    try:
        with reference.refusals():
            builder = load_dataset_builder(
                reference.path, name=reference.config, revision=reference.revision
            )
            _check_kind(type(builder).__module__, reference)
            streams = builder.as_streaming_dataset()
    finally:
        datasets_logging.set_verbosity(verbosity)
    if unknown := sorted(set(streams) - SPLIT_NAMES.keys()):
        remedy = f"splits are called {', '.join(SPLIT_NAMES)}"
        raise InputError.at(reference.source, f"has the splits {', '.join(unknown)}", remedy)
    return {name: rows.with_format("numpy") for name, rows in streams.items()}


def _check_kind(module: str, reference: Reference) -> None:
    kind = module.rpartition(".")[2]
    if module.startswith("datasets.packaged_modules.") and kind in READABLE:
        return
    remedy = "convert it to Parquet files first"
    if kind in _MEDIA:
        remedy = f"make features of it: continual-mm data extract {reference.path} --help"
    raise InputError.at(reference.source, f"consists of {kind} files", remedy)
