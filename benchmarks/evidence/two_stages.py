"""Text-to-video recall by the order in which modalities arrive, from the results of the evidence.

python benchmarks/evidence/two_stages.py [--picture docs/original-experiments.png]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from plan import HERE

from continual_mm.comparison.collect import grouped
from continual_mm.comparison.estimates import METRICS, Draws, Estimate
from continual_mm.comparison.exported import read_exported
from continual_mm.runs.finished import FinishedRun

ORDERS = ("av_t", "vt_a", "at_v")
DATASETS = {"narrated_shapes": "", "GRID": "grid_"}
PAIR, QUERY = "text-video", 0  # its first direction: texts ask, videos answer
RANKED = {"R@1": "recall@1", "R@10": "recall@10"}
STRATEGIES = (
    *("naive", "freeze", "replay_128", "ewc", "transport_128", "partners_match"),
    *("pair_lora_match", "recommended", "joint", "joint_wide"),
)

Runs = Mapping[str, Mapping[str, Sequence[FinishedRun]]]


def from_text(run: FinishedRun) -> FinishedRun:
    """The run as if texts were the only queries of the pair."""
    found = run.ranked[len(run.arrivals) - 1, PAIR]
    one = replace(found, ranks=found.ranks[[QUERY, QUERY]])
    return replace(run, ranked={(len(run.arrivals) - 1, PAIR): one}, pairs={PAIR: run.pairs[PAIR]})


def estimates(runs: Mapping[str, Sequence[FinishedRun]], metric: str) -> dict[str, Estimate]:
    """Strategy -> text-to-video recall at the end of a scenario."""
    asked = {name: [*map(from_text, runs[name])] for name in STRATEGIES if name in runs}
    draws = Draws([run for each in asked.values() for run in each])
    found = {
        name: Estimate.of(draws.scores(each, METRICS[metric])[:, -1, 0])
        for name, each in asked.items()
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def table(known: Runs, dataset: str) -> str:
    """Markdown: a row for each strategy, a column for each order and metric."""
    cells = {
        (order, metric): estimates(known[DATASETS[dataset] + order], name)
        for order in ORDERS
        for metric, name in RANKED.items()
    }
    heads = [f"{order.upper()} {metric}" for order, metric in cells]
    lines = [("strategy", *heads), (":--", *("--:" for _ in heads))]
    for strategy in STRATEGIES:
        found = [each.get(strategy) for each in cells.values()]
        if any(found):
            lines.append((f"`{strategy}`", *map(_shown, found)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.mean:.1f}±{50 * (estimate.high - estimate.low):.1f}"


def draw(known: Runs, path: Path) -> None:
    """Text-to-video R@1 of every strategy, a bar for each order."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (dataset, prefix) in zip(figure.subplots(1, 2), DATASETS.items(), strict=True):
        for place, order in enumerate(ORDERS):
            found = estimates(known[prefix + order], RANKED["R@1"])
            across = [number + 0.27 * (place - 1) for number in range(len(found))]
            means = [100 * one.mean for one in found.values()]
            ends = [
                [100 * abs(getattr(one, end) - one.mean) for one in found.values()]
                for end in ("low", "high")
            ]
            axes.bar(across, means, 0.25, yerr=ends, label=order.upper(), error_kw={"lw": 0.8})
        axes.set_xticks(range(len(found)), found, rotation=40, ha="right", fontsize=8)
        axes.set_title(dataset, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("text-to-video R@1 in %")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    known = grouped(read_exported(given.results))
    for dataset in DATASETS:
        print(f"{dataset}\n\n{table(known, dataset)}\n")
    if given.picture:
        draw(known, given.picture)


if __name__ == "__main__":
    main()
