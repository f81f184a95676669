"""An exported space as an encoder of mteb, which is imported only where it asks for metadata."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from continual_mm.integrations.sentence_transformers import open_sentence_transformer
from continual_mm.preparation.extraction.texts import TEXT
from continual_mm.system.errors import InputError

MODALITIES = ("text", "image", "audio", "video")
"""Columns of mteb's batches that hold inputs."""

Read = Callable[[Any], Any]
NO_READERS: Mapping[str, Read] = MappingProxyType({})


class Encoder:
    """What ``mteb.EncoderProtocol`` asks for, of a space that ``export`` wrote.

    An item with several modalities gets the sum of their vectors, so that its similarities are the
    sums of theirs.

    Args:
        model: The folder of the export, or the model.
        revision: Recorded with mteb's results.
        device: Where the model runs; where it is, if left out.
        readers: Modality of mteb (``text``, ``image``, ``audio``, ``video``) -> a function that
            makes of one of its inputs what ``model.encode`` takes, such as ``{"audio": features}``.
            Texts are taken as they are, without one.
        collate: Batches items of mteb's dataset, such as its ``AudioCollator``; mteb's own way,
            if left out.
        options: Of ``model.encode``, such as ``standardised=True``.

    Raises:
        InputError: If the folder is no export.
    """

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        revision: str | None = None,
        *,
        device: str | None = None,
        readers: Mapping[str, Read] = NO_READERS,
        collate: Callable[[list[dict[str, Any]]], Any] | None = None,
        **options: Any,
    ) -> None:
        self.name = "space"
        if isinstance(model, str | Path):
            self.name = Path(model).resolve().name
            model = open_sentence_transformer(model)
        self.model: SentenceTransformer = model
        self.revision, self.device = revision, device
        self.readers = dict(readers)
        self.collate, self.options = collate, options

    @property
    def modalities(self) -> list[str]:
        """Modalities of mteb's that can be encoded."""
        own = [TEXT] if TEXT in self.model.modalities else []
        return [name for name in MODALITIES if name in {*own, *self.readers}]

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes into its results."""
        from mteb.models import ModelMeta  # noqa: PLC0415 - needed by mteb alone

        described = {
            "name": f"continual_mm/{self.name}",
            "revision": self.revision or "exported",
            "modalities": self.modalities,
            "embed_dim": self.model.get_embedding_dimension(),
            "similarity_fn_name": self.model.similarity_fn_name,
        }
        return ModelMeta.create_empty(overwrites=described)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Encode a loader's batches, of which there may be none, to (items, size of the space).

        Raises:
            InputError: If a batch has no modality that can be encoded.
        """
        if self.collate is not None and hasattr(inputs, "collate_fn"):
            inputs.collate_fn = self.collate
        given = {"show_progress_bar": False, "device": self.device, **self.options, **options}
        return np.concatenate([self._none, *(self._vectors(batch, given) for batch in inputs)])

    def _vectors(self, batch: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        known = [name for name in self.modalities if name in batch]
        if not known:
            remedy = f"give readers for them; there are {', '.join(self.modalities) or 'none'}"
            raise InputError.at("mteb", f"a batch has {', '.join(map(str, batch))}", remedy)
        parts = []
        for name in known if len(batch[known[0]]) else ():
            read = self.readers.get(name, _as_it_is)
            parts.append(self.model.encode([read(one) for one in batch[name]], **options))
        return np.sum(parts, axis=0) if parts else self._none

    @property
    def _none(self) -> NDArray[np.float32]:
        """The vectors of no items."""
        return np.empty((0, self.model.get_embedding_dimension() or 0), np.float32)

    def similarity(self, first: Any, second: Any) -> Any:
        """(n, m) inner products of (n, size) and (m, size) vectors."""
        return self.model.similarity(first, second)

    def similarity_pairwise(self, first: Any, second: Any) -> Any:
        """(n,) inner products of (n, size) and (n, size) vectors."""
        return self.model.similarity_pairwise(first, second)


def _as_it_is(one: Any) -> Any:
    return one
