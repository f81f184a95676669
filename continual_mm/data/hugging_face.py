"""Hugging Face datasets by name, and folders of Parquet files, each made into a store once."""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import load_dataset_builder
from datasets.exceptions import DatasetsError
from datasets.utils import logging as datasets_logging
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # handed on by it
from numpy.typing import NDArray

from continual_mm.data.cache import cache_folder, no_cache
from continual_mm.data.cards import FORM
from continual_mm.data.schema import ITEM_COLUMNS, KIND, LENGTH, PRESENT, natural_kind, split_ending
from continual_mm.data.splits import HeldOut
from continual_mm.data.store.form import read_form
from continual_mm.data.store.records import OPTIONAL
from continual_mm.data.store.shards import shard_name
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError, Problem, first_few

SPLIT_NAMES = {
    "train": 0,
    "training": 0,
    "validation": 1,
    "valid": 1,
    "val": 1,
    "dev": 1,
    "test": 2,
}
"""What splits are called -> the number of the split."""

LOOKED_AT = 1000
"""Rows of which at least one must have a modality, so that its size is known."""


@dataclass(frozen=True, slots=True)
class Understood:
    """What the columns of a dataset mean.

    Attributes:
        layout: The modalities: columns of floats, or of uint8, with at least one axis.
        plain: The other columns that items have in a store.
        ignored: Columns that mean nothing in one.
    """

    layout: tuple[Modality, ...]
    plain: frozenset[str]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], source: str) -> "Understood":
        """Conclude it from the first rows; columns that mean nothing in a store are left out.

        Args:
            rows: The first ones.
            source: What to call the dataset in problems.

        Raises:
            InputError: If there is no modality, or a kind that does not exist.
        """
        seen: dict[str, Any] = {}
        for row in rows:
            seen |= {key: value for key, value in row.items() if seen.get(key) is None}
        layout = tuple(
            Modality(name, _kind(name, array, seen, source), array.shape)
            for name, array in ((name, features_of(value)) for name, value in seen.items())
            if array is not None and name not in ITEM_COLUMNS and split_ending(name) is None
        )
        if not layout:
            problem = f"has no modality; its columns are {', '.join(map(str, seen)) or 'none'}"
            remedy = f"a modality is a column of floats that one of the first {LOOKED_AT} rows has"
            raise InputError(Problem(source, problem, remedy))
        plain = frozenset(
            name for name in ("ids", "split", *OPTIONAL) if seen.get(name) is not None
        )
        names = [one.name for one in layout]
        known = {*plain, *names, *(name + end for name in names for end in (KIND, LENGTH, PRESENT))}
        return cls(layout, plain, tuple(name for name in seen if name not in known))

    def records(
        self, rows: Iterable[Mapping[str, Any]], *, split: int, name: str
    ) -> Iterator[dict[str, Any]]:
        """Rows as records.

        Args:
            rows: Of one split.
            split: Where items go that do not say it themselves.
            name: Of the split, with which items are named that have no ids.

        Raises:
            InputError: If an item has more valid steps than there are, or none; named.
        """
        for number, row in enumerate(rows):
            record: dict[str, Any] = {"ids": f"{name}-{number}", "split": split}
            record |= {column: row[column] for column in self.plain}
            for column in {"ids", "group"} & self.plain:
                record[column] = str(row[column])
            record["split"] = SPLIT_NAMES.get(record["split"], record["split"])
            for one in self.layout:
                record[one.name] = _valid(one.name, row, record["ids"])
            yield record


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


def _kind(name: str, array: NDArray[Any], seen: Mapping[str, Any], source: str) -> Kind:
    text = str(seen.get(name + KIND, natural_kind(array.ndim)))
    if text not in list(Kind):
        remedy = f"the kinds of signal are {', '.join(Kind)}"
        raise InputError(Problem(f"{source}, column {name + KIND!r}", f"{text!r}", remedy))
    return Kind(text)


def _valid(name: str, row: Mapping[str, Any], item: str) -> NDArray[Any] | None:
    """The valid steps of a modality in a row; None if it lacks it."""
    value = row.get(name)
    if value is None or row.get(name + PRESENT) is False or row.get(name + PRESENT) == 0:
        return None
    found = features_of(value)
    if found is None:
        # What is no signal is refused with the item's name when it is written.
        other = np.asarray(value, dtype=object)
        return other if other.size else None
    steps = row.get(name + LENGTH)
    if steps is None:
        return found
    if 1 <= steps <= len(found):
        return found[: int(steps)]
    place = f"item {item!r}, column {name + LENGTH!r}"
    raise InputError(Problem(place, f"{steps} is not within 1..{len(found)}"))


