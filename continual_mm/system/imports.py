"""What needs packages that are not installed everywhere, handed on or refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from continual_mm.system.errors import InputError, Problem

_ARROW = ("datasets", "pandas", "pyarrow")


def installed(reference: str, what: str) -> Any:
    """Import what a reference names.

    Args:
        reference: ``module:name``.
        what: What to call it in a refusal.

    Raises:
        InputError: If it needs a package of the extra ``data`` that is not installed.
    """
    module, _, name = reference.partition(":")
    with refusing(what):
        return getattr(import_module(module), name)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Refuse what needs a package of the extra ``data`` that is not installed.

    Args:
        what: What to call it in a refusal.

    Raises:
        InputError: If an import inside lacks such a package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _ARROW:
            raise
        problem, remedy = f"needs {error.name}", "pip install 'continual-mm[data]'"
        raise InputError(Problem(what, problem, remedy)) from error


def late(module: str) -> Any:
    """A module of the package, by its name inside it; imported now, if it was not before."""
    return import_module(f"continual_mm.{module}")
