"""Pickles of short clips, a list with a dict for each: YouCook2, MSR-VTT and LSMDC."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.schema import Record
from continual_mm.preparation.formats.features import (
    MOST_FEATURES,
    MOST_VALUES,
    frames,
    halves,
    sound,
    steps,
)
from continual_mm.preparation.formats.machine.fault import shown
from continual_mm.preparation.formats.machine.literals import told
from continual_mm.preparation.formats.machine.unpickling import load_pickle
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.word_vectors import WordVectors, written
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.seeds import seed_for

_BOUNDARY = re.compile(r"[_\s]+|(?<=[^A-Z_\s])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Between words: underscores, before a capital, and before the last of several capitals."""


def class_text(name: str, *, template: str = "{}") -> str:
    """The words in a class's name, in lower case.

    Args:
        name: Such as ``ApplyEyeMakeup`` or ``brush_hair``.
        template: A sentence with ``{}`` where the words go.

    >>> class_text("ApplyEyeMakeup"), class_text("brush_hair", template="a video of {}")
    ('apply eye makeup', 'a video of brush hair')
    """
    words = [word for word in _BOUNDARY.split(name) if word]
    return template.format(" ".join(words).lower())


_KEYS_SHOWN = 20
_MOST_AXES = 32
_MOST = 1 << 63

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A clip.

    Attributes:
        name: Its id.
        place: The file, the clip's number in it, and its id.
        values: By key.
    """

    name: str
    place: str
    values: Mapping[object, object]

    @classmethod
    def of(cls, raw: object, number: int, path: Path, seen: set[str], key: str = "id") -> "Entry":
        """Take an element of the list for a clip.

        Args:
            raw: The element.
            number: Its place in the list.
            path: The file.
            seen: The ids so far; takes this one's.
            key: Under which the id stands.

        Raises:
            InputError: If it is no dict, or has no id, or that of another clip.
        """
        place = f"{path}, item {number}"
        if not isinstance(raw, Mapping):
            raise _refusal(place, f"is a {type(raw).__name__}", "each clip is a dict")
        name = raw.get(key)
        name = told(name) if isinstance(name, str) else name
        if not isinstance(name, str) or not name or written(name) != name:
            raise _refusal(place, f"has no {key!r} of letters", "each clip has a name of its own")
        if name in seen:
            raise _refusal(place, f"is '{shown(name)}' like a clip before it", "ids are unique")
        seen.add(name)
        return cls(str(name), f"{place} ('{shown(name)}')", raw)

    def vector(self, key: str) -> Floats:
        """Features without time: (features,).

        Raises:
            InputError: If there are none, or they are not finite floats of this shape.
        """
        return self._array(key, axes=1)

    def rows(self, key: str) -> Floats:
        """Two axes of features: (time, features), or (mels, frames) for a spectrogram.

        Raises:
            InputError: If there are none, or they are not finite floats of this shape.
        """
        return self._array(key, axes=2)

    def texts(self, key: str) -> list[str]:
        """A text, or the texts of a list; at least one.

        Raises:
            InputError: If there is none, or it is anything else.
        """
        value = self._value(key)
        texts = np.ravel(value).tolist() if isinstance(value, np.ndarray) else value
        texts = list(texts) if isinstance(texts, list | tuple) else [texts]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise _refusal(self._at(key), "is no text and no list of texts")
        return [written(text) for text in texts if isinstance(text, str)]

    def text(self, key: str) -> str:
        """One text.

        Raises:
            InputError: If it is anything else.
        """
        value = self._value(key)
        if not isinstance(value, str):
            raise _refusal(self._at(key), "is no text")
        return written(value)

    def number(self, key: str) -> int:
        """A whole number of at most 64 bits, or a truth value as 0 or 1.

        Raises:
            InputError: If it is anything else.
        """
        value = self._value(key)
        if isinstance(value, np.ndarray | Tensor) and value.ndim == 0:
            value = value.item()
        if isinstance(value, int | np.integer | np.bool_):
            number = int(value)
            if -_MOST <= number < _MOST:
                return number
        raise _refusal(self._at(key), "is no whole number")

    def _value(self, key: str) -> object:
        if key not in self.values:
            has = (name for name in self.values if isinstance(name, str))
            known = (
                ", ".join(shown(name) for name in islice(has, _KEYS_SHOWN)) or "no key of letters"
            )
            raise _refusal(self._at(key), "is missing", f"the clip has {known}")
        return self.values[key]

    def _array(self, key: str, axes: int) -> Floats:
        value = self._value(key)
        array = _numbers(value) if isinstance(value, Tensor) else value
        if not isinstance(array, np.ndarray):
            raise _refusal(self._at(key), f"is a {type(value).__name__}", "store an array")
        # Time may be nothing; features may not.
        features = 0 if key == "audio" else -1
        if array.ndim != axes or not 0 < array.shape[features] <= MOST_FEATURES:
            names = "(features,)" if axes == 1 else "(time, features)"
            expected = "(mels, frames)" if key == "audio" else names
            raise _refusal(self._at(key), f"has shape {array.shape}", f"it should be {expected}")
        return sound(array, self._at(key))

    def _at(self, key: str) -> str:
        return f"{self.place}, key {key!r}"


def entries_in(path: Path) -> list[object]:
    """The clips of a file, unchecked.

    Raises:
        InputError: If it cannot be opened, or is no list of anything.
    """
    loaded = load_pickle(path)
    if isinstance(loaded, list | tuple) and loaded:
        return list(loaded)
    what = "an empty list" if isinstance(loaded, list | tuple) else f"a {type(loaded).__name__}"
    raise _refusal(str(path), f"holds {what}", "it should be a list with a dict for each clip")


def _numbers(tensor: Tensor) -> Floats | None:
    """A tensor's values, in float32 because NumPy has no bfloat16; None if it has no floats."""
    if not tensor.is_floating_point() or tensor.ndim > _MOST_AXES:
        return None
    values: Floats = tensor.float().numpy()
    return values


