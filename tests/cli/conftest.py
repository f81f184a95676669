"""Commands as a user types them."""

import pytest


@pytest.fixture
def said(tmp_path, monkeypatch, typed):
    """Run a command in an empty folder, without converted data; what it printed, and its code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTINUAL_MM_DATA", str(tmp_path / "data"))
    return typed
