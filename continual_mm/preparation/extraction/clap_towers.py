"""Audio and text through the two towers of a CLAP of transformers', into one space."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import transformers
from numpy.typing import NDArray

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.networks import (
    Loaded,
    fingerprint,
    load,
    run,
    unknown_weights,
)
from continual_mm.preparation.extraction.towers import RANDOM, Features
from continual_mm.system.errors import InputError, first_line

_NETWORK, _OWN = "laion/clap-htsat-unfused", "DEFAULT"
_UNREADABLE = (AttributeError, ImportError, LookupError, OSError, TypeError, ValueError)


class AudioTower:
    """Windows of audio as vectors of length 1, by a model of Hugging Face's or a local folder's."""

    signal: Literal["audio"] = "audio"
    kind = Kind.FRAMES

    def __init__(
        self, *, network: str = _NETWORK, weights: str = _OWN, device: str = "cpu"
    ) -> None:
        loaded = _load(network, weights, device)
        self._model, self._device = loaded.network, device
        self._prepare = _from_pretrained(transformers.ClapFeatureExtractor, network)
        self.sample_rate = int(self._prepare.sampling_rate)
        self.features = int(self._model.config.projection_dim)
        self.description, self.settings = loaded.description, loaded.settings

    def encode(self, wave: NDArray[np.float32]) -> Features:
        """(samples,) -> (windows, features); a last window that is shorter is repeated."""
        window = int(self._prepare.nb_max_samples)
        pieces = [wave[begin : begin + window] for begin in range(0, len(wave), window)]
        return np.concatenate([self._window(piece) for piece in pieces])

    def _window(self, wave: NDArray[np.float32]) -> Features:
        # No window is longer than the model takes, so that none is cropped at random.
        given = self._prepare(wave, sampling_rate=self.sample_rate, return_tensors="pt")
        inputs = {
            "input_features": given["input_features"].float().to(self._device),
            "is_longer": given["is_longer"].to(self._device),
        }
        return run(lambda: _tensor(self._model.get_audio_features(**inputs)), unit_length=True)


class SentenceTower:
    """A text as one vector, of length 1 in the space that it shares with audio."""

    signal: Literal["text"] = "text"
    kind = Kind.VECTOR

    def __init__(
        self, *, network: str = _NETWORK, weights: str = _OWN, device: str = "cpu"
    ) -> None:
        loaded = _load(network, weights, device)
        self._model, self._device = loaded.network, device
        self._tokenizer = _from_pretrained(transformers.AutoTokenizer, network)
        # RoBERTa counts positions from 2.
        positions = int(self._model.config.text_config.max_position_embeddings) - 2
        self._longest = min(int(self._tokenizer.model_max_length), positions)
        self.features = int(self._model.config.projection_dim)
        self.description, self.settings = loaded.description, loaded.settings

    def encode(self, text: str) -> Features | None:
        """(features,); of a text that is too long, its beginning."""
        limits = {"truncation": True, "max_length": self._longest}
        tokens = self._tokenizer([text], return_tensors="pt", **limits)
        names = "input_ids", "attention_mask"
        inputs = {name: tokens[name].to(self._device) for name in names}
        found = run(lambda: _tensor(self._model.get_text_features(**inputs)), unit_length=True)
        return found.reshape(-1)


@cache
def _load(name: str, weights: str, device: str) -> Loaded:
    """A model; a process that uses both of its towers loads it once."""
    transformers.utils.logging.disable_progress_bar()
    loaded = load(name, weights, device, create=_create, download=_download)
    loaded.settings["network"] = Path(name).name
    if weights != RANDOM:
        loaded.settings["weights"] = fingerprint(loaded.network)
    return loaded


def _create(name: str) -> Any:
    return transformers.ClapModel(_from_pretrained(transformers.ClapConfig, name))


def _download(name: str, weights: str) -> Any:
    if weights != _OWN:
        raise unknown_weights(name, weights, [_OWN])
    # Nothing pickled is loaded, whatever else a folder holds.
    return _from_pretrained(transformers.ClapModel, name, use_safetensors=True)


def _from_pretrained(part: Any, name: str, **options: Any) -> Any:
    """A part of a model, such as its tokenizer."""
    try:
        return part.from_pretrained(name, **options)
    except _UNREADABLE as error:
        problem = f"its {part.__name__} is not available: {first_line(error)}"
        remedy = "download the model where there is a network, and give its folder (./mine)"
        raise InputError.at(f"network {name!r}", problem, remedy) from error


def _tensor(found: Any) -> Any:
    """What transformers return, a tensor or an object with one."""
    return getattr(found, "pooler_output", found)
