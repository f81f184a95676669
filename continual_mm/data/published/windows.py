"""Which part of a long video is a clip: a window around a caption, as slices of its features."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from continual_mm.data.published.recipe import Mode

SAMPLE_RATE, HOP, FOURIER = 16_000, 160, 400
"""Of the published spectrograms: samples per second, from frame to frame, and per frame."""


@dataclass(frozen=True, slots=True)
class Window:
    """A clip of a video.

    Attributes:
        start: Seconds.
        end: Seconds.
        captions: The captions inside, in the order in which the window took them in.
    """

    start: float
    end: float
    captions: tuple[int, ...]

    def told(self, mode: Mode) -> tuple[int, ...]:
        """The captions in the order of their words.

        The published program appends the words of each caption it takes in, so that what is said
        before the chosen caption stands behind it (``reference``); ``robust`` keeps the order in
        which they are said.
        """
        return self.captions if mode == "reference" else tuple(sorted(self.captions))


def grown(
    starts: Sequence[float], ends: Sequence[float], chosen: int, *, min_time: float
) -> Window:
    """Grow a window around one caption until it is long enough or holds them all.

    Of the captions before and after it takes in the one that makes the shorter window, the one
    before if both do.

    Args:
        starts: Seconds at which the captions of a video start.
        ends: Seconds at which they end.
        chosen: The caption to begin with.
        min_time: Seconds at which the window is long enough.

    >>> grown([0, 4, 9], [3, 8, 20], 1, min_time=7)
    Window(start=0, end=8, captions=(1, 0))
    """
    first = last = chosen
    start, end, taken = starts[chosen], ends[chosen], [chosen]
    while end - start < min_time:
        before, after = first > 0, last + 1 < len(starts)
        if not (before or after):
            break
        if before and (not after or end - starts[first - 1] <= ends[last + 1] - start):
            first -= 1
            start = starts[first]
            taken.append(first)
        else:
            last += 1
            end = ends[last]
            taken.append(last)
    return Window(start, end, tuple(taken))


def feature_slice(window: Window, *, rate: float, mode: Mode) -> slice:
    """The rows of features that lie in a window, the row in which it ends included.

    Args:
        window: The clip.
        rate: Rows per second.
        mode: ``robust`` reads a start before the video's as the video's; ``reference`` counts a
            negative one from the end, as Python does.

    >>> feature_slice(Window(2.5, 4.0, ()), rate=1.5, mode="robust")
    slice(3, 7, None)
    """
    begin, end = int(window.start * rate), int(window.end * rate) + 1
    return slice(begin, end) if mode == "reference" else slice(max(0, begin), max(0, end))


def frame_at(seconds: float) -> int:
    """The spectrogram frame at a time; negative in the first 12.5 ms.

    >>> frame_at(0.0), frame_at(1.0)
    (-2, 98)
    """
    return floor((int(seconds * SAMPLE_RATE) - FOURIER // 2) / HOP)


def sound_slice(window: Window, *, mode: Mode) -> slice:
    """The spectrogram frames that lie in a window.

    Args:
        window: The clip.
        mode: In ``reference`` a window that starts in the video's first 12.5 ms begins at frame -2
            or -1, counted from the end, so that nothing is left of it; in ``robust`` it begins at
            frame 0.

    >>> sound_slice(Window(0.0, 1.0, ()), mode="reference")
    slice(-2, 98, None)
    >>> sound_slice(Window(0.0, 1.0, ()), mode="robust")
    slice(0, 98, None)
    """
    begin, end = frame_at(window.start), frame_at(window.end)
    return slice(begin, end) if mode == "reference" else slice(max(0, begin), max(0, end))
