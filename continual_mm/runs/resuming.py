"""How far a run is: saved while it trains, and restored after it was stopped or killed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import proxy

from continual_mm.evaluation.drift import Geometry
from continual_mm.evaluation.indexes import IndexScore
from continual_mm.evaluation.scores import ProtocolScore
from continual_mm.runs import checkpoint
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.history import Score
from continual_mm.runs.meters import Meter
from continual_mm.runs.session import Session
from continual_mm.runs.specification import Specification
from continual_mm.system.errors import InputError


@dataclass(frozen=True, slots=True)
class Progress:
    """The point from which a run continues.

    ``stage`` is the 1-based stage done last, 0 at the beginning, and ``ended`` its checkpoint;
    ``step`` counts steps of the stage that follows, whose newest checkpoint is ``inside``.
    """

    stage: int = 0
    step: int = 0
    ended: Path | None = None
    inside: Path | None = None


def progress_of(folder: RunFolder) -> Progress:
    """How far the run in a folder is.

    A damaged checkpoint inside a stage is passed over, for the steps until it are made again. One
    at a stage's end is not, since it may be all that is left of days of training.
    """
    stage = max(folder.finished_stages(), default=0)
    ended = folder.checkpoint(stage) if stage else None
    for path in folder.inside(stage):
        try:
            clock = checkpoint.verified(path)["clock"]
        except InputError:
            continue
        return Progress(stage, int(clock["train_exp_iterations"]), ended, path)
    return Progress(stage, 0, ended)


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
            checkpoint.add_modalities(at.ended, self._session.learner)
            self._take(at.ended)
            self._session.learner.pass_over(self._session.benchmark, self._learned)
        return self._learned, None if at.inside is None else partial(self._take, at.inside)

    def _take(self, path: Path) -> None:
        notes = checkpoint.restore(path, self._session.learner, self._session.keepers)
        history = self._session.history
        history.scores[:] = [Score.from_json(entry) for entry in notes["scores"]]
        history.geometry[:] = [Geometry.from_json(entry) for entry in notes["geometry"]]
        # Runs that an earlier version began have no such note.
        known = notes.get("protocols", [])
        history.protocols[:] = [ProtocolScore.from_json(entry) for entry in known]
        history.indexes[:] = [IndexScore.from_json(entry) for entry in notes.get("indexes", [])]
        history.choices[:] = notes.get("choices", [])
        self._learned = int(notes["learned"])
        self._meter.goes_on(notes)

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
        final = (e for e in self._session.evaluations if e.final)
        self._folder.write_ranks(stage, final, self._session.judged)
        self._folder.write_scores(self._session.history, self._names)
        self._save(self._folder.checkpoint(stage))
        self._remove_but(None)

    def _save(self, path: Path) -> None:
        notes = {
            **self._meter.notes,
            "learned": self._learned,
            "scores": [score.as_json() for score in self._session.history.scores],
            "geometry": [moment.as_json() for moment in self._session.history.geometry],
            "protocols": [score.as_json() for score in self._session.history.protocols],
            "indexes": [score.as_json() for score in self._session.history.indexes],
            "choices": self._session.history.choices,
        }
        checkpoint.save(path, self._session.learner, self._session.keepers, notes)

    def _remove_but(self, kept: Path | None) -> None:
        for path in self._folder.inside(0):
            if path != kept:
                shutil.rmtree(path)
