"""HowTo100M into a store: a recording for each video, and for each caption windows of it.

Features and sounds are kept once, however many captions' windows overlap.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.conversion.dealing import HeldOut
from continual_mm.data.conversion.recordings import COMPARED, Parts, layout_of, usual, written
from continual_mm.data.conversion.records import DType
from continual_mm.data.published.howto100m import Video
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.report import Record
from continual_mm.data.published.vectors import WordVectors
from continual_mm.data.published.windows import Window as Clip
from continual_mm.data.published.windows import feature_slice, grown, sound_slice
from continual_mm.data.store.layout import Window
from continual_mm.data.store.writer import store_writer
from continual_mm.modality import DatasetCard, Provenance


def write_videos(
    videos: Iterable[Video],
    folder: Path,
    *,
    vectors: WordVectors,
    recipe: Recipe,
    held_out: HeldOut,
    dtype: DType = "float16",
    left_out: list[Complaint] | None = None,
    provenance: Provenance | None = None,
) -> DatasetCard:
    """Write a store with an item for every caption of some videos.

    An item's window is grown around its caption, see
    :func:`~continual_mm.data.published.windows.grown`. Its video is the largest value of each
    feature in the window, 2D and 3D each brought to length 1; its sound is the window of the
    spectrogram; its text the known words of the captions inside. ``group`` is the video.

    Args:
        videos: One after the other; all have features of the same sizes, those that are most
            frequent among the first of them.
        folder: Where to; it must not be there.
        vectors: Of words.
        recipe: In ``reference`` a caption in the first 12.5 ms has one frame of 0 dB for its sound,
            and a text is filled up with a word of zeros; in ``robust`` what is missing is left out.
        held_out: Which videos are for validation and test.
        dtype: In which features are stored.
        left_out: Takes the complaints about faulty videos and items, which then are left out;
            without it they end the writing.
        provenance: How the videos' files were read, which the store keeps.

    Raises:
        RefusedError: With everything that is wrong.
    """
    given = iter(videos)
    first = list(islice(given, COMPARED))
    if not first:
        remedy = "see what was left out, and why"
        raise RefusedError(Complaint(str(folder), "there is no video to write", remedy))
    layout = layout_of(*usual(_recording(video, recipe) for video in first), vectors, recipe)
    with store_writer(
        folder, layout=layout, dtype=dtype, left_out=left_out, provenance=provenance
    ) as writer:
        for video in chain(first, given):
            number = written(writer, video.name, _recording(video, recipe), left_out)
            if number is None:
                continue
            for record in _items(video, number, vectors, recipe):
                writer.item(record | {"split": held_out.split(video.name)})
        return writer.finish()


def _recording(video: Video, recipe: Recipe) -> Parts:
    sound = video.sound.T
    if recipe.reference:
        # What clips without sound have; 0 dB, as the published program fills up with.
        sound = np.concatenate([sound, np.zeros((1, sound.shape[1]), dtype=sound.dtype)])
    return video.features_2d, video.features_3d, sound


def _items(video: Video, number: int, vectors: WordVectors, recipe: Recipe) -> Iterator[Record]:
    said = video.captions
    starts, ends = said.starts.tolist(), said.ends.tolist()
    for caption in range(len(said)):
        clip = grown(starts, ends, caption, min_time=recipe.min_time)
        text = " ".join(said.texts[row] for row in clip.told(recipe.mode))
        parts: Record = {
            "video": _seen(video, number, clip, recipe),
            "audio": _heard(video, number, clip, recipe),
            "text": vectors.stored(text, recipe),
        }
        yield {
            "ids": f"{video.name}/{caption}",
            "group": video.name,
            "text_raw": text,
            **{name: part for name, part in parts.items() if part is not None},
        }


def _seen(video: Video, number: int, clip: Clip, recipe: Recipe) -> Window | None:
    streams = ((video.features_2d, recipe.rate_2d), (video.features_3d, recipe.rate_3d))
    spans = tuple(
        _span(feature_slice(clip, rate=rate, mode=recipe.mode), len(rows)) for rows, rate in streams
    )
    empty = all(begin == end for begin, end in spans)
    return None if empty and not recipe.reference else Window(number, spans)


def _heard(video: Video, number: int, clip: Clip, recipe: Recipe) -> Window | None:
    frames = video.sound.shape[1]
    begin, end = _span(sound_slice(clip, mode=recipe.mode), frames)
    if begin < end and (recipe.reference or video.sound[:, begin:end].any()):
        return Window(number, ((begin, end),))
    return Window(number, ((frames, frames + 1),)) if recipe.reference else None


def _span(part: slice, steps: int) -> tuple[int, int]:
    """A slice of so many steps as (begin, end), the same for all that are empty."""
    begin, end, _ = part.indices(steps)
    return (begin, end) if begin < end else (0, 0)
