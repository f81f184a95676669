"""Judges of retrieval: items that retrieve their own other side, and clips that retrieve videos."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation.judge import Judge, Rows, Similarity, plain, tensor
from continual_mm.metrics import retrieval as videos
from continual_mm.metrics.answers import RECALLS, Answers
from continual_mm.metrics.retrieval import Ties, ranks


class Retrieval(Judge):
    """Every item that has all modalities is a query, and all of them are the gallery.

    Items of the published test set that are missing count as misses in every recall. In the median
    they have an infinite rank; in reference mode it leaves them out.
    """

    def __init__(self, protocol: Protocol, dataset: Dataset, place: str) -> None:
        super().__init__(protocol, dataset, place)
        self.rows = np.flatnonzero(self.having(protocol.modalities))
        self.queries = len(self.rows)
        self.expected = protocol.expected or self.queries
        if not self.queries:
            raise self.refuse(f"no test item has {', '.join(protocol.modalities)}")
        if self.expected < self.queries:
            problem = f"expected = {self.expected}, but {self.queries} test items have everything"
            raise self.refuse(problem, "give the size of the published test set")

    def answers(
        self, similarity: Similarity, *, reference: bool, listed: bool = False
    ) -> dict[str, Answers]:
        """Ranks of the items; with ``listed`` the first and the last rank of each."""
        rows = tensor(self.rows)
        compared = similarity(rows, rows)
        ties: tuple[Ties, ...] = ("optimistic", "pessimistic") if listed else ("mean",)
        found = np.stack([plain(ranks(compared, ties=each)) for each in ties])
        return {"items": self._whole(found, reference=reference)}

    def _whole(self, found: NDArray[np.float64], *, reference: bool) -> Answers:
        """(rows, items) ranks of the items that exist, followed by those of the missing ones."""
        missing = self.expected - self.queries
        units = np.concatenate([self.rows, len(self.dataset) + np.arange(missing)])
        absent = np.full((len(found), missing), np.nan if reference else np.inf)
        return Answers(units, np.concatenate([found, absent], axis=1))


class VideoRetrieval(Retrieval):
    """Items are clips of longer videos, given by their ``group``.

    A caption retrieves its clip and its video; all captions of a video retrieve it together, by
    mean similarity or by votes. Missing items are missing captions; no video is missing.
    """

    def __init__(self, protocol: Protocol, dataset: Dataset, place: str) -> None:
        super().__init__(protocol, dataset, place)
        if dataset.group is None:
            problem = f"dataset '{dataset.card.name}' does not say which video a clip is from"
            raise self.refuse(problem, "give its items a group")
        self._videos, place_of = np.unique(dataset.group[self.rows], return_inverse=True)
        self._video: Rows = place_of.reshape(-1).astype(np.int64)

    def answers(
        self, similarity: Similarity, *, reference: bool, listed: bool = False
    ) -> dict[str, Answers]:
        """Ranks of clips and captions, and of videos with shares of votes.

        The published script for videos sorts, so ``listed`` changes nothing.
        """
        rows = tensor(self.rows)
        compared = similarity(rows, rows)
        video, count = tensor(self._video).to(compared.device), len(self._videos)
        best = videos.best_clips(compared, video, count)
        of_caption = ranks(compared, positives=video[:, None] == video[None, :])
        of_video = ranks(videos.mean_over_captions(best, video))
        for_videos = [_share(videos.first_answers(best, k), video, count, k) for k in RECALLS]
        for_clips = [
            _share(video[videos.first_answers(compared, k)], video, count, k) for k in RECALLS
        ]
        return {
            "clips": self._whole(plain(ranks(compared))[None], reference=reference),
            "captions": self._whole(plain(of_caption)[None], reference=reference),
            "videos": Answers(self._videos, plain(of_video)[None]),
            "video_votes": Answers(self._videos, plain(torch.stack(for_videos))),
            "clip_votes": Answers(self._videos, plain(torch.stack(for_clips))),
        }


def _share(answers: Tensor, video: Tensor, count: int, k: int) -> Tensor:
    return videos.voted_among(videos.votes(answers, video, count), k)
