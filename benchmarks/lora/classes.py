"""MMLoRA against single modalities, their ensemble and joint training; see docs/adapters.md.

python benchmarks/lora/classes.py FOLDER [--data SHARED]      ten minutes on two idle cores

All are trained in the same number of steps in all, digits at two learning rates, and scored as
zero-shot classification by the names of the classes. It writes FOLDER/classes.csv, a row per
figure. `--data` is the folder of the shared data, whose avmnist_fsdd.npz is used if it is given.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from continual_mm.data.dataset import Dataset
from continual_mm.data.registry import load
from continual_mm.definitions.scenario import Protocol, Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.plugins.mmlora import MMLora
from continual_mm.runs.run import train

COLUMNS = ("data", "seed", "learning_rate", "method", "split", "scored", "value")
SETTINGS = SpaceSettings(dim=64, clusters=0, reconstruction_weight=0.0)
RANKS = (8,)
Figure = tuple[str, str, str, float]  # method, split, what is scored, accuracy


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled items with names of their classes, and the steps that everything is trained in."""

    training: Dataset  # its test items are scored
    validation: Dataset  # the validation items, as test items
    modalities: tuple[str, ...]
    steps: int
    rates: tuple[float, ...]


def digits() -> Data:
    """The digits that come with the package, four quarters of an image."""
    found = load("named_digits", standardise=False)
    names = ("nw", "ne", "sw", "se")
    arrays = {name: found.columns[name].values for name in (*names, "name")}
    present = {name: found.columns[name].present for name in names}
    return _data(arrays, 200, (6e-3, 2e-2), label=found.label, split=found.split, present=present)


def avmnist(folder: Path) -> Data:
    """AV-MNIST of the shared data, and an item for the name of each class."""
    with np.load(folder / "avmnist_fsdd.npz", allow_pickle=False) as pack:
        image, audio, label, split = (pack[key] for key in ("image", "audio", "label", "split"))
    classes = np.unique(label)
    count, all_labels = len(classes), np.concatenate([label, classes])
    there = np.repeat([True, False], [len(label), count])

    def longer(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((count, *values.shape[1:]), values.dtype)])

    return _data(
        {"image": longer(image), "audio": longer(audio), "name": np.eye(count)[all_labels]},
        240,
        (6e-3,),
        label=all_labels,
        split=np.concatenate([split, np.full(count, 2)]),
        present={"image": there, "audio": there},
        kinds={"image": "frames", "audio": "spectrogram", "name": "vector"},
    )


def _data(
    arrays: dict[str, Any],
    steps: int,
    rates: tuple[float, ...],
    *,
    split: Any,
    label: Any,
    **more: Any,
) -> Data:
    training = Dataset.from_arrays(arrays, split=split, label=label, name="classes", **more)
    there = next(iter(more["present"].values()))
    held = (split == 1) | ~there
    present = {name: each[held] for name, each in more["present"].items()}
    validation = Dataset.from_arrays(
        {name: values[held] for name, values in arrays.items()},
        split=np.full(held.sum(), 2),
        label=label[held],
        kinds=more.get("kinds"),
        standardise=training.statistics,
        splits=("test",),
        name="validation",
        present=present,
    )
    return Data(training, validation, tuple(more["present"]), steps, rates)


def scenario(stages: tuple[Stage, ...], learned: tuple[str, ...], rate: float) -> Scenario:
    """Stages on all training items, scored by all modalities that are learned, and by each."""
    wanted = {"all": learned, **{name: (name,) for name in learned}}
    return Scenario(
        name="classes",
        items="shared",
        space=SETTINGS,
        training=Training(batch_size=128, learning_rate=rate),
        stages=stages,
        protocols=tuple(
            Protocol(name=f"{split}-{name}", kind="classes", query=("name",), gallery=gallery)
            for split, (name, gallery) in product(("test", "validation"), wanted.items())
        ),
    )


def alone(names: tuple[str, ...], steps: int) -> tuple[Stage, ...]:
    """A stage for each modality."""
    first, *others = names
    return (
        Stage(add=(first, "name"), steps=steps),
        *(Stage(add=(name,), pairs=(f"name-{name}",), steps=steps) for name in others),
    )


def methods(data: Data, rate: float) -> Iterator[tuple[str, Scenario, list[BaseSGDPlugin[Any]]]]:
    """Name, scenario and plugins of everything that is compared."""
    names, steps = data.modalities, data.steps
    pairs = tuple(f"name-{name}" for name in names)
    for name in names:
        stages = (Stage(add=(name, "name"), steps=steps),)
        yield f"{name} alone", scenario(stages, (name,), rate), []
    ume = scenario(alone(names, steps // len(names)), names, rate)
    yield "single ones, added (UME)", ume, [MMLora()]
    at_once = (Stage(add=(*names, "name"), pairs=pairs, steps=steps),)
    yield "joint, each pair's contrast", scenario(at_once, names, rate), []
    yield "joint, mean of logits", scenario(at_once, names, rate), [MMLora()]
    part = steps // (len(names) + 1)
    staged = scenario((*alone(names, part), Stage(pairs=pairs, steps=part)), names, rate)
    yield "one by one, then each contrast", staged, []
    yield "UME, then all weights", staged, [MMLora(rank=0)]
    for rank in RANKS:
        yield f"MMLoRA, rank {rank}", staged, [MMLora(rank=rank, alpha=2.0 * rank)]


def figures(data: Data, seed: int, rate: float) -> Iterator[Figure]:
    """Accuracies of all methods by all modalities and by each, on validation and test items."""
    for method, plan, plugins in methods(data, rate):
        scored = {
            protocol.name: data.validation
            for protocol in plan.protocols
            if protocol.name.startswith("validation-")
        }
        history = train(
            plan, data.training, plugins=plugins, scored=scored, seed=seed, device="cpu"
        )
        last = max(score.stage for score in history.protocols)
        for score in history.protocols:
            if score.stage == last:
                split, _, what = score.name.partition("-")
                yield method, split, what, score.measures["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    known = {"named_digits": digits()}
    if asked.data:
        known["avmnist_fsdd"] = avmnist(asked.data)
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "classes.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed, (name, data) in product(asked.seeds, known.items()):
            for rate in data.rates:
                for figure in figures(data, seed, rate):
                    writer.writerow((name, seed, rate, *figure))
                    stream.flush()


if __name__ == "__main__":
    main()
