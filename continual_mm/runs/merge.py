"""Two finished runs that share a modality -> one run folder, in which all pairs can be compared."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.modality import Modality, Pair, all_pairs
from continual_mm.definitions.scenario import Training
from continual_mm.evaluation.pairs import Evaluation, Gallery, PairRanks, score_pair
from continual_mm.evaluation.relevance import Relevance
from continual_mm.merging.spaces import (
    Align,
    Alignment,
    Own,
    Shared,
    merge_into,
    problem_of,
)
from continual_mm.runs import checkpoint, records
from continual_mm.runs.folder import COST, DEFINITION, VERSIONS, RunFolder, versions
from continual_mm.runs.history import History, scores_of
from continual_mm.runs.origin import SIZES
from continual_mm.runs.run import choose_device, open_run
from continual_mm.runs.scoring import SCORED, gallery_of, training_items
from continual_mm.runs.session import NO_MODULES
from continual_mm.runs.start import plugins_with_adapters
from continual_mm.runs.trained_on import dataset_of
from continual_mm.space.space import JointSpace
from continual_mm.space.statistics import same
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import new_folder, write_json


@dataclass(frozen=True, slots=True)
class Merging:
    """A merged run, and what became of its pairs.

    Attributes:
        folder: The run's folder.
        name: Scenario, strategy and seed.
        alignment: How well the second space could be turned into the first.
        recalls: Pair -> R@1 on test items, directions averaged: apart, and merged.
        roles: Pair -> ``old``, trained by one of the runs, or ``emergent``.
    """

    folder: Path
    name: str
    alignment: Alignment
    recalls: Mapping[str, tuple[float, float]]
    roles: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "folder": str(self.folder),
            "name": self.name,
            "alignment": self.alignment.as_json(),
            "pairs": {
                pair: {"role": self.roles[pair], "apart": apart, "merged": merged}
                for pair, (apart, merged) in self.recalls.items()
            },
        }


@dataclass(frozen=True, slots=True)
class _Run:
    """A run as it is merged: what it was, its space, its data."""

    source: RunFolder
    definition: Mapping[str, Any]
    space: JointSpace
    trained: tuple[Pair, ...]
    data: Dataset

    @property
    def name(self) -> str:
        return str(self.definition["scenario"]["name"])


@dataclass(slots=True)
class _MergedHistory(History):
    """Pairs that no item can score are left out."""

    known: tuple[Pair, ...] = ()

    @property
    def births(self) -> dict[Pair, int]:
        """Pair -> 0-based stage at which both its modalities were there."""
        found = History.births.fget(self)  # type: ignore[attr-defined]
        return {pair: stage for pair, stage in found.items() if pair in self.known}


@checked_arguments
def merge(
    first: str | Path,
    second: str | Path,
    to: str | Path,
    *,
    align: Align = "procrustes",
    shared: Shared = "keep-a",
    datasets: Sequence[Dataset | str | Path] = (),
    towers: Mapping[str, nn.Module] = NO_MODULES,
    device: str = "auto",
) -> Merging:
    """Merge the spaces of two finished runs that were trained on different pairs.

    Both embed the training items of the modalities that they share, and by these the second space
    is turned into the first (:func:`~continual_mm.merging.spaces.merge_into`). The runs stay as
    they are. What is written is a run of three stages: the first run, what the second one adds, and
    the merged space, in which pairs of either run are old and those that never met emergent.

    Args:
        first: The folder of a seed; its space keeps its coordinates.
        second: The folder of another one.
        to: New folder of the merged run.
        align: ``procrustes`` turns by a rotation, ``transport`` by a permutation of dimensions,
            ``none`` does not.
        shared: What encodes shared modalities: the first run's towers (``keep-a``), the mean of the
            embeddings of both (``keep-both``), or towers of averaged weights (``average``).
        datasets: What the runs were trained on, or where it lies: one for both, or one for each;
            by default what the runs name.
        towers: The modules that were given to the runs.
        device: ``auto``, ``cpu``, ``cuda`` and so on.

    Raises:
        InputError: If a run is not finished, the runs share no modality or not in one form, their
            spaces have other sizes or modes, or one of them has no single vector per item or
            vectors that were reduced, or the second one has grown; if the folder is there.
    """
    begun, target = time.monotonic(), Path(to)
    one, two = _opened(first, second, datasets, towers)
    names = [m.name for m in two.space.modalities if m.name in one.space]
    _refuse(one, two, names, align, shared)
    place = choose_device(device)
    one.space.to(place)
    two.space.to(place)
    with new_folder(target) as temporary:
        folder, scorer = RunFolder(temporary), _Scorer(one, two)
        apart = {name: scorer.vectors(split) for name, split in SCORED.items()}
        alignment = merge_into(
            one.space,
            _added(one.space, two.space),
            names,
            lambda: chain.from_iterable(training_items(each, names) for each in scorer.datasets),
            align=align,
            how=shared,
        )
        merged = {name: scorer.vectors(split) for name, split in SCORED.items()}
        history = _MergedHistory(scorer.arrivals, one.space, known=tuple(scorer.places))
        history.choices.append({"stage": 3, "plugin": "merge", **alignment.as_json()})
        for stage in range(len(scorer.arrivals)):
            vectors = merged if stage == 2 else apart
            found = [scorer.evaluation(stage, name, vectors[name]) for name in SCORED]
            history.scores += chain.from_iterable(scores_of(each) for each in found)
            folder.write_ranks(stage + 1, found)
        definition = _definition(one, two, scorer.arrivals, align, shared)
        names_of = {
            "scenario": definition["scenario"]["name"],
            "strategy": definition["strategy"]["name"],
            "seed": definition["seed"],
        }
        folder.write_scores(history, names_of)
        checkpoint.save_space(folder.checkpoint(3), one.space, stage=3)
        write_json(temporary / DEFINITION, definition)
        write_json(temporary / VERSIONS, versions())
        write_json(temporary / COST, _cost(one, two, time.monotonic() - begun))
    pairs = [str(pair) for pair in history.births]
    return Merging(
        target,
        "/".join((names_of["scenario"], names_of["strategy"], f"seed-{names_of['seed']}")),
        alignment,
        {pair: (history.recall(pair, stage=2), history.recall(pair)) for pair in pairs},
        {str(pair): role for pair, role in history.roles.by_pair.items()},
    )


def _opened(
    first: str | Path,
    second: str | Path,
    datasets: Sequence[Dataset | str | Path],
    towers: Mapping[str, nn.Module],
) -> tuple[_Run, _Run]:
    if len(datasets) > 2:
        raise InputError.at("--dataset", f"{len(datasets)} are given", "give one or two")
    sources = [RunFolder(Path(each)) for each in (first, second)]
    for source in sources:
        _check_mergeable(source)
    definitions = [source.definition for source in sources]
    same_data = len({each["data"]["fingerprint"] for each in definitions}) == 1
    alike = len({json.dumps(each["scenario"].get("standardise")) for each in definitions}) == 1
    given: list[Dataset | str | Path | None] = [*datasets] or [None]
    spaces = [open_run(source.path, towers=towers) for source in sources]
    known = [space.statistics for space in spaces]
    data = [dataset_of(definitions[0], given[0], known=known[0])]
    one = same_data and alike
    data.append(data[0] if one else dataset_of(definitions[1], given[-1], known=known[1]))
    runs = []
    for source, definition, each, space in zip(sources, definitions, data, spaces, strict=True):
        scores = records.read(records.Scores, source.path / "scores.json")
        trained = {Pair.parse(name) for stage in scores.stages for name in stage.trained}
        runs.append(_Run(source, definition, space, tuple(sorted(trained)), each))
    return runs[0], runs[1]


def _check_mergeable(source: RunFolder) -> None:
    place = source.path
    if source.consolidated:
        message = "its vectors were reduced, and the map of one run fits no other"
        raise InputError.at(place, message, "give the run that it was made of")
    if not source.finished:
        remedy = "give the folder of a finished seed, such as runs/vt_at/naive/seed-0"
        raise InputError.at(place, "no finished run in this folder", remedy)
    if having := plugins_with_adapters(source.checkpoint(source.finished_stages()[-1])):
        message = "an item has a vector for each pair, so that there is no one space to merge"
        remedy = f"take a run of a strategy without {', '.join(having)}"
        raise InputError.at(place, message, remedy)


def _refuse(one: _Run, two: _Run, names: Sequence[str], align: Align, how: Shared) -> None:
    """Raise all that keeps two runs from being merged."""
    place = str(two.source.path)
    problems = [*_of_sizes(one, two, place)]
    if not names:
        said = (", ".join(m.name for m in run.space.modalities) for run in (one, two))
        message = f"it shares no modality with the first run: {' against '.join(said)}"
        problems.append(Problem(place, message, "merge runs that both embed one, such as text"))
    for name in names:
        problems += _of_modality(one, two, name, how, place)
    if two.space.subspaces:
        remedy = "give it as the first run, or a run of another strategy than recommended"
        problems.append(Problem(place, "the second run's space has grown", remedy))
    if how == "average" and two.space.resized:
        message = "it is compressed, and has fewer units than there are to average"
        problems.append(Problem(place, message, "give --shared keep-a"))
    if names and not any(_of_training(run.data, names) for run in (one, two)):
        message = f"no training item has {' or '.join(names)}"
        problems.append(Problem(place, message, "give a dataset with such items"))
    problems += _of_encoders(one, names, align, how, place)
    if problems:
        raise InputError(problems)


def _of_encoders(
    one: _Run, names: Sequence[str], align: Align, how: Shared, place: str
) -> Iterator[Problem]:
    """Why the first run's encoders cannot be merged with others."""
    problem = problem_of(one.space, names, align, how)
    if one.space.fuses:
        yield Problem(place, problem, 'merge runs with [space] kind = "mcn"')
    elif names and problem:
        remedy = "give keep-a" if align != "procrustes" else "give keep-a, or align by transport"
        yield Problem(f"shared {how!r}", problem, remedy)


