"""A media file, decoded from any moment on, whatever is wrong with some of its pieces."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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

TOLERANCE = 0.5
"""Seconds by which a clip or a stream may miss the end of its file without a word about it."""

_BACK = (1.0, 4.0, 16.0)
"""Seconds before a moment that are sought for a key frame, before the file's beginning is."""

_BACK_FURTHER = (4.0, 16.0)
"""The same for MPEG program streams, which at first give times that are a frame off."""

_ELSEWHERE = frozenset(
    (
        *("avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "mlv", "rtp", "rtsp"),
        *("sap", "sdp", "vapoursynth", "vobsub", "webm_dash_manifest"),
    )
)
"""Formats that are scripts, or lists of further files or addresses. No clip is one of them."""

_LIMITS = {
    "format_whitelist": ",".join(sorted(av.formats_available - _ELSEWHERE)),
    "protocol_whitelist": "file",
}

_UNTOLD = frozenset(
    ("aac", "ac3", "amr", "dts", "eac3", "h264", "hevc", "loas", "m4v", "mp3", "mpegvideo", "vc1")
)
"""Formats that do not say how long they last; FFmpeg makes it up from the first bits per second."""

_SECOND = 1_000_000  # of a container's clock
_LONGEST = 1e7  # seconds that are spelled out, a third of a year
_USUAL_RATE = 25  # frames per second, where a file says nothing


class MediaError(Exception):
    """A file that cannot be decoded as its clip wants; the message does not name it."""


@dataclass(slots=True)
class Notes:
    """What was passed over while a clip was decoded.

    Attributes:
        lines: In plain words.
        broken: By kind of signal, packets and frames that could not be decoded.
    """

    lines: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)

    def told(self) -> tuple[str, ...]:
        """Everything, in a line each."""
        skipped = [
            f"{times} broken pieces of {kind} skipped" for kind, times in self.broken.items()
        ]
        return (*self.lines, *skipped)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """PyAV's container of a file; nothing but this file is read, whatever is in it.

    Raises:
        MediaError: If it is no media file, or one that breaks off before its first picture.
    """
    try:
        # With the protocol a name such as "concat:b.mp4" is no more than a name.
        container = av.open(f"file:{path}", metadata_errors="replace", container_options=_LIMITS)
    except (FFmpegError, OSError) as error:
        raise MediaError(f"cannot be opened: {_reason(error)}; copy or encode it again") from error
    with container:
        yield container


def length(path: Path) -> float:
    """Seconds from a file's beginning to its end, as it says itself; 0 if it does not.

    Raises:
        MediaError: If it cannot be opened.
    """
    with opened(path) as container:
        if _UNTOLD.intersection(container.format.name.split(",")):
            return 0.0
        return max(0.0, (container.duration or 0) / _SECOND)


def last_moment(path: Path) -> float:
    """Seconds from a file's beginning to where its last packet really ends; decodes nothing."""
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

    Decoding begins at a key frame, for hardly a file can be entered just anywhere. Formats differ
    in where seeking leads, so it is looked at, and if that is too far, something earlier is sought.

    Args:
        path: The file.
        kind: ``video`` or ``audio``; the cover picture of a sound file is no video.
        start: Seconds; the first frame is at this moment or before, where there is such a frame.
        notes: Takes what could not be decoded.

    Raises:
        MediaError: If the file cannot be opened, or no piece of the stream can be decoded.
    """
    for entry in _entries(path, start):
        attempt = Notes()
        with opened(path) as container:
            stream = _stream(container, kind)
            if stream is None:
                return
            if entry and not _entered(container, stream, entry):
                continue
            frames = _timed(container, stream, attempt, trusting=not entry)
            first = next(frames, None)
            if entry and (first is None or first[0] > start):
                continue
            if first is None and attempt.broken:
                raise MediaError(f"no piece of its {kind} can be decoded; encode it again")
            try:
                if first is not None:
                    yield first
                    yield from frames
            finally:
                notes.lines += attempt.lines
                notes.broken += attempt.broken
            return


def check_whole(path: Path, reached: float, end: float, what: str, notes: Notes) -> None:
    """Look into why a stream ended before its clip.

    Args:
        path: The file.
        reached: Seconds; where the stream's last frame ends.
        end: Seconds; where it should.
        what: The stream in words.
        notes: Takes a line if the file has no more of it.

    Raises:
        MediaError: If the file itself ends before it says it does.
    """
    if reached >= end - TOLERANCE:
        return
    really, said = last_moment(path), length(path)
    if really < said - TOLERANCE:
        told = f"it says it lasts {shown(said)} s, but ends after {shown(really)} s"
        raise MediaError(f"is cut short: {told}; copy it again")
    ends = f"{what} ends at {shown(reached)} s"
    notes.lines.append(f"{ends}, before the clip's end at {shown(end)} s")


def shown(seconds: float) -> str:
    """A time for people.

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
    """Moments to begin decoding at, the best one first, the file's beginning last."""
    if start <= _BACK[0]:
        return [0.0]
    with opened(path) as container:
        streamed = "mpeg" in container.format.name.split(",")
    sought = (start - back for back in (_BACK_FURTHER if streamed else _BACK))
    return [*(moment for moment in sought if moment > 0), 0.0]


