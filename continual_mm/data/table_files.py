"""Which files of a folder are read as tables, for which split, and what is left unread."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from continual_mm.data.recognise import MEDIA_ENDINGS
from continual_mm.definitions.modality import SPLITS
from continual_mm.system.errors import first_few

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    "test": 2,
}
"""Names of splits -> the number of the split."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "Parquet": (".parquet",),
    "Arrow": (".arrow",),
    "JSON": (".json", ".jsonl", ".ndjson"),
    "CSV": (".csv",),
    "TSV": (".tsv",),
}
"""Endings of the tables that are read; of a folder with several kinds, those of the first one."""

_KEYS = "train", "validation", "test"  # what `datasets` calls the splits
_WORDS = {**SPLIT_NAMES, **dict.fromkeys(("testing", "eval", "evaluation"), 2)}
_WHOLE_NAME = re.compile(r"([a-z]+)([-_. ]?\d+([-_. ]?of[-_. ]?\d+)?)?")  # train-00000-of-00002
_MEDIA = MEDIA_ENDINGS | {".jpg", ".jpeg", ".png"}
_DESCRIPTIONS = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
_NO_DATA = re.compile(r"(readme|licen[cs]e|citation|changelog)\b.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TableFiles:
    """Files of a folder, as paths relative to it with forward slashes."""

    tables: Mapping[str, str]  # of every table its kind
    others: tuple[str, ...]  # the rest, but for what describes data
    described: bool  # whether the folder itself says which files are of which split

    @classmethod
    def of(cls, folder: Path) -> "TableFiles":
        """All files below a folder but hidden ones."""
        tables: dict[str, str] = {}
        others = []
        kind_of = {ending: kind for kind, endings in KINDS.items() for ending in endings}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            if any(part.startswith((".", "__")) for part in name.split("/")):
                continue
            if path.name in _DESCRIPTIONS or _NO_DATA.fullmatch(path.name):
                continue
            if kind := kind_of.get(path.suffix.lower()):
                tables[name] = kind
            else:
                others.append(name)
        return cls(tables, tuple(others), _is_described(folder))

    @property
    def kind(self) -> str:
        """The kind that is read; empty if there is none, or lists of media files may be meant."""
        there = set(self.tables.values())
        kind = next((each for each in KINDS if each in there), "")
        media = any(PurePosixPath(name).suffix.lower() in _MEDIA for name in self.others)
        return "" if media and kind not in ("Parquet", "Arrow") else kind

    def by_split(self) -> dict[str, list[str]]:
        """The files that are read, by the name of their split.

        A file belongs to the split that its name or a folder's names, if it is one, else to the
        training split. There are none where the folder itself says what is read.
        """
        found: dict[str, list[str]] = {key: [] for key in _KEYS}
        for name, kind in self.tables.items():
            if kind == self.kind and not self.described:
                found[_KEYS[_named_split(name) or 0]].append(name)
        return {key: names for key, names in found.items() if names}

    def notes(self, read: Mapping[str, Iterable[str]], *, by_name: bool) -> Iterator[str]:
        """What nobody may expect of the files that were read, by split, and of those that were not.

        ``by_name`` says that names decided on the splits of items.
        """
        there = {name for names in read.values() for name in names}
        if by_name:
            yield from self._on_splits(there)
        unread = [name for name in self.tables if name not in there]
        reason = "no part of what the folder's README.md or the configuration lists"
        if kinds := {self.tables[name] for name in there}:
            other = [name for name in unread if self.tables[name] not in kinds]
            unread = [name for name in unread if self.tables[name] in kinds]
            if other:
                yield f"not read, since the tables are {min(kinds)} files: {first_few(other)}"
        if unread:
            yield f"not read, since {reason}: {first_few(unread)}"
        if self.others:
            yield f"not read, since they are no tables: {first_few(self.others)}"

    def _on_splits(self, names: Iterable[str]) -> Iterator[str]:
        named = {name: _named_split(name) for name in sorted(names)}
        for number, meaning in enumerate(SPLITS):
            parts = [name for name, split in named.items() if split == number]
            if guessed := [name for name in parts if not _is_whole_name(name)]:
                yield f"taken for {meaning} by a word in the name: {first_few(guessed)}"
        without = [name for name, split in named.items() if split is None]
        if without and len(without) < len(named):
            yield f"taken for training, since the name has no split in it: {first_few(without)}"


def _named_split(name: str) -> int | None:
    """The split that a path names; None if there is none, or more than one."""
    words = re.split("[^a-z]+", PurePosixPath(name).with_suffix("").as_posix().lower())
    found = {_WORDS[word] for word in words if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def _is_whole_name(name: str) -> bool:
    """Whether a file or a folder is called as a split, but for the number of a part."""
    parts = (PurePosixPath(part).stem for part in name.lower().split("/"))
    return any((match := _WHOLE_NAME.fullmatch(part)) and match[1] in _WORDS for part in parts)


def _is_described(folder: Path) -> bool:
    try:
        head = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:1_000_000]
    except OSError:
        head = ""
    lines = head.removeprefix("---\n").partition("\n---")[0] if head.startswith("---") else ""
    return (folder / ".huggingface.yaml").exists() or "configs:" in lines.splitlines()