def _refusal(place: str, problem: str, remedy: str = "") -> InputError:
    return InputError(Problem(place, problem, remedy))


_FRAMES = 1024
"""Spectrograms of clips are a multiple of this long."""

_YOUTUBE_ID = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipForm:
    """Under which keys a published file keeps what.

    Attributes:
        features_2d: Key of a clip's 2D features, (features,).
        features_3d: Key of its 3D features.
        caption: Key of its text, or of a list of texts.
        audio_frames: Spectrogram frames that the published program cuts or fills each clip to.
        group: Gives the long video of a clip from its id, where ids say it.
        rows_2d: Key of the 2D features over time, (time, features), where there are any.
        rows_3d: Key of the 3D features over time.
        expected: Clips that the protocol counts, whether or not the file has them.
    """

    features_2d: str
    features_3d: str
    caption: str
    audio_frames: int
    group: Callable[[str], str] | None = None
    rows_2d: str | None = None
    rows_3d: str | None = None
    expected: int | None = None


def _youtube_id(clip: str) -> str:
    return clip[:_YOUTUBE_ID]


YOUCOOK2 = ClipForm(
    features_2d="2d",
    features_3d="3d",
    caption="caption",
    audio_frames=5 * _FRAMES,
    group=_youtube_id,
    rows_2d="2d_full",
    rows_3d="3d_full",
)
"""``youcook_train_audio.pkl`` and ``youcook_val_audio.pkl``; ids begin with YouTube's."""

MSRVTT_TRAIN = ClipForm(
    features_2d="2d_pooled",
    features_3d="3d_pooled",
    caption="caption",
    audio_frames=3 * _FRAMES,
    rows_2d="2d",
    rows_3d="3d",
)
"""``msrvtt_train.pkl``: each clip with several captions."""

MSRVTT_TEST = ClipForm(
    features_2d="2d_pooled",
    features_3d="3d_pooled",
    caption="eval_caption",
    audio_frames=3 * _FRAMES,
    rows_2d="2d",
    rows_3d="3d",
    expected=1000,
)
"""``msrvtt_jsfusion_test.pkl``: 968 of the 1,000 clips of the test have sound and are in it."""

LSMDC = ClipForm(
    features_2d="2d_pooled",
    features_3d="3d_pooled",
    caption="caption",
    audio_frames=3 * _FRAMES,
)
"""LSMDC's clips, their features as tensors."""


@dataclass(slots=True, kw_only=True)
class ClipFile:
    """The clips of one file, read when they are asked for.

    Attributes:
        path: The pickle.
        form: Under which keys it keeps what.
        split: 0 for training, 1 for validation, 2 for test: what all of its clips are for.
        entries: The clips, unchecked.
        given: Ids of the clips that were found sound, once :meth:`records` has gone over them.
    """

    path: Path
    form: ClipForm
    split: int
    entries: Sequence[object] = field(repr=False)
    given: list[str] = field(default_factory=list)

    @property
    def expected(self) -> int:
        """Clips that the protocol counts; those of the file, where it says no more."""
        return max(self.form.expected or 0, len(self.entries))

    @property
    def misses(self) -> int:
        """Clips that the protocol counts and :meth:`records` did not give: each is a miss."""
        return self.expected - len(self.given)

    def missing(self, expected: Sequence[str]) -> tuple[str, ...]:
        """Which of the protocol's clips, by their ids, :meth:`records` did not give."""
        given = set(self.given)
        return tuple(clip for clip in expected if clip not in given)

    def records(
        self,
        vectors: WordVectors,
        recipe: Recipe,
        *,
        report: Report,
        over_time: bool = False,
        seed: int = 0,
    ) -> Iterator[Record]:
        """Give the clips as records.

        Args:
            vectors: Of words.
            recipe: In ``reference`` sound is cut or filled up with 0 dB to the form's number of
                frames, ``nframes`` says how many there were, and a text has ``max_words`` rows; in
                ``robust`` each has its own length.
            report: Lists the clips left out because something of them is broken.
            over_time: Whether to give ``video_steps`` as well, (3D rows, 2D features + 3D
                features), of clips that have features over time.
            seed: Of the choice among a clip's captions; one is chosen, as published.

        Yields:
            Records with ``video`` (2D features + 3D features,), ``audio`` (frames, mels), ``text``
            (words, features), ``text_raw``, and ``group`` where the form knows it.

        Raises:
            InputError: At the first clip that cannot be read, unless the report skips such.
        """
        self.given.clear()
        seen: set[str] = set()
        for number, raw in enumerate(self.entries):
            record: Record | None = None
            with report.item():
                entry = Entry.of(raw, number, self.path, seen)
                record = _record(entry, self.form, vectors, recipe, seed)
                if over_time:
                    record |= _steps(entry, self.form)
            if record is not None:
                self.given.append(entry.name)
                yield record | {"split": self.split}