def _of_sizes(one: _Run, two: _Run, place: str) -> Iterator[Problem]:
    for key in (each for each in SIZES if each != "clusters"):
        mine, theirs = (getattr(run.space.settings, key) for run in (one, two))
        if mine != theirs:
            message = f"space.{key} is {theirs!r}, but {mine!r} in the first run"
            yield Problem(place, message, "merge runs of one size, kind and mode")


def _of_modality(one: _Run, two: _Run, name: str, how: Shared, place: str) -> Iterator[Problem]:
    """What is different about a modality that both have."""
    mine, theirs = (_modality(run.space, name) for run in (one, two))
    one_form = (mine.kind, mine.features) == (theirs.kind, theirs.features)
    if not one_form or (how != "keep-a" and mine.shape != theirs.shape):
        message = f"{name} is {theirs.kind} {theirs.shape}, but {mine.kind} {mine.shape} before"
        yield Problem(place, message, "merge runs on the same features of it")
        return
    measured = [run.data.statistics.get(name) for run in (one, two)]
    if not same(*measured):
        message = f"{name} was standardised by other statistics than in the first run"
        yield Problem(place, message, "train both runs on one dataset, or with standardise = false")
    made = [run.data.card.provenance for run in (one, two)]
    if made[0] != made[1]:
        message = f"{name} was prepared as {made[1]}, but as {made[0]} for the first run"
        yield Problem(place, message, "convert both datasets in the same way")
    kinds = [run.space.towers[name].kind if name in run.space.towers else "" for run in (one, two)]
    if how != "keep-a" and kinds[0] != kinds[1]:
        message = f"{name} has the tower {kinds[1] or 'of its kind'!r}, but {kinds[0]!r} before"
        yield Problem(place, message, "give --shared keep-a, or merge runs with the same tower")


