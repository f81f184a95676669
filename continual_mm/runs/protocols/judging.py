"""Scores the protocols of a scenario at the end of a stage; training does not notice."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from continual_mm.data.dataset import Dataset
from continual_mm.learning.composite import embed, similarity
from continual_mm.learning.evaluation import Gallery
from continual_mm.learning.learner import Learner
from continual_mm.metrics.answers import LISTED, counted, summaries, summaries_by_group
from continual_mm.runs.protocols.judge import Judge, tensor
from continual_mm.runs.protocols.scores import Judged, ProtocolScore


def judged(judges: Iterable[Judge], learner: Learner) -> list[Judged]:
    """What the protocols find whose modalities have arrived.

    Args:
        judges: One for each protocol.
        learner: After a stage.

    Raises:
        NotFiniteError: If an embedding is not finite.
    """
    arrived = {modality.name for modality in learner.space.modalities}
    ready = [judge for judge in judges if arrived.issuperset(judge.protocol.modalities)]
    seen: dict[int, Gallery] = {}
    for dataset, together in _by_dataset(ready):
        names = dict.fromkeys(name for judge in together for name in judge.protocol.modalities)
        rows = np.unique(np.concatenate([judge.rows for judge in together]))
        seen[id(dataset)] = embed(learner, dataset, tensor(rows), tuple(names))
    return [_judged(judge, seen[id(judge.dataset)], learner) for judge in ready]


def _by_dataset(judges: Sequence[Judge]) -> list[tuple[Dataset, list[Judge]]]:
    """Judges that look at the same items, so that these are embedded once."""
    found: dict[int, list[Judge]] = {}
    for judge in judges:
        found.setdefault(id(judge.dataset), []).append(judge)
    return [(together[0].dataset, together) for together in found.values()]


def _judged(judge: Judge, seen: Gallery, learner: Learner) -> Judged:
    protocol, settings = judge.protocol, learner.space.settings
    compare = partial(similarity, seen, protocol.query, protocol.gallery)
    kind = counted(protocol.kind, settings.bugs)
    answers = judge.answers(compare, reference=settings.reference, listed=kind == LISTED)
    score = ProtocolScore(
        name=protocol.name,
        kind=protocol.kind,
        stage=learner.stage + 1,
        step=int(learner.clock.train_iterations),
        queries=judge.queries,
        expected=judge.expected,
        measures=summaries(kind, answers),
        tasks=summaries_by_group(kind, answers),
    )
    return Judged(score, answers)
