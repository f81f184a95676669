import importlib
import sys

import pytest

from continual_mm.preparation.formats.clip_pickles import class_text
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.renamed import MODULES


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """No old module was imported before; none is afterwards."""
    for name in [name for name in sys.modules if name.startswith(tuple(MODULES))]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("continual_mm.complaint", "RefusedError", InputError),
        ("continual_mm.complaint", "Complaint", Problem),
        ("continual_mm.data.class_names", "class_text", class_text),
    ],
)
def test_names_of_the_last_version_are_the_new_ones_and_warn(module, old, new):
    with pytest.warns(DeprecationWarning, match=f"{module} is now {MODULES[module]}"):
        assert getattr(importlib.import_module(module), old) is new


def test_modules_below_a_renamed_one_are_found_too():
    new = importlib.import_module("continual_mm.preparation.extraction.manifest")
    with pytest.warns(DeprecationWarning, match=r"extraction\.manifest"):
        from continual_mm.extraction.manifest import Manifest
    assert Manifest is new.Manifest


def test_the_old_attribute_of_an_error_warns():
    problem = Problem("here", "nothing")
    with pytest.warns(DeprecationWarning, match="problems"):
        assert InputError(problem).complaints == (problem,)
