"""Commands as a user types them."""

from types import SimpleNamespace

import pytest

from continual_mm.cli.app import main


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder, without converted data; what it printed, and its code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTINUAL_MM_DATA", str(tmp_path / "data"))

    def ask(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=out, err=err)

    return ask
