"""The features of one clip: decoded once for all towers, whose outputs are pooled and joined."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.clip_files import Part, part_of
from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.media import (
    TOLERANCE,
    Image,
    MediaError,
    Notes,
    audio_wave,
    last_packet_end,
    shown,
    stated_duration,
    video_frames,
)
from continual_mm.preparation.extraction.towers import (
    AudioTower,
    Features,
    Pool,
    Recipe,
    Tower,
    Vectors,
    VideoTower,
    build,
)
from continual_mm.system.errors import first_line

DECODING, ENCODING, READING = "decoding", "features", "text"
"""Stages at which a clip may fail."""

FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What networks and decoders may raise for one clip and not for others."""

_SHOWN = 60  # letters of a text


class ClipError(Exception):
    """A clip that has no features.

    Attributes:
        stage: ``DECODING``, ``ENCODING`` or ``READING``.
        message: What is wrong.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.stage = stage
        self.message = message


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """What was made of a clip.

    Attributes:
        parts: Features by part that was asked for, and modality; only those that the clip has.
        notes: What was skipped while it was decoded, in a line each.
        unread: Why its text became no features; empty if it did, or if there is none.
    """

    parts: Mapping[Part, Mapping[str, Features]]
    notes: tuple[str, ...]
    unread: str

    @property
    def is_empty(self) -> bool:
        """Whether the clip has none of the modalities that were asked for."""
        return not any(self.parts.values())


class ClipEncoder:
    """Towers, ready to encode clips.

    Args:
        recipes: Which towers make which modality.
        vectors: For towers that take words.
        device: For towers that are networks.

    Attributes:
        towers: Each recipe with its towers.

    Raises:
        InputError: If a tower cannot be made.
    """

    def __init__(self, recipes: Sequence[Recipe], vectors: Vectors | None, device: str) -> None:
        self.towers = [
            (recipe, [build(choice, vectors, device) for choice in recipe.towers])
            for recipe in recipes
        ]

    def encode(self, clip: Clip, folder: Path, parts: Collection[Part]) -> ClipFeatures:
        """Make features of a clip.

        Args:
            clip: The clip.
            folder: What its path is relative to.
            parts: Which of its features.

        Raises:
            ClipError: If something is wrong with its file or with the towers' outputs.
        """
        if clip.fault:
            raise ClipError(DECODING, f"{clip.path} {clip.fault}")
        notes = Notes()
        asked = [(recipe, mine) for recipe, mine in self.towers if part_of(recipe) in parts]
        towers = [tower for _, mine in asked for tower in mine]
        try:
            outputs = _outputs(towers, clip, folder / clip.path, notes)
        except (MediaError, FFmpegError) as error:
            raise ClipError(DECODING, f"{clip.path} {error}") from error
        except FAULTS as error:
            raise ClipError(ENCODING, first_line(error)) from error
        unread = _unread(clip, towers, outputs)
        found: dict[Part, dict[str, Features]] = {part: {} for part in parts}
        for recipe, mine in asked:
            joined = _joined([outputs.pop(0) for _ in mine], recipe.pool)
            if joined is not None:
                if not np.isfinite(joined).all():
                    raise ClipError(ENCODING, f"{recipe.modality} would hold NaN or infinity")
                found[part_of(recipe)][recipe.modality] = joined
        return ClipFeatures(found, notes.all(), unread)

    def nothing_found(self, clip: Clip, features: ClipFeatures) -> ClipError:
        """The error for a clip that has none of the modalities at all."""
        parts = {part_of(recipe) for recipe, _ in self.towers}
        reading, decoding = parts != {"media"}, parts != {"text"}
        if not clip.path and not reading:
            return ClipError(READING, "is text alone, of which no modality is made")
        unread = features.unread or ("it has no text" if reading else "")
        lacking = f"{clip.path} has none of the modalities" if clip.path and decoding else ""
        messages = filter(None, [lacking, *features.notes, unread])
        return ClipError(READING if reading else DECODING, "; ".join(messages))


def kind_of(recipe: Recipe, towers: Sequence[Tower]) -> Kind:
    """The kind of signal that a recipe's modality is."""
    return towers[0].kind if recipe.pool == "none" else Kind.VECTOR


