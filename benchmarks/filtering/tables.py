"""The tables of docs/filtering.md: python benchmarks/filtering/tables.py FOLDER."""

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

POOLS = ("vague_one_side", "vague_both_sides")
PRECISIONS = {
    "cosine": "cosine",
    "-d": "distance alone",
    "eps_image": "how specific the image is",
    "eps_text": "how specific the text is",
    "eps_image + eps_text": "both",
    "-d + cosine": "distance and cosine",
    "hype": "HYPE: all of them",
    "union": "union of HYPE and cosine",
    "intersection": "intersection",
    "cascade": "cascade",
}
KEPT = ("hype", "cosine", "union", "intersection", "cascade", "chance", "good")
Values = dict[tuple[str, str, float, str], list[float]]


def read(path: Path) -> Values:
    """(pool, measure, share, by) -> a value for each seed."""
    found: Values = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            key = row["pool"], row["measure"], float(row["share"]), row["by"]
            found[key].append(float(row["value"]))
    return found


def precisions(values: Values) -> str:
    """Good pairs in % of the best tenth, fifth and third or so; means over seeds."""
    rows = [["sorted by", *(f"`{pool}`" for pool in POOLS)]]
    for by, name in PRECISIONS.items():
        cells = []
        for pool in POOLS:
            of_shares = (values[pool, "precision", share, by] for share in (0.1, 0.2, 0.3))
            cells.append(" / ".join(f"{_mean(each):.0f}" for each in of_shares))
        rows.append([name, *cells])
    return _markdown(rows)


def recalls(values: Values) -> str:
    """R@1 in % after training on what is kept; means and ranges over seeds."""
    shares = (0.3, 0.6)
    heads = [f"`{pool}`, {share:.0%} kept" for pool in POOLS for share in shares]
    rows = [["kept by", *heads]]
    rows += [
        [by, *(_range(values[pool, "recall@1", share, by]) for pool in POOLS for share in shares)]
        for by in KEPT
    ]
    whole = [_range(values[pool, "recall@1", 1.0, "all"]) for pool in POOLS for _ in shares]
    return _markdown([*rows, ["all pairs", *whole]])


def mismatched(path: Path) -> str:
    """Pairs in % of the best 30 % that were not mismatched on purpose; means and ranges."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found[row["data"], row["pair"]][row["by"]].append(float(row["good"]))
    rows = [["data", "pair", "cosine", "distance", "HYPE"]]
    for (data, pair), by in found.items():
        rows.append([f"`{data}`", pair, *(_range(by[each]) for each in ("cosine", "-d", "hype"))])
    return _markdown(rows)


def _mean(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{_mean(values):.1f} [{100 * min(values):.1f}, {100 * max(values):.1f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|".join(["", ":--", *["--:"] * (len(rows[0]) - 1), ""]), *body])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    values = read(folder / "results.csv")
    print(precisions(values), recalls(values), mismatched(folder / "mismatched.csv"), sep="\n\n")