def _entered(container: InputContainer, stream: Any, moment: float) -> bool:
    """Whether it was possible to seek a moment, in seconds."""
    try:
        container.seek(round((moment + _origin(container)) / stream.time_base), stream=stream)
    except (FFmpegError, TypeError, ZeroDivisionError):
        return False
    return True


def _timed(
    container: InputContainer, stream: Any, notes: Notes, *, trusting: bool
) -> Iterator[tuple[float, Any]]:
    """Frames with times that never go back; where one is missing, it follows the frame before.

    Args:
        container: Entered where decoding is to begin.
        stream: Of it.
        notes: Takes what could not be decoded.
        trusting: Whether this is the file's beginning. If not, frames before the first key frame
            are left out, and there is none if the first one has no time.
    """
    origin, kind = _origin(container), stream.type
    last, follows = 0.0, 0.0
    for frame in _frames(container, stream, notes):
        if not trusting:
            if kind == "video" and not frame.key_frame:
                continue
            if frame.time is None:
                return
        trusting = True
        if frame.is_corrupt:
            notes.broken[kind] += 1
            continue
        time = follows if frame.time is None else frame.time - origin
        last = max(time, last)
        follows = last + _duration(frame, stream)
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


def _duration(frame: Any, stream: Any) -> float:
    """Seconds until the next frame, as far as it can be told."""
    if stream.type == "audio":
        return float(frame.samples / frame.sample_rate)
    return float(1 / (stream.average_rate or _USUAL_RATE))


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said)[:1].lower() + str(said)[1:]


Picture = NDArray[np.uint8]
"""(height, width, 3) RGB."""

Smooth = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Which pictures a tower wants.

    Attributes:
        rate: Pictures per second, each from the middle of its share of time; unless ``count``.
        count: Pictures per clip, at equal distances.
        side: Pixels of the shorter side, or (height, width) whatever the proportions; None for as
            they are.
        smooth: How pixels are mixed where pictures are resized.
        antialias: Whether, where they become smaller, all pixels are looked at. Networks for film
            were trained without.
    """

    rate: float = 1.0
    count: int | None = None
    side: int | tuple[int, int] | None = None
    smooth: Smooth = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Refuse what names no moment.

        Raises:
            ValueError: Unless the rate is finite and all numbers are above 0.
        """
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate {self.rate} is not above 0 pictures per second")
        if self.count is not None and not _is_count(self.count):
            raise ValueError(f"count {self.count} is not at least 1 picture")
        sides = self.side if isinstance(self.side, tuple) else (self.side,)
        if not all(side is None or _is_count(side) for side in sides):
            raise ValueError(f"side {self.side} is not at least 1 pixel")

    @property
    def when(self) -> dict[str, float | int]:
        """What of it decides on the moments, as a job keeps it."""
        return {"rate": self.rate} if self.count is None else {"count": self.count}

    def moments(self, start: float, end: float) -> NDArray[np.float64]:
        """Seconds at which a clip is looked at; at least one.

        >>> Pictures().moments(2.0, 5.2).tolist()
        [2.5, 3.5, 4.5]
        >>> Pictures(count=2).moments(0.0, 1.0).tolist()
        [0.25, 0.75]
        """
        if self.count is not None:
            steps, apart = self.count, (end - start) / self.count
        elif (fitting := math.ceil((end - start) * self.rate - 0.5)) >= 1:
            steps, apart = fitting, 1 / self.rate
        else:
            steps, apart = 1, end - start
        return np.array([start + (step + 0.5) * apart for step in range(steps)])

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what becomes of a picture of some size.

        >>> Pictures(side=64).size(288, 360)
        (64, 80)
        """
        if self.side is None:
            return height, width
        if isinstance(self.side, tuple):
            return self.side
        shorter = min(height, width)
        return self.side * height // shorter, self.side * width // shorter


def _is_count(value: object) -> bool:
    """Whether something, of whatever a user wrote, is a whole number above 0."""
    return isinstance(value, int) and value > 0


_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""How colours become RGB; the size stays."""