def _of_training(data: Dataset, names: Iterable[str]) -> bool:
    rows = data.rows_of(Split.TRAIN)
    return any(data.columns[name].present[rows].any() for name in names if name in data.columns)


def _modality(space: JointSpace, name: str) -> Modality:
    return next(each for each in space.modalities if each.name == name)


def _added(space: JointSpace, other: JointSpace) -> dict[str, Own]:
    """Modality -> encoder and head of a space, all of whose modalities are added to the first."""
    space.resized |= other.resized
    for modality in other.modalities:
        if modality.name not in space:
            if tower := other.towers.get(modality.name):
                space.towers[modality.name] = tower
            space.add_modality(modality)
            space.statistics.pop(modality.name)
            if modality.name in other.statistics:
                space.statistics[modality.name] = other.statistics[modality.name]
    return {each.name: (other.tower(each.name), other.head(each.name)) for each in other.modalities}


class _Scorer:
    """Scores pairs of both runs, each on the first dataset that has items of it in all splits."""

    def __init__(self, one: _Run, two: _Run) -> None:
        self._runs = one, two
        self.datasets = [one.data] if one.data is two.data else [one.data, two.data]
        positives = one.definition["scenario"].get("positives", "paired")
        self._relevance = [Relevance(data, positives=positives) for data in self.datasets]
        self._dim = one.space.settings.dim
        first = one.space.modalities
        second = tuple(m for m in two.space.modalities if m.name not in one.space)
        new = tuple(pair for pair in two.trained if pair not in one.trained)
        idle = Training().model_copy(update={"steps": 0})
        self.arrivals = (
            Arrival(0, first, first, one.trained, idle),
            Arrival(1, second, (*first, *second), new, idle),
            Arrival(2, (), (*first, *second), (), idle),
        )
        pairs = all_pairs(tuple(m.name for m in (*first, *second)))
        found = {pair: self._place(pair) for pair in pairs}
        self.places = {pair: place for pair, place in found.items() if place is not None}

    def _place(self, pair: Pair) -> int | None:
        """Which dataset scores a pair."""
        for number, data in enumerate(self.datasets):
            if {pair.first, pair.second} <= set(data.card.names):
                both = data.columns[pair.first].present & data.columns[pair.second].present
                if all(both[data.rows_of(split)].any() for split in SCORED.values()):
                    return number
        return None

    def vectors(self, split: Split) -> dict[tuple[int, int], Gallery]:
        """Of the items of each dataset in each of the spaces, by their numbers."""
        return {
            (place, number): gallery_of(run.space, data, split)
            for place, data in enumerate(self.datasets)
            for number, run in enumerate(self._runs)
        }

    def evaluation(
        self, stage: int, name: str, vectors: Mapping[tuple[int, int], Gallery]
    ) -> Evaluation:
        """The ranks of all pairs that are there at a 0-based stage."""
        there = {modality.name for modality in self.arrivals[stage].available}
        pairs = tuple(
            self._ranks(pair, place, vectors, apart=stage < 2)
            for pair, place in self.places.items()
            if {pair.first, pair.second} <= there
        )
        return Evaluation(stage, 0, final=True, split=name, pairs=pairs)

    def _ranks(
        self, pair: Pair, place: int, vectors: Mapping[tuple[int, int], Gallery], *, apart: bool
    ) -> PairRanks:
        """Of a pair, ``apart`` in the space that was trained on it."""
        one, two = (vectors[place, number] for number in (0, 1))
        known = {m.name for m in self.arrivals[0].available}
        names = (pair.first, pair.second)
        sides = dict.fromkeys(names, one)
        if apart and not known.issuperset(names):
            both = all(name in two.embeddings for name in names)
            sides = {name: two if both or name not in known else one for name in names}
        embeddings = {name: side.embeddings[name] for name, side in sides.items()}
        if len({each.shape[1] for each in embeddings.values()}) > 1:  # one of the spaces has grown
            embeddings = {name: each[:, : self._dim] for name, each in embeddings.items()}
        rows = {name: side.rows[name] for name, side in sides.items()}

        return score_pair(pair, embeddings, rows, self._relevance[place])