PREFIX = "hf:"
"""How names of Hugging Face datasets begin: ``hf:owner/name@revision#configuration``."""

READABLE = ("arrow", "csv", "json", "parquet")
"""Kinds of files that hold values and nothing else. Others may hold pickles, or run code."""

HELD_OUT = 0.1
"""Share of the training items that stands in for a split that is not there."""

_MADE = "2"
"""Another one whenever something else is made of the same rows."""

_MOST_FILES = 100_000
"""In a folder; one that holds more is somebody's home and no dataset."""

_MEDIA = ("audiofolder", "imagefolder", "videofolder")
_log = logging.getLogger(__name__)
_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(#(?P<config>[\w.-]+))?")
_UNREADABLE = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError),
    *(DatasetsError, HTTPError, pa.ArrowException),
)
"""Whatever ``datasets`` raises on names, networks and files that fail it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A dataset that Hugging Face ``datasets`` can open.

    Attributes:
        text: As the user wrote it.
        path: A folder, or the owner and the name.
        revision: Of its repository.
        config: Which of its configurations.
    """

    text: str
    path: str
    revision: str | None = None
    config: str | None = None

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> "Reference":
        """Read a name, or the path of a folder that is there.

        Args:
            text: With or without :data:`PREFIX`.
            folder: Where relative paths start; None for the working folder.

        Raises:
            InputError: If it is neither.
        """
        plain, _, config = (text.removeprefix(PREFIX)).partition("#")
        path = (folder or Path()) / Path(plain).expanduser()
        if plain and path.is_dir():
            return cls(text, str(path.resolve()), None, config or None)
        if match := _NAME.fullmatch(text.removeprefix(PREFIX)):
            return cls(text, match["path"], match["revision"], match["config"])
        remedy = "write hf:owner/name, if need be with @revision and #configuration, or a folder"
        raise InputError(Problem(f"dataset {text!r}", f"no folder {path}", remedy))

    @property
    def key(self) -> str:
        """Another one for every name, and for every state of a folder.

        Raises:
            InputError: If the folder cannot be read, or is too large for one of a dataset.
        """
        return f"{self.start}{_short(self._state())}"

    @property
    def start(self) -> str:
        """How the keys of all states begin."""
        words = (_MADE, self.path, str(self.revision), str(self.config))
        return f"hf-{self.name}-{_short(words)}-"

    def _state(self) -> list[str]:
        folder = Path(self.path)
        try:
            files = sorted(islice(folder.rglob("*"), _MOST_FILES + 1)) if folder.is_dir() else []
            if len(files) > _MOST_FILES:
                problem = f"has more than {_MOST_FILES} files in it"
                remedy = "name the folder that its Parquet files lie in"
                raise InputError(Problem(self.source, problem, remedy))
            states = [(file, file.stat()) for file in files]
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
            raise _refusal(self, OSError(problem)) from error
        return [f"{file} {said.st_size} {said.st_mtime_ns}" for file, said in states]

    @property
    def source(self) -> str:
        """What to call it in problems."""
        return f"dataset {self.text!r}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return Path(self.path).name


