"""One clip through all towers: decoded once, a block at a time, pooled and put together."""

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
    MediaError,
    Notes,
    Picture,
    film,
    last_moment,
    length,
    shown,
    sound,
)
from continual_mm.preparation.extraction.towers import (
    Features,
    PictureTower,
    Pool,
    Recipe,
    SoundTower,
    TextTower,
    Tower,
    Vectors,
    build,
)

STAGES = DECODING, DESCRIBING, READING = "decoding", "features", "text"
"""Where it may fail to describe a clip."""

FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What one clip may lead to, and others not: networks and decoders are others' programs."""


_SHOWN = 60  # letters of a text


class DescribeError(Exception):
    """A clip that cannot be described.

    Attributes:
        stage: One of :data:`STAGES`.
        problem: What is wrong.
    """

    def __init__(self, stage: str, problem: str) -> None:
        super().__init__(stage, problem)
        self.stage = stage
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Description:
    """What a clip has.

    Attributes:
        features: By part that was asked for, and modality; only those that it has.
        notes: What was passed over while it was decoded, in a line each.
        unread: What there is to say about its text, if that became no features; or empty.
    """

    features: Mapping[Part, Mapping[str, Features]]
    notes: tuple[str, ...]
    unread: str

    @property
    def is_empty(self) -> bool:
        """Whether it has none of the modalities that were asked for."""
        return not any(self.features.values())


@dataclass(slots=True)
class _Part:
    """What one tower gives for a clip, in parts."""

    tower: PictureTower
    waiting: list[Picture] = field(default_factory=list)
    given: list[Features] = field(default_factory=list)

    def take(self, picture: Picture) -> None:
        """Describe a block once it is full."""
        self.waiting.append(picture)
        if len(self.waiting) == self.tower.block:
            self.flush()

    def flush(self) -> None:
        """Describe what waits."""
        if self.waiting:
            self.given.append(self.tower.describe(np.stack(self.waiting)))
            self.waiting.clear()

    def finished(self) -> Features | None:
        """Everything; None if there was no picture."""
        self.flush()
        return np.concatenate(self.given) if self.given else None


class Describer:
    """Towers, ready to describe clips.

    Args:
        recipes: Which towers make which modality.
        vectors: For towers that take words.
        device: For towers that are networks.

    Raises:
        InputError: If a tower cannot be made.
    """

    def __init__(self, recipes: Sequence[Recipe], vectors: Vectors | None, device: str) -> None:
        self.made = [
            (recipe, [build(choice, vectors, device) for choice in recipe.towers])
            for recipe in recipes
        ]

    def describe(self, clip: Clip, folder: Path, parts: Collection[Part]) -> Description:
        """Describe a clip.

        Args:
            clip: The clip.
            folder: What its path is relative to.
            parts: What is to be made of it.

        Raises:
            DescribeError: If something is wrong with its file or with what the towers give.
        """
        if clip.fault:
            raise DescribeError(DECODING, f"{clip.path} {clip.fault}")
        notes = Notes()
        asked = [(recipe, mine) for recipe, mine in self.made if part_of(recipe) in parts]
        towers = [tower for _, mine in asked for tower in mine]
        try:
            given = _all_given(towers, clip, folder / clip.path, notes)
        except (MediaError, FFmpegError) as error:
            raise DescribeError(DECODING, f"{clip.path} {error}") from error
        except FAULTS as error:
            told = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DescribeError(DESCRIBING, told) from error
        unread = _unread(clip, towers, given)
        found: dict[Part, dict[str, Features]] = {part: {} for part in parts}
        for recipe, mine in asked:
            together = _together([given.pop(0) for _ in mine], recipe.pool)
            if together is not None:
                _check(recipe.modality, together)
                found[part_of(recipe)][recipe.modality] = together
        return Description(found, notes.told(), unread)

    def lacks_all(self, clip: Clip, description: Description) -> DescribeError:
        """What to say of a clip that has none of the modalities at all."""
        reading = any(part_of(recipe) != "media" for recipe, _ in self.made)
        if not clip.path and not reading:
            return DescribeError(READING, "is text alone, of which no modality is made")
        unread = description.unread or ("it has no text" if reading else "")
        seeing = any(part_of(recipe) != "text" for recipe, _ in self.made)
        seen = [f"{clip.path} has none of the modalities"] if clip.path and seeing else []
        told = [*seen, *description.notes, *([unread] if unread else [])]
        return DescribeError(READING if reading else DECODING, "; ".join(told))


