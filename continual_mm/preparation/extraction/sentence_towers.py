"""Text through a model of sentence-transformers."""

from pathlib import Path
from typing import Literal

from sentence_transformers import SentenceTransformer

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.networks import fingerprint, quiet, run
from continual_mm.preparation.extraction.towers import Features, Setting
from continual_mm.system.errors import InputError, first_line

_NETWORK = "sentence-transformers/all-MiniLM-L6-v2"


class SentenceTower:
    """A text as one vector, as the model gives it: a model of Hugging Face's or a local folder's.

    What a model puts before each text is its ``default_prompt_name``.
    """

    signal: Literal["text"] = "text"
    kind = Kind.VECTOR

    def __init__(self, *, network: str = _NETWORK, device: str = "cpu") -> None:
        self._model = open_encoder(network, device=device)
        self.features = int(self._model.get_embedding_dimension() or 0)
        self.description = f"{network}, of sentence-transformers"
        self.settings: dict[str, Setting] = {
            "network": Path(network).name,
            "weights": fingerprint(self._model),
        }

    def encode(self, text: str) -> Features | None:
        """(features,); of a text that is too long, its beginning."""
        return run(
            lambda: self._model.encode(text, convert_to_tensor=True, show_progress_bar=False)
        )


def open_encoder(network: str, *, device: str | None = "cpu") -> SentenceTransformer:
    """A model for text, from a folder or by a name; code and pickles that it brings are not run.

    Without a ``device``, sentence-transformers chooses one.

    Raises:
        InputError: If it is not there, brings code, or does not encode text to vectors.
    """
    place = f"network {network!r}"
    try:
        with quiet():
            model = SentenceTransformer(
                network,
                device=device,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
    except Exception as error:
        problem = f"is not available to sentence-transformers: {first_line(error)}"
        remedy = "download the model where there is a network, and give its folder (./mine)"
        raise InputError.at(place, problem, remedy) from error
    if not model.supports("text") or not model.get_embedding_dimension():
        raise InputError.at(place, "does not encode text to vectors", "choose another model")
    return model.eval()
