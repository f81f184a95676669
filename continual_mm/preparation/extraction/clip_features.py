"""The features of clips: each is decoded once for all towers, whose outputs are pooled and stored.

Imports av and torch, in this process or in one of a pool.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction import clip_files, media
from continual_mm.preparation.extraction.clouds import is_cloud, read_cloud
from continual_mm.preparation.extraction.depth_tower import ThroughFrames
from continual_mm.preparation.extraction.job import Job, Task
from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.towers import (
    AudioTower,
    CloudTower,
    Features,
    Pool,
    Recipe,
    Tower,
    VideoTower,
    build,
    probe,
)
from continual_mm.system.errors import InputError, first_line

_DECODING, _ENCODING, _READING = "decoding", "features", "text"  # stages at which a clip may fail
_FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What networks and decoders may raise for one clip and not for others."""

_SHOWN = 60  # letters of a text


class ClipError(Exception):
    """Why a clip has no features, and at which stage that was found."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.failure = clip_files.Failure(stage, message)


class Extractor:
    """The towers of a job, which extract clips into their files."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._files = clip_files.ClipFiles(job.out / clip_files.CLIPS)
        self._towers = [
            (recipe, [build(choice, job.vectors, job.device) for choice in recipe.towers])
            for recipe in job.recipes
        ]

    def contents(self) -> dict[str, Any]:
        """Try all towers, and describe their outputs, by modality, as JSON."""
        return {recipe.modality: _contents(recipe, mine) for recipe, mine in self._towers}

    def extract(self, task: Task) -> clip_files.Failure | None:
        """Extract what is missing of a clip; return why it has no features, None if it has."""
        # Another clip that shows the same may have been extracted since the task was made.
        parts = task.names.parts
        missing = (part for part in task.missing if not self._files.is_stored(parts[part]))
        task = task._replace(missing=tuple(missing))
        try:
            try:
                features, notes = self._features(task)
            except ClipError as error:
                name = task.names.failures[-1 if error.failure.stage == _READING else 0]
                self._files.write_messages(name, clip_files.FAILURE, [error.failure])
                return error.failure
            for part, values in features.items():
                mine = [note for note in notes if part in ("both", _PART_OF_STAGE[note.stage])]
                self._files.write(task.names.parts[part], values, mine)
            for name in task.names.failures:
                self._files.write_messages(name, clip_files.FAILURE, ())
        except OSError as error:
            raise self._job.stopped(f"cannot be written: {error.strerror or error}") from error
        return None

    def _features(
        self, task: Task
    ) -> tuple[dict[clip_files.Part, dict[str, Features]], list[clip_files.Failure]]:
        """By missing part, those modalities that a clip has; and notes about them."""
        clip, skipped = task.clip, media.Notes()
        if clip.fault:
            raise ClipError(_DECODING, f"{clip.path} {clip.fault}")
        asked = [
            (recipe, mine)
            for recipe, mine in self._towers
            if clip_files.part_of(recipe) in task.missing
        ]
        towers = [tower for _, mine in asked for tower in mine]
        try:
            outputs = _outputs(towers, clip, self._job.media, skipped)
        except (media.MediaError, FFmpegError) as error:
            raise ClipError(_DECODING, f"{clip.path} {error}") from error
        except _FAULTS as error:
            raise ClipError(_ENCODING, first_line(error)) from error
        notes = [clip_files.Failure(_DECODING, note) for note in skipped.all()]
        notes += _unread(clip, towers, outputs)
        found: dict[clip_files.Part, dict[str, Features]] = {part: {} for part in task.missing}
        for recipe, mine in asked:
            joined = _joined([outputs.pop(0) for _ in mine], recipe.pool)
            if joined is not None:
                if not np.isfinite(joined).all():
                    raise ClipError(_ENCODING, f"{recipe.modality} would hold NaN or infinity")
                found[clip_files.part_of(recipe)][recipe.modality] = joined
        earlier = [name for part, name in task.names.parts.items() if part not in task.missing]
        if not any(found.values()) and not any(self._files.features(name) for name in earlier):
            raise self._nothing_found(clip, notes)
        return found, notes

    def _nothing_found(self, clip: Clip, notes: Sequence[clip_files.Failure]) -> ClipError:
        parts = {clip_files.part_of(recipe) for recipe, _ in self._towers}
        reading, decoding = parts != {"media"}, parts != {"text"}
        if not clip.path and not reading:
            return ClipError(_READING, "is text alone, of which no modality is made")
        messages = [note.message for note in notes]
        if clip.path and decoding:
            messages.insert(0, f"{clip.path} has none of the modalities")
        if reading and not any(note.stage == _READING for note in notes):
            messages.append("it has no text")
        return ClipError(_READING if reading else _DECODING, "; ".join(messages))


_PART_OF_STAGE: Mapping[str, clip_files.Part] = {_DECODING: "media", _READING: "text"}


def extractor(job: Job) -> Callable[[Task, object], clip_files.Failure | None]:
    """What a process of a pool does with each task."""
    try:
        made = Extractor(job)
    except InputError:
        raise
    except _FAULTS as error:
        raise job.stopped(first_line(error)) from error
    return lambda task, _: made.extract(task)


def _contents(recipe: Recipe, towers: Sequence[Tower]) -> dict[str, Any]:
    chosen = list(zip(recipe.towers, towers, strict=True))
    for choice, tower in chosen:
        try:
            probe(tower)
        except (AssertionError, *_FAULTS) as error:
            place = f"modality {recipe.modality!r}, tower {choice.tower!r}"
            problem, remedy = f"does not work: {first_line(error)}", "keep its default options"
            raise InputError.at(place, problem, remedy) from error
    return {
        "kind": str(towers[0].kind if recipe.pool == "none" else Kind.VECTOR),
        "features": sum(tower.features for tower in towers),
        "told": " and ".join(tower.description for tower in towers),
        "pool": recipe.pool,
        "towers": [{"tower": choice.tower, **tower.settings} for choice, tower in chosen],
    }


