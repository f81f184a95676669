"""The tables and the picture of docs/compressing.md.

python benchmarks/compressing/tables.py RESULTS.CSV PICTURE.PNG
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.pyplot as plt

SHARES = (0.7, 0.5, 0.3, 0.15)
METHODS = ("interpolative", "fusion", "magnitude", "random")
TRAINED = "trained so"
STYLES = {"interpolative": "o-", "fusion": "s-", "magnitude": "^--", "random": "x:"}
ROLES = ("old", "new", "emergent")
PANELS = (
    ("av_vt", "recommended", "hidden", "av_vt, hidden units"),
    ("av_vt", "recommended", "embedding", "av_vt, dimensions of the embedding"),
    ("digits", "recommended", "embedding", "digits, dimensions of the embedding"),
)
Key = tuple[str, str, str, str, float, str]  # scenario, strategy, units, method, keep, role
Values = dict[Key, list[float]]


def read(path: Path) -> tuple[Values, dict[tuple[str, str, str, float], float]]:
    """R@1 in % of each seed, and the mean share of weights that is left."""
    found: Values = defaultdict(list)
    left: dict[tuple[str, str, str, float], list[float]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            place, keep = (row["scenario"], row["strategy"], row["units"]), float(row["keep"])
            found[(*place, row["method"], keep, row["role"])].append(100 * float(row["recall"]))
            if row["method"] != TRAINED:
                left[(*place, keep)].append(float(row["weights"]))
    return found, {key: fmean(values) for key, values in left.items()}


def table(values: Values, left: dict[tuple[str, str, str, float], float], units: str) -> str:
    """Old / new / never paired by run, method and share; in its first row the weights left."""
    rows = [["run", "method", *(f"{keep:g}" for keep in (1.0, *SHARES))]]
    for scenario, strategy in product(("av_vt", "digits"), ("naive", "recommended")):
        place = scenario, strategy, units
        if (*place, SHARES[0]) not in left:
            continue
        shares = [f"{left[(*place, keep)]:.0%}" for keep in (1.0, *SHARES)]
        rows.append([f"`{scenario}`, {strategy}", "weights left", *shares])
        for method in (*METHODS, TRAINED):
            cells = [_cell(values, *place, method, keep) for keep in SHARES]
            whole = _cell(values, *place, "all", 1.0) if method == METHODS[0] else ""
            if any(cell != "-" for cell in cells):
                rows.append(["", method, whole, *cells])
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|".join(["", *[":--"] * 2, *["--:"] * (len(SHARES) + 1), ""]), *body])


def _cell(values: Values, *key: object) -> str:
    some = [values.get((*key, role), []) for role in ROLES]
    return " / ".join(map(_mean, some)) if all(some) else "-"


def _mean(some: Sequence[float]) -> str:
    return f"{fmean(some):.0f}±{stdev(some):.0f}" if len(some) > 1 else f"{fmean(some):.0f}"


def picture(values: Values, target: Path) -> None:
    """Mean of old and new pairs against the share of units kept."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharex=True)
    for axis, (*place, title) in zip(axes, PANELS, strict=True):
        for method in METHODS:
            points = [(1.0, "all"), *((keep, method) for keep in SHARES)]
            if (*place, method, SHARES[0], "old") not in values:
                continue
            curves = [
                [fmean((o, n)) for o, n in zip(*_both(values, place, one, keep), strict=True)]
                for keep, one in points
            ]
            where = [keep for keep, _ in points]
            axis.errorbar(
                where,
                [fmean(each) for each in curves],
                [stdev(each) if len(each) > 1 else 0 for each in curves],
                fmt=STYLES[method],
                capsize=2,
                label=method,
            )
        axis.set(title=title, xlabel="share of units kept", ylim=(0, None))
        axis.legend(fontsize=8)
    axes[0].set_ylabel("R@1 in %, trained pairs")
    figure.savefig(target, dpi=90)


def _both(
    values: Values, place: Sequence[str], method: str, keep: float
) -> tuple[list[float], list[float]]:
    old, new = (values[(*place, method, keep, role)] for role in ("old", "new"))
    return old, new


if __name__ == "__main__":
    found, weights = read(Path(sys.argv[1]))
    for units in ("hidden", "embedding"):
        print(table(found, weights, units), end="\n\n")
    picture(found, Path(sys.argv[2]))
