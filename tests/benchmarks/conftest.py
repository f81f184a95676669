"""Modules of the folders in benchmarks/, which are no packages."""

import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="package")
def modules_of():
    """(folder, names of modules) -> a ``with`` block in which they are attributes by name."""

    @contextmanager
    def imported(folder, names):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(BENCHMARKS / folder))
            yield SimpleNamespace(**{name: import_module(name) for name in names})
            for name in names:
                del sys.modules[name]

    return imported