def span(clip: Clip, path: Path, notes: media.Notes) -> tuple[float, float]:
    """Seconds at which a clip begins and ends in its file; a MediaError if the file ends before."""
    seconds = media.stated_duration(path)
    if clip.end is None or clip.end > seconds:
        # What a file states may be a guess; its packets are the truth.
        seconds = max(seconds, media.last_packet_end(path))
    if seconds <= 0:
        raise media.MediaError("has no length: nothing in it can be played")
    if clip.start >= seconds:
        begin = media.shown(clip.start)
        problem = f"ends at {media.shown(seconds)} s, before the clip begins at {begin} s"
        raise media.MediaError(f"{problem}; if it was cut out already, give it no start")
    if clip.end is None:
        return clip.start, seconds
    if clip.end > seconds + media.TOLERANCE:
        end = media.shown(clip.end)
        notes.lines.append(f"the file ends at {media.shown(seconds)} s, the clip at {end} s")
    return clip.start, min(clip.end, seconds)


def _outputs(
    towers: Sequence[Tower], clip: Clip, folder: Path, notes: media.Notes
) -> list[Features | None]:
    """What each tower gives for a clip in a folder."""
    path = folder / clip.path
    video = [tower for tower in towers if tower.signal == "frames"]
    audio = [tower for tower in towers if tower.signal == "audio"]
    clouds = [tower for tower in towers if tower.signal == "cloud"]
    outputs: dict[str, list[Features | None]] = {}
    if is_cloud(path):
        outputs["frames"] = _of_cloud([ThroughFrames(tower) for tower in video], path, notes)
        outputs["audio"] = [None for _ in audio]
    elif video or audio:
        start, end = span(clip, path, notes)
        outputs["frames"] = _of_video(video, path, start, end, notes)
        outputs["audio"] = _of_audio(audio, path, start, end, notes)
    cloud = folder / clip.cloud if clip.cloud else path
    outputs["cloud"] = _of_cloud(clouds, cloud, notes)
    outputs["text"] = [
        tower.encode(clip.caption) if clip.caption else None
        for tower in towers
        if tower.signal == "text"
    ]
    return [outputs[tower.signal].pop(0) for tower in towers]


def _of_cloud(
    towers: Sequence[CloudTower], path: Path, notes: media.Notes
) -> list[Features | None]:
    """Of a file that is no cloud, nothing."""
    if not is_cloud(path):
        return [None for _ in towers]
    outputs: list[Features | None] = []
    for tower in towers:
        points = read_cloud(path, points=tower.points)
        if outside := tower.outside(points):
            notes.lines.append(f"{path.name}: {outside:.1%} of its points are outside the views")
        outputs.append(tower.encode(points))
    return outputs


def _of_video(
    towers: Sequence[VideoTower], path: Path, start: float, end: float, notes: media.Notes
) -> list[Features | None]:
    """The features of a clip's frames, which go through each tower a block at a time."""
    waiting: list[list[media.Image]] = [[] for _ in towers]
    outputs: list[list[Features]] = [[] for _ in towers]
    samplings = [tower.sampling for tower in towers]
    for n, image in media.video_frames(path, start, end, samplings, notes) if towers else ():
        waiting[n].append(image)
        if len(waiting[n]) == towers[n].block:
            outputs[n].append(towers[n].encode(np.stack(waiting[n])))
            waiting[n].clear()
    for tower, images, output in zip(towers, waiting, outputs, strict=True):
        if images:
            output.append(tower.encode(np.stack(images)))
    return [np.concatenate(output) if output else None for output in outputs]


def _of_audio(
    towers: Sequence[AudioTower], path: Path, start: float, end: float, notes: media.Notes
) -> list[Features | None]:
    waves: dict[int, media.Wave | None] = {}
    for rate in dict.fromkeys(tower.sample_rate for tower in towers):
        # Notes of one decoding are enough.
        waves[rate] = media.audio_wave(
            path, start, end, media.Notes() if waves else notes, sample_rate=rate
        )
    given = [(tower, waves[tower.sample_rate]) for tower in towers]
    return [None if wave is None else tower.encode(wave) for tower, wave in given]


def _joined(outputs: Sequence[Features | None], pool: Pool) -> Features | None:
    """One modality of its towers' outputs; it is missing where one of them is."""
    there = [output for output in outputs if output is not None]
    if len(there) < len(outputs):
        return None
    if pool == "none":
        return there[0]
    return np.concatenate([pooled(output, pool) for output in there])


def pooled(sequence: Features, pool: Pool) -> Features:
    """Maximum or mean of (steps, features) over time, of length 1 unless all is zero."""
    steps = np.atleast_2d(sequence)
    vector = steps.max(0) if pool == "max" else steps.mean(0)
    norm = np.linalg.norm(vector)
    unit: Features = (vector / norm if norm > 0 else vector).astype(np.float32)
    return unit


def _unread(
    clip: Clip, towers: Sequence[Tower], outputs: Sequence[Features | None]
) -> list[clip_files.Failure]:
    """A note if some tower knows no word of the text."""
    pairs = zip(towers, outputs, strict=True)
    if clip.caption and any(tower.signal == "text" and output is None for tower, output in pairs):
        text = clip.caption if len(clip.caption) <= _SHOWN else f"{clip.caption[:_SHOWN]}..."
        return [clip_files.Failure(_READING, f"no word of {text!r} has a vector")]
    return []
