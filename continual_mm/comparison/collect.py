"""Read finished runs below some folders, and see that those compared belong together."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from continual_mm.comparison.exported import DEFINITIONS, read_exported
from continual_mm.comparison.variants import definition_of, differing, named_apart, same_numbers
from continual_mm.runs.finished import FinishedRun, read_finished
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.status import find_folders
from continual_mm.system.errors import InputError, Problem, Problems, first_few


def collect(folders: Iterable[Path]) -> tuple[list[FinishedRun], list[str]]:
    """Read every finished run at or below some folders, and say in a line each which are left out.

    These are unfinished or damaged; if there are none but damaged ones, they are refused. A folder
    may be one that ``export`` wrote. Runs count once; links to folders are not followed.
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
    if not runs:
        problems.check()
    unfinished = [str(path) for path in found if path not in finished]
    left_out = [f"left out: {problem}" for problem in problems]
    if unfinished:
        some = "run is" if len(unfinished) == 1 else "runs are"
        left_out.append(
            f"{len(unfinished)} {some} not finished and left out: {first_few(unfinished)}"
        )
    return runs, left_out


def grouped(runs: Iterable[FinishedRun]) -> dict[str, dict[str, list[FinishedRun]]]:
    """Sort runs by scenario, strategy and seed, named apart by what differs in their definitions.

    See :func:`~continual_mm.comparison.variants.named_apart`. A run that lies in several folders
    counts once; those that cannot be compared are refused.
    """
    groups: dict[str, dict[str, list[FinishedRun]]] = {}
    problems = Problems()
    named = named_apart(list(runs))
    for run in sorted(named, key=lambda run: (run.scenario, run.strategy, run.seed)):
        peers = groups.setdefault(run.scenario, {}).setdefault(run.strategy, [])
        same = next((other for other in peers if other.seed == run.seed), None)
        if same is None:
            peers.append(run)
        elif not same_numbers(same, run):
            remedy = "compare them separately"
            problems.append(Problem(str(run.folder), _of_one_seed(run, same), remedy))
    problems.check()
    return groups


def conflicts(
    run: FinishedRun, others: Sequence[FinishedRun]
) -> Iterator[tuple[str, list[FinishedRun]]]:
    """Why a run would not go under its name with others, and with which of them."""
    scenario = [other for other in others if other.scenario == run.scenario]
    strategy = [other for other in scenario if other.strategy == run.strategy]
    names = f"scenario '{run.scenario}'", f"strategy '{run.strategy}'"
    for name, peers, part in zip(names, (scenario, strategy), ("task", "protection"), strict=True):
        changes = [list(differing(getattr(peer, part), getattr(run, part))) for peer in peers]
        if peers and all(changes):
            problem = f"{name} is not that of {peers[0].folder}: {first_few(changes[0])} differ"
            yield problem, peers
    alike = [other for other in strategy if definition_of(other) == definition_of(run)]
    if same := [other for other in alike if other.seed == run.seed]:
        yield _of_one_seed(run, same[0]), same


def _of_one_seed(run: FinishedRun, other: FinishedRun) -> str:
    where = f"is also in {other.folder}, with other numbers"
    return f"seed {run.seed} of strategy '{run.strategy}' {where}"
