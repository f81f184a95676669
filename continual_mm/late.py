"""Modules that take long to import, when they are needed and not before."""

from importlib import import_module
from typing import Any


def late(module: str) -> Any:
    """A module of the package, by its name inside it; imported now, if it was not before."""
    return import_module(f"continual_mm.{module}")
