"""Why the old pairs of a run forgot, read from its folder and told in sentences; no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import degrees
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from continual_mm.definitions.modality import Pair
from continual_mm.runs import records
from continual_mm.runs.folder import DEFINITION, SCORES, RunFolder
from continual_mm.runs.reporter import percent
from continual_mm.system.errors import InputError

SMALL = 0.1
"""Changes of similarities below this explain no forgetting; the scale ends at 1."""
LAYERS = 6  # that moved most, of all towers
SPACE = "space.safetensors"


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A layer's change in a stage: the length of what changed, as a share of its weights'."""

    modality: str
    layer: str
    change: float


@dataclass(frozen=True, slots=True)
class Reasons:
    """What happened to the old pairs of a run in one stage, from 1.

    ``layers`` are empty where the checkpoints of the stage or the one before are not there.
    """

    run: str
    stage: int
    added: tuple[str, ...]
    split: str
    diagnosis: records.DiagnosisRecord
    geometry: records.GeometryRecord | None
    roles: Mapping[str, records.Role]
    layers: tuple[LayerChange, ...] = ()


def reasons_of(folder: Path, stage: int | None = None) -> Reasons:
    """What is known of a run's stage, by default the last one that has old pairs.

    Raises:
        InputError: If there is no run in the folder, or nothing is recorded of the stage.
    """
    if not (folder / DEFINITION).is_file():
        remedy = "give the folder of a seed, such as runs/av_vt/naive/seed-0"
        raise InputError.at(folder, "no run in this folder", remedy)
    definition = records.read(records.Definition, folder / DEFINITION)
    if not (folder / SCORES).is_file():
        raise InputError.at(folder, "no stage of it has ended", "let the run go on")
    scores = records.read(records.Scores, folder / SCORES)
    ends = {one.stage: one for one in scores.diagnosis if one.final}
    if stage is not None and stage not in ends:
        known = ", ".join(map(str, ends)) or "none"
        remedy = f"stages that end with old pairs are recorded: {known}"
        raise InputError.at(folder, f"stage {stage} has no record of why", remedy)
    if not ends:
        remedy = (
            "joint training and first stages have no old pairs; earlier versions kept no record"
        )
        raise InputError.at(folder, "nothing is recorded of old pairs", remedy)
    number = max(ends) if stage is None else stage
    geometry = {one.stage: one for one in scores.geometry if one.final}
    run = RunFolder(folder)
    return Reasons(
        run=f"{definition.scenario.name}/{definition.strategy.name}/seed-{definition.seed}",
        stage=number,
        added=scores.stages[number - 1].added,
        split=definition.split,
        diagnosis=ends[number],
        geometry=geometry.get(number),
        roles={pair: known.role for pair, known in scores.pairs.items()},
        layers=tuple(layer_changes(run.checkpoint(number - 1), run.checkpoint(number))),
    )


def layer_changes(before: Path, after: Path) -> list[LayerChange]:
    """How far each layer of the encoders changed between two checkpoints, most first.

    It reads a tensor at a time. A layer has the weights and biases of one module; there are none
    if a checkpoint is missing. Layers that are new, or of another size, are left out.
    """
    files = [folder / SPACE for folder in (before, after)]
    if not all(file.is_file() for file in files):
        return []
    sums: dict[str, list[float]] = {}
    try:
        with safe_open(files[0], "np") as old, safe_open(files[1], "np") as new:
            shared = [name for name in new.keys() if name.startswith("encoders.")]  # noqa: SIM118
            for name in set(shared) & set(old.keys()):
                first, second = old.get_tensor(name), new.get_tensor(name)
                if first.shape != second.shape or first.dtype.kind != "f":
                    continue
                moved = np.square(second.astype(np.float64) - first).sum()
                layer = sums.setdefault(name.rpartition(".")[0], [0.0, 0.0])
                layer[0] += float(moved)
                layer[1] += float(np.square(first.astype(np.float64)).sum())
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError.at(files[1], f"cannot be read: {error}", records.REMEDY) from error
    found = [
        LayerChange(*_named_layer(name), change=(moved / length) ** 0.5)
        for name, (moved, length) in sums.items()
        if length and name.count(".") > 1
    ]
    return sorted(found, key=lambda one: (-one.change, one.modality, one.layer))


def _named_layer(name: str) -> tuple[str, str]:
    """Modality and layer of ``encoders.<modality>.<layer>``."""
    modality, _, layer = name.removeprefix("encoders.").partition(".")
    return modality, layer


