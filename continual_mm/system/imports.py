"""Imports of packages that may not be installed, and of parts of packages that are large."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from threading import RLock
from types import MappingProxyType, ModuleType
from typing import Any

from continual_mm.system.errors import InputError, Problem

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("av", "datasets", "huggingface_hub", "pyarrow"), "data"),
        **dict.fromkeys(("altair", "vl_convert"), "report"),
        "faiss": "search",
        "mlflow": "mlflow",
        "open_clip": "clip",
        "optuna": "tune",
        "pandas": "frames",
        "peft": "lora",
        "sentence_transformers": "st",
        "tomlkit": "tune",
        "transformers": "clap",
        "wandb": "wandb",
    }
)
"""Packages that are not installed everywhere -> the extra of continual-mm that brings each."""


def not_installed(package: str, place: str) -> Problem:
    """The problem of a package of :data:`EXTRAS` that is not there."""
    remedy = f"pip install 'continual-mm[{EXTRAS[package]}]'"
    return Problem(place, f"{package} is not installed", remedy)


def check_installed(package: str, place: str) -> None:
    """Check for a package of :data:`EXTRAS` without importing it."""
    if find_spec(package) is None:
        raise InputError(not_installed(package, place))


@contextmanager
def optional_import(place: str) -> Iterator[None]:
    """Around imports of what needs a package of :data:`EXTRAS`; a missing one is an InputError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in EXTRAS:
            raise
        raise InputError(not_installed(error.name, place)) from error


@contextmanager
def in_parts(*packages: str) -> Iterator[None]:
    """Import packages whose ``__init__`` runs only the statements that give a name asked for."""
    finder = _Parts(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Parts(MetaPathFinder, Loader):
    """Leaves the statements of an ``__init__`` until their names are asked for."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        pending = ast.parse(Path(f"{module.__file__}").read_bytes()).body
        lock = RLock()

        def missing(name: str) -> Any:
            """Run statements until there is a name, those that give it first."""
            with lock:
                wanted = [each for each in pending if _gives(each, name, module)]
                if name == "__all__" or not name.startswith("__"):
                    wanted += [each for each in pending if each not in wanted]
                for statement in wanted:
                    if name in vars(module):
                        break
                    if statement in pending:  # an import in a ring may have run it by now
                        pending.remove(statement)
                        code = compile(ast.Module([statement], []), f"{module.__file__}", "exec")
                        exec(code, vars(module))
            if name not in vars(module):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return vars(module)[name]

        vars(module)["__getattr__"] = missing


def _gives(statement: ast.stmt, name: str, package: ModuleType) -> bool:
    """Whether a statement at the top of a package gives a name."""
    if isinstance(statement, ast.Assign):
        return any(isinstance(each, ast.Name) and each.id == name for each in statement.targets)
    if not isinstance(statement, ast.ImportFrom):
        return getattr(statement, "name", "") == name
    names = {alias.asname or alias.name for alias in statement.names}
    if "*" not in names:
        return name in names
    path = "." * statement.level + (statement.module or "")
    spec = PathFinder.find_spec(resolve_name(path, package.__name__), package.__path__)
    if spec is None or not isinstance(spec.loader, InspectLoader):
        return False
    source = spec.loader.get_source(spec.name) or ""
    return re.search(rf"^(class|def) {name}\b", source, re.MULTILINE) is not None
