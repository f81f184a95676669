"""A finished run whose vectors have grown -> the same space with fewer numbers, and its scores."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from continual_mm.data.batch import Items, Share
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.reduced import Form, Measured, measured
from continual_mm.evaluation.relevance import Relevance
from continual_mm.learning.learner import EVALUATION_ROWS
from continual_mm.learning.loader import BlockLoader
from continual_mm.learning.projection import (
    Distillation,
    Moments,
    Vectors,
    distilled_projection,
    divergence,
    random_axes,
    temperatures_of,
)
from continual_mm.plugins.gates import mixing_factors
from continual_mm.runs import checkpoint, records
from continual_mm.runs.folder import CONSOLIDATION, RunFolder
from continual_mm.runs.reporter import percent
from continual_mm.runs.run import choose_device, open_run
from continual_mm.runs.session import NO_MODULES
from continual_mm.runs.start import plugins_with_adapters
from continual_mm.runs.trained_on import dataset_of
from continual_mm.space.space import JointSpace
from continual_mm.space.subspaces import connected
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError
from continual_mm.system.files import new_folder, without_nan, write_json
from continual_mm.system.seeds import seed_for

SAMPLE = 8192
"""Training items whose vectors are kept to learn the map on, at most; of all, only moments are."""

FACTORED = 512  # validation items of a modality that its factor is set by, at most
JUDGED = 1024  # validation items that decide, at most
SETTINGS = Distillation()
GROWN, CONSOLIDATED = "as they were", "consolidated"
LEARNED, AXES, RANDOM = "learned", "principal axes", "random axes"
SCORED = {"validation": Split.VALIDATION, "test": Split.TEST}

Tell = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is)."""


