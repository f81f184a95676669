"""Make the clips and their features, and keep the result in the user's cache folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.cache import cached_pack
from continual_mm.data.narrated_shapes.attributes import SLOT_SAMPLES, Attributes, draw
from continual_mm.data.narrated_shapes.audio import waveform
from continual_mm.data.narrated_shapes.captions import caption
from continual_mm.data.narrated_shapes.card import CARD, VERSION
from continual_mm.data.narrated_shapes.features import (
    HOP,
    embedded,
    frame_features,
    log_mel,
    word_vectors,
)
from continual_mm.data.narrated_shapes.frames import SIDE, frames

_CHUNK = 100  # clips in memory at once


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The raw media of one item."""

    frames: NDArray[np.uint8]  # (slots, 32, 32, 3) RGB; a slot is 80 ms
    waveform: NDArray[np.float32]  # (slots * 1280,) at 16 kHz, in [-1, 1]
    caption: str  # one sentence in lower case
    attributes: Attributes  # from which the three are rendered

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(32, 32, 3) the frame of the beat nearest to the middle, where the shape is brightest."""
        middle = (self.attributes.slots - 1) / 2
        beat = min(self.attributes.beats, key=lambda slot: abs(slot - middle))
        frame: NDArray[np.uint8] = self.frames[beat]
        return frame


def clip(index: int, *, seed: int = 0) -> Clip:
    """Make one item's media, the same however many others are made; training items come first."""
    children = np.random.SeedSequence((seed, index)).spawn(4)
    for_item, for_frames, for_waveform, for_caption = map(np.random.default_rng, children)
    item = draw(for_item)
    return Clip(
        frames=frames(item, for_frames),
        waveform=waveform(item, for_waveform),
        caption=caption(item, for_caption),
        attributes=item,
    )


def sound_of(identity: str) -> NDArray[np.float32]:
    """The waveform of an item by its id, such as ``clip00042``, at 16 kHz."""
    return clip(int(identity.removeprefix("clip"))).waveform


def generate(
    *, seed: int, items: tuple[int, int, int] = CARD.items
) -> dict[str, NDArray[np.generic]]:
    """The columns of a pack of so many training, validation and test items; a seed's are equal."""
    count = sum(items)
    columns, captions = _media_columns(count, seed)
    pack: dict[str, NDArray[np.generic]] = {
        **{f"{modality.name}_kind": np.array(modality.kind.value) for modality in CARD.modalities},
        **columns,
    }
    vectors = word_vectors(captions[: items[0]], seed=seed)
    pack["text"], pack["text_length"] = embedded(captions, vectors)
    pack["text_raw"] = np.array(captions)
    pack["ids"] = np.array([f"clip{index:05d}" for index in range(count)])
    pack["split"] = np.repeat(np.arange(3, dtype=np.int64), items)
    return pack


def pack_path(*, seed: int = 0) -> Path:
    """Find the feature pack in the cache, or generate it there first."""
    name = f"{CARD.name}-v{VERSION}-seed{seed}"
    return cached_pack(name, CARD.names, lambda: generate(seed=seed))


def words(*, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The vector of every word that the pack's captions are made of."""
    with np.load(pack_path(seed=seed), allow_pickle=False) as pack:
        training = pack["text_raw"][pack["split"] == 0].tolist()
    return word_vectors(training, seed=seed)


def _media_columns(count: int, seed: int) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Columns of video, audio and thumbnails, and the captions, of the first items."""
    video = np.zeros((count, *CARD["video"].shape), dtype=np.float32)
    audio = np.zeros((count, *CARD["audio"].shape), dtype=np.float32)
    pictures = np.zeros((count, SIDE, SIDE, 3), dtype=np.uint8)
    slots = np.zeros(count, dtype=np.int64)
    captions: list[str] = []
    for start in range(0, count, _CHUNK):
        clips = [clip(index, seed=seed) for index in range(start, min(start + _CHUNK, count))]
        rows = slice(start, start + len(clips))
        every_frame, waveforms = _padded(clips)
        video[rows], audio[rows] = frame_features(every_frame), log_mel(waveforms)
        pictures[rows] = [each.picture for each in clips]
        slots[rows] = [len(each.frames) for each in clips]
        captions += [each.caption for each in clips]
    lengths = {"video": slots, "audio": 1 + slots * SLOT_SAMPLES // HOP}
    for values, length in ((video, lengths["video"]), (audio, lengths["audio"])):
        values[np.arange(values.shape[1]) >= length[:, None]] = 0
    columns: dict[str, NDArray[np.generic]] = {"video": video, "audio": audio}
    columns["picture"] = pictures
    columns.update({f"{name}_length": length for name, length in lengths.items()})
    return columns, captions


def _padded(clips: list[Clip]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Frames and waveforms, black and silent after the end of each clip."""
    longest = CARD["video"].shape[0]
    every_frame = np.zeros((len(clips), longest, SIDE, SIDE, 3), dtype=np.uint8)
    waveforms = np.zeros((len(clips), longest * SLOT_SAMPLES), dtype=np.float32)
    for row, each in enumerate(clips):
        every_frame[row, : len(each.frames)] = each.frames
        waveforms[row, : len(each.waveform)] = each.waveform
    return every_frame, waveforms