def open_clips(path: Path, form: ClipForm, *, split: int) -> ClipFile:
    """Open a pickle of clips.

    Args:
        path: A pickle, or what ``torch.save`` wrote: a list of dicts.
        form: Which dataset's it is: :data:`YOUCOOK2`, :data:`MSRVTT_TRAIN`, :data:`MSRVTT_TEST` or
            :data:`LSMDC`.
        split: What the clips are for.

    Raises:
        InputError: If it cannot be opened, or is no list.
    """
    return ClipFile(path=path, form=form, split=split, entries=entries_in(path))


def _record(
    entry: Entry, form: ClipForm, vectors: WordVectors, recipe: Recipe, seed: int
) -> Record:
    first, second = entry.vector(form.features_2d), entry.vector(form.features_3d)
    spectrogram = entry.rows("audio")
    text = _text(entry, form.caption, seed)
    longest = form.audio_frames
    parts: Record = {
        "video": halves(first, second, sizes=(len(first), len(second)), mode=recipe.mode),
        "audio": frames(spectrogram, longest, mode=recipe.mode),
        "text": vectors.of(text, recipe),
    }
    record: Record = {"ids": entry.name} | {
        name: part for name, part in parts.items() if part is not None
    }
    if recipe.reference:
        record["nframes"] = spectrogram.shape[1]
    if form.group is not None:
        record["group"] = form.group(entry.name)
    return record | {"text_raw": text}


def _text(entry: Entry, key: str, seed: int) -> str:
    texts = entry.texts(key)
    rng = np.random.default_rng(seed_for(seed, "caption", entry.name))
    return texts[int(rng.integers(len(texts)))]


def _steps(entry: Entry, form: ClipForm) -> Mapping[str, object]:
    """Features over time, where a clip has both; eleven of YouCook2's have none."""
    keys = (form.rows_2d, form.rows_3d)
    if any(key is None or key not in entry.values for key in keys):
        return {}
    first, second = (entry.rows(str(key)) for key in keys)
    values = len(second) * (first.shape[1] + second.shape[1])
    if not len(first) or not 0 < values <= MOST_VALUES:
        problem = f"{keys[0]!r} and {keys[1]!r} have {len(first)} and {len(second)} steps"
        raise InputError(Problem(entry.place, problem, "leave both out"))
    return {"video_steps": steps(first, second)}


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
            InputError: At the first clip that cannot be read, unless the report skips such.
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
            raise InputError(Problem(place, f"is {training}", "it is 0, 1 or 2"))
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
        InputError: If it cannot be opened, is no list, or names no class.
    """
    entries = entries_in(path)
    found = [entry.get("class") for entry in entries if isinstance(entry, Mapping)]
    names = sorted({written(name) for name in found if isinstance(name, str)})
    if not names:
        raise InputError(Problem(str(path), "names no class", "each clip has a 'class'"))
    return ActionFile(path=path, form=form, entries=entries, classes=tuple(names))


def _heard(entry: Entry, recipe: Recipe) -> Floats | None:
    """A clip's spectrogram, unless the file says that it has no sound."""
    said = "has_audio" not in entry.values or entry.number("has_audio")
    spectrogram = entry.rows("audio") if said or "audio" in entry.values else None
    if recipe.reference:
        silence = np.zeros((_MELS, _SILENT_FRAMES), np.float32)
        return silence if spectrogram is None else spectrogram
    return spectrogram if said else None


_TEST = 2


def with_class_names(
    clips: ActionFile, vectors: WordVectors, recipe: Recipe, report: Report
) -> Iterator[Record]:
    """Records of clips, and behind them one for each class.

    Clips for testing have no text, so that only names answer them; a protocol of the kind
    ``classes`` wants it so.

    Args:
        clips: The clips.
        vectors: Of words.
        recipe: How they are read.
        report: Takes what is left out; a class of whose name no word is known, too.

    Raises:
        InputError: At the first of these, unless the report skips such.
    """
    for record in clips.records(vectors, recipe, report=report):
        yield record if record["split"] != _TEST else record | {"text": None}
    for label, name in enumerate(clips.classes):
        text = class_text(name)
        words = vectors.of(text, recipe)
        with report.item():
            if words is None:
                remedy = "give word vectors that have one, or it cannot be answered"
                raise InputError(Problem(f"class {name!r}", "no word of it is known", remedy))
        if words is not None:
            yield {
                "ids": f"class/{name}",
                "split": _TEST,
                "label": label,
                "text_raw": text,
                "text": words,
            }
