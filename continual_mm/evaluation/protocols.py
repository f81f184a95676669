"""From the protocols of a scenario to judges, with their datasets loaded and checked."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from continual_mm.data import registry as datasets
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Modality
from continual_mm.definitions.scenario import Protocol, Scenario
from continual_mm.evaluation.annotations import annotations_of
from continual_mm.evaluation.checks import SCORED, protocol_problems
from continual_mm.evaluation.composite import embed, similarity
from continual_mm.evaluation.ensemble import chosen_weight, mixed, old_path
from continual_mm.evaluation.judges import (
    Classes,
    Judge,
    Retrieval,
    Similarity,
    Steps,
    VideoRetrieval,
    tensor,
)
from continual_mm.evaluation.pairs import Gallery
from continual_mm.evaluation.scores import Judged, ProtocolScore
from continual_mm.learning.learner import Learner
from continual_mm.metrics.answers import LISTED, counted, summaries, summaries_by_group
from continual_mm.space.statistics import same
from continual_mm.system.errors import InputError, Problems, suggestion

Scored = Mapping[str, Dataset]  # name of a protocol -> the dataset whose test items it scores
NO_DATASETS: Scored = MappingProxyType({})


def load_scored(
    scenario: Scenario, dataset: Dataset, given: Scored = NO_DATASETS
) -> dict[str, Dataset]:
    """The dataset of every protocol, ``given`` or loaded, standardised like the training items."""
    known = [protocol.name for protocol in scenario.protocols]
    if unknown := [name for name in given if name not in known]:
        problem = f"no protocol {unknown[0]!r} in scenario '{scenario.name}'"
        remedy = f"{suggestion(unknown[0], known)}there are {', '.join(known) or 'none'}"
        raise InputError.at("scored", problem, remedy)
    _check_statistics(given, dataset)
    found, folder = dict(given), Path(scenario.folder)
    for protocol in scenario.protocols:
        if protocol.name in found:
            continue
        if not protocol.dataset:
            found[protocol.name] = dataset
            continue
        # One copy for all protocols of a dataset, with the modalities of any of them standardised.
        same = [one for one in scenario.protocols if one.dataset == protocol.dataset]
        names = {name for one in same for name in one.modalities}
        by = {name: each for name, each in dataset.statistics.items() if name in names}
        loaded = datasets.load(protocol.dataset, folder=folder, standardise=by, splits=SCORED)
        found |= {one.name: loaded for one in same if one.name not in found}
    return found


def _check_statistics(given: Scored, dataset: Dataset) -> None:
    for name, each in given.items():
        for modality in each.columns.keys() & dataset.columns.keys():
            if not same(each.statistics.get(modality), dataset.statistics.get(modality)):
                problem = f"{modality} is not standardised as what is trained on"
                remedy = "read it with standardise=dataset.statistics"
                raise InputError.at(f"scored[{name!r}]", problem, remedy)


def open_judges(
    scenario: Scenario, dataset: Dataset, modalities: Iterable[Modality], scored: Scored
) -> tuple[Judge, ...]:
    """A judge for each protocol, or an InputError with all that prevents scoring.

    ``dataset`` is what is trained on, ``modalities`` all that arrive, ``scored`` from load_scored.
    """
    known = tuple(modalities)
    judges: list[Judge] = []
    problems = Problems()
    for protocol in scenario.protocols:
        place = f"scenario '{scenario.name}', protocol '{protocol.name}'"
        items = scored[protocol.name]
        wrong = [*protocol_problems(protocol, items.card, known, place, trained=dataset.card)]
        problems += wrong
        if not wrong:
            with problems.collected():
                judges.append(_judge(scenario, protocol, items, place))
    problems.check()
    return tuple(judges)


def _judge(scenario: Scenario, protocol: Protocol, items: Dataset, place: str) -> Judge:
    if protocol.kind == "steps":
        annotations = annotations_of(protocol, scenario.folder)
        return Steps(protocol, items, place, annotations=annotations)
    if protocol.kind == "classes":
        if protocol.through:
            _check_same_scale(protocol, items, place)
        return Classes(protocol, items, place)
    kind = VideoRetrieval if protocol.kind == "video_retrieval" else Retrieval
    return kind(protocol, items, place, merged=not scenario.space.reference)


def _check_same_scale(protocol: Protocol, items: Dataset, place: str) -> None:
    name, tower = protocol.through_features or protocol.gallery[0], protocol.through
    if not same(items.statistics.get(name), items.statistics.get(tower)):
        problem = f"{name} is not standardised as {tower} is, whose tower it goes through"
        raise InputError.at(f"{place}, through", problem, "leave both out of standardise")


def judged(judges: Iterable[Judge], learner: Learner) -> list[Judged]:
    """The results, after a stage, of the protocols whose modalities have all arrived."""
    arrived = {modality.name for modality in learner.space.modalities}
    ready = [
        judge
        for judge in judges
        if arrived.issuperset(judge.protocol.modalities)
        and judge.protocol.through in (arrived | {""})
    ]
    # The items of one dataset are embedded once for all judges of it.
    by_dataset: dict[int, list[Judge]] = {}
    for judge in ready:
        by_dataset.setdefault(id(judge.dataset), []).append(judge)
    embedded: dict[int, Gallery] = {}
    for key, together in by_dataset.items():
        names = dict.fromkeys(name for judge in together for name in judge.protocol.modalities)
        rows = np.unique(np.concatenate([judge.rows for judge in together]))
        sides = {
            side
            for judge in together
            for side in (judge.protocol.query, judge.protocol.gallery)
            if len(side) > 1
        }
        embedded[key] = embed(learner, together[0].dataset, tensor(rows), tuple(names), sides)
    return [_judged(judge, embedded[id(judge.dataset)], learner) for judge in ready]


def _judged(judge: Judge, embedded: Gallery, learner: Learner) -> Judged:
    protocol, settings = judge.protocol, learner.space.settings
    compare: Similarity = partial(
        similarity, embedded, protocol.query, protocol.gallery, mean=protocol.partial
    )
    kind = counted(protocol.kind, settings.bugs)
    weight = None
    if isinstance(judge, Classes) and protocol.through:
        old = old_path(learner, judge, embedded, judge.dataset)
        weight = protocol.through_weight
        weight = chosen_weight(judge, compare, old) if weight is None else weight
        compare = mixed((compare, old), (1 - weight, weight))
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
        old_path=weight,
    )
    return Judged(score, answers)
