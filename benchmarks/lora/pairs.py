"""One LoRA per pair, trained together, against one space and separate ones; see docs/adapters.md.

python benchmarks/lora/pairs.py FOLDER [--data SHARED]      ten minutes on two idle cores

Three modalities, three pairs, one stage. It writes FOLDER/pairs.csv, a row per figure: R@1 of each
pair on test and on validation items, by its own towers and by the bare ones, and the numbers that
are kept. `--data` is the folder of the shared data, whose grid_s1_dev.npz is used if it is given.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.registry import load
from continual_mm.definitions.modality import Pair, pair
from continual_mm.definitions.scenario import (
    Scenario,
    SpaceSettings,
    Stage,
    TowerSettings,
    Training,
)
from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.metrics.retrieval import ranks
from continual_mm.plugins.joint_lora import JointLora
from continual_mm.runs.history import History
from continual_mm.runs.run import train
from continual_mm.space.space import JointSpace

COLUMNS = ("data", "dim", "seed", "method", "measure", "of", "value")
NAMES = ("video", "text", "audio")
PAIRS = tuple(pair(*each) for each in combinations(NAMES, 2))
GRID = {"video": "frames", "audio": "spectrogram"}
Figure = tuple[str, str, str, float]  # method, measure, of what, value


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on, in which spaces and how long."""

    dataset: Dataset
    dims: tuple[int, ...]
    steps: int
    rate: float
    towers: Mapping[str, str] = field(default_factory=dict)  # modality -> kind of its tower

    def scenario(self, dim: int, names: tuple[str, ...], steps: int) -> Scenario:
        """All pairs of some modalities at once."""
        return Scenario(
            name="pairs",
            space=SpaceSettings(dim=dim, clusters=0),
            training=Training(steps=steps, batch_size=128, learning_rate=self.rate),
            towers={
                name: TowerSettings(kind=kind)
                for name, kind in self.towers.items()
                if name in names
            },
            stages=(Stage(add=names),),
        )


def latents() -> Data:
    """Three modalities that have 8 numbers in common, and 4 more in each pair.

    A pair can be told by 12 numbers, all three by 20: a space of 12 dimensions holds one of them.
    """
    rng = np.random.default_rng(0)
    common = rng.standard_normal((2600, 8))
    own = {each: rng.standard_normal((2600, 4)) for each in PAIRS}
    arrays = {}
    for name in NAMES:
        parts = np.concatenate([common, *(own[each] for each in PAIRS if name in each)], axis=1)
        mixed = parts @ rng.standard_normal((16, 24)) / 4
        arrays[name] = mixed + 0.3 * np.tanh(mixed @ rng.standard_normal((24, 24)) / 5)
        arrays[name] += 0.1 * rng.standard_normal(arrays[name].shape)
    split = np.repeat([0, 1, 2], [2000, 200, 400])
    return Data(Dataset.from_arrays(arrays, split=split), (12,), 300, 2e-3)


def methods(
    data: Data, dim: int
) -> Iterator[tuple[str, list[tuple[Scenario, list[BaseSGDPlugin[Any]]]]]]:
    """Name, and what is trained: scenarios with their plugins."""
    steps = data.steps
    together = data.scenario(dim, NAMES, steps)
    yield "one space", [(together, [])]
    yield "joint_lora, rank 8", [(together, [JointLora()])]
    apart = [(data.scenario(dim, (each.first, each.second), steps), []) for each in PAIRS]
    yield "three spaces", apart


def recall(space: JointSpace, dataset: Dataset, each: Pair, split: Split) -> float:
    """Mean R@1 of both directions by the towers of the space, which is the bare one."""
    rows = dataset.rows_of(split)
    sides = []
    for name in (each.first, each.second):
        column = dataset.columns[name]
        lengths = None if column.lengths is None else column.lengths[rows]
        sides.append(space.encode(name, column.values[rows], lengths, standardised=True))
    similarity = sides[0] @ sides[1].T
    found = [np.asarray(ranks(one)) for one in (similarity, similarity.T)]
    return float(np.mean([(each == 0).mean() for each in found]))


def scored(history: History) -> Iterator[tuple[str, str, float]]:
    """R@1 of the pairs that were trained, as the run has scored them."""
    for split in ("test", "validation"):
        for each in {score.pair for score in history.scores}:
            values = [s.recall_at_1 for s in history.scores if (s.pair, s.split) == (each, split)]
            yield f"R@1 {split}", str(each), float(np.mean(values))


def figures(data: Data, dim: int, seed: int) -> Iterator[Figure]:
    """All figures of a space of one size and one seed."""
    for method, runs in methods(data, dim):
        size = 0.0
        for scenario, plugins in runs:
            history = train(scenario, data.dataset, plugins=plugins, seed=seed, device="cpu")
            size += history.cost["parameters"]
            for figure in scored(history):
                yield method, *figure
            if plugins:
                for each in PAIRS:
                    value = recall(history.space, data.dataset, each, Split.TEST)
                    yield method, "R@1 test, bare", str(each), value
        yield method, "parameters", "", size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    known = {"latents": latents()}
    known["narrated_shapes"] = Data(load("narrated_shapes"), (64,), 200, 2e-3)
    if asked.data:
        grid = load(str(asked.data / "grid_s1_dev.npz"))
        known["grid_s1_dev"] = Data(grid, (64,), 200, 2e-3, GRID)
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed, (name, data) in product(asked.seeds, known.items()):
            for dim in data.dims:
                for figure in figures(data, dim, seed):
                    writer.writerow((name, dim, seed, *figure))
                    stream.flush()


if __name__ == "__main__":
    main()
