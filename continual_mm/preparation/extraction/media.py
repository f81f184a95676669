"""Decodes media files with PyAV: a clip's frames and audio at exact times, without broken parts."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from continual_mm.preparation.extraction.towers import FrameSampling

TOLERANCE = 0.5
"""Seconds by which a clip or a stream may miss the end of its file without a note about it."""

_BACK = (1.0, 4.0, 16.0)
"""Seconds before a time that are sought for a key frame, before the file's beginning is."""

_LISTS = frozenset(
    (
        *("avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "mlv", "rtp", "rtsp"),
        *("sap", "sdp", "vapoursynth", "vobsub", "webm_dash_manifest"),
    )
)
"""Formats that are scripts, or lists of further files or addresses; none of them is opened."""

_LIMITS = {
    "format_whitelist": ",".join(sorted(av.formats_available - _LISTS)),
    "protocol_whitelist": "file",
}

_WITHOUT_DURATION = frozenset(
    ("aac", "ac3", "amr", "dts", "eac3", "h264", "hevc", "loas", "m4v", "mp3", "mpegvideo", "vc1")
)
"""Formats that do not store a duration; FFmpeg guesses it from the first bits per second."""

_STATING_THE_END = frozenset(("asf", "matroska", "nut", "ogg", "webm"))
"""Formats that store when a file ends, and not how long it lasts.

They differ in what was cut out of a longer recording with its times (``-copyts``, segments).
"""

_SECOND = 1_000_000  # of a container's clock
_LONGEST = 1e7  # seconds that are spelled out, a third of a year
_USUAL_RATE = 25  # frames per second, where a file says nothing


class MediaError(Exception):
    """A file that cannot be decoded as its clip needs; the message does not name it."""


@dataclass(slots=True)
class Notes:
    """What was skipped while a clip was decoded, and how many broken pieces by kind of stream."""

    lines: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)

    def all(self) -> tuple[str, ...]:
        """Everything, in a line each."""
        broken = self.broken.items()
        return (*self.lines, *(f"{n} broken pieces of {kind} skipped" for kind, n in broken))


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """PyAV's container of a file, or a MediaError; no other file is read, whatever it contains."""
    try:
        # With the protocol a name such as "concat:b.mp4" is no more than a name.
        container = av.open(f"file:{path}", metadata_errors="replace", container_options=_LIMITS)
    except (FFmpegError, OSError) as error:
        raise MediaError(f"cannot be opened: {_reason(error)}; copy or encode it again") from error
    with container:
        yield container


def stated_duration(path: Path) -> float:
    """Seconds that a file lasts as it says itself; 0 if it does not."""
    with opened(path) as container:
        names = container.format.name.split(",")
        if _WITHOUT_DURATION.intersection(names):
            return 0.0
        before = _origin(container) if _STATING_THE_END.intersection(names) else 0.0
        return max(0.0, (container.duration or 0) / _SECOND - before)


def last_packet_end(path: Path) -> float:
    """Seconds from a file's beginning to where its last packet ends; decodes nothing."""
    last = 0.0
    with opened(path) as container:
        origin, counted = _origin(container), Counter[int]()
        try:
            for packet in container.demux():
                if not packet.size or packet.time_base is None:
                    continue
                step = float((packet.duration or 0) * packet.time_base)
                counted[packet.stream_index] += 1
                if packet.pts is not None:
                    last = max(last, float(packet.pts * packet.time_base) - origin + step)
                else:
                    rate = getattr(packet.stream, "average_rate", None) or _USUAL_RATE
                    last = max(last, counted[packet.stream_index] / float(rate))
        except FFmpegError:
            return last
    return last


def decoded(path: Path, kind: str, start: float, notes: Notes) -> Iterator[tuple[float, Any]]:
    """Frames of a file's first stream of a kind, with their times; none if it has no such stream.

    The first frame is at ``start`` (seconds) or before, where there is one. Decoding begins at a
    key frame; formats differ in where seeking leads, so an earlier one is sought if the first time
    is too late. The cover picture of an audio file is no video.
    """
    for entry in _entries(path, start):
        found = Notes()
        with opened(path) as container:
            stream = _stream(container, kind)
            if stream is None:
                return
            if entry and not _seek(container, stream, entry):
                continue
            frames = _timed(container, stream, found, at_beginning=not entry)
            first = next(frames, None)
            if entry and (first is None or first[0] > start):
                continue
            if first is None and found.broken:
                raise MediaError(f"no piece of its {kind} can be decoded; encode it again")
            try:
                if first is not None:
                    yield first
                    yield from frames
            finally:
                notes.lines += found.lines
                notes.broken += found.broken
            return


