"""The sound of a clip: one channel, 16 kHz or another rate, silence where the file has none."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from continual_mm.extraction.media import Notes, check_whole, decoded

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
