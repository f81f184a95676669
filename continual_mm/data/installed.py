"""What needs packages that are not installed everywhere, handed on or refused."""

from importlib import import_module
from typing import Any

from continual_mm.complaint import Complaint, RefusedError

_ARROW = ("datasets", "pandas", "pyarrow")


def installed(reference: str, what: str) -> Any:
    """Import what a reference names.

    Args:
        reference: ``module:name``.
        what: What to call it in a refusal.

    Raises:
        RefusedError: If it needs a package of the extra ``data`` that is not installed.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in _ARROW:
            raise
        problem, remedy = f"needs {error.name}", "pip install 'continual-mm[data]'"
        raise RefusedError(Complaint(what, problem, remedy)) from error
