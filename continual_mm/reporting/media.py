"""Pictures, captions and sound of items, as data inside a page."""

import base64
import io
import wave
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from continual_mm.data.dataset import Dataset
from continual_mm.data.registry import sounds

RATE = 16_000  # samples a second, of built-in sound
SOUNDS = 24  # in a report, at most: about 20 kB each


@dataclass(slots=True)
class Media:
    """What a dataset can show of its items; ``left`` counts the sounds that may still be given."""

    dataset: Dataset | None
    sound: Callable[[str], NDArray[np.float32]] | None
    left: int = SOUNDS

    @classmethod
    def of(cls, name: str, dataset: Dataset | None) -> "Media":
        """Of a dataset by its name; of none that is here, nothing."""
        return cls(dataset, sounds(name) if dataset is not None else None)

    def picture(self, row: int) -> str:
        """A thumbnail as a ``data:`` address, empty without one."""
        if self.dataset is None or self.dataset.picture is None or row >= len(self.dataset):
            return ""
        stream = io.BytesIO()
        image = self.dataset.picture[row]
        colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
        imsave(stream, np.ascontiguousarray(colour), format="png")
        return _address("image/png", stream.getvalue())

    def play(self, identity: str) -> str:
        """Its sound as a ``data:`` address, empty without one or after :data:`SOUNDS`."""
        if self.sound is None or not self.left:
            return ""
        self.left -= 1
        samples = np.clip(self.sound(identity), -1, 1)
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(1)
            file.setframerate(RATE)
            file.writeframes((127.5 * samples + 128).astype(np.uint8).tobytes())
        return _address("audio/wav", stream.getvalue())


def _address(kind: str, contents: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(contents).decode('ascii')}"
