"""Hugging Face datasets by name, and folders of Parquet files, each made into a store once."""

import hashlib
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, load_dataset_builder
from datasets.exceptions import DatasetsError
from datasets.features.features import get_nested_type
from datasets.utils import logging as datasets_logging
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # re-exported by it
from numpy.typing import NDArray

from continual_mm.data.cache import cache_folder, no_cache
from continual_mm.data.cards import FORM, ON_THE_HUB
from continual_mm.data.json_rows import JsonRows
from continual_mm.data.schema import (
    CAPTIONS,
    KIND,
    LENGTH,
    PRESENT,
    is_given,
    is_taken,
    natural_kind,
)
from continual_mm.data.splits import HeldOut
from continual_mm.data.store.form import DType, read_form
from continual_mm.data.store.records import AS_FLOAT32, OPTIONAL
from continual_mm.data.store.tables import shard_name
from continual_mm.data.store.writer import write_store
from continual_mm.data.table_files import SPLIT_NAMES, TableFiles
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError, first_few, first_line
from continual_mm.system.reading import user_path

PREFIX = "hf:"  # how names of Hugging Face datasets begin: `hf:owner/name@revision#configuration`

READABLE = ("arrow", "csv", "json", "parquet")
"""Kinds of files that hold values and nothing else. Others may hold pickles, or run code."""

HELD_OUT = 0.1  # share of the training items that stands in for a split that is not there

_LOOKED_AT = 1000  # rows of which at least one must have a modality, so that its size is known
_FORMAT = "4"  # changes whenever something else is made of the same rows
_MOST_FILES = 100_000  # in a folder; one that holds more is a home directory and no dataset
_CAPTIONS = ("text", *CAPTIONS)
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
    described: Mapping[str, str]  # what else items have in a store, and its column
    ignored: Mapping[str, str]  # the rest, and why

    def records(self, rows: Iterable[Row], split_name: str) -> Iterator[dict[str, Any]]:
        """Rows of one split as records; items without ids are named by split and row."""
        for number, row in enumerate(rows):
            record: dict[str, Any] = {"ids": f"{split_name}-{number}", "split": split_name}
            for name, column in self.described.items():
                if is_given(row.get(column)):
                    record[name] = _cell(name, row[column])
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
        others = [
            f"{column} is read as {name}"
            for name, column in self.described.items()
            if name != column
        ]
        if others:
            yield ", ".join(others)
        if self.ignored:
            ignored = [f"{name} ({reason})" for name, reason in self.ignored.items()]
            yield f"columns that are no modality were left out: {first_few(ignored)}"


class _Seen:
    """What rows hold, so that no single one decides what a column is."""

    def __init__(self) -> None:
        self.shapes: dict[str, Counter[tuple[int, ...]]] = {}  # of features, by column
        self.values: dict[str, Any] = {}  # the first that is no features; None if there is none

    def add(self, row: Row) -> None:
        for name, value in row.items():
            self.values.setdefault(name, None)
            if (found := features_of(value)) is not None:
                self.shapes.setdefault(name, Counter())[found.shape] += 1
            elif self.values[name] is None and is_given(value) and np.size(value):
                self.values[name] = value

    def roles(self, source: str) -> Roles:
        """What the columns mean; an InputError if none is a modality."""
        modalities = tuple(
            Modality(name, _kind(name, len(shape), self.values, source), shape)
            for name in self.values
            if name in self.shapes and not is_taken(name)
            for shape in (_usual(self.shapes[name]),)
        )
        if not modalities:
            listed = [f"{name} ({self._reason(name)})" for name in self.values]
            problem = f"has no modality; its columns are {first_few(listed) or 'none'}"
            raise InputError.at(source, problem, "a modality is a column of lists of floats")
        there = {name for name, value in self.values.items() if value is not None}
        described = {name: name for name in ("ids", "split", *OPTIONAL) if name in there}
        captions = (name for name in _CAPTIONS if isinstance(self.values.get(name), str))
        if "text_raw" not in described and (caption := next(captions, None)):
            described["text_raw"] = caption
        own = {one.name + end for one in modalities for end in ("", KIND, LENGTH, PRESENT)}
        ignored = {
            name: self._reason(name)
            for name in self.values
            if name not in own and name not in described.values()
        }
        return Roles(modalities, described, ignored)

    def _reason(self, name: str) -> str:
        """What a column is that is no modality."""
        value = self.values[name]
        if value is None:
            return "reserved" if name in self.shapes else "empty in every row"
        if isinstance(value, str | Mapping):
            return "text" if isinstance(value, str) else "objects"
        array = np.asarray(value)
        return "single numbers" if array.ndim == 0 else f"lists of {array.dtype}, not of floats"


