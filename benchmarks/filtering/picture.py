"""Draw docs/filtering.png: python benchmarks/filtering/picture.py FOLDER docs/filtering.png.

The folder is what run.py wrote.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pools
from run import columns

from continual_mm.data.pack import read_pack

SEED = 1
COLOURS = ("#1b7837", "#e08214", "#8073ac", "#d6604d", "#999999")


def main(folder: Path, target: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for pool, axis in zip(pools.POOLS, axes, strict=True):
        place = folder / f"{pool}-{SEED}"
        terms = columns(place / "hype-0.3.filter.npz")
        agreement = terms["cosine"] - terms["distance"]
        specific = terms["eps_image"] + terms["eps_text"]
        quality = read_pack(place / "all.npz").label[terms["row"]]
        for kind in sorted(set(quality), reverse=True):
            here = quality == kind
            name = pools.Quality(kind).name.lower().replace("_", " ")
            axis.scatter(agreement[here], specific[here], s=4, c=COLOURS[kind], label=name)
        x = np.array([agreement.min(), agreement.max()])
        axis.plot(x, terms["score"][terms["kept"]].min() - x, "k--", lw=1)
        axis.set(title=pool, xlabel="agreement: cosine less distance", ylim=_ends(specific))
        axis.legend(markerscale=3, fontsize=8, loc="lower left")
    axes[0].set_ylabel("how specific both are (rad)")
    figure.savefig(target, dpi=90)


def _ends(values: np.ndarray) -> tuple[float, float]:
    space = 0.05 * (values.max() - values.min())
    return float(values.min() - space), float(values.max() + space)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
