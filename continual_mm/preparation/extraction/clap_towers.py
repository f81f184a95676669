"""Sound and text through the two towers of a CLAP of transformers', into one space."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.networks import (
    Maker,
    describing,
    filled,
    no_weights,
    still,
    weights_in,
)
from continual_mm.preparation.extraction.towers import RANDOM, Features, Setting
from continual_mm.system.errors import InputError, Problem

_USUAL, _OWN = "laion/clap-htsat-unfused", "DEFAULT"
_UNREADABLE = (AttributeError, ImportError, LookupError, OSError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class _Clap:
    """Both towers of a model, and what they are."""

    model: Any
    told: str
    settings: Mapping[str, Setting]


class SoundTower:
    """Sound a window at a time, of length 1 in the space that it shares with text.

    Args:
        network: The name of a model of Hugging Face's, which downloads it once; or a local folder
            with one, that begins with ``./`` or ``/``.
        weights: ``DEFAULT``, its own; the path of a file; ``random``.
        device: Where it runs.
    """

    signal: Literal["sound"] = "sound"
    kind = Kind.FRAMES

    def __init__(self, *, network: str = _USUAL, weights: str = _OWN, device: str = "cpu") -> None:
        loaded = _loaded(network, weights, device)
        self._model = loaded.model
        self._device = device
        self._prepare = _part_of(network, transformers.ClapFeatureExtractor)
        self.sample_rate = int(self._prepare.sampling_rate)
        self.features = int(self._model.config.projection_dim)
        self.told, self.settings = loaded.told, loaded.settings

    def describe(self, wave: NDArray[np.float32]) -> Features:
        """(samples,) -> (windows, features); a last window that is shorter is repeated."""
        window = int(self._prepare.nb_max_samples)
        pieces = [wave[begin : begin + window] for begin in range(0, len(wave), window)]
        return np.concatenate([self._window(piece) for piece in pieces])

    def _window(self, wave: NDArray[np.float32]) -> Features:
        # No window is longer than the model takes, so that nothing in here is drawn by chance.
        given = self._prepare(wave, sampling_rate=self.sample_rate, return_tensors="pt")
        with describing():
            return _unit(
                self._model.get_audio_features(
                    input_features=given["input_features"].float().to(self._device),
                    is_longer=given["is_longer"].to(self._device),
                )
            )


class SentenceTower:
    """A text as one vector, of length 1 in the space that it shares with sound.

    Args:
        network: See :class:`SoundTower`.
        weights: See :class:`SoundTower`.
        device: Where it runs.
    """

    signal: Literal["text"] = "text"
    kind = Kind.VECTOR

    def __init__(self, *, network: str = _USUAL, weights: str = _OWN, device: str = "cpu") -> None:
        loaded = _loaded(network, weights, device)
        self._model = loaded.model
        self._device = device
        self._tokens = _part_of(network, transformers.AutoTokenizer)
        # RoBERTa counts positions from 2.
        readable = int(self._model.config.text_config.max_position_embeddings) - 2
        self._most = min(int(self._tokens.model_max_length), readable)
        self.features = int(self._model.config.projection_dim)
        self.told, self.settings = loaded.told, loaded.settings

    def describe(self, text: str) -> Features | None:
        """(features,); cut behind what the network can read at once."""
        tokens = self._tokens([text], truncation=True, max_length=self._most, return_tensors="pt")
        with describing():
            found = self._model.get_text_features(
                input_ids=tokens["input_ids"].to(self._device),
                attention_mask=tokens["attention_mask"].to(self._device),
            )
            return _unit(found).reshape(-1)


@cache
def _loaded(name: str, weights: str, device: str) -> _Clap:
    """A model; where one process wants both of its towers, it is there once."""
    transformers.utils.logging.disable_progress_bar()
    model, told, settings = _CLAP.make(name, weights)
    settings["network"] = Path(name).name
    if weights != RANDOM:
        settings["weights"] = _fingerprint(model)
    return _Clap(still(model, device), told, settings)


def _bare(name: str) -> Any:
    return transformers.ClapModel(_part_of(name, transformers.ClapConfig))


def _fill(model: Any, path: Path) -> None:
    filled(model, weights_in(path), path)


def _fetch(name: str, weights: str) -> Any:
    if weights != _OWN:
        raise no_weights(name, weights, [_OWN])
    # Nothing pickled is loaded, whatever a folder has beside.
    return _part_of(name, transformers.ClapModel, use_safetensors=True)


_CLAP = Maker(_bare, _fill, _fetch)


def _part_of(name: str, what: Any, **how: Any) -> Any:
    """Something that is kept under the name of a model."""
    try:
        return what.from_pretrained(name, **how)
    except _UNREADABLE as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        problem = f"its {what.__name__} cannot be had: {reason}"
        remedy = "download the model where there is a network, and give its folder (./mine)"
        raise InputError(Problem(f"network {name!r}", problem, remedy)) from error


def _fingerprint(model: Any) -> str:
    digest = blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def _unit(found: Any) -> Features:
    """What transformers give, as such or in a record, with length 1."""
    values = getattr(found, "pooler_output", found)
    unit: Features = torch.nn.functional.normalize(values.float(), dim=-1).cpu().numpy()
    return unit
