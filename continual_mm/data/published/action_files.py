"""Pickles of classified clips: UCF101 and HMDB51, for zero-shot classification."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.class_names import class_text
from continual_mm.data.published.entries import Entry, Floats, entries_in
from continual_mm.data.published.pooling import halves
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.report import Record, Report
from continual_mm.data.published.sound import frames
from continual_mm.data.published.vectors import WordVectors
from continual_mm.data.published.words import written

_SILENT_FRAMES, _MELS = 1000, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionForm:
    """What differs between the two datasets.

    Attributes:
        splits: By the file's ``training``: 0 for training, 2 for test.
    """

    splits: Mapping[int, int]


UCF101 = ActionForm(splits=MappingProxyType({0: 2, 1: 0, 2: 2}))
"""UCF101, where each clip is for training (1) or for the test."""

HMDB51 = ActionForm(splits=MappingProxyType({1: 0, 2: 2}))
"""HMDB51, whose split files call training 1, test 2, and what is for neither 0."""


@dataclass(slots=True, kw_only=True)
class ActionFile:
    """The clips of one file.

    Attributes:
        path: The pickle.
        form: Which dataset's it is.
        entries: The clips, unchecked.
        classes: The names of the classes, sorted; a label is a row of them.
    """

    path: Path
    form: ActionForm
    entries: Sequence[object] = field(repr=False)
    classes: tuple[str, ...]

    def records(
        self, vectors: WordVectors, recipe: Recipe, *, report: Report, split: int | None = None
    ) -> Iterator[Record]:
        """Give the clips as records.

        Args:
            vectors: Of words.
            recipe: In ``reference`` a clip without sound has 1,000 frames of zeros, and ``nframes``
                is their number, also of UCF101's, of which the published program averages over 32;
                in ``robust`` it lacks the modality.
            report: Lists the clips left out because something of them is broken.
            split: What all clips are for, and all of them are given; if None, the file says it, and
                clips that are for neither training nor test are left out silently.

        Yields:
            Records with ``video`` (2D features + 3D features,), ``audio`` (frames, mels), ``text``
            (words, features), which is the class as words, ``text_raw`` and ``label``.

        Raises:
            RefusedError: At the first clip that cannot be read, unless the report skips such.
        """
        seen: set[str] = set()
        for number, raw in enumerate(self.entries):
            record: Record | None = None
            with report.item():
                entry = Entry.of(raw, number, self.path, seen, key="video")
                part = self._split(entry) if split is None else split
                if part is not None:
                    record = self._record(entry, vectors, recipe) | {"split": part}
            if record is not None:
                yield record

    def _split(self, entry: Entry) -> int | None:
        training = entry.number("training")
        if training not in (0, 1, 2):
            place = f"{entry.place}, key 'training'"
            raise RefusedError(Complaint(place, f"is {training}", "it is 0, 1 or 2"))
        return self.form.splits.get(training)

    def _record(self, entry: Entry, vectors: WordVectors, recipe: Recipe) -> Record:
        first, second = entry.vector("2d_pooled"), entry.vector("3d_pooled")
        name = entry.text("class")
        text = class_text(name)
        spectrogram = _heard(entry, recipe)
        parts: Record = {
            "video": halves(first, second, sizes=(len(first), len(second)), mode=recipe.mode),
            "audio": None
            if spectrogram is None
            else frames(spectrogram, recipe.audio_frames, mode=recipe.mode),
            "text": vectors.of(text, recipe),
        }
        record = {key: part for key, part in parts.items() if part is not None}
        if recipe.reference and spectrogram is not None:
            record["nframes"] = spectrogram.shape[1]
        label = self.classes.index(name)
        return {"ids": entry.name, "label": label, "text_raw": text} | record


def open_actions(path: Path, form: ActionForm) -> ActionFile:
    """Open a pickle of classified clips.

    Args:
        path: A pickle, or what ``torch.save`` wrote: a list of dicts.
        form: :data:`UCF101` or :data:`HMDB51`.

    Raises:
        RefusedError: If it cannot be opened, is no list, or names no class.
    """
    entries = entries_in(path)
    found = [entry.get("class") for entry in entries if isinstance(entry, Mapping)]
    names = sorted({written(name) for name in found if isinstance(name, str)})
    if not names:
        raise RefusedError(Complaint(str(path), "names no class", "each clip has a 'class'"))
    return ActionFile(path=path, form=form, entries=entries, classes=tuple(names))


def _heard(entry: Entry, recipe: Recipe) -> Floats | None:
    """A clip's spectrogram, unless the file says that it has no sound."""
    said = "has_audio" not in entry.values or entry.number("has_audio")
    spectrogram = entry.rows("audio") if said or "audio" in entry.values else None
    if recipe.reference:
        silence = np.zeros((_MELS, _SILENT_FRAMES), np.float32)
        return silence if spectrogram is None else spectrogram
    return spectrogram if said else None
