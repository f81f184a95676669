"""Why a run stopped before its end, kept in its folder until it goes on."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from continual_mm.runs.files import write_json

FILE = "failure.json"


def note(folder: Path, error: str) -> None:
    """Write down why a run failed and when, if it has come as far as to have a folder.

    What cannot be written, on a full disk say, is left out: the failure itself is told elsewhere.
    """
    if folder.is_dir():
        when = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):
            write_json(folder / FILE, {"error": error, "when": when})


def forget(folder: Path) -> None:
    """Remove the note: the run goes on. What cannot be removed, the run will run into itself."""
    with suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)
