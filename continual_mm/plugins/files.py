"""Plugins in Python files that the user names on the command line, and nowhere else.

A strategy may then have a table ``[plugin."my_plugin.py:MyPlugin"]``. A definition alone never runs
a file: it has to be named with ``--plugins my_plugin.py`` as well.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from continual_mm.system.errors import InputError, first_line
from continual_mm.system.reading import check_regular

TABLE = "plugin"  # in a strategy file, around tables of plugins in files
_OFFERED = "CONTINUAL_MM_PLUGIN_FILES"  # so that processes of a run know them, too


@dataclass(frozen=True, slots=True)
class FilePlugin:
    """A class in a file: ``my_plugin.py:MyPlugin``; loaded when it is asked for."""

    name: str

    @property
    def value(self) -> str:
        """Where it is."""
        return self.name

    def load(self) -> Any:
        """Run the file, once in a process, and take the class.

        Raises:
            InputError: If the file was not offered, cannot be run, or has no such plugin.
        """
        file, _, kind = self.name.partition(":")
        path = _path(file)
        module = _module(path)
        found = getattr(module, kind, None)
        from continual_mm.plugins.plugin import Plugin  # noqa: PLC0415 - imports torch

        if not (isinstance(found, type) and issubclass(found, Plugin)):
            known = [
                name
                for name, each in vars(module).items()
                if isinstance(each, type) and issubclass(each, Plugin) and each is not Plugin
            ]
            problem = f"has no plugin {kind!r}"
            remedy = f"it has {', '.join(known)}" if known else "subclass continual_mm.Plugin in it"
            raise InputError.at(path, problem, remedy)
        return found


def offer(paths: Iterable[Path]) -> None:
    """Let strategies name classes of some files; two files of one name are refused."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix != ".py":
            raise InputError.at(path, "is no Python file", "end its name with .py")
        check_regular(path)
        if path.name in found:
            raise InputError.at(path, f"{found[path.name]} has the same name", "rename one of them")
        found[path.name] = path.resolve()
    if found:
        os.environ[_OFFERED] = os.pathsep.join(map(str, found.values()))


def offered() -> dict[str, Path]:
    """Name of a file -> the file."""
    known = [Path(text) for text in os.environ.get(_OFFERED, "").split(os.pathsep) if text]
    return {path.name: path for path in known}


def is_in_file(name: str) -> bool:
    """Whether a plugin's name is that of a class in a file."""
    return ".py:" in name


def flattened(document: Mapping[str, Any]) -> dict[str, Any]:
    """A strategy's document with the tables of plugins in files beside the others."""
    inner = document.get(TABLE)
    if not isinstance(inner, Mapping):
        return dict(document)
    return {key: value for key, value in document.items() if key != TABLE} | dict(inner)


def fingerprints(names: Iterable[str]) -> dict[str, str]:
    """File -> SHA-256 of those that some plugins are in; a run records what it was trained by."""
    files = sorted({name.partition(":")[0] for name in names if is_in_file(name)})
    return {file: hashlib.sha256(_path(file).read_bytes()).hexdigest() for file in files}


def _path(file: str) -> Path:
    known = offered()
    if file not in known:
        problem = "a strategy names it, but the command line does not"
        remedy = f"add --plugins {file}, if you want its code to be run"
        raise InputError.at(f"plugin file {file!r}", problem, remedy)
    return known[file]


def _module(path: Path) -> Any:
    name = f"continual_mm_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError.at(path, "cannot be run", "give a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file does
        del sys.modules[name]
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise InputError.at(_line(path, error), problem, "mend the file") from error
    return module


def _line(path: Path, error: BaseException) -> str:
    """The file and the line of an error in it."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}, line {line}" if line else str(path)
