"""Writes what a comparison needs of finished runs into one small folder without weights."""

import csv
import io
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray

from continual_mm.comparison.collect import collect, differing, grouped
from continual_mm.comparison.exported import (
    DEFINITIONS,
    FORMAT,
    RANKS,
    ROWS,
    UNFINISHED,
    cells,
    judged_arrays,
    read_exported,
    same_answers,
)
from continual_mm.comparison.finished import FinishedRun, ranked_stages
from continual_mm.comparison.run_table import HEADINGS, table
from continual_mm.system.errors import InputError, Problem, first_few
from continual_mm.system.files import atomic_write, locked, remove_temporary, write_json

LOCK = "export.lock"
"""The file in the folder that the process holds which adds to it."""
PATIENCE = 60.0
"""Seconds that a process waits for another one to be done with the folder; it needs few."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time that every member of the archive bears, so that equal runs give equal bytes."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Runs of two sources, by scenario, strategy and seed.

    Attributes:
        runs: All of them.
        added: How many were not there before.
        replaced: How many that were there before are not any more.
    """

    runs: list[FinishedRun]
    added: int
    replaced: int


def export(folders: Iterable[Path], to: Path, *, force: bool = False) -> Merged:
    """Add every finished run at or below some folders to what was exported earlier.

    Args:
        folders: As for a comparison.
        to: The folder with the exported runs; what else lies in it stays.
        force: Let new runs replace those that do not go with them.

    Raises:
        InputError: If there is no finished run, a file is damaged, or a run is there already with
            another definition or other numbers.
    """
    found, _ = collect(folders)
    return add(found, to, force=force)