def cause(pair: str, reasons: Reasons) -> str:
    """The likely cause of what a pair lost, in a sentence without its full stop."""
    found = reasons.diagnosis.pairs[pair]
    names = Pair.parse(pair)
    then, now = found.recall
    if now >= then:
        return "nothing was forgotten"
    if found.between is None or found.between < SMALL:
        return "similarities hardly changed; queries that were close calls were lost"
    known = reasons.diagnosis.modalities
    inside = {name: known[name].inside or 0.0 for name in (names.first, names.second)}
    rearranged = [name for name, value in inside.items() if value >= found.between / 2]
    if not rearranged:
        return f"{names.first} and {names.second} turned away from one another, each as a whole"
    if len(rearranged) == 2:
        return f"{names.first} and {names.second} were both rearranged inside"
    (name,) = rearranged
    return f"{name} was rearranged inside, {_other(names, name)} was not"


def _other(pair: Pair, name: str) -> str:
    return pair.second if name == pair.first else pair.first


def as_lines(reasons: Reasons) -> Iterator[str]:
    """What happened, pair by pair, in lines of at most about 80 characters."""
    added = f" (+ {', '.join(reasons.added)})" if reasons.added else ""
    yield f"{reasons.run}: old pairs in stage {reasons.stage}{added}, {reasons.split} items"
    for pair, found in reasons.diagnosis.pairs.items():
        then, now = found.recall
        yield ""
        yield (
            f"{pair}: R@1 {percent(then)} -> {percent(now)} %; {found.broken} queries broke, "
            f"{found.mended} mended"
        )
        yield f"  {cause(pair, reasons)}"
        yield from (f"  {line}" for line in _figures(pair, found, reasons))
    moved = [layer for layer in reasons.layers if layer.change]
    if reasons.layers:
        yield ""
        yield (
            "layers that moved most, as a share of their weights:"
            if moved
            else "no layer of the encoders that were there has changed"
        )
    for layer in moved[:LAYERS]:
        yield f"  {100 * layer.change:5.1f} %  {layer.modality}: {layer.layer}"


def _figures(pair: str, found: records.PairDiagnosisRecord, reasons: Reasons) -> Iterator[str]:
    names = Pair.parse(pair)
    known = reasons.diagnosis.modalities
    inside = ", ".join(f"{n} {_shown(known[n].inside)}" for n in (names.first, names.second))
    yield f"similarities changed: between {_shown(found.between)}, inside {inside} (0 to 1)"
    yield f"cosine of partners {_shown(found.partners[0])} -> {_shown(found.partners[1])}"
    if (space := reasons.geometry) is not None:
        turned = "-" if space.rotation is None else f"{degrees(space.rotation):.0f} degrees"
        yield (
            f"plan drift {_shown(space.plan_drift.get(pair))} nats, modality gap "
            f"{_shown(space.modality_gap.get(pair))}, turned together {turned}"
        )
    ways = ", ".join(f"{way} {_shown(value)}" for way, value in found.hubness.items())
    yield f"hubness (skewness): {ways}"


def broken_rows(reasons: Reasons) -> Iterator[tuple[str, ...]]:
    """Pair, query, its rank now and what it finds, of the queries that broke worst."""
    for pair, found in reasons.diagnosis.pairs.items():
        for one in (each for each in found.queries if each.before == 1):
            finds = one.finds[0]
            yield pair, one.query, _named(one.item), str(one.rank), _named(finds)


def _named(item: records.ItemRecord) -> str:
    return f"{item.id}: {item.text}" if item.text else item.id


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"


def as_json(reasons: Reasons) -> str:
    """All figures of the stage, and the cause of each pair as a sentence."""
    pairs: dict[str, Any] = {
        pair: {**found.model_dump(mode="json"), "cause": cause(pair, reasons)}
        for pair, found in reasons.diagnosis.pairs.items()
    }
    value = {
        "run": reasons.run,
        "stage": reasons.stage,
        "split": reasons.split,
        "pairs": pairs,
        "modalities": {
            name: one.model_dump(mode="json") for name, one in reasons.diagnosis.modalities.items()
        },
        "geometry": reasons.geometry and reasons.geometry.model_dump(mode="json"),
        "layers": [
            {"modality": one.modality, "layer": one.layer, "change": one.change}
            for one in reasons.layers
        ],
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
