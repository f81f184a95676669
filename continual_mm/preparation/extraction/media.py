"""Decodes media files with PyAV: a clip's frames and audio at exact times, without broken parts."""

from collections import Counter
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

_BACK_FURTHER = (4.0, 16.0)
"""The same for MPEG program streams, which at first give times that are a frame off."""

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

_SECOND = 1_000_000  # of a container's clock
_LONGEST = 1e7  # seconds that are spelled out, a third of a year
_USUAL_RATE = 25  # frames per second, where a file says nothing


class MediaError(Exception):
    """A file that cannot be decoded as its clip needs; the message does not name it."""


@dataclass(slots=True)
class Notes:
    """What was skipped while a clip was decoded.

    Attributes:
        lines: Sentences.
        broken: By kind of stream, packets and frames that could not be decoded.
    """

    lines: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)

    def all(self) -> tuple[str, ...]:
        """Everything, in a line each."""
        skipped = [
            f"{times} broken pieces of {kind} skipped" for kind, times in self.broken.items()
        ]
        return (*self.lines, *skipped)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """PyAV's container of a file; nothing but this file is read, whatever it contains.

    Raises:
        MediaError: If it is no media file, or one that ends before its first frame.
    """
    try:
        # With the protocol a name such as "concat:b.mp4" is no more than a name.
        container = av.open(f"file:{path}", metadata_errors="replace", container_options=_LIMITS)
    except (FFmpegError, OSError) as error:
        raise MediaError(f"cannot be opened: {_reason(error)}; copy or encode it again") from error
    with container:
        yield container


def stated_duration(path: Path) -> float:
    """Seconds that a file lasts as it says itself; 0 if it does not.

    Raises:
        MediaError: If it cannot be opened.
    """
    with opened(path) as container:
        if _WITHOUT_DURATION.intersection(container.format.name.split(",")):
            return 0.0
        return max(0.0, (container.duration or 0) / _SECOND)


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

    Decoding begins at a key frame, as few files can be entered anywhere. Formats differ in where
    seeking leads, so the first time is checked, and if it is too late, an earlier one is sought.

    Args:
        path: The file.
        kind: ``video`` or ``audio``; the cover picture of an audio file is no video.
        start: Seconds; the first frame is at this time or before, where there is such a frame.
        notes: Receives what could not be decoded.

    Raises:
        MediaError: If the file cannot be opened, or no piece of the stream can be decoded.
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
    """Check why a stream ended before its clip.

    Args:
        path: The file.
        reached: Seconds; where the stream's last frame ends.
        end: Seconds; where the clip ends.
        what: The stream in words.
        notes: Receives a line if the file has no more of it.

    Raises:
        MediaError: If the file itself ends before it says it does.
    """
    if reached >= end - TOLERANCE:
        return
    last, stated = last_packet_end(path), stated_duration(path)
    if last < stated - TOLERANCE:
        ends = f"it says it lasts {shown(stated)} s, but ends after {shown(last)} s"
        raise MediaError(f"is cut short: {ends}; copy it again")
    ends = f"{what} ends at {shown(reached)} s"
    notes.lines.append(f"{ends}, before the clip's end at {shown(end)} s")


def shown(seconds: float) -> str:
    """A time as text.

    >>> shown(61.5), shown(1e300)
    ('61.50', '1e+300')
    """
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
        program_stream = "mpeg" in container.format.name.split(",")
    sought = (start - back for back in (_BACK_FURTHER if program_stream else _BACK))
    return [*(time for time in sought if time > 0), 0.0]


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

    Anywhere but at the file's beginning, frames before the first key frame are left out, and there
    is none if the first one has no time.
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


Image = NDArray[np.uint8]
"""(height, width, 3) RGB."""

_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""How colours become RGB; the size stays."""


def video_frames(
    path: Path, start: float, end: float, samplings: Sequence[FrameSampling], notes: Notes
) -> Iterator[tuple[int, Image]]:
    """Frames of a clip for several towers, decoded once.

    The frame at a time is the last one that is not later, at whatever distances frames lie; before
    the first frame it is that one. Times after the stream's end get none.

    Args:
        path: The file.
        start: Seconds.
        end: Seconds.
        samplings: Of each tower.
        notes: Receives what could not be decoded.

    Yields:
        Index of a sampling and a frame for it; ordered by time, upright.

    Raises:
        MediaError: If nothing can be decoded of a file that has video, or it is cut short.
    """
    samplers = [_Sampler(each, each.times(start, end)) for each in samplings]
    current: Any = None
    since = step = 0.0
    for time, frame in decoded(path, "video", start, notes):
        if current is not None:
            step = time - since
            yield from _sampled(samplers, current, until=time)
        elif time >= end:
            return
        current, since = frame, time
        if all(sampler.is_done for sampler in samplers):
            return
    if current is None:
        return
    last = since + (step or end - since)  # a single frame lasts to the end
    check_complete(path, last, end, "its video", notes)
    yield from _sampled(samplers, current, until=end if last >= end - TOLERANCE else last)


def _sampled(
    samplers: Sequence["_Sampler"], frame: Any, until: float
) -> Iterator[tuple[int, Image]]:
    for index, sampler in enumerate(samplers):
        yield from ((index, image) for image in sampler.images(frame, until))


class _Sampler:
    """Takes the frames of one sampling.

    Args:
        sampling: Their size.
        times: Ascending, in seconds.
    """

    def __init__(self, sampling: FrameSampling, times: NDArray[np.float64]) -> None:
        self._sampling = sampling
        self._times = times
        self._next = 0
        self._reformatter = VideoReformatter()

    @property
    def is_done(self) -> bool:
        """Whether all frames were taken."""
        return self._next == len(self._times)

    def images(self, frame: Any, until: float) -> Iterator[Image]:
        """A frame, once for each time before the next frame's."""
        end = int(np.searchsorted(self._times, until))
        if end > self._next:
            image = self._resized(frame)
            yield from (image for _ in range(end - self._next))
            self._next = end

    def _resized(self, frame: Any) -> Image:
        rgb = self._reformatter.reformat(frame, format="rgb24", interpolation=_EXACT, threads=1)
        image: Image = np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)))
        if self._sampling.side is None:
            return image
        size = self._sampling.size(*image.shape[:2])
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        mode = InterpolationMode(self._sampling.interpolation)
        made = resize(pixels, [*size], mode, antialias=self._sampling.antialias)
        values: Image = made.permute(1, 2, 0).numpy()
        return values


