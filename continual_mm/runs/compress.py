"""A finished run -> one whose space has fewer units, scored anew on the same items."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile
from statistics import fmean
from typing import Any

from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import all_pairs
from continual_mm.evaluation.drift import Drift
from continual_mm.evaluation.indexes import Indexes
from continual_mm.evaluation.pairs import Evaluation, Gallery, score_pair
from continual_mm.evaluation.relevance import Relevance
from continual_mm.merging.compress import Compressed, Units, compress_space
from continual_mm.merging.units import Method
from continual_mm.runs import checkpoint, records
from continual_mm.runs.folder import COST, DEFINITION, SCORES, VERSIONS, RunFolder, versions
from continual_mm.runs.history import scores_of
from continual_mm.runs.reporter import percent
from continual_mm.runs.run import choose_device, open_run
from continual_mm.runs.scoring import SCORED, gallery_of, training_items
from continual_mm.runs.session import DRIFT, INDEXES, NO_MODULES
from continual_mm.runs.start import plugins_with_adapters
from continual_mm.runs.trained_on import dataset_of
from continual_mm.space.space import JointSpace
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError
from continual_mm.system.files import checksum, new_folder, read_json, without_nan, write_json

Scores = dict[str, Any]
"""What ``scores.json`` holds."""


@dataclass(frozen=True, slots=True)
class Compression:
    """A compressed run, and what became of its pairs.

    Attributes:
        folder: The run's folder.
        name: Scenario, strategy and seed.
        keep: Share of the units that was asked for.
        space: How many units and weights are left.
        recalls: Pair -> R@1 on scored items, directions averaged: as it was, and compressed.
        roles: Pair -> ``old``, ``new`` or ``emergent``.
    """

    folder: Path
    name: str
    keep: float
    space: Compressed
    recalls: Mapping[str, tuple[float, float]]
    roles: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "folder": str(self.folder),
            "name": self.name,
            "keep": self.keep,
            **asdict(self.space),
            "pairs": {
                pair: {"role": self.roles[pair], "before": before, "compressed": after}
                for pair, (before, after) in self.recalls.items()
            },
        }


@checked_arguments
def compress(  # noqa: PLR0913 - the run, and by name how it is compressed
    run: str | Path,
    to: str | Path,
    *,
    keep: float = 0.5,
    method: Method = "interpolative",
    units: Units = "hidden",
    dataset: Dataset | str | Path | Sequence[str | Path] | None = None,
    towers: Mapping[str, nn.Module] = NO_MODULES,
    seed: int = 0,
    device: str = "auto",
) -> Compression:
    """Give the space of a finished run fewer units, without training; the run stays as it is.

    What is written is the same run but for its last stage, whose space is the compressed one
    (:func:`~continual_mm.merging.compress.compress_space`), scored on the same items. Protocols of
    the scenario are not scored anew.

    Args:
        run: The folder of a seed, ``.../<scenario>/<strategy>/seed-<n>``.
        to: New folder of the compressed run.
        keep: Share of the units of each group that is kept, in (0, 1].
        method: ``interpolative`` lets units that are kept stand in for the others, as training
            items show; ``fusion`` fuses them by transport, ``magnitude`` leaves out those with the
            smallest weights, ``random`` any.
        units: ``hidden`` ones of encoders and subspaces, the dimensions of the ``embedding`` of all
            modalities at once, which changes every vector, or ``all``.
        dataset: What the run was trained on, or where it lies; by default what the run names.
        towers: The modules that were given to the run; units inside them stay.
        seed: Of ``random``.
        device: ``auto``, ``cpu``, ``cuda`` and so on.

    Raises:
        InputError: If there is no finished run, its vectors were reduced, an item has a vector for
            each pair, or the units asked for are none or cannot be told; if ``keep`` is out of
            range, the dataset is missing or another one, or the folder is there already.
    """
    begun, source, target = time.monotonic(), RunFolder(Path(run)), Path(to)
    if not 0 < keep <= 1:
        raise InputError.at("keep", f"{keep} is no share of units", "give more than 0, at most 1")
    space = _opened(source, towers)
    definition = dict(source.definition)
    place = choose_device(device)
    with new_folder(target) as temporary:
        data = dataset_of(definition, dataset, known=space.statistics)
        try:
            found = compress_space(
                space.to(place),
                keep,
                method=method,
                units=units,
                batches=training_items(data, (each.name for each in space.modalities)),
                seed=seed,
            )
        except ValueError as error:
            raise InputError.at(source.path, str(error), _remedy(units)) from error
        definition["strategy"] = _strategy(definition["strategy"], keep, method, units)
        scores = read_json(source.path / SCORES) | {"strategy": definition["strategy"]["name"]}
        before = _recalls(scores, definition)
        folder = RunFolder(temporary)
        _score(scores, source, folder, space, data)
        choice = {"stage": len(scores["stages"]), "plugin": "compress"}
        scores["choices"] = [*scores.get("choices", ()), {**choice, "note": _note(found, method)}]
        write_json(temporary / SCORES, without_nan(scores), sealed=True)
        last = len(scores["stages"])
        checkpoint.save_space(folder.checkpoint(last), space, stage=last)
        write_json(temporary / DEFINITION, definition, sealed=True)
        write_json(temporary / VERSIONS, versions())
        cost = dict(read_json(source.path / COST))
        cost |= {"seconds": cost["seconds"] + time.monotonic() - begun, "vector_size": space.size}
        write_json(temporary / COST, cost, sealed=True)
    after = _recalls(scores, definition)
    return Compression(
        target,
        "/".join((scores["scenario"], scores["strategy"], f"seed-{definition['seed']}")),
        keep,
        found,
        {pair: (before[pair], after[pair]) for pair in scores["pairs"]},
        {pair: known["role"] for pair, known in scores["pairs"].items()},
    )


def _opened(source: RunFolder, towers: Mapping[str, nn.Module]) -> JointSpace:
    """The space of a run that can be compressed."""
    place = source.path
    if source.consolidated:
        remedy = "give the run that it was made of; what comes out can be consolidated"
        raise InputError.at(place, "its vectors were reduced", remedy)
    if not source.finished:
        remedy = "give the folder of a finished seed, such as runs/av_vt/recommended/seed-0"
        raise InputError.at(place, "no finished run in this folder", remedy)
    records.read(records.Scores, place / SCORES).check_ranks(place)
    if having := plugins_with_adapters(source.checkpoint(source.finished_stages()[-1])):
        message = "an item has a vector for each pair, each by adapters of its own"
        remedy = f"take a run of a strategy without {', '.join(having)}"
        raise InputError.at(place, message, remedy)
    space = open_run(place, towers=towers)
    if space.fuses:
        message = "its modalities share a transformer, whose units cannot be told apart by modality"
        raise InputError.at(place, message, 'take a run with [space] kind = "mcn"')
    return space


def _remedy(units: Units) -> str:
    return "give --units embedding" if units == "hidden" else "give --units hidden"


def _strategy(
    known: Mapping[str, Any], keep: float, method: Method, units: Units
) -> dict[str, Any]:
    """The strategy, with its name and its definition saying that it was compressed."""
    parts = [known["name"], method, f"{100 * keep:g}".replace(".", "_")]
    name = "_".join(parts if units == "hidden" else [*parts, units])
    made = {"keep": keep, "method": method, "units": units}
    return {**known, "name": name, "compressed": [*known.get("compressed", ()), made]}


def _note(found: Compressed, method: Method) -> str:
    before, after = found.weights
    return (
        f"{method} of {sum(old for old, _ in found.groups.values())} units to "
        f"{sum(new for _, new in found.groups.values())}: {after:,} of {before:,} weights left"
    )


def as_lines(found: Compression) -> Iterator[str]:
    """How much is left, and what stayed."""
    before, after = found.space.weights
    share = f"{100 * after / max(before, 1):.0f} %"
    yield f"{after:,} of {before:,} weights of encoders and subspaces left: {share}"
    yield from found.space.notes


def _recalls(scores: Scores, definition: Mapping[str, Any]) -> dict[str, float]:
    """Pair -> R@1 after the last stage, directions averaged."""
    split, last = definition.get("split", "test"), len(scores["stages"])
    found: dict[str, list[float]] = {}
    for one in scores["evaluations"]:
        if one["final"] and (one["stage"], one["split"]) == (last, split):
            found.setdefault(one["pair"], []).append(one["recall@1"])
    return {pair: fmean(values) for pair, values in found.items()}


def _score(
    scores: Scores, source: RunFolder, folder: RunFolder, space: JointSpace, data: Dataset
) -> None:
    """Take the results of all stages but the last, and score the space in its place."""
    last = len(scores["stages"])
    ends = [one for one in scores["evaluations"] if one["final"] and one["stage"] == last]
    splits = [name for name in SCORED if any(one["split"] == name for one in ends)]
    scored, before = source.definition.get("split", "test"), last - 1
    scores["evaluations"] = [one for one in scores["evaluations"] if one not in ends]
    for key in ("geometry", "diagnosis", "indexes", "protocols"):
        scores[key] = [one for one in scores.get(key, ()) if one["stage"] < last]
    relevance = _relevance(space, data, source.definition)
    observers = (
        (DRIFT, Drift(lambda one: scores["geometry"].append(one.as_json()), split=scored)),
        (
            INDEXES,
            Indexes(lambda one: scores["indexes"].append(one.as_json()), relevance, split=scored),
        ),
    )
    known = _kept_vectors(source, before, space)
    for name, observer in observers:
        start = f"{name}/"
        observer.load_state(
            {key.removeprefix(start): v for key, v in known.items() if key.startswith(start)}
        )
    step = max(one["step"] for one in ends)
    found = []
    for name in splits:
        gallery = gallery_of(space, data, SCORED[name])
        pairs = tuple(_ranked(gallery, space, relevance, scores["pairs"]))
        found.append(Evaluation(last - 1, step, final=True, split=name, pairs=pairs))
        for _, observer in observers:
            observer(found[-1], gallery)
    scores["evaluations"] += [each.as_json() for one in found for each in scores_of(one)]
    path = folder.write_ranks(last, found)
    ranks = {path.name: checksum(path)}
    for stage in range(1, last):
        if (earlier := source.ranks(stage)).is_file():
            copyfile(earlier, folder.ranks(stage))
            ranks[earlier.name] = checksum(folder.ranks(stage))
    scores["ranks"] = ranks


def _relevance(space: JointSpace, data: Dataset, definition: Mapping[str, Any]) -> Relevance:
    """Which items answer one another, as in the run."""
    positives = definition["scenario"].get("positives", "paired")
    published = space.settings.reference and positives == "paired"
    return Relevance(None if published else data, positives=positives)


def _kept_vectors(source: RunFolder, stage: int, space: JointSpace) -> dict[str, Any]:
    """Vectors that were kept at the end of a stage to compare later ones with, if they can be."""
    folder = source.checkpoint(stage)
    if not folder.is_dir():
        return {}
    described = checkpoint.verified(folder).space.settings
    same = described["dim"] == space.settings.dim
    return checkpoint.remembered(folder) if same else {}


def _ranked(
    gallery: Gallery, space: JointSpace, relevance: Relevance, known: Mapping[str, Any]
) -> Iterator[Any]:
    listing = "ties_listed_each" in space.settings.bugs
    for pair in all_pairs(tuple(gallery.embeddings)):
        if str(pair) in known:
            yield score_pair(
                pair, gallery.embeddings, gallery.rows, relevance, listing_ties=listing
            )


HEADINGS = ("pair", "role", "before", "compressed")


def as_rows(found: Compression) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of a table: R@1 of every pair in %, as it was and compressed."""
    return HEADINGS, [
        (pair, found.roles[pair], percent(before), percent(after))
        for pair, (before, after) in found.recalls.items()
    ]
