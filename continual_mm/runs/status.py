"""How far runs are, read from the small files of their folders; imports no torch.

Here nothing is refused: an unfinished run is shown with what it has, a damaged one with its damage.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Literal, TypeVar

from continual_mm.runs import records
from continual_mm.runs.folder import CHECKPOINTS, COST, DEFINITION, FAILURE, SCORES, RunFolder
from continual_mm.runs.reporter import percent
from continual_mm.system.errors import InputError, Problems
from continual_mm.system.files import LOCK, is_locked


def find_folders(folders: Iterable[Path], file: str = DEFINITION) -> list[Path]:
    """Folders with such a file at or below some folders, each once; none below a run's.

    A run is one also where its definition is lost. A folder that is missing or cannot be listed is
    refused: it may hold runs.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError.at(folder, "no such folder", "give the folder that runs went into")
        for here, below, files in os.walk(folder, onerror=_refuse_to_skip):
            below.sort()
            is_run = DEFINITION in files or (LOCK in files and CHECKPOINTS in below)
            if is_run or file in files:
                below.clear()
            if file in files or (is_run and file == DEFINITION):
                found.setdefault(Path(here).resolve(), Path(here))
    return list(found.values())


def _refuse_to_skip(error: OSError) -> None:
    raise InputError.at(error.filename, f"cannot be read: {error.strerror}") from error


State = Literal["finished", "failed", "running", "stopped", "damaged"]

_Read = TypeVar("_Read", bound=records.Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a run is; None where the definition is damaged or something is not known yet.

    ``running`` is a run whose folder a process holds, ``stopped`` one that is neither running,
    finished nor failed. ``stage`` is the last one with a checkpoint, from 1, or 0; ``step`` is
    given if that was made inside the stage. ``recalls`` are R@1 by pair at the end of the last
    stage that was scored, as fractions, on items of ``split``; ``seconds`` is training time until
    the last checkpoint, ``written`` when a file was last written, since 1970.
    """

    folder: Path
    state: State
    written: float
    scenario: str | None = None
    strategy: str | None = None
    seed: int | None = None
    stage: int = 0
    step: int | None = None
    stages: int | None = None
    error: str = ""
    recalls: Mapping[str, float] = field(default_factory=dict)
    harmonic_mean: float | None = None
    seconds: float | None = None
    choices: tuple[records.Choice, ...] = ()
    split: records.Split = "test"


def statuses(folders: Iterable[Path]) -> list[Status]:
    """How far every run at or below some folders is, by scenario, strategy and seed."""
    found = (_Reader(folder).status() for folder in find_folders(folders))
    return sorted(
        found, key=lambda s: (s.scenario or "", s.strategy or "", s.seed or 0, str(s.folder))
    )


class _Reader:
    """Reads the files of one run, and gathers what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._damage = Problems()

    def status(self) -> Status:
        """How far the run is."""
        # Looked at first: a run that ends meanwhile is then taken for one in progress.
        finished = RunFolder(self._folder).finished
        written = _last_written(self._folder)
        definition = self._read(records.Definition, DEFINITION)
        scores = self._scores(finished)
        split = definition.split if definition else "test"
        recalls, harmonic = self._recalls(scores, finished, split)
        stage, step, checkpoint = RunFolder(self._folder).last_checkpoint()
        failed = None if finished else self._read_if_there(records.Failure, FAILURE)
        seconds = self._seconds(finished, checkpoint)
        state: State = "running" if is_locked(self._folder / LOCK) else "stopped"
        if self._damage:
            state = "damaged"
        elif finished or failed:
            state = "finished" if finished else "failed"
        return Status(
            folder=self._folder,
            state=state,
            written=written,
            scenario=definition.scenario.name if definition else None,
            strategy=definition.strategy.name if definition else None,
            seed=definition.seed if definition else None,
            stage=stage,
            step=step,
            stages=_count(definition.scenario) if definition else None,
            split=split,
            error="; ".join(
                [
                    *(f"{one.place}: {one.message}" for one in self._damage),
                    *([failed.error] if failed else []),
                ]
            ),
            recalls=recalls,
            harmonic_mean=harmonic,
            seconds=seconds,
            choices=scores.choices if scores else (),
        )

    def _read(self, kind: type[_Read], file: str) -> _Read | None:
        """A file; None, and damage, if it cannot be read."""
        try:
            return records.read(kind, self._folder / file)
        except InputError as error:
            self._damage += error.problems
            return None

    def _read_if_there(self, kind: type[_Read], file: str) -> _Read | None:
        return self._read(kind, file) if (self._folder / file).exists() else None

    def _scores(self, finished: bool) -> records.Scores | None:
        read = self._read if finished else self._read_if_there
        scores = read(records.Scores, SCORES)
        if finished and scores:
            with self._damage.collected():
                scores.check_ranks(self._folder)
        return scores

    @staticmethod
    def _recalls(
        scores: records.Scores | None, finished: bool, split: records.Split
    ) -> tuple[dict[str, float], float | None]:
        """R@1 per pair at the end of the last scored stage; the harmonic mean of a finished run."""
        if scores is None:
            return {}, None
        final = [one for one in scores.evaluations if one.final and one.split == split]
        last = max((one.stage for one in final), default=0)
        both: dict[str, list[float]] = {}
        for one in final:
            if one.stage == last and one.recall_at_1 is not None:
                both.setdefault(one.pair, []).append(one.recall_at_1)
        recalls = {pair: fmean(values) for pair, values in both.items()}
        old, new = (
            [recalls[p] for p, known in scores.pairs.items() if known.role == role and p in recalls]
            for role in ("old", "new")
        )
        if not (finished and old and new):
            return recalls, None
        return recalls, harmonic_mean([fmean(old), fmean(new)])

    def _seconds(self, finished: bool, checkpoint: Path | None) -> float | None:
        if finished:
            cost = self._read(records.Cost, COST)
            return cost.seconds if cost else None
        if checkpoint is None:
            return None
        # A checkpoint inside a stage goes when the next one is there.
        state = self._read_if_there(records.Checkpoint, f"checkpoints/{checkpoint.name}/state.json")
        return state.notes.seconds if state and state.notes else None


def _count(scenario: records.ScenarioRecord) -> int | None:
    """The stages of a scenario; what it starts from is one more."""
    said = scenario.model_extra or {}
    stages = said.get("stages")
    return len(stages) + bool(said.get("start")) if isinstance(stages, list) else None


def _last_written(folder: Path) -> float:
    """When any file at or below a folder was last written; the folder itself, if it has none."""
    newest = folder.stat().st_mtime
    for path in folder.rglob("*"):
        # What a run writes meanwhile may have another name by now.
        with suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime)
    return newest