@dataclass(frozen=True, slots=True)
class Consolidation:
    """Where the consolidated space lies, and how it fares beside others.

    Attributes:
        folder: For :func:`continual_mm.open_run`.
        run: Scenario, strategy and seed.
        numbers: Of a vector.
        seed: Of the order of items, and of the random axes.
        kept: What the map is: ``learned``, or the ``principal axes`` that it started from.
        divergences: How differently queries of validation items choose under either, in nats;
            where they do least, that one was kept.
        measured: Recalls of the vectors as they were and of three maps to so many numbers.
    """

    folder: Path
    run: str
    numbers: int
    seed: int
    kept: str
    divergences: dict[str, float]
    measured: tuple[Measured, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it but the folder, as JSON values; null where nothing could be recalled."""
        values = {key: value for key, value in asdict(self).items() if key != "folder"}
        found: dict[str, Any] = without_nan(values)
        return found


@checked_arguments
def consolidate(
    run: str | Path,
    dim: int,
    *,
    dataset: Dataset | str | Path | Sequence[str | Path] | None = None,
    to: str | Path | None = None,
    towers: Mapping[str, nn.Module] = NO_MODULES,
    seed: int = 0,
    device: str = "auto",
    tell: Tell = lambda what, done, of: None,
) -> Consolidation:
    """Give the space of a finished run vectors of ``dim`` numbers; the run stays as it is.

    One linear map of all modalities starts at the principal axes of the training items' vectors
    and learns to hold what queries of all pairs choose, those that were never trained as well
    (:func:`~continual_mm.learning.projection.distilled_projection`). If the
    principal axes change the choices of validation items less, these are taken.

    Args:
        run: The folder of a seed, ``.../<scenario>/<strategy>/seed-<n>``.
        dim: Numbers that a vector shall have.
        dataset: What the run was trained on, or where it lies, of several datasets each in the
            order in which the scenario names them; by default what the run names.
        to: New folder for :func:`continual_mm.open_run`; ``seed-<n>-dim-<dim>`` beside the run, if
            left out.
        towers: The modules that were given to the run.
        seed: Of the order of items, and of the random axes that the map is compared with.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        tell: Called now and then with what is being done.

    Returns:
        Its scores beside those of the vectors as they were, of the principal axes and of random
        ones.

    Raises:
        InputError: If there is no finished run, it has no single vector per item or vectors of no
            more numbers, ``dim`` is below 1, the dataset is missing or another one, or the folder
            is there already.
    """
    source = RunFolder(Path(run))
    named = source.path if source.path.name else source.path.absolute()
    target = named.with_name(f"{named.name}-dim-{dim}") if to is None else Path(to)
    space = _opened(source, dim, towers).to(choose_device(device))
    definition = source.definition
    scores = records.read(records.Scores, source.path / "scores.json")
    roles = {Pair.parse(name): known.role for name, known in scores.pairs.items()}
    positives = definition["scenario"].get("positives", "paired")
    with new_folder(target) as temporary:
        data = dataset_of(definition, dataset, known=space.statistics)
        moments, sample = training_vectors(space, data, seed=seed, tell=tell)
        held_out = {name: _held_out(space, data, split) for name, split in SCORED.items()}
        axes = moments.principal_axes(dim, space.factors)
        learned = _learned(sample, axes, seed, tell)
        divergences = _divergences(sample, held_out["validation"], {LEARNED: learned, AXES: axes})
        kept = min(divergences, key=divergences.__getitem__)
        maps = {
            CONSOLIDATED: learned if kept == LEARNED else axes,
            AXES: axes,
            RANDOM: random_axes(space.size, dim, seed=seed),
        }
        forms = {GROWN: Form(space.size, space.factors)} | {
            name: Form(dim, _factors(held_out["validation"], roles, each), each)
            for name, each in maps.items()
        }

        found = Consolidation(
            target,
            _name(definition),
            dim,
            seed,
            kept,
            divergences,
            tuple(measured(forms, held_out, roles, Relevance(data, positives=positives))),
        )
        space.reduce(maps[CONSOLIDATED])
        space.factors = dict(forms[CONSOLIDATED].factors)
        last = source.finished_stages()[-1]
        checkpoint.save_space(RunFolder(temporary).checkpoint(last), space, stage=last)
        write_json(
            temporary / CONSOLIDATION, {**found.as_json(), "definition": definition}, sealed=True
        )
    return found


def _name(definition: Mapping[str, Any]) -> str:
    scenario, strategy = definition["scenario"]["name"], definition["strategy"]["name"]
    return f"{scenario}/{strategy}/seed-{definition['seed']}"


def _opened(source: RunFolder, dim: int, towers: Mapping[str, nn.Module]) -> JointSpace:
    """The space of a run that can be consolidated."""
    place = source.path
    if source.consolidated:
        raise InputError.at(place, "is consolidated already", "give the run that it was made of")
    if not source.finished:
        remedy = "give the folder of a finished seed, such as runs/av_vt/recommended/seed-0"
        raise InputError.at(place, "no finished run in this folder", remedy)
    space = open_run(place, towers=towers)
    if space.settings.reference:
        message = "a space in reference mode cannot be consolidated: its embeddings are no units"
        raise InputError.at(place, message, "take a run in robust mode")
    if plugins_with_adapters(source.checkpoint(source.finished_stages()[-1])):
        message = "an item has a vector for each pair, not one that could be consolidated"
        raise InputError.at(place, message, "take a run of recommended or another strategy")
    if dim >= space.size:
        message = f"{dim} is not less than the {space.size} numbers of the run's vectors"
        raise InputError.at("dim", message, "give fewer")
    if dim < 1:
        raise InputError.at("dim", f"{dim} is no number of coordinates", "give 1 or more")
    if len(space.modalities) < 2:
        message = "has one modality, and so no pair to keep"
        raise InputError.at(place, message, "take a run of two modalities or more")
    return space


def _embedded(space: JointSpace, data: Dataset, rows: Tensor) -> Iterator[tuple[int, Vectors]]:
    """Vectors of items, a block at a time, and how many items it has."""
    names = tuple(each.name for each in space.modalities if each.name in data.card.names)
    device = space.log_scale.device
    for block in BlockLoader(Items(data, (Share(0, rows, names),)), rows=EVALUATION_ROWS):
        batch = block.to(device)
        with torch.no_grad():
            embedded = space(batch.features, batch.lengths)
            of = {name: space.vectors(name, each).cpu() for name, each in embedded.items()}
        yield len(batch), Vectors(of, {name: batch.index[batch.rows[name]] for name in of})


def _joined(blocks: Sequence[Vectors]) -> Vectors:
    names = tuple(dict.fromkeys(name for each in blocks for name in each.of))
    having = {name: [each for each in blocks if name in each.of] for name in names}
    return Vectors(
        {name: torch.cat([each.of[name] for each in some]) for name, some in having.items()},
        {name: torch.cat([each.rows[name] for each in some]) for name, some in having.items()},
    )


def training_vectors(
    space: JointSpace, data: Dataset, *, seed: int, tell: Tell
) -> tuple[Moments, Vectors]:
    """The moments of all training items' vectors, and the vectors of a sample of the items."""
    rows = torch.from_numpy(data.rows_of(Split.TRAIN))
    generator = torch.Generator().manual_seed(seed_for(seed, "sample"))
    chosen = rows[torch.randperm(len(rows), generator=generator)[:SAMPLE]]
    moments, kept, done = Moments(), [], 0
    for items, block in _embedded(space, data, rows):
        for name, vectors in block.of.items():
            moments.add(name, vectors)
        kept.append(block.select(chosen))
        done += items
        tell("embedding training items", done, len(rows))
    return moments, _joined(kept)


def _held_out(space: JointSpace, data: Dataset, split: Split) -> Vectors:
    rows = torch.from_numpy(data.rows_of(split))
    return _joined([block for _, block in _embedded(space, data, rows)])


def _learned(sample: Vectors, axes: Tensor, seed: int, tell: Tell) -> Tensor:
    steps = iter(range(1, SETTINGS.steps + 1))
    return distilled_projection(
        sample,
        axes,
        SETTINGS,
        seed=seed,
        tell=lambda: tell("learning the map", next(steps), SETTINGS.steps),
    )


def _divergences(
    sample: Vectors, held_out: Vectors, maps: Mapping[str, Tensor]
) -> dict[str, float]:
    """How differently queries of items choose that a map was not learned on."""
    items = held_out.items
    judged = held_out.select(items[:: max(1, math.ceil(len(items) / JUDGED))])
    temperatures = temperatures_of(sample, SETTINGS.temperature)
    return {name: float(divergence(judged, each, temperatures)) for name, each in maps.items()}


def _factors(vectors: Vectors, roles: Mapping[Pair, str], projection: Tensor) -> dict[str, float]:
    """What brings similarities of pairs to one scale that are trained, or have trained partners."""
    mapped = {name: each[:FACTORED] @ projection for name, each in vectors.of.items()}
    known = [each for each in roles if {each.first, each.second} <= mapped.keys()]
    aligned = connected(mapped, (each for each in known if roles[each] != "emergent"))
    return mixing_factors(mapped, (each for each in known if each.second in aligned[each.first]))


def as_json(found: Consolidation) -> str:
    """All of it as JSON."""
    values = {"folder": str(found.folder), **found.as_json()}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


HEADINGS = ("vectors", "numbers", "bytes", "old %", "new %", "emergent %", "harmonic mean %")


def as_rows(found: Consolidation, split: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of a table of one split."""
    rows = [(each, each.scores[split]) for each in found.measured]
    return (*HEADINGS, "one index %"), [
        (
            each.vectors,
            str(each.numbers),
            str(each.bytes),
            *map(percent, (one.old, one.new, one.emergent, one.harmonic_mean, one.one_index)),
        )
        for each, one in rows
    ]