def film(
    path: Path, start: float, end: float, wanted: Sequence[Pictures], notes: Notes
) -> Iterator[tuple[int, Picture]]:
    """Decode a clip once for everybody.

    At any moment a file shows its last frame that is not later, at whatever distances frames lie;
    before its first frame it shows that one. What it does not show to the clip's end ends earlier.

    Args:
        path: The file.
        start: Seconds.
        end: Seconds.
        wanted: Of everybody.
        notes: Takes what could not be decoded.

    Yields:
        Who wants it, as an index, and a picture; in the order of moments, upright.

    Raises:
        MediaError: If nothing can be decoded of a file that has pictures, or it is cut short.
    """
    viewers = [_Viewer(each, each.moments(start, end)) for each in wanted]
    shown: Any = None
    since = step = 0.0
    for time, frame in decoded(path, "video", start, notes):
        if shown is not None:
            step = time - since
            yield from _seen(viewers, shown, until=time)
        elif time >= end:
            return
        shown, since = frame, time
        if all(viewer.satisfied for viewer in viewers):
            return
    if shown is None:
        return
    last = since + (step or end - since)  # a single picture is shown to the end
    check_whole(path, last, end, "its film", notes)
    yield from _seen(viewers, shown, until=end if last >= end - TOLERANCE else last)


def _seen(viewers: list["_Viewer"], frame: Any, until: float) -> Iterator[tuple[int, Picture]]:
    for index, viewer in enumerate(viewers):
        yield from ((index, picture) for picture in viewer.look(frame, until))


class _Viewer:
    """Somebody who wants pictures at some moments.

    Args:
        wanted: Their size.
        moments: Ascending, in seconds.
    """

    def __init__(self, wanted: Pictures, moments: NDArray[np.float64]) -> None:
        self._wanted = wanted
        self._moments = moments
        self._next = 0
        self._reformatter = VideoReformatter()

    @property
    def satisfied(self) -> bool:
        """Whether nothing more is wanted."""
        return self._next == len(self._moments)

    def look(self, frame: Any, until: float) -> Iterator[Picture]:
        """The picture of a frame, once for each moment before it is replaced."""
        end = int(np.searchsorted(self._moments, until))
        if end > self._next:
            picture = self._resized(frame)
            yield from (picture for _ in range(end - self._next))
            self._next = end

    def _resized(self, frame: Any) -> Picture:
        rgb = self._reformatter.reformat(frame, format="rgb24", interpolation=_EXACT, threads=1)
        upright = np.rot90(rgb.to_ndarray(), round(frame.rotation / 90) % 4)
        picture: Picture = np.ascontiguousarray(upright)
        if self._wanted.side is None:
            return picture
        made: Picture = resized(picture, self._wanted)
        return made


def resized(picture: Picture, wanted: Pictures) -> Picture:
    """A picture in the size that is wanted of it; as it is, if that is its size already."""
    size = wanted.size(*picture.shape[:2])
    pixels = torch.from_numpy(picture).permute(2, 0, 1)
    way = InterpolationMode(wanted.smooth)
    made = resize(pixels, [*size], way, antialias=wanted.antialias)
    values: Picture = made.permute(1, 2, 0).numpy()
    return values


