"""R@1 against the share of units that is kept, for all methods; see docs/compressing.md.

python benchmarks/compressing/run.py FOLDER --seeds 3     about an hour on two busy cores

It trains the runs into the folder, compresses each in all ways, and writes results.csv, a row per
figure: old, new and emergent pairs, and the weights that are left.
"""

import argparse
import csv
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path
from shutil import rmtree
from statistics import fmean

import numpy as np

from continual_mm.data.dataset import Dataset
from continual_mm.data.registry import load
from continual_mm.definitions import catalog
from continual_mm.merging.compress import kept_units
from continual_mm.metrics.retrieval import recall_at
from continual_mm.runs.compress import Compression, compress
from continual_mm.runs.finished import read_finished
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.opening import open_scenario, open_strategy
from continual_mm.runs.run import open_run, run_specified
from continual_mm.runs.specification import Specification
from continual_mm.runs.trained_on import dataset_of

SCENARIOS = ("av_vt", "digits")
STRATEGIES = ("naive", "recommended")
SHARES = (0.7, 0.5, 0.3, 0.15)
METHODS = ("interpolative", "fusion", "magnitude", "random")
TRAINED = 0.3  # share of the dimensions of runs that are trained with so many
ROLES = ("old", "new", "emergent")
Row = tuple[str, str, float, float, str, float]
COLUMNS = ("scenario", "strategy", "seed", "units", "method", "keep", "weights", "role", "recall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    with (asked.folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed in range(asked.seeds):
            for scenario in SCENARIOS:
                for strategy in STRATEGIES:
                    source = trained(asked.folder, scenario, strategy, seed)
                    rows = chain(
                        figures(source, asked.folder / "compressed", seed),
                        from_the_start(asked.folder, scenario, strategy, seed),
                    )
                    for *told, left, role, recall in rows:
                        values = f"{left:.4f}", role, f"{recall:.4f}"
                        writer.writerow((scenario, strategy, seed, *told, *values))
                        stream.flush()


def trained(folder: Path, scenario: str, strategy: str, seed: int, dim: int | None = None) -> Path:
    """The folder of a run, of so many dimensions, which is trained unless it is there."""
    settings = [("space.dim", str(dim))] if dim else []
    specification = Specification(
        open_scenario(catalog.find("scenarios", scenario), settings),
        open_strategy(catalog.find("strategies", strategy)),
        seed,
    )
    place = folder / specification.path
    if not RunFolder(place).finished:
        data = load(specification.scenario.dataset)
        run_specified(specification, data, folder, board=False, device="cpu")
    return place


def from_the_start(folder: Path, scenario: str, strategy: str, seed: int) -> Iterator[Row]:
    """A run that was trained with 0.3 of the dimensions."""
    whole = trained(folder, scenario, strategy, seed)
    dim = kept_units(open_run(whole).settings.dim, TRAINED)
    found = read_finished(trained(folder / f"dim-{dim}", scenario, strategy, seed, dim))
    last = len(found.arrivals) - 1
    for role in ROLES:
        pairs = [pair for pair, facts in found.pairs.items() if facts.role == role]
        ranks = [found.ranked[last, pair].ranks for pair in pairs]
        recall = fmean(recall_at(each[~np.isnan(each)], 1) for each in ranks)
        yield "embedding", "trained so", TRAINED, 0.0, role, recall


def figures(source: Path, to: Path, seed: int) -> Iterator[Row]:
    """Everything of one run."""
    data = dataset_of(RunFolder(source).definition)
    # The towers of digits have no hidden units.
    kinds = ("embedding",) if "digits" in source.parts else ("hidden", "embedding")
    for units, method in product(kinds, METHODS):
        for keep in SHARES:
            found = compressed(source, to, data, keep=keep, method=method, units=units, seed=seed)
            left = found.space.weights[1] / found.space.weights[0]
            for role in ROLES:
                pairs = [pair for pair, known in found.roles.items() if known == role]
                before, after = (fmean(found.recalls[p][k] for p in pairs) for k in (0, 1))
                yield units, method, keep, left, role, after
                if keep == SHARES[0] and method == METHODS[0]:
                    yield units, "all", 1.0, 1.0, role, before


def compressed(source: Path, to: Path, data: Dataset, **options: object) -> Compression:
    rmtree(to, ignore_errors=True)
    return compress(source, to, dataset=data, device="cpu", **options)


if __name__ == "__main__":
    main()
