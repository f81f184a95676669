"""Hugging Face datasets by name, and folders of Parquet files, each made into a store once."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import load_dataset_builder

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.cache import cache_folder
from continual_mm.data.conversion.foreign import LOOKED_AT, SPLIT_NAMES, Understood
from continual_mm.data.shelf import FORM
from continual_mm.data.store.writer import write_store

PREFIX = "hf:"
"""How names of Hugging Face datasets begin: ``hf:owner/name@revision#configuration``."""

READABLE = ("arrow", "csv", "json", "parquet")
"""Kinds of files that hold values and nothing else. Others may hold pickles, or run code."""

_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(#(?P<config>[\w.-]+))?")
_UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, TypeError, pa.ArrowException)
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
            RefusedError: If it is neither.
        """
        plain, _, config = (text.removeprefix(PREFIX)).partition("#")
        path = (folder or Path()) / Path(plain).expanduser()
        if plain and path.is_dir():
            return cls(text, str(path.resolve()), None, config or None)
        if match := _NAME.fullmatch(text.removeprefix(PREFIX)):
            return cls(text, match["path"], match["revision"], match["config"])
        remedy = "write hf:owner/name, if need be with @revision and #configuration, or a folder"
        raise RefusedError(Complaint(f"dataset {text!r}", f"no folder {path}", remedy))

    @property
    def key(self) -> str:
        """Another one for every name, and for every state of a folder."""
        words = [self.path, str(self.revision), str(self.config)]
        if Path(self.path).is_dir():
            for file in sorted(Path(self.path).rglob("*")):
                said = file.stat()
                words.append(f"{file} {said.st_size} {said.st_mtime_ns}")
        digest = hashlib.sha256("\n".join(words).encode()).hexdigest()
        return f"hf-{self.name}-{digest[:16]}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return Path(self.path).name


def cached_store(text: str, folder: Path | None = None) -> Path:
    """The store that a dataset was made into, which is done first if need be.

    It lies in the user's cache folder, or in the one that ``CONTINUAL_MM_CACHE`` names. A name
    without a revision stands for what was there when it was first loaded.

    Args:
        text: A name that begins with :data:`PREFIX`, or a folder of files.
        folder: Where relative paths start; None for the working folder.

    Raises:
        RefusedError: If it cannot be loaded, or its columns are not those of a dataset.
    """
    reference = Reference.parse(text, folder)
    store = cache_folder() / reference.key
    if not (store / FORM).exists():
        streams = _opened(reference)
        source = f"dataset {text!r}"
        first = chain.from_iterable(islice(rows, LOOKED_AT) for rows in streams.values())
        understood = Understood.of(_told(first, source), source)
        write_store(
            _told(_records(understood, streams), source),
            store,
            layout=understood.layout,
            name=reference.name,
        )
    return store


def _records(understood: Understood, streams: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, rows in streams.items():
        yield from understood.records(rows, split=SPLIT_NAMES[name], name=name)


def _opened(reference: Reference) -> dict[str, Any]:
    """Rows by the name of their split, not read yet."""
    source = f"dataset {reference.text!r}"
    try:
        builder = load_dataset_builder(
            reference.path, name=reference.config, revision=reference.revision
        )
    except _UNREADABLE as error:
        raise _refusal(source, error) from error
    kind = type(builder).__module__.rpartition(".")[2]
    if not type(builder).__module__.startswith("datasets.packaged_modules.") or (
        kind not in READABLE
    ):
        remedy = "convert it to Parquet files first"
        raise RefusedError(Complaint(source, f"consists of {kind} files", remedy))
    try:
        streams = builder.as_streaming_dataset()
    except _UNREADABLE as error:
        raise _refusal(source, error) from error
    if unknown := sorted(set(streams) - SPLIT_NAMES.keys()):
        problem = f"has the splits {', '.join(unknown)}"
        remedy = f"splits are called {', '.join(SPLIT_NAMES)}"
        raise RefusedError(Complaint(source, problem, remedy))
    return {name: rows.with_format("numpy") for name, rows in streams.items()}


def _told(rows: Iterator[Any], source: str) -> Iterator[Any]:
    """The rows; what goes wrong while they are fetched is refused."""
    try:
        yield from rows
    except RefusedError:
        raise
    except _UNREADABLE as error:
        raise _refusal(source, error) from error


def _refusal(source: str, error: Exception) -> RefusedError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    remedy = "check its name and the network; what was loaded once is kept and needs none"
    return RefusedError(Complaint(source, f"cannot be loaded ({reason})", remedy))