SAMPLE_RATE = 16_000
"""Samples per second of audio, unless a network needs others."""

Wave = NDArray[np.float32]
"""(samples,), in [-1, 1] but for what decoders overshoot."""

_MARGIN = 0.05  # seconds on either side of a clip that the resampling filter sees
_GAP = 0.05  # seconds between two frames that are a gap and no inaccuracy of their times


def audio_wave(
    path: Path, start: float, end: float, notes: Notes, *, sample_rate: int = SAMPLE_RATE
) -> Wave | None:
    """The audio of a clip, the mean of its channels; None if its file has none in it.

    Every sample is where its time says, as exactly as the file stores times (Matroska: to 1 ms).
    What lies before the stream's first frame, after its last one and in gaps is silent.

    Args:
        path: The file.
        start: Seconds.
        end: Seconds.
        notes: Receives what could not be decoded.
        sample_rate: Samples per second.

    Returns:
        (round((end - start) * sample_rate),) samples, at least one.

    Raises:
        MediaError: If nothing can be decoded of a file that has audio, or it is cut short.
    """
    clip = _ClipWave(start, end, sample_rate)
    piece: _Piece | None = None
    reached = 0.0
    for time, frame in decoded(path, "audio", max(0.0, start - _MARGIN), notes):
        if time >= end + _MARGIN:
            reached = time
            break
        if piece is not None and not piece.continues_with(time, frame):
            piece.finish()
            piece = None
        piece = piece or _Piece(clip, time, frame)
        piece.add(frame)
        reached = max(reached, time + frame.samples / frame.sample_rate)
    if piece is None:
        return None
    piece.finish()
    check_complete(path, reached, end, "its audio", notes)
    return None if clip.is_empty else clip.values


class _ClipWave:
    """The samples of a clip, to be filled in.

    Attributes:
        is_empty: Whether nothing was.
        begin: Seconds of the file at which what is needed of it begins.
        end: Seconds of the file at which it ends.
        rate: Samples per second.
    """

    def __init__(self, start: float, end: float, rate: int) -> None:
        self._start = start
        self.rate = rate
        self.values: Wave = np.zeros(max(1, round((end - start) * rate)), dtype=np.float32)
        self.is_empty = True
        self.begin, self.end = start - _MARGIN, end + _MARGIN

    def write(self, time: float, wave: Wave) -> None:
        """Write samples at a time, as far as that is in the clip."""
        at = round((time - self._start) * self.rate)
        low, high = max(0, at), min(len(self.values), at + len(wave))
        if low < high:
            self.values[low:high] = wave[low - at : high - at]
            self.is_empty = False


class _Piece:
    """Frames without a gap, resampled together.

    Args:
        clip: Where the samples go.
        time: Seconds; of the first frame.
        frame: The first frame.
    """

    def __init__(self, clip: _ClipWave, time: float, frame: Any) -> None:
        self._clip = clip
        self._rate = frame.sample_rate
        self._next = time  # of the next sample of the file
        self._written: float | None = None  # of the next sample that is written to the clip
        self._waiting: list[Wave] = []
        self._resampler = AudioResampler(format="fltp", layout="mono", rate=clip.rate)

    def continues_with(self, time: float, frame: Any) -> bool:
        """Whether a frame follows without a gap and can be resampled with those before."""
        return frame.sample_rate == self._rate and abs(time - self._next) < _GAP

    def add(self, frame: Any) -> None:
        """Add the part of a frame that the clip needs; a second at a time is resampled."""
        wave = _mono(frame)
        skipped = min(len(wave), max(0, round((self._clip.begin - self._next) * self._rate)))
        kept = max(skipped, min(len(wave), round((self._clip.end - self._next) * self._rate)))
        begin = self._next + skipped / self._rate
        self._next += len(wave) / self._rate
        if kept == skipped:
            return
        if self._written is None:
            self._written = begin
        self._waiting.append(wave[skipped:kept])
        if sum(map(len, self._waiting)) >= self._rate:
            self._resample()

    def finish(self) -> None:
        """Write what the resampler still holds."""
        if self._written is not None:
            self._resample()
            self._write(self._resampler.resample(None))

    def _resample(self) -> None:
        if self._waiting:
            wave = np.concatenate(self._waiting)[None]
            self._waiting.clear()
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = self._rate
            self._write(self._resampler.resample(frame))

    def _write(self, frames: list[Any]) -> None:
        for frame in frames:
            wave = frame.to_ndarray()[0]
            self._clip.write(self._written or 0.0, wave)
            self._written = (self._written or 0.0) + len(wave) / self._clip.rate


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