def _short(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def cached_store(text: str, folder: Path | None = None) -> Path:
    """The store that a dataset was made into, which is done first if need be.

    It lies in the user's cache folder, or in the one that ``CONTINUAL_MM_CACHE`` names. A name
    without a revision stands for what was there when it was first loaded. Splits that are not there
    are held out of the training items, which the store's notes and a line in the log tell. Another
    line tells where the copy is, and which copies of a folder that has changed since may go.

    Args:
        text: A name that begins with :data:`PREFIX`, or a folder of files.
        folder: Where relative paths start; None for the working folder.

    Raises:
        InputError: If it cannot be loaded, its columns are not those of a dataset, or the cache
            cannot be written.
    """
    reference = Reference.parse(text, folder)
    store = cache_folder() / reference.key
    there = store.exists()
    if _is_whole(store):
        return store
    if there:
        # What another process put there since then stays.
        shutil.rmtree(store)
    _make(reference, store)
    return store


def _is_whole(store: Path) -> bool:
    """Whether a store is there, and nobody tidied up some of its files."""
    try:
        tables = read_form(store).tables
        return all(
            (store / table / shard_name(number)).stat().st_size == shard.bytes
            for table, shards in tables.items()
            for number, shard in enumerate(shards)
        )
    except (InputError, OSError):
        return False


def _make(reference: Reference, store: Path) -> None:
    source, streams = reference.source, _opened(reference)
    first = chain.from_iterable(islice(rows, LOOKED_AT) for rows in streams.values())
    understood = Understood.of(_told(first, reference), source)
    held_out = _held_out(understood, streams)
    notes = tuple(_notes(understood, held_out))
    records = held_out.dealt(_told(_records(understood, streams), reference))
    try:
        write_store(records, store, layout=understood.layout, name=reference.name, notes=notes)
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.problems[0].place == str(store):
            raise no_cache(store.parent, error.__cause__) from error
        # Where the copy is kept says nothing to whoever named the dataset.
        raise InputError(
            replace(one, place=one.place.replace(str(store), source, 1)) for one in error.problems
        ) from error
    for note in (*notes, _kept(reference, store)):
        _log.warning("%s: %s", source, note)


def _kept(reference: Reference, store: Path) -> str:
    """Where the copy is, and those of former states of the same folder."""
    told = f"is kept as a store of {_size(store)} in {store}"
    others = (other for other in store.parent.iterdir() if other.name.startswith(reference.start))
    if older := sorted(str(other) for other in others if other != store):
        told += f"; copies of what it was before may be removed: {first_few(older)}"
    return told


def _size(store: Path) -> str:
    count = sum(file.stat().st_size for file in store.rglob("*"))
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _records(understood: Understood, streams: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, rows in streams.items():
        yield from understood.records(rows, split=SPLIT_NAMES[name], name=name)


def _held_out(understood: Understood, streams: Mapping[str, Any]) -> HeldOut:
    """What of the training items stands in for splits that are not there."""
    there = {SPLIT_NAMES[name] for name in streams}
    if "split" in understood.plain or 0 not in there:
        return HeldOut()
    validation, test = (0.0 if split in there else HELD_OUT for split in (1, 2))
    return HeldOut(validation=validation, test=test)


def _notes(understood: Understood, held_out: HeldOut) -> Iterator[str]:
    shares = {"validation": held_out.validation, "test": held_out.test}
    if dealt := [f"{share:.0%} for {name}" for name, share in shares.items() if share]:
        what = "groups" if "group" in understood.plain else "items"
        yield (
            f"of the training split, {' and '.join(dealt)} were held out by hashes of the {what}'"
            " names: there are no such splits"
        )
    if understood.ignored:
        yield f"columns that are no modality were left out: {', '.join(understood.ignored)}"


def _opened(reference: Reference) -> dict[str, Any]:
    """Rows by the name of their split, not read yet."""
    if (Path(reference.path) / "items" / shard_name(0)).exists():
        problem = f"is a store without its {FORM}"
        raise InputError(Problem(reference.source, problem, "copy the store whole"))
    # It prints what it then raises as well.
    loudness = datasets_logging.get_verbosity()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)
    try:
        builder = load_dataset_builder(
            reference.path, name=reference.config, revision=reference.revision
        )
        _check_kind(type(builder).__module__, reference)
        streams = builder.as_streaming_dataset()
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _refusal(reference, error) from error
    finally:
        datasets_logging.set_verbosity(loudness)
    if unknown := sorted(set(streams) - SPLIT_NAMES.keys()):
        problem = f"has the splits {', '.join(unknown)}"
        remedy = f"splits are called {', '.join(SPLIT_NAMES)}"
        raise InputError(Problem(reference.source, problem, remedy))
    return {name: rows.with_format("numpy") for name, rows in streams.items()}


def _check_kind(module: str, reference: Reference) -> None:
    kind = module.rpartition(".")[2]
    if module.startswith("datasets.packaged_modules.") and kind in READABLE:
        return
    remedy = "convert it to Parquet files first"
    if kind in _MEDIA:
        remedy = f"make features of it: continual-mm data extract {reference.path} --help"
    raise InputError(Problem(reference.source, f"consists of {kind} files", remedy))


def _told(rows: Iterator[Any], reference: Reference) -> Iterator[Any]:
    """The rows; what goes wrong while they are fetched is refused."""
    try:
        yield from rows
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _refusal(reference, error) from error


def _refusal(reference: Reference, error: Exception) -> InputError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    remedy = "check its name and the network; what was loaded once is kept and needs none"
    if Path(reference.path).is_dir():
        remedy = "its files must be whole, of one kind, and have the same columns"
    return InputError(Problem(reference.source, f"cannot be loaded ({reason})", remedy))