def kind_of(recipe: Recipe, towers: Sequence[Tower]) -> Kind:
    """The kind of signal that a recipe's modality is."""
    return towers[0].kind if recipe.pool == "none" else Kind.VECTOR


def _all_given(
    towers: Sequence[Tower], clip: Clip, path: Path, notes: Notes
) -> list[Features | None]:
    """What each tower gives for a clip."""
    given: dict[int, Features | None] = {}
    views = {n: _Part(tower) for n, tower in enumerate(towers) if tower.signal == "pictures"}
    listeners = {n: tower for n, tower in enumerate(towers) if tower.signal == "sound"}
    readers = {n: tower for n, tower in enumerate(towers) if tower.signal == "text"}
    if views or listeners:
        start, end = span(clip, path, notes)
        given |= _seen(views, path, start, end, notes)
        given |= _heard(listeners, path, start, end, notes)
    given |= _read(readers, clip.caption)
    return [given[n] for n in range(len(towers))]


def span(clip: Clip, path: Path, notes: Notes) -> tuple[float, float]:
    """Where a clip begins and ends in its file, in seconds.

    Raises:
        MediaError: If the file cannot be opened, or ends before the clip begins.
    """
    seconds = length(path)
    if clip.end is None or clip.end > seconds:
        # What a file says of its length may be a guess; its packets are the truth.
        seconds = max(seconds, last_moment(path))
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


def _seen(
    parts: Mapping[int, _Part], path: Path, start: float, end: float, notes: Notes
) -> dict[int, Features | None]:
    if parts:
        order = list(parts.values())
        wanted = [part.tower.wanted for part in order]
        for index, picture in film(path, start, end, wanted, notes):
            order[index].take(picture)
    return {n: part.finished() for n, part in parts.items()}


def _heard(
    towers: Mapping[int, SoundTower], path: Path, start: float, end: float, notes: Notes
) -> dict[int, Features | None]:
    given: dict[int, Features | None] = {}
    for rate in dict.fromkeys(tower.sample_rate for tower in towers.values()):
        # What is wrong with the file need not be told twice.
        wave = sound(path, start, end, Notes() if given else notes, sample_rate=rate)
        mine = {n: tower for n, tower in towers.items() if tower.sample_rate == rate}
        given |= {n: None if wave is None else tower.describe(wave) for n, tower in mine.items()}
    return given


def _read(towers: Mapping[int, TextTower], text: str | None) -> dict[int, Features | None]:
    return {n: tower.describe(text) if text else None for n, tower in towers.items()}


def _together(parts: Sequence[Features | None], pool: Pool) -> Features | None:
    """One modality from what its towers give; it is missing where one of them gives nothing."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    if pool == "none":
        return there[0]
    return np.concatenate([pooled(part, pool) for part in there])


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


def _unread(clip: Clip, towers: Sequence[Tower], given: Sequence[Features | None]) -> str:
    """That words are unknown, if they are to some tower; before parts are put together."""
    pairs = zip(towers, given, strict=True)
    if clip.caption and any(tower.signal == "text" and part is None for tower, part in pairs):
        text = clip.caption if len(clip.caption) <= _SHOWN else f"{clip.caption[:_SHOWN]}..."
        return f"no word of {text!r} has a vector"
    return ""


def _check(modality: str, values: Features) -> None:
    if not np.isfinite(values).all():
        raise DescribeError(DESCRIBING, f"{modality} would hold NaN or infinity")