def add(runs: Sequence[FinishedRun], to: Path, *, force: bool) -> Merged:
    """Add runs to those that are in a folder by now; what other processes add stays.

    Args:
        runs: Finished ones.
        to: The folder with the exported runs.
        force: As for :func:`merge`.

    Raises:
        InputError: As :func:`merge` does, or if a file is damaged, or another process does not
            come to an end.
    """
    merge([], runs, force=force)  # what contradicts itself leaves no folder behind
    with _alone(to):
        remove_temporary(to)
        merged = merge(exported(to), runs, force=force)
        write(merged.runs, to)
    return merged


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that adds to a folder; wait until another one is done."""
    end = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder / LOCK))
                break
            except InputError as error:
                if time.monotonic() >= end:
                    problem = f"another process has been at work in it for {PATIENCE:.0f} seconds"
                    remedy = "wait for it, or export into another folder"
                    raise InputError(Problem(str(folder), problem, remedy)) from error
                time.sleep(0.05)
        yield


def exported(to: Path) -> list[FinishedRun]:
    """Runs that a folder has already; none if no export into it came to its end.

    Raises:
        InputError: If a file is damaged, or missing while another one is there.
    """
    there = any((to / name).exists() for name in (ROWS, DEFINITIONS, RANKS))
    begun = (to / UNFINISHED).exists() and not (to / ROWS).exists()
    return read_exported(to) if there and not begun else []


def merge(kept: Sequence[FinishedRun], new: Iterable[FinishedRun], *, force: bool) -> Merged:
    """Bring runs together; the same run may be on both sides.

    Args:
        kept: Runs that belong together.
        new: More of them.
        force: Leave out whatever of ``kept`` does not go with ``new``: runs of the same scenario or
            strategy with another definition, and of the same seed with other numbers.

    Raises:
        InputError: If new runs do not belong together, or, without ``force``, with the others.
    """
    known = {_key(run): run for run in kept}
    added: dict[tuple[Any, ...], FinishedRun] = {}
    twice = []
    for run in new:
        earlier = added.get(_key(run)) or known.get(_key(run))
        if earlier is None or not _same(earlier, run):
            twice += [run] if _key(run) in added else []
            added[_key(run)] = run
    grouped([*added.values(), *twice])
    clashes = {_key(run): found for run in added.values() if (found := list(_clashes(kept, run)))}
    if clashes and not force:
        raise InputError(_problem(added[key], found[0]) for key, found in clashes.items())
    stale = {_key(old) for found in clashes.values() for _, olds in found for old in olds}
    runs = {key: run for key, run in known.items() if key not in stale} | added
    return Merged([runs[key] for key in sorted(runs)], len(added.keys() - known.keys()), len(stale))


def _key(run: FinishedRun) -> tuple[str, str, int]:
    return run.scenario, run.strategy, run.seed


def _same(first: FinishedRun, second: FinishedRun) -> bool:
    """Whether two runs of one name are equal in all that is no time."""
    return (
        not any(differing(first.task, second.task))
        and not any(differing(first.protection, second.protection))
        and first.memory_bytes == second.memory_bytes
        and first.ranked.keys() == second.ranked.keys()
        and all(
            np.array_equal(ranked.rows, second.ranked[cell].rows)
            and np.array_equal(ranked.ranks, second.ranked[cell].ranks)
            for cell, ranked in first.ranked.items()
        )
        and same_answers(first, second)
    )


def _clashes(
    kept: Sequence[FinishedRun], run: FinishedRun
) -> Iterator[tuple[str, list[FinishedRun]]]:
    """Why a run does not go with others, and with which."""
    scenario = [old for old in kept if old.scenario == run.scenario]
    strategy = [old for old in scenario if old.strategy == run.strategy]
    if scenario and (keys := list(differing(scenario[0].task, run.task))):
        problem = f"scenario '{run.scenario}' is there with another {first_few(keys)}"
        yield problem, scenario
    if strategy and (keys := list(differing(strategy[0].protection, run.protection))):
        yield f"strategy '{run.strategy}' is there with another {first_few(keys)}", strategy
    if same := [old for old in strategy if old.seed == run.seed]:
        yield f"seed {run.seed} of strategy '{run.strategy}' is there with other numbers", same


def _problem(run: FinishedRun, clash: tuple[str, list[FinishedRun]]) -> Problem:
    remedy = "--force replaces what is there; or export into another folder"
    return Problem(str(run.folder), clash[0], remedy)


def write(runs: Sequence[FinishedRun], to: Path) -> None:
    """Write runs that belong together; equal runs give equal bytes.

    The rows come last: whatever they name is then there already, so the folder can be read at any
    moment, even if the process is killed. That there may be more than they name until then is told
    by a file; without it nobody could know that rows were not lost.

    Raises:
        InputError: If runs do not belong together.
    """
    groups = grouped(runs)
    with atomic_write(to / UNFINISHED):
        pass
    _write_archive(to / RANKS, _arrays(groups))
    write_json(to / DEFINITIONS, _definitions(groups))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([HEADINGS, *table([run for known in groups.values() for run in _all(known)])])
    with atomic_write(to / ROWS) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    (to / UNFINISHED).unlink()


def _all(strategies: Mapping[str, Sequence[FinishedRun]]) -> list[FinishedRun]:
    return [run for runs in strategies.values() for run in runs]


def _definitions(groups: Mapping[str, Mapping[str, Sequence[FinishedRun]]]) -> dict[str, Any]:
    scenarios: dict[str, Any] = {}
    strategies: list[dict[str, Any]] = []
    for scenario, known in groups.items():
        first = _all(known)[0]
        pairs = {
            name: {"birth": facts.birth + 1, "role": facts.role, "chance": facts.chance}
            for name, facts in first.pairs.items()
        }
        scenarios[scenario] = {**first.task, "pairs": pairs, "stages": first.arrivals}
        for runs in known.values():
            definition = runs[0].protection
            same = [each for each in strategies if each["definition"] == definition]
            if not same:
                same = [{"scenarios": [], "definition": definition}]
                strategies += same
            same[0]["scenarios"].append(scenario)
    strategies.sort(key=lambda each: (each["definition"]["name"], each["scenarios"]))
    return {"format": FORMAT, "scenarios": scenarios, "strategies": strategies}


def _arrays(
    groups: Mapping[str, Mapping[str, Sequence[FinishedRun]]],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and array of every member: rows of a scenario's pairs, seeds and ranks of strategies."""
    for scenario, strategies in groups.items():
        rows: dict[str, NDArray[np.int64]] = {}
        for strategy, runs in strategies.items():
            for run in runs:
                _check_rows(run, rows)
            yield f"seeds/{scenario}/{strategy}", np.array([run.seed for run in runs])
            yield f"ranks/{scenario}/{strategy}", _packed(np.stack([_line(run) for run in runs]))
        yield from ((f"rows/{scenario}/{pair}", _small(found)) for pair, found in rows.items())
        yield from judged_arrays(scenario, strategies)


def _check_rows(run: FinishedRun, rows: dict[str, NDArray[np.int64]]) -> None:
    for (_, pair), ranked in run.ranked.items():
        if not np.array_equal(rows.setdefault(pair, ranked.rows), ranked.rows):
            problem = f"has other test items of {pair} than further runs of the scenario"
            raise InputError(Problem(str(run.folder), problem, "export it by itself"))


def _line(run: FinishedRun) -> NDArray[np.float64]:
    """(ranks,) of all cells one after another."""
    stages = ranked_stages(len(run.arrivals), joint=run.joint)
    parts = [run.ranked[cell].ranks.ravel() for cell in cells(run.pairs, stages)]
    return np.concatenate(parts) if parts else np.empty(0)


def _packed(ranks: NDArray[np.float64]) -> NDArray[Any]:
    """Twice the ranks as small whole numbers: ties make halves. The ranks themselves if not."""
    doubled = 2 * ranks
    whole = (doubled == np.round(doubled)).all() and (doubled < 2**32).all()
    return _small(doubled.astype(np.uint64)) if whole else ranks


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers from 0 in as few bytes as they need."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _write_archive(path: Path, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in sorted(arrays, key=lambda named: named[0]):
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16
            stream = io.BytesIO()
            npy.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, stream.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
