"""The judge of zero-shot classification: each item is compared with the names of all classes."""

import numpy as np

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation.judge import Judge, Similarity, plain, tensor
from continual_mm.metrics.answers import Answers
from continual_mm.metrics.classification import correctly_classified, mean_by_class
from continual_mm.system.errors import first_few


class Classes(Judge):
    """Test items that have the query's modalities alone are names of the class of their label.

    Several names of a class, such as sentences with its name in them, count as their mean.
    """

    def __init__(self, protocol: Protocol, dataset: Dataset, place: str) -> None:
        super().__init__(protocol, dataset, place)
        self._names, self._items = self.names_and_items()
        self.rows = np.union1d(self._names, self._items)
        self.queries = self.expected = len(self._items)
        if dataset.label is None:
            raise self.refuse(f"dataset '{dataset.card.name}' has no labels", "label its items")
        self._classes, class_of = np.unique(dataset.label[self._names], return_inverse=True)
        self._class_of_name = class_of.reshape(-1).astype(np.int64)
        self._labels = dataset.label[self._items]
        nameless = np.setdiff1d(self._labels, self._classes)
        if len(nameless):
            shown = first_few([str(label) for label in nameless])
            remedy = "add a test item with that label that has the query's modalities alone"
            raise self.refuse(f"no name of class {shown}", remedy)

    def answers(
        self, similarity: Similarity, *, reference: bool, listed: bool = False
    ) -> dict[str, Answers]:
        """Whether each item is classified rightly, and its class."""
        compared = similarity(tensor(self._names), tensor(self._items)).T
        names = tensor(self._class_of_name).to(compared.device)
        own = tensor(np.searchsorted(self._classes, self._labels)).to(compared.device)
        right = correctly_classified(mean_by_class(compared, names, len(self._classes)), own)
        values = np.stack([plain(right), self._labels.astype(np.float64)])
        return {"items": Answers(self._items, values)}