def _definition(
    one: _Run, two: _Run, arrivals: Sequence[Arrival], align: str, how: str
) -> dict[str, Any]:
    """What ``definition.json`` holds: a scenario of three stages, on the first run's data."""
    name = f"merge_{align}_{how}".replace("-", "_")
    stages = [
        {"add": [m.name for m in each.added], "pairs": [str(pair) for pair in each.trained]}
        for each in arrivals
    ]
    scenario = dict(one.definition["scenario"])
    scenario |= {"name": f"{one.name}+{two.name}", "stages": stages, "start": None}
    scenario.pop("protocols", None)
    return {
        "scenario": scenario,
        "strategy": {
            "name": name,
            "joint": False,
            "cumulative": False,
            "memory": None,
            "plugins": {"merge": {"align": align, "shared": how}},
        },
        "data": one.definition["data"],
        "seed": one.definition["seed"],
        "merged": [
            {
                "scenario": run.name,
                "strategy": run.definition["strategy"]["name"],
                "seed": run.definition["seed"],
                "data": run.definition["data"]["fingerprint"],
            }
            for run in (one, two)
        ],
    }


def _cost(one: _Run, two: _Run, seconds: float) -> dict[str, Any]:
    known = [records.read(records.Cost, run.source.path / COST) for run in (one, two)]
    return {
        "seconds": seconds + sum(each.seconds for each in known),
        "steps": sum(each.steps or 0 for each in known),
        "memory_items": 0,
        "memory_bytes": 0,
        "step_seconds": None,
        "vector_size": one.space.size,
    }


def as_rows(found: Merging) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of a table: R@1 of every pair in %, apart and merged."""
    return ("pair", "role", "apart", "merged"), [
        (pair, found.roles[pair], f"{100 * apart:.1f}", f"{100 * merged:.1f}")
        for pair, (apart, merged) in found.recalls.items()
    ]
