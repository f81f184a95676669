"""Where a run keeps what: one folder per scenario, strategy and seed."""

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.modality import Pair
from continual_mm.runs import records
from continual_mm.system.errors import InputError, first_line
from continual_mm.system.files import (
    LOCK,
    TEMPORARY,
    WriteError,
    atomic_write,
    locked,
    read_json,
    remove_temporary,
    sentences,
    without_nan,
    write_json,
    writing,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from continual_mm.evaluation.pairs import Evaluation
    from continual_mm.evaluation.scores import Judged
    from continual_mm.runs.history import History


DEFINITION, SCORES, COST = "definition.json", "scores.json", "cost.json"
VERSIONS = "versions.json"
FAILURE = "failure.json"  # why a run ended before it was finished
CHECKPOINTS = "checkpoints"  # the folder of them
CONSOLIDATION = "consolidation.json"  # in a folder whose space has reduced vectors
_DEFINED = {"scenario", "strategy", "seed", "data"}
CHECKPOINT = re.compile(r"stage-(?P<stage>\d+)(-step-(?P<step>\d+))?")
NO_RANKS: Mapping[str, str] = MappingProxyType({})
RESERVED = 4096  # bytes kept free for the note of a failure, which may be for lack of room
PACKAGES = ("continual-mm", "torch", "avalanche-lib", "POT", "numpy", "gensim", "librosa")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run.

    ``definition.json`` scenario, strategy, seed and data as they were when the run began;
    ``versions.json`` the packages; ``scores.json`` every evaluation and the drift of the space;
    ``ranks/stage-N.npz`` the rank of every query at the end of stage N; ``cost.json`` seconds,
    steps and bytes; ``events/`` for TensorBoard; ``checkpoints/stage-N/`` the space and everything
    needed to go on, after a stage; ``checkpoints/stage-N-step-M/`` the same inside the stage in
    progress.
    """

    path: Path

    @property
    def events(self) -> Path:
        """TensorBoard's files."""
        return self.path / "events"

    def checkpoint(self, stage: int, step: int | None = None) -> Path:
        """The checkpoint after a 1-based stage, or after a step of it."""
        name = f"stage-{stage}" if step is None else f"stage-{stage}-step-{step}"
        return self.path / CHECKPOINTS / name

    def finished_stages(self) -> list[int]:
        """1-based stages with a checkpoint at their end, ascending."""
        return sorted(stage for stage, step, _ in self.checkpoints() if not step)

    def inside(self, stage: int) -> list[Path]:
        """Checkpoints inside stages later than a 1-based one, the newest first."""
        found = [each for each in self.checkpoints() if each[0] > stage and each[1]]
        return [path for _, _, path in sorted(found, reverse=True)]

    def checkpoints(self) -> Iterator[tuple[int, int, Path]]:
        """Stage, step (0 at the stage's end) and path of every checkpoint."""
        for path in (self.path / CHECKPOINTS).glob("stage-*"):
            if found := CHECKPOINT.fullmatch(path.name):
                yield int(found["stage"]), int(found["step"] or 0), path

    def last_checkpoint(self) -> tuple[int, int | None, Path | None]:
        """Stage, step if it is inside the stage, and path of the newest one; stage 0 if none."""
        found = [(stage, step or inf, path) for stage, step, path in self.checkpoints()]
        stage, step, path = max(found, default=(0, inf, None))
        return stage, None if step == inf else int(step), path

    def clear_unfinished(self) -> None:
        """Remove what a killed process had begun to write."""
        for unfinished in list(self.path.rglob(f"{TEMPORARY}*")):
            remove_temporary(unfinished.parent)

    @property
    def definition(self) -> dict[str, Any]:
        """What was run; in a folder of consolidated vectors, in the run that they were made of."""
        path = self.path / (CONSOLIDATION if self.consolidated else DEFINITION)
        found = read_json(path)
        if self.consolidated and isinstance(found, dict):
            found = found.get("definition")
        if not isinstance(found, dict) or not found.keys() >= _DEFINED:
            problem = "does not say what was run"
            raise InputError.at(path, problem, "take the folder from where it was kept")
        return found

    @property
    def consolidated(self) -> bool:
        """Whether this is the space of a run with reduced vectors, not a run."""
        return (self.path / CONSOLIDATION).is_file()

    def ranks(self, stage: int) -> Path:
        """The file of all ranks at the end of a 1-based stage."""
        return self.path / "ranks" / f"stage-{stage}.npz"

    def has(self, kind: type[records.Record], name: str) -> bool:
        """Whether a file is there and whole."""
        with suppress(InputError):
            records.read(kind, self.path / name)
            return True
        return False

    @property
    def finished(self) -> bool:
        """Whether the run came to its end; its cost is written last."""
        return (self.path / COST).is_file()

    @contextmanager
    def claimed(self, definition: Mapping[str, Any]) -> Iterator[None]:
        """Have the folder for this definition, and for this process alone, during a block."""
        with locked(self.path / LOCK):
            self.clear_unfinished()
            known = self.check(definition)
            with self._failure_noted():
                if not known:
                    write_json(self.path / VERSIONS, versions())
                    write_json(self.path / DEFINITION, definition, sealed=True)
                yield

    @contextmanager
    def _failure_noted(self) -> Iterator[None]:
        """Note why the block fails, for which room is kept, and forget why an earlier one did."""
        reserve = self.path / f"{TEMPORARY}reserve"
        with writing(self.path, reserve):
            reserve.write_bytes(bytes(RESERVED))
        (self.path / FAILURE).unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            reserve.unlink()
            self._note(self.reason(error))
            raise
        finally:
            reserve.unlink(missing_ok=True)

    def note_failure(self, error: str) -> None:
        """Note why a run failed whose process could not, unless another one is at work by now."""
        if self.path.is_dir():
            with suppress(InputError, OSError), locked(self.path / LOCK):
                self._note(error)

    def _note(self, error: str) -> None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):  # the failure itself is reported, too
            write_json(self.path / FAILURE, {"error": error, "when": when})

    def reason(self, error: BaseException) -> str:
        """Why the run ended, in one line, and what is kept where a file could not be written."""
        if isinstance(error, InputError):
            return "; ".join(map(str, error.problems))
        if not isinstance(error, WriteError):
            return first_line(error)
        stage, step, _ = self.last_checkpoint()
        if not stage:
            return f"{error}; nothing of the run is kept yet"
        until = "the end" if step is None else f"step {step}"
        return f"{error}; the same command goes on from {until} of stage {stage}, which is kept"

    def check(self, definition: Mapping[str, Any]) -> bool:
        """Whether ``definition.json`` has this definition, or no run was begun; refuse another one.

        Where the file is lost, the checkpoints say what was run.
        """
        if (known := self._begun()) is None:
            return False
        _refuse_another(self.path, known, definition, ANOTHER)
        return self.has(records.Definition, DEFINITION)

    def _begun(self) -> Any:
        """The definition of what was run here; None if nothing was, an InputError if it is lost."""
        file = self.path / DEFINITION
        with suppress(InputError):
            return read_json(file)
        checkpoints = [path for _, _, path in sorted(self.checkpoints(), reverse=True)]
        for path in checkpoints:
            with suppress(InputError):
                state = records.read(records.Checkpoint, path / "state.json")
                if state.definition is not None:
                    return state.definition
        if checkpoints:
            problem = "is missing or damaged, and no checkpoint says what was run"
            remedy = "take it from where it was kept, or remove the run's folder to begin anew"
            raise InputError.at(file, problem, remedy)
        return None

    def write_scores(
        self, history: "History", identity: Mapping[str, Any], ranks: Mapping[str, str] = NO_RANKS
    ) -> bool:
        """Write ``scores.json``, unless it says the same already; returns whether it was written.

        ``ranks`` are checksums of the files of ranks, by name.
        """
        roles = history.roles.by_pair
        protocols = [score.as_json() for score in history.protocols]
        diagnosis = [one.as_json() for one in history.diagnosis]
        indexes = [score.as_json() for score in history.indexes]
        scores = {
            **identity,
            "stages": [
                _stage(arrival, history.items.get(arrival.stage, {}))
                for arrival in history.arrivals
            ],
            "pairs": {
                str(pair): {"birth": birth + 1, "role": roles[pair]}
                for pair, birth in history.births.items()
            },
            **({"unscored": [str(pair) for pair in history.unscored]} if history.unscored else {}),
            "evaluations": [score.as_json() for score in history.scores],
            "geometry": [geometry.as_json() for geometry in history.geometry],
            **({"diagnosis": diagnosis} if diagnosis else {}),
            **({"protocols": protocols} if protocols else {}),
            **({"indexes": indexes} if indexes else {}),
            **({"choices": history.choices} if history.choices else {}),
            **({"ranks": dict(ranks)} if ranks else {}),
        }
        with suppress(InputError):
            if read_json(self.path / SCORES) == without_nan(scores):
                return False
        write_json(self.path / SCORES, scores, sealed=True)
        return True

    def write_ranks(
        self, stage: int, evaluations: "Iterable[Evaluation]", judged: "Iterable[Judged]" = ()
    ) -> Path:
        """Write the rank of every query at the end of a 1-based stage; returns the file.

        Keys are ``test/audio-video/rows`` (dataset rows) and ``test/audio-video/audio to video``,
        NaN in rows whose query an earlier row has asked; for a protocol
        ``protocol/<name>/<series>/units`` and ``protocol/<name>/<series>/values``, and ``groups``
        where groups of queries have names. Where rows share recordings, ``recordings`` of a pair or
        a series has a number for each row, equal for those that do.
        """
        import numpy as np  # noqa: PLC0415 - checking a scenario need not wait for it

        arrays: dict[str, NDArray[Any]] = {}
        for evaluation in evaluations:
            for found in evaluation.pairs:
                start = f"{evaluation.split}/{found.pair}"
                arrays[f"{start}/rows"] = found.rows
                for direction, ranks in found.ranks.items():
                    arrays[f"{start}/{' to '.join(direction)}"] = ranks
                if found.recordings is not None:
                    arrays[f"{start}/recordings"] = found.recordings
        for one in judged:
            for series, answers in one.answers.items():
                known = {
                    "units": answers.units,
                    "values": answers.values,
                    "groups": np.array(answers.groups) if answers.groups else None,
                    "recordings": answers.recordings,
                }
                place = f"protocol/{one.score.name}/{series}"
                arrays |= {f"{place}/{k}": each for k, each in known.items() if each is not None}
        path = self.ranks(stage)
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return path


ANOTHER = "another --out, or with continual-mm run another --name"
"""What a run may get instead of a folder in which another definition was begun."""


def holds(file: Path, definition: Mapping[str, Any], other: str = "another --out") -> bool:
    """Whether a file holds this definition, or is not there; another definition is refused.

    ``other`` is what one may choose for that.
    """
    if not file.exists():
        return False
    _refuse_another(file.parent, read_json(file), definition, other)
    return True


def _refuse_another(folder: Path, known: Any, definition: Mapping[str, Any], other: str) -> None:
    if found := sentences(known, definition, off=("scenario",)):
        problem = f"was begun with another definition: {'; '.join(found[:5])}"
        raise InputError.at(folder, problem, f"choose {other}, or remove it")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _stage(arrival: Arrival, items: Mapping[Pair, int]) -> dict[str, Any]:
    return {
        "stage": arrival.stage + 1,
        "added": [modality.name for modality in arrival.added],
        "available": [modality.name for modality in arrival.available],
        "trained": [str(pair) for pair in arrival.trained],
        "items": {str(pair): count for pair, count in items.items()},
    }
