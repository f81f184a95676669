"""Pickles of short clips, a dict each: YouCook2, MSR-VTT, LSMDC, UCF101 and HMDB51."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor

from continual_mm.data.schema import Record
from continual_mm.preparation.formats.features import (
    MOST_FEATURES,
    Floats,
    finite,
    frames,
    unit_halves,
)
from continual_mm.preparation.formats.pickles import clean_text, load_pickle, python2_text
from continual_mm.preparation.formats.recipe import Recipe, skipping
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problems, printable
from continual_mm.system.seeds import seed_for

_KEYS_SHOWN = 20
_MOST_AXES = 32
_MOST = 1 << 63
_FRAMES = 1024  # spectrograms of clips are a multiple of this long
_YOUTUBE_ID = 11
_SILENT_FRAMES, _MELS = 1000, 40
_TEST = 2

_BOUNDARY = re.compile(r"[_\s]+|(?<=[^A-Z_\s])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Between words: underscores, before a capital, and before the last of several capitals."""


def class_text(name: str, *, template: str = "{}") -> str:
    """The words in a class's name, in lower case, put where the template has ``{}``."""
    words = [word for word in _BOUNDARY.split(name) if word]
    return template.format(" ".join(words).lower())


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A clip; methods raise an InputError if the value of a key is missing or of another kind."""

    name: str
    place: str
    values: Mapping[object, object]

    @classmethod
    def of(cls, raw: object, number: int, path: Path, seen: set[str], key: str = "id") -> "Entry":
        """An element of the list with an id that is not in ``seen``, to which it is added."""
        place = f"{path}, item {number}"
        if not isinstance(raw, Mapping):
            raise _refusal(place, f"is a {type(raw).__name__}", "each clip is a dict")
        name = raw.get(key)
        name = python2_text(name) if isinstance(name, str) else name
        if not isinstance(name, str) or not name or clean_text(name) != name:
            raise _refusal(place, f"has no {key!r} of letters", "each clip has a name of its own")
        if name in seen:
            raise _refusal(place, f"is '{printable(name)}' like a clip before it", "ids are unique")
        seen.add(name)
        return cls(str(name), f"{place} ('{printable(name)}')", raw)

    def array(self, key: str, axes: int) -> Floats:
        """Finite features: (features,), (time, features), or (mels, frames) of a spectrogram."""
        value = self._value(key)
        if isinstance(value, Tensor):
            # Float32, because NumPy has no bfloat16.
            valid = value.is_floating_point() and value.ndim <= _MOST_AXES
            value = value.float().numpy() if valid else value
        if not isinstance(value, np.ndarray):
            raise _refusal(self._at(key), f"is a {type(value).__name__}", "store an array")
        # Time may be empty; features may not.
        features = 0 if key == "audio" else -1
        if value.ndim != axes or not 0 < value.shape[features] <= MOST_FEATURES:
            names = "(features,)" if axes == 1 else "(time, features)"
            expected = "(mels, frames)" if key == "audio" else names
            raise _refusal(self._at(key), f"has shape {value.shape}", f"it should be {expected}")
        return finite(value, self._at(key))

    def texts(self, key: str) -> list[str]:
        """A text, or the texts of a list; at least one."""
        value = self._value(key)
        texts = np.ravel(value).tolist() if isinstance(value, np.ndarray) else value
        texts = list(texts) if isinstance(texts, list | tuple) else [texts]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise _refusal(self._at(key), "is no text and no list of texts")
        return [clean_text(text) for text in texts if isinstance(text, str)]

    def text(self, key: str) -> str:
        """One text."""
        value = self._value(key)
        if not isinstance(value, str):
            raise _refusal(self._at(key), "is no text")
        return clean_text(value)

    def number(self, key: str) -> int:
        """A whole number of at most 64 bits, or a truth value as 0 or 1."""
        value = self._value(key)
        if isinstance(value, np.ndarray | Tensor) and value.ndim == 0:
            value = value.item()
        if isinstance(value, int | np.integer | np.bool_) and -_MOST <= int(value) < _MOST:
            return int(value)
        raise _refusal(self._at(key), "is no whole number")

    def _value(self, key: str) -> object:
        if key not in self.values:
            names = (printable(name) for name in self.values if isinstance(name, str))
            known = ", ".join(islice(names, _KEYS_SHOWN)) or "no key of letters"
            raise _refusal(self._at(key), "is missing", f"the clip has {known}")
        return self.values[key]

    def _at(self, key: str) -> str:
        return f"{self.place}, key {key!r}"


def _refusal(place: str, problem: str, remedy: str = "") -> InputError:
    return InputError.at(place, problem, remedy)


def entries_in(path: Path) -> list[object]:
    """The clips of a pickle, or of what ``torch.save`` wrote, unchecked; there is at least one."""
    loaded = load_pickle(path)
    if isinstance(loaded, list | tuple) and loaded:
        return list(loaded)
    what = "an empty list" if isinstance(loaded, list | tuple) else f"a {type(loaded).__name__}"
    raise _refusal(str(path), f"holds {what}", "it should be a list with a dict for each clip")


def _present(record: Record) -> Record:
    return {key: value for key, value in record.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipForm:
    """How a published file keeps its clips."""

    features_2d: str = "2d_pooled"  # key of a clip's 2D features, (features,)
    features_3d: str = "3d_pooled"  # key of its 3D features
    caption: str = "caption"  # key of its text, or of a list of texts
    # Spectrogram frames that the published program cuts or pads each clip to.
    audio_frames: int = 3 * _FRAMES
    # Whether ids begin with YouTube's, which says of which long video a clip is.
    youtube_ids: bool = False
    expected: int = 0  # clips that the protocol counts, whether or not the file has them


YOUCOOK2 = ClipForm(features_2d="2d", features_3d="3d", audio_frames=5 * _FRAMES, youtube_ids=True)
"""``youcook_train_audio.pkl`` and ``youcook_val_audio.pkl``."""

MSRVTT_TRAIN = ClipForm()  # `msrvtt_train.pkl`: each clip with several captions

MSRVTT_TEST = ClipForm(caption="eval_caption", expected=1000)
"""``msrvtt_jsfusion_test.pkl``: 968 of the 1,000 clips of the test have audio and are in it."""

LSMDC = ClipForm()  # LSMDC's clips, their features as tensors


class ClipFile:
    """The clips of one file and split; ``valid`` counts those that :meth:`records` has given."""

    def __init__(self, path: Path, form: ClipForm, *, split: int) -> None:
        self.path, self.form, self.split = path, form, split
        self.entries = entries_in(path)
        self.valid = 0

    @property
    def expected(self) -> int:
        """Clips that the protocol counts; at least those of the file."""
        return max(self.form.expected, len(self.entries))

    @property
    def misses(self) -> int:
        """Clips that the protocol counts and :meth:`records` did not give."""
        return self.expected - self.valid

    def records(
        self, vectors: WordVectors, recipe: Recipe, left_out: Problems | None = None
    ) -> Iterator[Record]:
        """The clips that can be read; the problems of others are added to ``left_out``, or raised.

        ``audio`` is (frames, mels). In ``reference`` spectrograms are cut or padded with 0 dB to
        the form's frames, ``nframes`` says how many there were; in ``robust`` each has its own
        length.
        """
        self.valid = 0
        seen: set[str] = set()
        for number, raw in enumerate(self.entries):
            with skipping(left_out):
                record = self._record(Entry.of(raw, number, self.path, seen), vectors, recipe)
                self.valid += 1
                yield record

    def _record(self, entry: Entry, vectors: WordVectors, recipe: Recipe) -> Record:
        form = self.form
        video = unit_halves(entry.array(form.features_2d, 1), entry.array(form.features_3d, 1))
        spectrogram = entry.array("audio", 2)
        texts = entry.texts(form.caption)
        # One of several captions is chosen for good; the published program chooses at every epoch.
        rng = np.random.default_rng(seed_for(0, "caption", entry.name))
        text = texts[int(rng.integers(len(texts)))]
        return _present(
            {
                "ids": entry.name,
                "video": video,
                "audio": frames(spectrogram, form.audio_frames, mode=recipe.mode),
                "text": vectors.of(text, recipe),
                "nframes": spectrogram.shape[1] if recipe.reference else None,
                "group": entry.name[:_YOUTUBE_ID] if form.youtube_ids else None,
                "text_raw": text,
                "split": self.split,
            }
        )


UCF101 = MappingProxyType({0: 2, 1: 0, 2: 2})
"""``training`` of UCF101 -> split: each clip is for training (1) or for the test."""

HMDB51 = MappingProxyType({1: 0, 2: 2})
"""``training`` of HMDB51 -> split: 1 is training, 2 test, and 0 neither."""


class ActionFile:
    """The clips of a file of UCF101 or HMDB51; labels are rows of the sorted ``classes``."""

    def __init__(self, path: Path, splits: Mapping[int, int]) -> None:
        self.path, self.splits = path, splits
        self.entries = entries_in(path)
        named = [entry.get("class") for entry in self.entries if isinstance(entry, Mapping)]
        self.classes = sorted({clean_text(name) for name in named if isinstance(name, str)})
        if not self.classes:
            raise _refusal(str(path), "names no class", "each clip has a 'class'")

    def records(
        self, vectors: WordVectors, recipe: Recipe, left_out: Problems | None = None
    ) -> Iterator[Record]:
        """The clips that can be read, and behind them a record for each class of known words.

        Problems of others are added to ``left_out``, or raised. Test clips have no text, so that
        only the classes do, as protocols of the kind ``classes`` need it. In ``reference`` a clip
        without audio has 1,000 frames of zeros, all of which ``nframes`` counts, although of
        UCF101's the published program averages over 32; in ``robust`` it lacks the modality.
        """
        seen: set[str] = set()
        for number, raw in enumerate(self.entries):
            with skipping(left_out):
                entry = Entry.of(raw, number, self.path, seen, key="video")
                training = entry.number("training")
                if training not in (0, 1, 2):
                    place = f"{entry.place}, key 'training'"
                    raise _refusal(place, f"is {training}", "it is 0, 1 or 2")
                if training in self.splits:
                    record = self._record(entry, vectors, recipe)
                    record |= {"split": self.splits[training]}
                    yield record if record["split"] != _TEST else record | {"text": None}
        for label, name in enumerate(self.classes):
            text = class_text(name)
            words = vectors.of(text, recipe)
            with skipping(left_out):
                if words is None:
                    remedy = "give word vectors that have one, or it cannot be answered"
                    raise _refusal(f"class {name!r}", "no word of it is known", remedy)
                record = {"ids": f"class/{name}", "split": _TEST, "label": label}
                yield record | {"text_raw": text, "text": words}

    def _record(self, entry: Entry, vectors: WordVectors, recipe: Recipe) -> Record:
        video = unit_halves(entry.array("2d_pooled", 1), entry.array("3d_pooled", 1))
        name = entry.text("class")
        text = class_text(name)
        record: Record = {
            "ids": entry.name,
            "label": self.classes.index(name),
            "text_raw": text,
            "video": video,
            "text": vectors.of(text, recipe),
        }
        spectrogram = _spectrogram(entry, recipe)
        if spectrogram is not None:
            record["audio"] = frames(spectrogram, recipe.audio_frames, mode=recipe.mode)
            record["nframes"] = spectrogram.shape[1] if recipe.reference else None
        return _present(record)


def _spectrogram(entry: Entry, recipe: Recipe) -> Floats | None:
    """A clip's spectrogram, unless the file says that it has no audio."""
    has_audio = "has_audio" not in entry.values or entry.number("has_audio")
    spectrogram = entry.array("audio", 2) if has_audio or "audio" in entry.values else None
    if recipe.reference:
        silence = np.zeros((_MELS, _SILENT_FRAMES), np.float32)
        return silence if spectrogram is None else spectrogram
    return spectrogram if has_audio else None
