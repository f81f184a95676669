"""Read finished runs below some folders, and see that those compared belong together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from continual_mm.comparison.exported import DEFINITIONS, read_exported
from continual_mm.comparison.finished import FinishedRun, read_finished
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.status import find_folders
from continual_mm.system import files
from continual_mm.system.errors import InputError, Problem, Problems, first_few


def collect(folders: Iterable[Path]) -> tuple[list[FinishedRun], list[Path]]:
    """Read every finished run at or below some folders, and list the folders of unfinished ones.

    A folder may be one that ``export`` wrote. Runs count once; links to folders are not followed.
    """
    places = [Path(folder) for folder in folders]
    found = find_folders(places)
    finished = [path for path in found if RunFolder(path).finished]
    exports = find_folders(places, DEFINITIONS)
    if not finished and not exports:
        shown = ", ".join(map(str, places)) or "no folder"
        problem = f"no finished run among {len(found)}" if found else "there is no run in it"
        remedy = "give a folder that continual-mm run wrote to; an unfinished run goes on with it"
        raise InputError.at(shown, problem, remedy)
    runs: list[FinishedRun] = []
    problems = Problems()
    for path in finished:
        with problems.collected():
            runs.append(read_finished(path))
    for path in exports:
        with problems.collected():
            runs += read_exported(path)
    problems.check()
    return runs, [path for path in found if path not in finished]


def grouped(runs: Iterable[FinishedRun]) -> dict[str, dict[str, list[FinishedRun]]]:
    """Sort runs by scenario, strategy and seed; those that do not belong together are refused."""
    groups: dict[str, dict[str, list[FinishedRun]]] = {}
    problems = Problems()
    for run in sorted(runs, key=lambda run: (run.scenario, run.strategy, run.seed)):
        strategies = groups.setdefault(run.scenario, {})
        for message, _ in conflicts(run, [one for peers in strategies.values() for one in peers]):
            problems.append(Problem(str(run.folder), message, "compare them separately"))
        strategies.setdefault(run.strategy, []).append(run)
    problems.check()
    return groups


def conflicts(
    run: FinishedRun, others: Sequence[FinishedRun]
) -> Iterator[tuple[str, list[FinishedRun]]]:
    """Why a run does not go with others, which go with each other, and with which of them."""
    scenario = [other for other in others if other.scenario == run.scenario]
    strategy = [other for other in scenario if other.strategy == run.strategy]
    names = f"scenario '{run.scenario}'", f"strategy '{run.strategy}'"
    for name, peers, part in zip(names, (scenario, strategy), ("task", "protection"), strict=True):
        if peers and (keys := list(differing(getattr(peers[0], part), getattr(run, part)))):
            yield f"{name} is not that of {peers[0].folder}: {first_few(keys)} differ", peers
    if same := [other for other in strategy if other.seed == run.seed]:
        yield f"seed {run.seed} of {names[1]} is also in {same[0].folder}", same


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys below which two definitions differ."""
    yield from (where for where, *_ in files.differing(first, second, off=("scenario",)))
