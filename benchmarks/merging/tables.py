"""The table of docs/merging.md: python benchmarks/merging/tables.py results.csv."""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

NAMES = {
    "none_average": "plain average of the shared tower",
    "none_keep_both": "not aligned, keep both",
    "transport_keep_a": "transport, keep first",
    "transport_average": "transport, average (`merge_average`)",
    "procrustes_keep_a": "rotation, keep first (`merge_keep`)",
    "procrustes_keep_both": "rotation, keep both (`merge`)",
    "naive": "naive",
    "freeze": "freeze",
    "recommended": "`recommended`",
    "joint": "joint",
}
SCENARIOS = ("vt_at_merge", "av_vt_merge", "at_av_merge")
ROLES = ("old", "new", "never paired")
Recalls = dict[tuple[str, str, str, str], dict[int, float]]


def read(path: Path) -> Recalls:
    """(form, scenario, strategy, role) -> seed -> R@1 in %."""
    found: Recalls = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            key = row["form"], row["scenario"], row["strategy"], row["role"]
            found[key][int(row["seed"])] = 100 * float(row["recall"])
    return found


def over_seeds(recalls: Recalls, form: str, strategy: str, role: str) -> list[float]:
    """The mean over scenarios of each seed that all of them have."""
    each = [recalls[form, scenario, strategy, role] for scenario in SCENARIOS]
    shared = set.intersection(*map(set, each))
    return [float(np.mean([one[seed] for one in each])) for seed in sorted(shared)]


def table(recalls: Recalls) -> str:
    """A row for each strategy: mean and standard deviation over seeds, without and with healing."""
    plain = [*ROLES, *(f"`{name.removesuffix('_merge')}`" for name in SCENARIOS)]
    rows = [["", *plain, f"healed: {ROLES[0]}", *ROLES[1:]]]
    rows.append([":--", "--:", "--:", "--:", ":-:", ":-:", ":-:", "--:", "--:", "--:"])
    for strategy, name in NAMES.items():
        values = [over_seeds(recalls, "plain", strategy, role) for role in ROLES]
        healed = [over_seeds(recalls, "healed", strategy, role) for role in ROLES]
        each = [
            " / ".join(f"{_mean(recalls['plain', one, strategy, role]):.0f}" for role in ROLES)
            for one in SCENARIOS
        ]
        rows.append([name, *map(_spread, values), *each, *map(_spread, healed)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _mean(by_seed: dict[int, float]) -> float:
    return float(np.mean([*by_seed.values()]))


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f}±{np.std(values, ddof=1):.1f}" if len(values) > 1 else "-"


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]))))