SAMPLE_RATE = 16_000
"""Samples per second of sound, unless a network wants others."""

Wave = NDArray[np.float32]
"""(samples,), in [-1, 1] but for what decoders overshoot."""

_LEAD = 0.05  # seconds on either side that the resampling filter sees
_GAP = 0.05  # seconds between two frames that are a gap and no inaccuracy of their times


def sound(
    path: Path, start: float, end: float, notes: Notes, *, sample_rate: int = SAMPLE_RATE
) -> Wave | None:
    """The sound of a clip, the mean of its channels; None if its file has none in it.

    Every sample is where its time says, as exactly as the file tells times (Matroska: to 1 ms).
    What lies before the stream's first frame, after its last one and in gaps is silent.

    Args:
        path: The file.
        start: Seconds.
        end: Seconds.
        notes: Takes what could not be decoded.
        sample_rate: Samples per second that are wanted.

    Returns:
        round((end - start) * sample_rate) samples.

    Raises:
        MediaError: If nothing can be decoded of a file that has sound, or it is cut short.
    """
    line = _Timeline(start, end, sample_rate)
    run: _Run | None = None
    reached = 0.0
    for time, frame in decoded(path, "audio", max(0.0, start - _LEAD), notes):
        if time >= end + _LEAD:
            reached = time
            break
        if run is not None and not run.goes_on(time, frame):
            run.finish()
            run = None
        run = run or _Run(line, time, frame)
        run.take(frame)
        reached = max(reached, time + frame.samples / frame.sample_rate)
    if run is None:
        return None
    run.finish()
    check_whole(path, reached, end, "its sound", notes)
    return line.values if line.heard else None


class _Timeline:
    """The samples of a clip, to be filled in.

    Attributes:
        heard: Whether anything was.
        begin: Seconds of the file at which what is wanted of it begins.
        end: Seconds of the file at which it ends.
        rate: Samples per second.
    """

    def __init__(self, start: float, end: float, rate: int) -> None:
        self._start = start
        self.rate = rate
        self.values: Wave = np.zeros(max(1, round((end - start) * rate)), dtype=np.float32)
        self.heard = False
        self.begin, self.end = start - _LEAD, end + _LEAD

    def write(self, time: float, wave: Wave) -> None:
        """Put samples where they belong, as far as that is in the clip."""
        at = round((time - self._start) * self.rate)
        low, high = max(0, at), min(len(self.values), at + len(wave))
        if low < high:
            self.values[low:high] = wave[low - at : high - at]
            self.heard = True


class _Run:
    """Frames without a gap, resampled as one piece.

    Args:
        line: Where the samples go.
        time: Seconds; of the first frame.
        frame: The first frame.
    """

    def __init__(self, line: _Timeline, time: float, frame: Any) -> None:
        self._line = line
        self._rate = frame.sample_rate
        self._next = time  # of the next sample of the file
        self._written: float | None = None  # of the next sample that is put in the line
        self._waiting: list[Wave] = []
        self._resampler = AudioResampler(format="fltp", layout="mono", rate=line.rate)

    def goes_on(self, time: float, frame: Any) -> bool:
        """Whether a frame follows without a gap and can be resampled with those before."""
        return frame.sample_rate == self._rate and abs(time - self._next) < _GAP

    def take(self, frame: Any) -> None:
        """Take the part of a frame that the clip needs; a second at a time is resampled."""
        wave = _mono(frame)
        skipped = min(len(wave), max(0, round((self._line.begin - self._next) * self._rate)))
        kept = max(skipped, min(len(wave), round((self._line.end - self._next) * self._rate)))
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
        """Take out of the resampler what it still holds."""
        if self._written is not None:
            self._resample()
            self._write(self._resampler.resample(None))

    def _resample(self) -> None:
        if self._waiting:
            wave = np.concatenate(self._waiting)[None]
            self._waiting.clear()
            piece = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            piece.sample_rate = self._rate
            self._write(self._resampler.resample(piece))

    def _write(self, frames: list[Any]) -> None:
        for frame in frames:
            wave = frame.to_ndarray()[0]
            self._line.write(self._written or 0.0, wave)
            self._written = (self._written or 0.0) + len(wave) / self._line.rate


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