def span(clip: Clip, path: Path, notes: Notes) -> tuple[float, float]:
    """Where a clip begins and ends in its file, in seconds.

    Raises:
        MediaError: If the file cannot be opened, or ends before the clip begins.
    """
    seconds = stated_duration(path)
    if clip.end is None or clip.end > seconds:
        # What a file states may be a guess; its packets are the truth.
        seconds = max(seconds, last_packet_end(path))
    if seconds <= 0:
        raise MediaError("has no length: nothing in it can be played")
    if clip.start >= seconds:
        begin = shown(clip.start)
        raise MediaError(f"ends at {shown(seconds)} s, before the clip begins at {begin} s")
    if clip.end is None:
        return clip.start, seconds
    if clip.end > seconds + TOLERANCE:
        end = shown(clip.end)
        notes.lines.append(f"the file ends at {shown(seconds)} s, the clip at {end} s")
    return clip.start, min(clip.end, seconds)


def _outputs(
    towers: Sequence[Tower], clip: Clip, path: Path, notes: Notes
) -> list[Features | None]:
    """What each tower gives for a clip."""
    outputs: dict[int, Features | None] = {}
    video = {n: tower for n, tower in enumerate(towers) if tower.signal == "frames"}
    audio = {n: tower for n, tower in enumerate(towers) if tower.signal == "audio"}
    text = {n: tower for n, tower in enumerate(towers) if tower.signal == "text"}
    if video or audio:
        start, end = span(clip, path, notes)
        outputs |= _of_video(video, path, start, end, notes)
        outputs |= _of_audio(audio, path, start, end, notes)
    for n, tower in text.items():
        outputs[n] = tower.encode(clip.caption) if clip.caption else None
    return [outputs[n] for n in range(len(towers))]


@dataclass(slots=True)
class _Blocks:
    """Frames of a clip through a tower, a block at a time."""

    tower: VideoTower
    waiting: list[Image] = field(default_factory=list)
    outputs: list[Features] = field(default_factory=list)

    def add(self, image: Image) -> None:
        self.waiting.append(image)
        if len(self.waiting) == self.tower.block:
            self._encode()

    def finished(self) -> Features | None:
        """All outputs; None if there was no frame."""
        if self.waiting:
            self._encode()
        return np.concatenate(self.outputs) if self.outputs else None

    def _encode(self) -> None:
        self.outputs.append(self.tower.encode(np.stack(self.waiting)))
        self.waiting.clear()


def _of_video(
    towers: Mapping[int, VideoTower], path: Path, start: float, end: float, notes: Notes
) -> dict[int, Features | None]:
    blocks = {n: _Blocks(tower) for n, tower in towers.items()}
    if blocks:
        each = list(blocks.values())
        samplings = [block.tower.sampling for block in each]
        for index, image in video_frames(path, start, end, samplings, notes):
            each[index].add(image)
    return {n: block.finished() for n, block in blocks.items()}


def _of_audio(
    towers: Mapping[int, AudioTower], path: Path, start: float, end: float, notes: Notes
) -> dict[int, Features | None]:
    outputs: dict[int, Features | None] = {}
    for rate in dict.fromkeys(tower.sample_rate for tower in towers.values()):
        # Notes of one decoding are enough.
        wave = audio_wave(path, start, end, Notes() if outputs else notes, sample_rate=rate)
        mine = {n: tower for n, tower in towers.items() if tower.sample_rate == rate}
        outputs |= {n: None if wave is None else tower.encode(wave) for n, tower in mine.items()}
    return outputs


def _joined(outputs: Sequence[Features | None], pool: Pool) -> Features | None:
    """One modality of its towers' outputs; it is missing where one of them is."""
    there = [output for output in outputs if output is not None]
    if len(there) < len(outputs):
        return None
    if pool == "none":
        return there[0]
    return np.concatenate([pooled(output, pool) for output in there])


def pooled(sequence: Features, pool: Pool) -> Features:
    """Maximum or mean over time, of length 1 unless all is zero: (steps, features) -> (features,).

    >>> pooled(np.array([[3.0, 0.0], [0.0, 4.0]], dtype=np.float32), "max").tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    steps = np.atleast_2d(sequence)
    vector = steps.max(0) if pool == "max" else steps.mean(0)
    norm = np.linalg.norm(vector)
    unit: Features = (vector / norm if norm > 0 else vector).astype(np.float32)
    return unit


def _unread(clip: Clip, towers: Sequence[Tower], outputs: Sequence[Features | None]) -> str:
    """That no word of the text is known to some tower."""
    pairs = zip(towers, outputs, strict=True)
    if clip.caption and any(tower.signal == "text" and output is None for tower, output in pairs):
        text = clip.caption if len(clip.caption) <= _SHOWN else f"{clip.caption[:_SHOWN]}..."
        return f"no word of {text!r} has a vector"
    return ""
