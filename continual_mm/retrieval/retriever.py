"""Search among the items of a run's dataset, by a text, features, or an item."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from continual_mm.data.batch import Items, Share
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.modality import pair
from continual_mm.learning.learner import EVALUATION_ROWS
from continual_mm.learning.loader import BlockLoader
from continual_mm.preparation.extraction.texts import TEXT, Reader, reader_of
from continual_mm.retrieval.index import Index
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.run import open_run
from continual_mm.runs.start import plugins_with_adapters
from continual_mm.runs.trained_on import dataset_of, named_datasets
from continual_mm.space.space import JointSpace
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, suggestion

SPLITS = {"training": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that was found; ``score`` is the inner product, ``rank`` counts from 1."""

    rank: int
    score: float
    row: int
    id: str
    text: str


class Retriever:
    """Finds items of one modality by items of another, in the space of a run.

    Args:
        run: ``.../<scenario>/<strategy>/seed-<n>``.
        dataset: Whose items are found: a dataset or where it lies; the run's own, if left out.
        ask: The modality that asks.
        find: The modality that is found; the first other one, if left out.
        split: Whose items: ``test``, ``validation`` or ``training``.
        vectors: The file of word vectors that texts were made of; of built-in datasets it is known.
        encoder: The ``SentenceTransformer`` that they were made of.
        faiss: Whether to search with faiss; None does so where it is installed.

    Raises:
        InputError: If the run, the dataset or a modality is not there.
    """

    @checked_arguments
    def __init__(
        self,
        run: str | PathLike[str],
        *,
        dataset: Dataset | str | Path | Sequence[str | Path] | None = None,
        ask: str = TEXT,
        find: str = "",
        split: str = "test",
        vectors: str | Path | None = None,
        encoder: str = "",
        faiss: bool | None = None,
    ) -> None:
        folder = RunFolder(Path(run))
        self.space = _opened(folder, ask, find)
        names = [modality.name for modality in self.space.modalities]
        self.ask = _known("ask", ask, names)
        self.find = _known("find", find or _other(names, ask), names)
        definition = folder.definition
        self.dataset = dataset_of(definition, dataset, known=self.space.statistics)
        rows = torch.from_numpy(self.dataset.rows_of(SPLITS[_known("split", split, [*SPLITS])]))
        self.rows, found = _embedded(self.space, self.dataset, self.find, rows)
        if not len(self.rows):
            place = f"dataset {self.dataset.card.name!r}"
            raise InputError.at(place, f"no {split} item has {self.find}", "choose another split")
        self.index = Index(found, faiss=faiss)
        text = {one.name: one for one in self.space.modalities}.get(TEXT)
        self.reader: Reader = reader_of(
            text,
            named_datasets(definition["scenario"]),
            mode=self.space.settings.mode,
            vectors=vectors,
            encoder=encoder,
        )

    def search(self, query: Any, *, k: int = 10) -> list[Hit]:
        """The best items of a query.

        Args:
            query: A text, or features of one item of the modality that asks, as an extractor
                gives them.
            k: How many.

        Raises:
            InputError: If the query cannot be read.
        """
        if isinstance(query, str):
            if self.ask != TEXT:
                raise InputError.at(f"text {query!r}", f"but {self.ask} asks", "ask with text")
            longest = next(m.shape[0] for m in self.space.modalities if m.name == TEXT)
            query = self.reader.read([query], longest)[0]
        vector = self.space.encode(self.ask, query)
        return self._hits(vector.cpu().numpy(), k)

    def search_item(self, identity: str, *, k: int = 10) -> list[Hit]:
        """The best items of an item of the dataset, by its id; itself among them.

        Raises:
            InputError: If there is no such item, or it lacks the modality that asks.
        """
        every = self.dataset.ids[np.arange(len(self.dataset))]
        found = np.flatnonzero(every == identity)
        if not len(found):
            remedy = "continual-mm data inspect shows what is in it"
            place = f"dataset {self.dataset.card.name!r}"
            raise InputError.at(place, f"there is no item {identity!r}", remedy)
        rows, vectors = _embedded(
            self.space, self.dataset, self.ask, torch.from_numpy(found.astype(np.int64))
        )
        if not len(rows):
            raise InputError.at(f"item {identity!r}", f"has no {self.ask}", "ask with another one")
        return self._hits(vectors[0], k)

    def _hits(self, vector: np.ndarray[Any, np.dtype[np.float32]], k: int) -> list[Hit]:
        scores, places = self.index.search(vector[None], k)
        rows = self.rows[places[0]]
        ids, texts = self.dataset.ids[rows], self.dataset.text
        captions = [""] * len(rows) if texts is None else [str(text) for text in texts[rows]]
        return [
            Hit(rank, float(score), int(row), str(identity), text)
            for rank, (score, row, identity, text) in enumerate(
                zip(scores[0], rows, ids, captions, strict=True), start=1
            )
        ]


def _opened(folder: RunFolder, ask: str, find: str) -> JointSpace:
    """The space, seen as the pair where pairs have adapters of their own."""
    stages = folder.finished_stages()
    space = open_run(folder.path)
    if stages and plugins_with_adapters(folder.checkpoint(stages[-1])):
        names = [modality.name for modality in space.modalities]
        wanted = find or _other(names, ask)
        if ask in names and wanted in names and ask != wanted:
            return open_run(folder.path, pair=str(pair(ask, wanted)))
    return space


def _other(names: Sequence[str], ask: str) -> str:
    return next((name for name in names if name != ask), ask)


def _known(what: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        remedy = f"{suggestion(given, known)}there are {', '.join(known)}"
        raise InputError.at(what, f"{given!r} is unknown", remedy)
    return given


@torch.no_grad()
def _embedded(
    space: JointSpace, dataset: Dataset, name: str, rows: torch.Tensor
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
    """Rows that have a modality, and their vectors, block by block."""
    if name not in dataset.columns:
        return np.empty(0, np.int64), np.empty((0, space.size), np.float32)
    found, vectors = [], []
    for block in BlockLoader(Items(dataset, (Share(0, rows, (name,)),)), rows=EVALUATION_ROWS):
        if name not in block.features:
            continue
        batch = block.to(space.log_scale.device)
        embedded = space(batch.features, batch.lengths)[name]
        vectors.append(space.vectors(name, embedded).cpu().numpy())
        found.append(batch.index[batch.rows[name]].cpu().numpy())
    if not found:
        return np.empty(0, np.int64), np.empty((0, space.size), np.float32)
    return np.concatenate(found), np.concatenate(vectors)