def as_json(found: Iterable[Status]) -> str:
    """A list of runs with all that :class:`Status` has; null where unknown, times in UTC."""
    values = [
        {
            **asdict(status),
            "choices": [choice.model_dump(mode="json") for choice in status.choices],
            "folder": str(status.folder),
            "written": datetime.fromtimestamp(status.written, UTC).isoformat(timespec="seconds"),
        }
        for status in found
    ]
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


def as_choices(status: Status) -> Iterator[str]:
    """A line for each choice that the run's strategy made, and the figures behind it."""
    for one in status.choices:
        if one.note:
            yield f"stage {one.stage}, {one.plugin}: {one.note}"
            continue
        counts = ", ".join(f"{weight:.2g}" for weight in one.weights)
        error = "?" if one.error is None else f"{one.error:.2g}"
        reason = f"{one.gain:+.2g} ± {error} nats on {one.items} held-out items"
        kept = " (the default)" if one.weights == one.default else ""
        pairs = " and ".join(one.pairs) or "no pair"
        yield f"stage {one.stage}, {one.plugin}: {pairs}: weights {counts}{kept}, {reason}"


def as_rows(found: Iterable[Status]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of a table; of a finished run it shows the harmonic mean.

    Where several runs have one name, folders are shown too.
    """
    statuses = list(found)
    names = Counter((status.scenario, status.strategy, status.seed) for status in statuses)
    place = max(names.values(), default=0) > 1
    headings = ("scenario", "strategy", "seed", "R@1 %", "seconds", "last written")
    return (*headings, *(["folder"] if place else []), "state"), [
        (
            status.scenario or "-",
            status.strategy or "-",
            "-" if status.seed is None else str(status.seed),
            _shown_recalls(status),
            "-" if status.seconds is None else f"{status.seconds:.0f}",
            datetime.fromtimestamp(status.written).strftime("%Y-%m-%d %H:%M"),
            *([str(status.folder)] if place else []),
            _shown_state(status),
        )
        for status in statuses
    ]


def _shown_recalls(status: Status) -> str:
    if not status.recalls:
        return "-"
    on = "" if status.split == "test" else f"{status.split} "
    if status.harmonic_mean is not None:
        return f"{on}harmonic mean {percent(status.harmonic_mean)}"
    return on + ", ".join(f"{pair} {percent(value)}" for pair, value in status.recalls.items())


def _shown_state(status: Status) -> str:
    shown = f"{status.state}: {status.error}" if status.error else status.state
    if status.state in ("finished", "damaged"):
        return shown
    of = f", step {status.step}" if status.step is not None else f" of {status.stages or '?'}"
    return f"stage {status.stage}{of}, {shown}"
