"""How far a run is: saved while it trains, and restored after it was stopped or killed."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import proxy

from continual_mm.evaluation.diagnosis import Diagnosis
from continual_mm.evaluation.drift import Geometry
from continual_mm.evaluation.indexes import IndexScore
from continual_mm.evaluation.protocols import judged
from continual_mm.evaluation.scores import ProtocolScore
from continual_mm.runs import checkpoint, records
from continual_mm.runs.folder import SCORES, RunFolder
from continual_mm.runs.history import Score
from continual_mm.runs.meters import Meter
from continual_mm.runs.session import Session
from continual_mm.runs.specification import Specification
from continual_mm.system.errors import InputError
from continual_mm.system.files import checksum


@dataclass(frozen=True, slots=True)
class Progress:
    """The point from which a run continues.

    ``stage`` is the 1-based stage done last, 0 at the beginning, and ``ended`` its checkpoint;
    ``step`` counts steps of the stage that follows, whose newest checkpoint is ``inside``; ``made``
    counts all that were made.
    """

    stage: int = 0
    step: int = 0
    ended: Path | None = None
    inside: Path | None = None
    made: int = 0


def progress_of(folder: RunFolder) -> Progress:
    """How far the run in a folder is.

    A damaged checkpoint inside a stage is passed over, for the steps until it are made again. One
    at a stage's end is not, since it may be all that is left of days of training.
    """
    stage = max(folder.finished_stages(), default=0)
    ended = folder.checkpoint(stage) if stage else None
    for path in folder.inside(stage):
        try:
            clock = checkpoint.verified(path).clock
        except InputError:
            continue
        made = clock.get("train_iterations", 0)
        return Progress(stage, clock.get("train_exp_iterations", 0), ended, path, made)
    made = 0
    if ended is not None:
        with suppress(InputError):
            known = records.read(records.Checkpoint, ended / checkpoint.NOTES)
            made = known.clock.get("train_iterations", 0)
    return Progress(stage, 0, ended, made=made)


class Checkpointer:
    """Writes what a run needs to go on to the same bits, and reads it back.

    At a stage's end everything is written, and every so many steps inside a stage; 0 writes none
    there. A checkpoint is read back before the one that it replaces is removed, so whenever the
    process ends, one is there that is whole.
    """

    def __init__(
        self,
        folder: RunFolder,
        session: Session,
        specification: Specification,
        meter: Meter,
        *,
        every: int,
    ) -> None:
        self._folder = folder
        self._session = session
        self._meter = meter
        self._names = {
            "scenario": specification.scenario.name,
            "strategy": specification.strategy.name,
            "seed": specification.seed,
        }
        self._learned = 0
        self._ranks: dict[str, str] = {}  # file of a finished stage's ranks -> its checksum
        if every:
            own = proxy(self)  # the learner must not keep what keeps it
            session.learner.after_step = lambda: own._every_so_often(every)

    def resume(self, at: Progress) -> tuple[int, Callable[[], None] | None]:
        """Put the session where the run stands; a damaged checkpoint of the last stage is refused.

        Returns the number of stages done, one if training is joint and finished, and what restores
        the step where the next one continues, to be called once that has begun.
        """
        self._remove_but(at.inside)
        if at.ended is not None:
            self._noted(_begun_after(self._session, at.ended))
        return self._learned, None if at.inside is None else partial(self._take, at.inside)

    def _take(self, path: Path) -> None:
        self._noted(_restored(self._session, path))

    def _noted(self, notes: records.Notes) -> None:
        self._learned, self._ranks = notes.learned, dict(notes.ranks)
        self._meter.goes_on(notes.model_dump())

    def _every_so_often(self, every: int) -> None:
        learner = self._session.learner
        if learner.step % every:
            return
        learner.check()
        path = self._folder.checkpoint(learner.stage + 1, learner.step)
        self._save(path)
        self._remove_but(path)

    def stage_ends(self) -> None:
        """Write down a stage that was trained and scored."""
        self._learned += 1
        stage = self._session.learner.stage + 1
        self._write_ranks(stage, self._session)
        self._write_scores()
        self._save(self._folder.checkpoint(stage))
        self._remove_but(None)

    def _save(self, path: Path) -> None:
        notes = {
            **self._meter.notes,
            "learned": self._learned,
            "scores": [score.as_json() for score in self._session.history.scores],
            "geometry": [moment.as_json() for moment in self._session.history.geometry],
            "diagnosis": [one.as_json() for one in self._session.history.diagnosis],
            "protocols": [score.as_json() for score in self._session.history.protocols],
            "indexes": [score.as_json() for score in self._session.history.indexes],
            "choices": self._session.history.choices,
            "ranks": self._ranks,
        }
        session = self._session
        checkpoint.save(path, session.learner, session.keepers, notes, self._folder.definition)

    def _write_ranks(self, stage: int, session: Session) -> None:
        final = (each for each in session.evaluations if each.final)
        path = self._folder.write_ranks(stage, final, session.judged)
        self._ranks[path.name] = checksum(path)

    def _write_scores(self) -> bool:
        return self._folder.write_scores(self._session.history, self._names, self._ranks)

    def mend(self, new_session: Callable[[], Session], *, doubted: bool) -> Iterator[str]:
        """Make the results of finished stages again that are missing or damaged; says which.

        Ranks follow from the space at the end of their stage, so a new session begins there for
        each stage of which they are lost, or ``doubted`` where no checksum was kept.
        """
        for stage in self._folder.finished_stages():
            if self._has_ranks(stage, doubted=doubted):
                continue
            session = new_session()
            _begun_after(session, self._folder.checkpoint(stage))
            session.evaluations.clear()
            session.learner.evaluate(session.benchmark)
            session.judged[:] = judged(session.judges, session.learner)
            self._write_ranks(stage, session)
            yield f"{self._folder.ranks(stage)} was missing or damaged, and is made again"
        if self._learned and self._write_scores():
            yield f"{self._folder.path / SCORES} was missing or damaged, and is made again"

    def _has_ranks(self, stage: int, *, doubted: bool) -> bool:
        path = self._folder.ranks(stage)
        expected = self._ranks.get(path.name)  # earlier versions kept none
        return path.is_file() and (not doubted if expected is None else checksum(path) == expected)

    def _remove_but(self, kept: Path | None) -> None:
        for path in self._folder.inside(0):
            if path != kept:
                shutil.rmtree(path)


def _begun_after(session: Session, path: Path) -> records.Notes:
    """Put a new session where a stage's end left an earlier one."""
    checkpoint.add_modalities(path, session.learner)
    notes = _restored(session, path)
    session.learner.pass_over(session.benchmark, notes.learned)
    return notes


def _restored(session: Session, path: Path) -> records.Notes:
    """Restore a session that has the same modalities, and what it had measured."""
    notes, history = checkpoint.restore(path, session.learner, session.keepers), session.history
    with checkpoint.understood(path):
        history.scores[:] = map(Score.from_json, notes.scores)
        history.geometry[:] = map(Geometry.from_json, notes.geometry)
        history.diagnosis[:] = map(Diagnosis.from_json, notes.diagnosis)
        history.protocols[:] = map(ProtocolScore.from_json, notes.protocols)
        history.indexes[:] = map(IndexScore.from_json, notes.indexes)
    history.choices[:] = notes.choices
    return notes
