"""Pictures of a clip: chosen by moments, resized while they are decoded, never all in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from continual_mm.extraction.media import TOLERANCE, Notes, check_whole, decoded
from continual_mm.extraction.pictures import Picture, Pictures
from continual_mm.late import late

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
        made: Picture = late("extraction.resizing").resized(picture, self._wanted)
        return made
