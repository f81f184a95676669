"""Draw docs/watch.png and print the table of docs/why-it-forgot.md.

python benchmarks/watch/picture.py docs/watch.png
"""

import csv
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

HERE = Path(__file__).parent
EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, np.inf)
COLOURS = {"naive": "#d55e00", "slow": "#56b4e9", "replay": "#009e73", "ewc": "#e69f00"}
Floats = NDArray[np.float64]


def read(path: Path = HERE / "results.csv") -> tuple[list[str], Floats, Floats]:
    """Strategy, drift, and share of recall lost, of every evaluation."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    drift, before, now = (
        np.array([float(row[name]) for row in rows])
        for name in ("drift", "recall_before", "recall")
    )
    return [row["strategy"] for row in rows], drift, 1 - now / before


def table(drift: Floats, lost: Floats) -> str:
    """Drift -> what was lost, in Markdown."""
    lines = ["| drift in nats | evaluations | lost, mean | of nine in ten |", "|:--|--:|--:|--:|"]
    for low, high in pairwise(EDGES):
        some = lost[(drift >= low) & (drift < high)]
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"from {low:g}"
        ends = " to ".join(f"{100 * each:.0f}" for each in np.quantile(some, (0.05, 0.95)))
        lines.append(f"| {name} | {len(some)} | {100 * some.mean():.0f} % | {ends} % |")
    return "\n".join(lines)


def main() -> None:
    names, drift, lost = read()
    print(table(drift, lost))
    print(f"Spearman {spearmanr(drift, lost).statistic:.2f} over {len(drift)}")
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(names):
        some = np.array([each == name for each in names])
        colour = COLOURS.get(name, "#0072b2")
        axes.scatter(drift[some], 100 * lost[some], s=16, color=colour, label=name, alpha=0.8)
    axes.axvline(0.1, color="#888888", lw=1, ls="--")
    axes.set(xlabel="drift of an old pair's plan on validation items, in nats", xscale="log")
    axes.set(ylabel="recall at 1 lost on test items, in %")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[1], dpi=130)


if __name__ == "__main__":
    main()
