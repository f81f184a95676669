"""Which pairs of real recordings are found that were mismatched on purpose, a quarter of them.

python benchmarks/filtering/mismatched.py DATA FOLDER     two minutes a seed on two cores

DATA holds the packs of the tests, see CONTRIBUTING.md. It writes mismatched.csv into the folder.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from run import columns

from continual_mm.data.pack import write_pack
from continual_mm.definitions.modality import Pair
from continual_mm.preparation.filtering.filter import PairFilter, filter_pairs
from continual_mm.preparation.filtering.scorers import ScorerSettings
from continual_mm.preparation.filtering.selection import best_first

PAIRS = (
    ("grid_s1_dev", "text", "audio"),
    ("grid_s1_dev", "text", "video"),
    ("avmnist_fsdd", "audio", "image"),
)
"""Pack, general modality, the other one."""
SEEDS, SHARE, MISMATCHED = (1, 2, 3), 0.3, 0.25


def main(data: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mismatched.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("data", "pair", "seed", "by", "good"))
        for name, general, other in PAIRS:
            for seed in SEEDS:
                for by, good in precisions(data / f"{name}.npz", folder, general, other, seed):
                    row = (name, f"{general}-{other}", seed, by, f"{good:.4f}")
                    writer.writerow(row)
                    stream.flush()
                    print(*row)


def precisions(
    pack: Path, folder: Path, general: str, other: str, seed: int
) -> list[tuple[str, float]]:
    """The share of pairs that were not mismatched among the best."""
    arrays, rng = columns(pack), np.random.default_rng(seed)
    training = np.flatnonzero(arrays["split"] == 0)
    wrong = rng.choice(training, round(MISMATCHED * len(training)), replace=False)
    arrays[other][wrong] = arrays[other][np.roll(wrong, 1)]
    place = folder / f"{pack.stem}-{general}-{other}-{seed}"
    source, target = place.with_suffix(".npz"), place.with_name(f"{place.name}-kept.npz")
    write_pack(source, arrays)
    how = PairFilter(
        pair=Pair.parse(f"{general}-{other}"),
        generic=general,
        keep=SHARE,
        scorer=ScorerSettings(seed=seed),
    )
    terms = columns(filter_pairs(str(source), target, how).terms)
    good, count = ~np.isin(terms["row"], wrong), int(SHARE * len(terms["row"]))
    scores = {"cosine": terms["cosine"], "-d": -terms["distance"], "hype": terms["score"]}
    return [(by, float(good[best_first(each)[:count]].mean())) for by, each in scores.items()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