def check_complete(path: Path, reached: float, end: float, what: str, notes: Notes) -> None:
    """Note that a stream ends before its clip (seconds); a MediaError if its file is cut short."""
    if reached >= end - TOLERANCE:
        return
    last, stated = last_packet_end(path), stated_duration(path)
    if last < stated - TOLERANCE:
        ends = f"it says it lasts {shown(stated)} s, but ends after {shown(last)} s"
        raise MediaError(f"is cut short: {ends}; copy it again")
    where = f"{shown(reached)} s, before the clip's end at {shown(end)} s"
    notes.lines.append(f"{what} ends at {where}")


def shown(seconds: float) -> str:
    """A time as text, such as 61.50."""
    return f"{seconds:.2f}" if seconds < _LONGEST else f"{seconds:g}"


def _origin(container: InputContainer) -> float:
    """The container's own time, in seconds, that players call 0."""
    return (container.start_time or 0) / _SECOND


def _stream(container: InputContainer, kind: str) -> Any:
    for stream in container.streams:
        cover = stream.disposition & Disposition.attached_pic
        if stream.type == kind and not cover:
            if stream.codec_context is None:
                raise MediaError(f"there is no decoder for its {kind}; encode it anew")
            stream.codec_context.thread_count = 1  # other processes use the other cores
            return stream
    return None


def _entries(path: Path, start: float) -> list[float]:
    """Times to begin decoding at, the best one first, the file's beginning last."""
    if start <= _BACK[0]:
        return [0.0]
    with opened(path) as container:
        # The times of an MPEG program stream are a frame off at first.
        nearest = 1 if "mpeg" in container.format.name.split(",") else 0
    return [*(start - back for back in _BACK[nearest:] if start > back), 0.0]


def _seek(container: InputContainer, stream: Any, time: float) -> bool:
    """Whether it was possible to seek a time, in seconds."""
    try:
        container.seek(round((time + _origin(container)) / stream.time_base), stream=stream)
    except (FFmpegError, TypeError, ZeroDivisionError):
        return False
    return True


def _timed(
    container: InputContainer, stream: Any, notes: Notes, *, at_beginning: bool
) -> Iterator[tuple[float, Any]]:
    """Frames with times that never decrease; one without a time follows the frame before.

    Away from the beginning, they begin at a key frame; there is none if the first has no time.
    """
    origin, kind = _origin(container), stream.type
    last, following, begun = 0.0, 0.0, at_beginning
    for frame in _frames(container, stream, notes):
        if not begun:
            if kind == "video" and not frame.key_frame:
                continue
            if frame.time is None:
                return
        begun = True
        if frame.is_corrupt:
            notes.broken[kind] += 1
            continue
        last = max(following if frame.time is None else frame.time - origin, last)
        if kind == "audio":
            following = last + float(frame.samples / frame.sample_rate)
        else:
            following = last + float(1 / (stream.average_rate or _USUAL_RATE))
        yield last, frame


def _frames(container: InputContainer, stream: Any, notes: Notes) -> Iterator[Any]:
    """Decoded frames; what cannot be decoded is counted and skipped."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            notes.lines.append(f"its {stream.type} breaks off: {_reason(error)}")
            packet = None
        try:
            if packet is None:
                yield from stream.codec_context.decode(None)
                return
            yield from packet.decode()
        except EOFError:
            return
        except FFmpegError:
            notes.broken[stream.type] += 1
            if packet is None:
                return


def _reason(error: Exception) -> str:
    message = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    return message[:1].lower() + message[1:]


Image = NDArray[np.uint8]  # (height, width, 3) RGB
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""How colours become RGB; the size stays."""


def video_frames(
    path: Path, start: float, end: float, samplings: Sequence[FrameSampling], notes: Notes
) -> Iterator[tuple[int, Image]]:
    """Frames of a clip for several towers, decoded once, each with the index of its sampling.

    The frame at a time is the last one that is not later, or else the first; times after the
    stream's end get none. Frames are upright and in the order of time.
    """
    waiting = [(each, deque(each.times(start, end).tolist())) for each in samplings]
    reformatter = VideoReformatter()
    current: Any = None
    since = step = 0.0
    for time, frame in decoded(path, "video", start, notes):
        if current is not None:
            step = time - since
            yield from _sampled(waiting, current, time, reformatter)
        elif time >= end:
            return
        current, since = frame, time
        if not any(times for _, times in waiting):
            return
    if current is None:
        return
    last = since + (step or end - since)  # a single frame lasts to the end
    check_complete(path, last, end, "its video", notes)
    yield from _sampled(waiting, current, end if last >= end - TOLERANCE else last, reformatter)


