"""The tables of docs/fusion.md: python benchmarks/fusion/tables.py RESULTS.csv."""

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

STRATEGIES = ("naive", "freeze", "replay", "recommended", "joint")
SPACES = {
    "mcn": "`mcn`",
    "fusion": "`fusion`",
    "fusion_late": "`fusion`, `blocks = 0`",
    "fusion_pairs": "`fusion`, `larger_side = 1`",
}
ORDERS = {
    "vt_a": ("text-video", ("audio-text", "audio-video")),
    "av_t": ("audio-video", ("audio-text", "text-video")),
}
"""Order -> the pair that was there before, and those that the last stage trains."""
Values = dict[tuple[str, str, str, str], list[float]]


def read(path: Path) -> Values:
    """(order, space, strategy, measure) -> R@1 in % for each seed."""
    found: Values = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            key = row["order"], row["space"], row["strategy"], row["measure"]
            found[key].append(100 * float(row["value"]))
    return found


def strategies(values: Values, order: str, old: str, new: Sequence[str]) -> str:
    """Every strategy in both spaces: the old pair before and after, new pairs, captions to both."""
    measures = {
        f"{old} before": f"before {old}",
        "after": f"old {old}",
        **{pair: f"new {pair}" for pair in new},
        "captions to both": "both",
        "30 % lack a part": "lacking",
    }
    rows = [["strategy", "space", *measures]]
    for strategy in STRATEGIES:
        for space in ("mcn", "fusion"):
            cells = [_cell(values[order, space, strategy, each]) for each in measures.values()]
            if any(cell != "-" for cell in cells):
                rows.append([f"`{strategy}`", SPACES[space], *cells])
    return _markdown(rows, 2)


def variants(values: Values) -> str:
    """What each part of the space brings, all modalities trained at once."""
    measures = {
        "text-video": "new text-video",
        "audio-text": "new audio-text",
        "audio-video": "new audio-video",
        "captions to both": "both",
        "30 % lack a part": "lacking",
    }
    rows = [["space", *measures]]
    rows += [
        [name, *(_cell(values["avt", space, "naive", each]) for each in measures.values())]
        for space, name in SPACES.items()
    ]
    return _markdown(rows, 1)


def _cell(of_seeds: Sequence[float]) -> str:
    if not of_seeds:
        return "-"
    mean = sum(of_seeds) / len(of_seeds)
    ends = f" [{min(of_seeds):.0f}, {max(of_seeds):.0f}]" if len(of_seeds) > 1 else ""
    return f"{mean:.1f}{ends}"


def _markdown(rows: Sequence[Sequence[str]], names: int) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|".join(["", *[":--"] * names, *["--:"] * (len(rows[0]) - names), ""])
    return "\n".join([head, rule, *body])


if __name__ == "__main__":
    found = read(Path(sys.argv[1]))
    tables = [strategies(found, order, old, new) for order, (old, new) in ORDERS.items()]
    print(*tables, variants(found), sep="\n\n")
