"""Adds finished runs to an export, a small folder without weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from continual_mm.comparison.collect import collect, conflicts, grouped
from continual_mm.comparison.exported import (
    DEFINITIONS,
    RANKS,
    ROWS,
    UNFINISHED,
    read_exported,
    write_exported,
)
from continual_mm.comparison.variants import definition_of, same_numbers
from continual_mm.runs.finished import FinishedRun
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import remove_temporary

LOCK = "export.lock"  # the file in the folder that the process holds which adds to it
PATIENCE = 60.0  # seconds to wait for another process to be done with the folder; it needs few


@dataclass(frozen=True, slots=True)
class Merged:
    """Runs of two sources, by scenario, strategy and seed; how many are new, and how many went.

    ``left_out`` says of each run that was found, but could not be taken, why not.
    """

    runs: list[FinishedRun]
    added: int
    replaced: int
    left_out: tuple[str, ...] = ()


def export(folders: Iterable[Path], to: Path, *, force: bool = False) -> Merged:
    """Add finished runs at or below some folders to those in ``to``, as :func:`merge` does."""
    found, left_out = collect(folders)
    return replace(add(found, to, force=force), left_out=tuple(left_out))


def add(runs: Sequence[FinishedRun], to: Path, *, force: bool) -> Merged:
    """Add runs to those that are in a folder by now; what other processes add stays."""
    merge([], runs, force=force)  # runs that contradict each other leave no folder behind
    to.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(to / LOCK, timeout=PATIENCE):
            remove_temporary(to)
            merged = merge(exported(to), runs, force=force)
            write_exported(grouped(merged.runs), to)
    except Timeout as error:
        problem = f"another process has been at work in it for {PATIENCE:.0f} seconds"
        raise InputError.at(to, problem, "wait for it, or export into another folder") from error
    return merged


def exported(to: Path) -> list[FinishedRun]:
    """Runs that a folder has already; none if no export into it was completed."""
    there = any((to / name).exists() for name in (ROWS, DEFINITIONS, RANKS))
    begun = (to / UNFINISHED).exists() and not (to / ROWS).exists()
    return read_exported(to) if there and not begun else []


def merge(kept: Sequence[FinishedRun], new: Iterable[FinishedRun], *, force: bool) -> Merged:
    """Bring runs together; the same run may be on both sides.

    With ``force``, runs of ``kept`` that have another definition or other numbers are left out;
    without it they are refused, as new runs always are that do not belong together.
    """
    known = {_key(run): run for run in kept}
    added: dict[_Key, FinishedRun] = {}
    together, twice = set(), []
    for run in new:
        together.add(_key(run))
        earlier = added.get(_key(run)) or known.get(_key(run))
        if earlier is None or not same_numbers(earlier, run):
            twice += [added[_key(run)]] if _key(run) in added else []
            added[_key(run)] = run
    grouped([*added.values(), *twice, *(known[key] for key in together - added.keys())])
    apart = [run for key, run in known.items() if key in added or key not in together]
    clashes = {_key(run): found for run in added.values() if (found := list(conflicts(run, apart)))}
    if clashes and not force:
        remedy = "use --force to replace it, or export both folders at once, or into another one"
        raise InputError(
            Problem(str(added[key].folder), found[0][0], remedy) for key, found in clashes.items()
        )
    stale = {_key(old) for found in clashes.values() for _, olds in found for old in olds}
    runs = {key: run for key, run in known.items() if key not in stale} | added
    taken = {key[:3] for key in stale}
    fresh = [key for key in added.keys() - known.keys() if key[:3] not in taken]
    return Merged([runs[key] for key in sorted(runs)], len(fresh), len(stale))


_Key = tuple[str, str, int, tuple[str, str]]


def _key(run: FinishedRun) -> _Key:
    return run.scenario, run.strategy, run.seed, definition_of(run)
