"""A learner put together with its streams, plugins and memory, ready for its stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.coverage import FEWEST, coverage_problems
from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.diagnosis import Diagnosis, Diagnostician
from continual_mm.evaluation.drift import Drift, Geometry
from continual_mm.evaluation.indexes import Indexes
from continual_mm.evaluation.judges import Judge
from continual_mm.evaluation.pairs import Evaluation, Gallery, Observer, evaluator
from continual_mm.evaluation.protocols import NO_DATASETS, Scored, judged, open_judges
from continual_mm.evaluation.relevance import Relevance
from continual_mm.evaluation.scores import Judged
from continual_mm.learning.avalanche import BaseLogger, BaseSGDPlugin
from continual_mm.learning.learner import Learner
from continual_mm.learning.memory import Memory
from continual_mm.learning.stream import Benchmark, benchmark, pair_items
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
from continual_mm.runs.checkpoint import Keeper
from continual_mm.runs.history import History, scores_of
from continual_mm.runs.specification import Specification
from continual_mm.runs.start import first_space
from continual_mm.space.space import JointSpace
from continual_mm.space.statistics import same
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.seeds import seed_for

NO_MODULES: Mapping[str, nn.Module] = MappingProxyType({})

DRIFT, INDEXES, DIAGNOSIS = "session.drift", "session.indexes", "session.diagnosis"
"""A name that no plugin has: a bare key of TOML has no dot."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """What observes a run; none of it changes a number.

    Avalanche's metrics, loggers and plugins, observers that are called with each evaluation, and
    functions called with the drift of the space, and with what became of old pairs, after each
    evaluation that results are of.
    """

    metrics: Sequence[Any] = ()
    observers: Sequence[Observer] = ()
    loggers: Sequence[BaseLogger] = ()
    plugins: Sequence[BaseSGDPlugin[Any]] = ()
    geometry: Sequence[Callable[[Geometry], None]] = ()
    diagnosis: Sequence[Callable[[Diagnosis], None]] = ()


NO_WATCHERS = Watchers()


@dataclass(slots=True)
class Session:
    """Everything that a run in progress consists of.

    ``plugins`` are those that remember something, the memory among them; ``evaluations`` those
    since the stage began, with every rank; ``drift`` and ``diagnostician`` compare the space with
    that of the last stage's end, ``judges`` score the scenario's protocols, and ``judged`` is what
    they found at the stage's end.
    """

    benchmark: Benchmark
    learner: Learner
    plugins: dict[str, Plugin]
    history: History
    evaluations: list[Evaluation]
    drift: Drift
    indexes: Indexes
    diagnostician: Diagnostician
    judges: Sequence[Judge] = ()
    judged: list[Judged] = field(default_factory=list)

    @property
    def stages(self) -> int:
        """Stages to train: one if training is joint."""
        return len(self.benchmark.train)

    @property
    def keepers(self) -> Mapping[str, Keeper]:
        """What a checkpoint must hold besides the learner, by name."""
        return {
            **self.plugins,
            DRIFT: self.drift,
            INDEXES: self.indexes,
            DIAGNOSIS: self.diagnostician,
        }

    def learn(
        self, stage: int, *, step: int = 0, restore: Callable[[], None] | None = None
    ) -> None:
        """Train a 0-based stage, from a step on that ``restore`` restores, and score it."""
        self.evaluations.clear()
        self.learner.learn(self.benchmark, stage, step=step, restore=restore)
        self.history.choices += [
            {"stage": self.learner.stage + 1, "plugin": name, **choice}
            for name, plugin in self.plugins.items()
            for choice in plugin.choices
        ]
        self.judged[:] = judged(self.judges, self.learner)
        self.history.protocols += [each.score for each in self.judged]


def open_session(
    specification: Specification,
    dataset: Dataset,
    plugins: Mapping[str, BaseSGDPlugin[Any]],
    *,
    device: torch.device | str = "cpu",
    towers: Mapping[str, nn.Module] = NO_MODULES,
    scored: Scored = NO_DATASETS,
    watchers: Watchers = NO_WATCHERS,
    workers: int = 0,
) -> Session:
    """Put a learner together.

    ``plugins`` keep old pairs aligned, in the order of their callbacks; ``towers`` are modules from
    Python to begin towers with, ``scored`` the dataset of each protocol, ``workers`` threads that
    fetch batches ahead. A pair or a protocol that cannot be scored is refused.
    """
    scenario, arrivals = specification.scenario, specification.arrivals
    strategy, seed = specification.strategy, specification.seed
    place = f"scenario '{scenario.name}'"
    if problems := list(
        coverage_problems(scenario, arrivals, dataset.card, place, only=specification.split)
    ):
        raise InputError(problems)
    streams = benchmark(
        scenario,
        arrivals,
        dataset,
        seed=seed,
        joint=strategy.joint,
        cumulative=strategy.cumulative,
        split=specification.split,
    )
    items = pair_items(streams)
    _check_shares(arrivals, items, f"{place}, seed {seed}")
    space = first_space(specification.opened, towers, seed=seed)
    _check_statistics(space, dataset, place)
    space.statistics |= {name: dataset.statistics.get(name) for name in dataset.columns}
    judges = open_judges(scenario, dataset, arrivals[-1].available, scored)
    history = History(arrivals=arrivals, space=space, items=items, split=specification.split)
    drift = Drift(history.geometry.append, *watchers.geometry, split=history.split)
    diagnostician = Diagnostician(
        history.diagnosis.append,
        *watchers.diagnosis,
        arrivals=arrivals,
        dataset=dataset,
        split=history.split,
    )
    evaluations: list[Evaluation] = []

    def record(evaluation: Evaluation, _gallery: Gallery) -> None:
        evaluations.append(evaluation)
        history.scores.extend(scores_of(evaluation))

    # What a published program counts is repeated as it is.
    relevance = Relevance(
        None if scenario.space.reference and scenario.positives == "paired" else dataset,
        positives=scenario.positives,
    )
    indexes = Indexes(history.indexes.append, relevance, split=history.split)
    memory = None
    if strategy.memory is not None:
        memory = Memory(strategy.memory.items, seed=seed_for(seed, "memory"))
        plugins = {"memory": Recollection(memory), **plugins}
    learner = Learner(
        space=space,
        seed=seed,
        evaluator=evaluator(
            record,
            drift,
            indexes,
            diagnostician,
            *watchers.observers,
            relevance=relevance,
            metrics=watchers.metrics,
            loggers=watchers.loggers,
        ),
        plugins=[*plugins.values(), *watchers.plugins],
        memory=memory,
        device=device,
        workers=workers,
    )
    return Session(
        benchmark=streams,
        learner=learner,
        plugins={name: each for name, each in plugins.items() if isinstance(each, Plugin)},
        history=history,
        evaluations=evaluations,
        drift=drift,
        indexes=indexes,
        diagnostician=diagnostician,
        judges=judges,
    )


def _check_shares(
    arrivals: Sequence[Arrival], items: Mapping[int, Mapping[Pair, int]], place: str
) -> None:
    """Refuse a share of the training items of which a pair of its stage learns nothing."""
    problems = [
        Problem(
            f"{place}, stage {arrival.stage + 1}",
            f"{count or 'none'} of its share of the training items has both {pair.first} and "
            f"{pair.second}",
            'give more such items, or write items = "shared" or items = "paired"',
        )
        for arrival in arrivals
        for pair, count in items.get(arrival.stage, {}).items()
        if arrival.trains and count < FEWEST
    ]
    if problems:
        raise InputError(problems)


def _check_statistics(space: JointSpace, dataset: Dataset, place: str) -> None:
    """Refuse features that were standardised otherwise than those that a space was trained on."""
    problems = [
        Problem(
            f"{place}, start",
            f"{name} is standardised otherwise in dataset '{dataset.card.name}' than in the run",
            "read it with standardise=open_run(start).statistics, and True for what is new",
        )
        for name in dataset.columns
        if name in space.statistics
        and not same(space.statistics[name], dataset.statistics.get(name))
    ]
    if problems:
        raise InputError(problems)