def _sampled(
    waiting: Sequence[tuple[FrameSampling, deque[float]]],
    frame: Any,
    until: float,
    reformatter: VideoReformatter,
) -> Iterator[tuple[int, Image]]:
    """A frame, once for each sampled time that lies before the next frame's."""
    if not any(times and times[0] < until for _, times in waiting):
        return
    rgb = reformatter.reformat(frame, format="rgb24", interpolation=_EXACT, threads=1)
    upright: Image = np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)))
    for index, (sampling, times) in enumerate(waiting):
        image: Image | None = None
        while times and times[0] < until:
            times.popleft()
            image = _resized(upright, sampling) if image is None else image
            yield index, image


def _resized(image: Image, sampling: FrameSampling) -> Image:
    if sampling.side is None:
        return image
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    mode = InterpolationMode(sampling.interpolation)
    made = resize(pixels, [*sampling.size(*image.shape[:2])], mode, antialias=sampling.antialias)
    values: Image = made.permute(1, 2, 0).numpy()
    return values


MOST_SAMPLES = 1 << 29  # of one clip: 2 GB, at 16,000 a second nine hours
SAMPLE_RATE = 16_000  # samples per second of audio, unless a network needs others
Wave = NDArray[np.float32]  # (samples,), in [-1, 1] but for what decoders overshoot
_MARGIN = 0.05  # seconds on either side of a clip that the resampling filter sees
_GAP = 0.05  # seconds between two frames that are a gap and no inaccuracy of their times


def audio_wave(
    path: Path, start: float, end: float, notes: Notes, *, sample_rate: int = SAMPLE_RATE
) -> Wave | None:
    """The audio of a clip, the mean of its channels; None if its file has none in it.

    (round((end - start) * sample_rate),) samples, at least one. Each is where its time says, as
    exactly as the file stores times (Matroska: to 1 ms). Before the stream's first frame, after its
    last one and in gaps it is silent.
    """
    if (end - start) * sample_rate > MOST_SAMPLES:
        hours = MOST_SAMPLES / sample_rate / 3600
        problem = f"lasts {shown(end - start)} s; of more than {hours:.0f} hours give clips"
        raise MediaError(f"{problem}, with start and end")
    clip = _ClipWave(start, end, sample_rate)
    reached: float | None = None
    for time, frame in decoded(path, "audio", max(0.0, start - _MARGIN), notes):
        if time >= end + _MARGIN:
            reached = None if reached is None else time
            break
        clip.add(time, frame)
        reached = max(reached or 0.0, time + frame.samples / frame.sample_rate)
    if reached is None:
        return None
    clip.finish()
    check_complete(path, reached, end, "its audio", notes)
    return None if clip.is_empty else clip.values


class _ClipWave:
    """The samples of a clip, filled in from frames; frames without a gap are resampled together."""

    def __init__(self, start: float, end: float, rate: int) -> None:
        self.values: Wave = np.zeros(max(1, round((end - start) * rate)), dtype=np.float32)
        self.is_empty = True
        self._start, self._rate = start, rate
        self._begin, self._end = start - _MARGIN, end + _MARGIN  # of what is resampled
        self._given_rate = 0
        self._next = 0.0  # seconds; of the next sample of the file
        self._written: float | None = None  # seconds; of the next sample that is filled in
        self._waiting: list[Wave] = []

    def add(self, time: float, frame: Any) -> None:
        """Add the part of a frame that the clip needs; a second at a time is resampled."""
        if frame.sample_rate != self._given_rate or abs(time - self._next) >= _GAP:
            self.finish()
            self._given_rate, self._next = frame.sample_rate, time
            self._resampler = AudioResampler(format="fltp", layout="mono", rate=self._rate)
        wave, rate = _mono(frame), self._given_rate
        skipped = min(len(wave), max(0, round((self._begin - self._next) * rate)))
        kept = max(skipped, min(len(wave), round((self._end - self._next) * rate)))
        begin = self._next + skipped / rate
        self._next += len(wave) / rate
        if kept == skipped:
            return
        if self._written is None:
            self._written = begin
        self._waiting.append(wave[skipped:kept])
        if sum(map(len, self._waiting)) >= rate:
            self._resample()

    def finish(self) -> None:
        """Fill in what the resampler still holds."""
        if self._written is not None:
            self._resample()
            self._write(self._resampler.resample(None))
            self._written = None

    def _resample(self) -> None:
        if self._waiting:
            wave = np.concatenate(self._waiting)[None]
            self._waiting.clear()
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = self._given_rate
            self._write(self._resampler.resample(frame))

    def _write(self, frames: list[Any]) -> None:
        for frame in frames:
            wave, time = frame.to_ndarray()[0], self._written or 0.0
            at = round((time - self._start) * self._rate)
            low, high = max(0, at), min(len(self.values), at + len(wave))
            if low < high:
                self.values[low:high] = wave[low - at : high - at]
                self.is_empty = False
            self._written = time + len(wave) / self._rate


def _mono(frame: Any) -> Wave:
    """The mean of a frame's channels as floats."""
    values: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return np.ascontiguousarray(values.mean(0, dtype=np.float32))
