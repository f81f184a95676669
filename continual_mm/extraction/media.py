"""A media file, decoded from any moment on, whatever is wrong with some of its pieces."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

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
