"""The tables of docs/depth.md: python benchmarks/depth/tables.py FOLDER."""

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

DATASETS = {"solids": "similar pictures", "solids_with_gap": "large gap"}
LOSSES = {"freeze_cross": "cross only", "freeze_cross_intra": "cross + intra"}
PATHS = {
    "depth_classes": "new path, {}",
    "depth_equal_paths": "both paths 1 : 1, {}",
    "depth_chosen_paths": "both, weight from validation items, {}",
}
STRATEGIES = {
    "freeze_cross_intra": "`freeze_cross_intra`",
    "freeze_cross": "the same without the loss between the views",
    "freeze": "`freeze`",
    "cross_intra": "`cross_intra`, old towers learn on",
    "naive": "`naive`",
    "joint": "`joint`",
}
Values = dict[tuple[str, str, str], list[float]]


def read(path: Path) -> Values:
    """(dataset, strategy, measure) -> a value for each seed."""
    found: Values = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found[row["dataset"], row["strategy"], row["measure"]].append(float(row["value"]))
    return found


def paths(values: Values) -> str:
    """Zero-shot accuracy in % of depth maps by each path, and how far two views agree."""
    rows = [["zero-shot accuracy of depth maps, %", *DATASETS.values()]]

    def add(name: str, strategy: str, measure: str, scale: float = 100.0) -> None:
        cells = (_range(values[each, strategy, measure], scale) for each in DATASETS)
        rows.append([name, *cells])

    both = "freeze_cross_intra"
    add("pictures, before = after depth arrived", both, "image_classes")
    add("old path: depth maps through the tower of pictures", both, "depth_old_path")
    for measure, name in PATHS.items():
        for strategy, losses in LOSSES.items():
            add(name.format(losses), strategy, measure)
    for strategy, losses in LOSSES.items():
        add(f"weight of the old path that was chosen, {losses}", strategy, "old_path_weight", 1.0)
    for strategy, losses in LOSSES.items():
        add(f"cosine of a view from 0.9 and from 1.1, {losses}", strategy, "views_agree", 1.0)
    return _markdown(rows)


def strategies(values: Values) -> str:
    """Zero-shot accuracy in % of depth maps and of pictures by each strategy."""
    heads = [f"{what}, {name}" for name in DATASETS.values() for what in ("depth", "pictures")]
    rows = [["strategy", "seeds", *heads]]
    for strategy, name in STRATEGIES.items():
        cells = [
            _range(values[dataset, strategy, measure], 100.0)
            for dataset in DATASETS
            for measure in ("depth_classes", "image_classes")
        ]
        seeds = min(len(values[each, strategy, "depth_classes"]) for each in DATASETS)
        rows.append([name, str(seeds), *cells])
    return _markdown(rows)


def _range(found: Sequence[float], scale: float) -> str:
    if not found:
        return "-"
    digits = 1 if scale > 1 else 2
    low, mean, high = (scale * each for each in (min(found), sum(found) / len(found), max(found)))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|".join(["", ":--", *["--:"] * (len(rows[0]) - 1), ""]), *body])


if __name__ == "__main__":
    found = read(Path(sys.argv[1]) / "results.csv")
    print(paths(found), strategies(found), sep="\n\n")
