"""The tables of docs/adapters.md: python benchmarks/lora/tables.py."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

FOLDER = Path(__file__).parent
SPACES = (("latents", "12"), ("narrated_shapes", "64"), ("grid_s1_dev", "64"))
BARE = "R@1 test, bare"
DATA = ("named_digits", "avmnist_fsdd")
ALONE = " alone"
Key = tuple[str, ...]


def read(name: str, *keys: str) -> dict[Key, dict[str, list[float]]]:
    """Values of a file: by some of its columns, then by seed."""
    found: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (FOLDER / name).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found[tuple(row[key] for key in keys)][row["seed"]].append(float(row["value"]))
    return found


def by_seed(values: dict[str, list[float]]) -> list[float]:
    """The mean of each seed."""
    return [mean(each) for _, each in sorted(values.items())]


def pairs() -> str:
    """R@1 in %, mean over the pairs; means and ranges over seeds, bare towers in brackets."""
    values = read("pairs.csv", "data", "dim", "method", "measure")
    methods = dict.fromkeys(key[2] for key in values)
    rows = [["", *(f"`{data}`, {dim}" for data, dim in SPACES), "numbers kept, times one space"]]
    for method in methods:
        cells = []
        for space in SPACES:
            cell = shown(by_seed(values[*space, method, "R@1 test"]))
            if bare := values.get((*space, method, BARE)):
                cell += f"; bare {100 * mean(by_seed(bare)):.1f}"
            cells.append(cell)
        sizes = [
            mean(by_seed(values[*space, method, "parameters"]))
            / mean(by_seed(values[*space, "one space", "parameters"]))
            for space in SPACES
        ]
        rows.append([method, *cells, " / ".join(f"{size:.1f}" for size in sizes)])
    return markdown(rows)


def classes() -> str:
    """Accuracy in %, at the learning rate that is best on validation items."""
    values = read("classes.csv", "data", "learning_rate", "method", "split", "scored")
    rows = [["", *(part for data in DATA for part in (f"`{data}`, all", "each by itself"))]]
    for method in dict.fromkeys(key[2] for key in values):
        if method.endswith(ALONE):
            continue
        rows.append(
            [method, *(part for data in DATA for part in _classified(values, data, method))]
        )
    best = [part for data in DATA for part in (_best_alone(values, data), "")]
    return markdown([rows[0], ["the best modality alone", *best], *rows[1:]])


def chosen(values: dict[Key, dict[str, list[float]]], data: str, method: str) -> str:
    rates = {key[1] for key in values if key[0] == data}
    return max(
        sorted(rates), key=lambda r: mean(by_seed(values[data, r, method, "validation", "all"]))
    )


def _classified(values: dict[Key, dict[str, list[float]]], data: str, method: str) -> list[str]:
    rate = chosen(values, data, method)
    each = [
        100 * mean(by_seed(of))
        for key, of in values.items()
        if key[:4] == (data, rate, method, "test") and key[4] != "all"
    ]
    return [
        shown(by_seed(values[data, rate, method, "test", "all"])),
        " / ".join(f"{value:.0f}" for value in each),
    ]


def _best_alone(values: dict[Key, dict[str, list[float]]], data: str) -> str:
    names = {key[2] for key in values if key[0] == data and key[2].endswith(ALONE)}
    found = {
        name: values[data, chosen(values, data, name), name, "validation", "all"] for name in names
    }
    best = max(sorted(names), key=lambda name: mean(by_seed(found[name])))
    test = values[data, chosen(values, data, best), best, "test", "all"]
    return f"{shown(by_seed(test))} ({best.removesuffix(ALONE)})"


def shown(values: Sequence[float]) -> str:
    """Mean and range in %."""
    low, middle, high = (100 * each for each in (min(values), mean(values), max(values)))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table with its first row as head."""
    head, *body = rows
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(pairs(), classes(), sep="\n\n")
