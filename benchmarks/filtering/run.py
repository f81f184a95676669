"""Which pairs each filter keeps, and what training on them brings, on two pools; see README.md.

python benchmarks/filtering/run.py FOLDER --seeds 1 2 3     about a quarter of an hour on two cores

It writes the pools and all filtered packs into the folder, and results.csv, a row per figure.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pools

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.data.pack import read_pack, write_pack_rows
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.preparation.filtering.filter import PairFilter, filter_pairs
from continual_mm.preparation.filtering.scorers import ScorerSettings
from continual_mm.preparation.filtering.selection import best, best_first, kept_count
from continual_mm.runs.run import train

PAIR = pair("image", "text")
SHARES = (0.1, 0.2, 0.3)  # of which precisions are taken
TRAINED = (0.3, 0.6)  # shares that are trained on
BY = ("hype", "cosine", "union", "intersection", "cascade")
SCENARIO = Scenario(
    name="filtered",
    space=SpaceSettings(dim=64, clusters=0),
    training=Training(steps=400, batch_size=128, learning_rate=1e-3),
    stages=(Stage(add=("image", "text")),),
)
COLUMNS = ("pool", "seed", "measure", "share", "by", "value")
Figure = tuple[str, float, str, float]  # measure, share, by, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed in asked.seeds:
            for pool in pools.POOLS:
                for figure in figures(asked.folder / f"{pool}-{seed}", pool, seed):
                    writer.writerow((pool, seed, *figure))
                    stream.flush()
                    print(pool, seed, *figure)


def figures(folder: Path, pool: str, seed: int) -> Iterator[Figure]:
    """Everything of one pool and seed."""
    folder.mkdir()
    source = folder / "all.npz"
    pools.write(source, pool, seed=seed)
    how = PairFilter(pair=PAIR, keep=TRAINED[0], scorer=ScorerSettings(seed=seed))
    terms = filter_pairs(str(source), folder / "hype-0.3.npz", how).terms
    quality = read_pack(source).label
    yield from precisions(terms, quality == pools.Quality.GOOD)
    yield "recall@1", 1.0, "all", recall(source, seed)
    for share in TRAINED:
        for by in BY:
            target = folder / f"{by}-{share}.npz"
            if not target.exists():
                filter_pairs(str(source), target, replace(how, by=by, keep=share), terms=terms)
            yield "recall@1", share, by, recall(target, seed)
        for by, rows in others(quality, share, seed):
            target = folder / f"{by}-{share}.npz"
            write_pack_rows(source, target, rows)
            yield "recall@1", share, by, recall(target, seed)


def precisions(terms: Path, good: np.ndarray) -> Iterator[Figure]:
    """The share of good pairs among the best by each term and by sums of them."""
    found = columns(terms)
    specific = found["eps_image"] + found["eps_text"]
    scores = {
        "cosine": found["cosine"],
        "-d": -found["distance"],
        "eps_image": found["eps_image"],
        "eps_text": found["eps_text"],
        "eps_image + eps_text": specific,
        "-d + cosine": found["cosine"] - found["distance"],
        "hype": found["score"],
    }
    for name, score in scores.items():
        for share in SHARES:
            chosen = found["row"][best_first(score)[: round(share * len(score))]]
            yield "precision", share, name, float(good[chosen].mean())
    good_pairs = good[found["row"]]
    for by in BY[2:]:
        for share in SHARES:
            count = kept_count(share, len(good_pairs), terms)
            kept = best(by, count, hype=found["score"], cosine=found["cosine"])
            yield "precision", share, by, float(good_pairs[kept].mean())


def columns(path: Path) -> dict[str, np.ndarray]:
    with Archive(path, Findings(str(path))) as archive:
        return {name: archive.read(name) for name in archive.headers}


def others(quality: np.ndarray, share: float, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """As many pairs by chance, and of the good ones alone; with all that is not training."""
    rng, count = np.random.default_rng(seed), round(share * pools.TRAINING)
    scored = np.arange(pools.TRAINING, len(quality))
    good = np.flatnonzero(quality[: pools.TRAINING] == pools.Quality.GOOD)
    for by, among in (("chance", np.arange(pools.TRAINING)), ("good", good)):
        if count <= len(among):
            chosen = rng.choice(among, count, replace=False)
            yield by, np.concatenate([np.sort(chosen), scored])


def recall(path: Path, seed: int) -> float:
    """R@1 on the test items, all of them good pairs, both directions averaged."""
    return train(SCENARIO, read_pack(path), seed=seed).recall("image-text")


if __name__ == "__main__":
    main()
