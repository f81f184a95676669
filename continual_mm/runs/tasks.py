"""Runs still to do, and how the others ended; imports no torch."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data import registry as datasets
from continual_mm.definitions import Scenario, Strategy
from continual_mm.modality import DatasetCard
from continual_mm.plugins.registry import missing
from continual_mm.runs import failure
from continual_mm.runs.finding import is_finished
from continual_mm.runs.folder import RunFolder, definition
from continual_mm.runs.judging import Halt
from continual_mm.runs.listener import Audience, Listener


@dataclass(frozen=True, slots=True)
class Task:
    """One run to do.

    Attributes:
        scenario: The definition; its dataset is a registered name or the path of a pack.
        strategy: What protects old pairs.
        out: The run lies in ``out/<scenario>/<strategy>/seed-<seed>``.
        seed: Weights, order, shares and memory follow from it.
        options: Further keyword arguments of :func:`continual_mm.runs.run.run`, such as
            ``{"device": "cpu"}``; they must change no number.
    """

    scenario: Scenario
    strategy: Strategy
    out: Path
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.out / self.scenario.name / self.strategy.name / f"seed-{self.seed}"

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt at a run ended.

    Attributes:
        error: One line; empty if the run is finished.
        refused: Whether the error is an input that cannot be used, such as a device.
        diverged: Whether it is a number that was not finite: training again would come to it again.
        halted: Where and why an observer wanted no more of the run; not a failure.
    """

    error: str = ""
    refused: bool = False
    diverged: bool = False
    halted: Halt | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run stands after :func:`~continual_mm.runs.parallel.run_many`.

    Attributes:
        folder: Where it lies.
        error: Why it is not finished, in one line; empty if it is.
        refused: Whether the error is an input that cannot be used, such as a device.
        skipped: Whether it was finished earlier.
        diverged: Whether the error is a number that was not finite.
        halted: Where and why an observer wanted no more of the run; not a failure.
    """

    folder: Path
    error: str = ""
    refused: bool = False
    skipped: bool = False
    diverged: bool = False
    halted: Halt | None = None


class Ledger:
    """Gives out runs in order, takes down how they end, and tells an audience.

    Args:
        tasks: The runs.
        audience: Who hears of them.

    Raises:
        RefusedError: If a dataset cannot be used, if two runs would go into one folder, or if a
            folder holds another definition's run; with a complaint for each.
    """

    def __init__(self, tasks: Sequence[Task], audience: Audience) -> None:
        _check(tasks)
        self.audience = audience
        self._order = [task.folder for task in tasks]
        self._waiting = deque(tasks)
        self._outcomes: dict[Path, Outcome] = {}

    def take(self) -> Task | None:
        """The next run that is not finished; None if there is none."""
        while self._waiting:
            task = self._waiting.popleft()
            if not is_finished(task.folder):
                failure.forget(task.folder)
                return task
            self.audience.skips(str(task))
            self._outcomes[task.folder] = Outcome(task.folder, skipped=True)
        return None

    def listener(self, task: Task) -> Listener:
        """Who hears of a run just taken."""
        return self.audience.listener(str(task))

    def ended(self, task: Task, end: Ended) -> None:
        """Take down how a run ended; a failure is also noted in its folder."""
        self._outcomes[task.folder] = Outcome(
            task.folder, end.error, end.refused, diverged=end.diverged, halted=end.halted
        )
        if end.error:
            failure.note(task.folder, end.error)
            tell = self.audience.halts if end.halted else self.audience.fails
            tell(str(task), end.error)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the runs ended, in the order in which they were given."""
        return [self._outcomes[folder] for folder in self._order]


def _check(tasks: Sequence[Task]) -> None:
    """Refuse, before anything is trained, what would be refused hours later."""
    complaints = list(_repeated(task.folder for task in tasks))
    strategies = {task.strategy.name: task.strategy for task in tasks}
    for strategy in strategies.values():
        complaints += missing(strategy)
    cards: dict[tuple[str, str], DatasetCard] = {}
    for task in tasks:
        scenario = task.scenario
        key = scenario.dataset, scenario.folder
        if key not in cards:
            cards[key] = datasets.card(scenario.dataset, folder=Path(scenario.folder))
        try:
            RunFolder(task.folder).check(definition(scenario, task.strategy, cards[key], task.seed))
        except RefusedError as error:
            complaints += error.complaints
    if complaints:
        raise RefusedError(complaints)


def _repeated(folders: Iterable[Path]) -> Iterable[Complaint]:
    seen: set[Path] = set()
    for folder in folders:
        if folder in seen:
            remedy = "name each strategy once; two of one name need two --out"
            yield Complaint(str(folder), "two of the runs would go into this folder", remedy)
        seen.add(folder)