def _usual(shapes: Counter[tuple[int, ...]]) -> tuple[int, ...]:
    """The most frequent shape of items, of which the first axis may be the time."""
    steps: Counter[tuple[int, ...]] = Counter()
    for shape, count in shapes.items():
        steps[(len(shape), *shape[len(shape) > 1 :])] += count
    axes, *features = steps.most_common(1)[0][0]
    return next(one for one in shapes if (len(one), *one[axes > 1 :]) == (axes, *features))


def _cell(name: str, value: Any) -> Any:
    """A value as records have it; pandas writes numbers as floats where some are missing."""
    if isinstance(value, float | np.floating) and value == int(value):
        value = int(value)
    return str(value) if name in ("ids", "group") else value


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
    text = str(seen.get(name + KIND) or natural_kind(axes))
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
        return _whole(value)
    steps = row.get(name + LENGTH)
    if steps is None:
        return found
    if 1 <= steps <= len(found):
        return found[: int(steps)]
    place = f"item {item!r}, column {name + LENGTH!r}"
    raise InputError.at(place, f"{steps} is not within 1..{len(found)}")


def _whole(value: Any) -> NDArray[Any] | None:
    """A value of a modality that is no features by itself; None if it is empty.

    JSON may write floats as whole numbers in some rows.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        return np.asarray(value, dtype=object)
    if array.dtype.kind in "iu" and array.ndim:
        array = array.astype(np.float32)
    return array if array.size else None


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
    source, opened = reference.source, _opened(reference)
    streams = opened.streams
    roles = _looked_at(reference, streams).roles(source)
    held_out, there = HeldOut(), {SPLIT_NAMES[name] for name in streams}
    if "split" not in roles.described and 0 in there:
        validation, test = (0.0 if split in there else HELD_OUT for split in (1, 2))
        held_out = HeldOut(validation=validation, test=test)
    notes = (*roles.notes(held_out), *opened.notes(by_name="split" not in roles.described))

    def write(dtype: DType, *further: str) -> tuple[str, ...]:
        records = chain.from_iterable(roles.records(rows, name) for name, rows in streams.items())
        assigned, all_notes = held_out.assigned(reference.refusing(records)), (*notes, *further)
        layout = roles.modalities
        write_store(
            assigned, store, layout=layout, name=reference.name, dtype=dtype, notes=all_notes
        )
        return all_notes

    try:
        try:
            notes = write("float16")
        except InputError as error:
            if any(problem.remedy != AS_FLOAT32 for problem in error.problems):
                raise
            notes = write(
                "float32", "features are kept in float32, for float16 holds none like them"
            )
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.problems[0].place == str(store):
            raise no_cache(store.parent, error.__cause__) from error
        # Users know the dataset by its name, not by where its copy is kept.
        raise InputError(
            replace(one, place=one.place.replace(str(store), source, 1)) for one in error.problems
        ) from error
    for note in (*notes, _kept(reference, store)):
        _log.warning("%s: %s", source, note)


def _looked_at(reference: Reference, streams: Mapping[str, Any]) -> _Seen:
    """The first rows of every split; more as long as a column of lists of floats is empty."""
    seen = _Seen()
    first = chain.from_iterable(islice(rows, _LOOKED_AT) for rows in streams.values())
    for row in reference.refusing(first):
        seen.add(row)
    lists = {
        name
        for rows in streams.values()
        for name, feature in (rows.features or {}).items()
        if _holds_floats(feature) and not is_taken(name)
    }
    if empty := lists - seen.shapes.keys():
        for row in reference.refusing(chain.from_iterable(streams.values())):
            seen.add({name: row.get(name) for name in empty})
            if empty <= seen.shapes.keys():
                break
    return seen


def _holds_floats(feature: Any) -> bool:
    """Whether a column holds lists of floats, at any depth, by its type."""
    kind, depth = get_nested_type(feature), 0
    while hasattr(kind, "value_type") or isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
        depth += 1
    return depth > 0 and pa.types.is_floating(kind)


def _kept(reference: Reference, store: Path) -> str:
    """Where the copy is, and those of former states of the same folder."""
    size = sum(file.stat().st_size for file in store.rglob("*")) / 1e6
    text = f"is kept as a store of {size:,.1f} MB in {store}"
    others = store.parent.glob(f"{reference.key_start}*")
    if older := sorted(str(other) for other in others if other != store):
        text += f"; copies of what it was before may be removed: {first_few(older)}"
    return text


@dataclass(frozen=True, slots=True)
class _Opened:
    """Rows by the name of their split, not read yet, and of a folder the files they are in."""

    streams: Mapping[str, Any]
    folder: TableFiles | None
    read: Mapping[str, Sequence[str]]  # files by the name of their split

    def notes(self, *, by_name: bool) -> Iterator[str]:
        """Which files are read for what, where that may not be expected."""
        if self.folder is not None:
            yield from self.folder.notes(self.read, by_name=by_name)
            return
        for split, files in self.read.items():
            yield f"read for {split}: {first_few(files)}"


def _opened(reference: Reference) -> _Opened:
    if (Path(reference.path) / "items" / shard_name(0)).exists():
        problem = f"is a store without its {FORM}"
        raise InputError.at(reference.source, problem, "copy the store whole")
    path = Path(reference.path)
    folder = TableFiles.of(path) if path.is_dir() else None
    chosen = folder.by_split() if folder and not reference.config else {}
    if folder and chosen and folder.kind == "JSON":
        return _of_json(path, folder, chosen)
    # They also print the errors that they raise, and that a README.md describes no data.
    verbosity, hub = datasets_logging.get_verbosity(), logging.getLogger("huggingface_hub")
    level = hub.level
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)
    hub.setLevel(logging.CRITICAL)
    try:
        with reference.refusals():
            builder = load_dataset_builder(
                reference.path,
                name=reference.config,
                revision=reference.revision,
                data_files={key: [*map(escape, names)] for key, names in chosen.items()} or None,
                features=_features(path, folder) if folder and chosen else None,
            )
            _check_kind(type(builder).__module__, reference)
            streams = builder.as_streaming_dataset()
    finally:
        datasets_logging.set_verbosity(verbosity)
        hub.setLevel(level)
    if unknown := sorted(set(streams) - SPLIT_NAMES.keys()):
        remedy = f"splits are called {', '.join(SPLIT_NAMES)}"
        raise InputError.at(reference.source, f"has the splits {', '.join(unknown)}", remedy)
    rows = {name: rows.with_format("numpy") for name, rows in streams.items()}
    return _Opened(rows, folder, _read(builder, path if folder else None))


def _of_json(path: Path, folder: TableFiles, chosen: Mapping[str, Sequence[str]]) -> _Opened:
    streams = {split: JsonRows([path / name for name in names]) for split, names in chosen.items()}
    return _Opened(streams, folder, chosen)


def _read(builder: Any, folder: Path | None) -> dict[str, list[str]]:
    """The files of every split: relative to their folder, or the end of an address."""
    found = {}
    for split, files in (builder.config.data_files or {}).items():
        names = [str(file) for file in files]
        found[str(split)] = [
            Path(name).relative_to(folder).as_posix() if folder else name.partition("@")[2] or name
            for name in names
        ]
    return found


def _features(folder: Path, files: TableFiles) -> Features | None:
    """The columns of Parquet files that differ, all together; None if they have the same."""
    names = [name for name, kind in files.tables.items() if kind == files.kind == "Parquet"]
    schemas = [pq.read_schema(folder / name) for name in names]
    if len({(*zip(one.names, one.types, strict=True),) for one in schemas}) < 2:
        return None
    whole = schemas[0]
    for name, schema in zip(names, schemas, strict=True):
        try:
            whole = pa.unify_schemas([whole, schema], promote_options="permissive")
        except pa.ArrowException as error:
            problem = f"does not fit {names[0]}: {first_line(error)}"
            raise InputError.at(folder / name, problem, "save it with the same types") from error
    return Features.from_arrow_schema(whole.remove_metadata())


def _check_kind(module: str, reference: Reference) -> None:
    kind = module.rpartition(".")[2]
    if module.startswith("datasets.packaged_modules.") and kind in READABLE:
        return
    remedy = "convert it to Parquet files first"
    if kind in _MEDIA:
        remedy = f"make features of it: continual-mm data extract {reference.path} --help"
    raise InputError.at(reference.source, f"consists of {kind} files", remedy)
