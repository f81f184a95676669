"""Pickles of short clips, a list with a dict for each: YouCook2, MSR-VTT and LSMDC."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.published.entries import Entry, entries_in
from continual_mm.data.published.features import MOST_VALUES
from continual_mm.data.published.pooling import halves, steps
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.report import Record, Report
from continual_mm.data.published.sound import frames
from continual_mm.data.published.vectors import WordVectors
from continual_mm.dice import seed_for

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
            RefusedError: At the first clip that cannot be read, unless the report skips such.
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
        RefusedError: If it cannot be opened, or is no list.
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
    dice = np.random.default_rng(seed_for(seed, "caption", entry.name))
    return texts[int(dice.integers(len(texts)))]


def _steps(entry: Entry, form: ClipForm) -> Mapping[str, object]:
    """Features over time, where a clip has both; eleven of YouCook2's have none."""
    keys = (form.rows_2d, form.rows_3d)
    if any(key is None or key not in entry.values for key in keys):
        return {}
    first, second = (entry.rows(str(key)) for key in keys)
    values = len(second) * (first.shape[1] + second.shape[1])
    if not len(first) or not 0 < values <= MOST_VALUES:
        problem = f"{keys[0]!r} and {keys[1]!r} have {len(first)} and {len(second)} steps"
        raise RefusedError(Complaint(entry.place, problem, "leave both out"))
    return {"video_steps": steps(first, second)}
