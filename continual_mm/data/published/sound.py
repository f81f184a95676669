"""Spectrograms as the published programs cut and fill them; here, time comes first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.published.recipe import Mode

Array = NDArray[np.float32]

LOUDEST = np.float32(0.0)
"""What the published readers fill up with: in dB below the file's maximum, the maximum itself."""

QUIETEST = np.float32(-80.0)
"""Below which the published spectrograms do not go."""


def frames(spectrogram: NDArray[np.floating[Any]], longest: int, *, mode: Mode) -> Array | None:
    """Cut a clip's spectrogram, and in ``reference`` fill it up.

    Args:
        spectrogram: (mels, frames), as published files have it.
        longest: Frames that are kept.
        mode: ``reference`` fills a shorter one up with 0 dB, louder than anything; ``robust`` gives
            the frames that there are, and None where there is none, or nothing but 0 dB in them,
            which is what published files have for a video without any sound.

    Returns:
        (frames, mels); in ``reference`` always ``longest`` of them.
    """
    cut: Array = spectrogram[:, :longest].T.astype(np.float32)
    if mode == "robust":
        return np.ascontiguousarray(cut) if cut.any() else None
    return np.pad(cut, ((0, longest - len(cut)), (0, 0)), constant_values=LOUDEST)
