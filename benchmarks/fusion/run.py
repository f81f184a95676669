"""Two kinds of space under five strategies, and what fusing brings; see docs/fusion.md.

python benchmarks/fusion/run.py FOLDER --seeds 0 1     about a quarter of an hour

Runs lie in the folder, where they are resumed; results.csv there has a row for each figure.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import numpy as np

import continual_mm as cm
from continual_mm.data.registry import load
from continual_mm.definitions.catalog import find
from continual_mm.runs.history import History
from continual_mm.runs.opening import open_strategy

DATASET = "narrated_shapes"
ORDERS = {"vt_a": (("video", "text"), ("audio",)), "av_t": (("video", "audio"), ("text",))}
TOGETHER = (("video", "audio", "text"),)
STRATEGIES = ("naive", "freeze", "replay", "recommended", "joint")
KINDS = {
    "mcn": {"dim": 256, "clusters": 64},
    "fusion": {"kind": "fusion", "dim": 256, "token_width": 64},
}
VARIANTS = {
    **KINDS,
    "fusion_pairs": {**KINDS["fusion"], "larger_side": 1},
    "fusion_late": {**KINDS["fusion"], "blocks": 0},
}
LACKING = 0.15  # of the gallery's items lack their video, as many others their sound
BOTH = ("video", "audio")
COLUMNS = ("order", "space", "strategy", "seed", "measure", "value")


@dataclass(frozen=True)
class Job:
    """One run but for its seed."""

    order: str
    space: str
    strategy: str
    stages: tuple[tuple[str, ...], ...]
    steps: int

    @property
    def scenario(self) -> cm.Scenario:
        asks = {"query": ("text",), "gallery": BOTH}
        return cm.Scenario(
            name=f"{self.order}-{self.space}",
            dataset=DATASET,
            space=cm.SpaceSettings(**VARIANTS[self.space]),
            training=cm.Training(steps=self.steps, batch_size=128, learning_rate=2e-3),
            stages=tuple(cm.Stage(add=names) for names in self.stages),
            protocols=(
                cm.Protocol(name="both", **asks),
                cm.Protocol(name="lacking", dataset="lacking", partial=True, **asks),
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=150, help="of a stage")
    parser.add_argument("--orders", nargs="+", default=["avt", *ORDERS], choices=["avt", *ORDERS])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    dataset = load(DATASET)
    options = {"scored": {"lacking": with_missing_parts(dataset)}, "device": "cpu", "board": False}
    with (asked.folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed in asked.seeds:
            for job in (each for each in jobs(asked.steps) if each.order in asked.orders):
                strategy = open_strategy(find("strategies", job.strategy))
                history = cm.run(
                    job.scenario, strategy, dataset, asked.folder / "runs", seed=seed, **options
                )
                for measure, value in figures(history):
                    row = (job.order, job.space, job.strategy, seed, measure, round(value, 6))
                    writer.writerow(row)
                    print(*row, flush=True)
                stream.flush()


def jobs(steps: int) -> Iterator[Job]:
    """Everything at once in all variants of the space, then both orders under all strategies."""
    for space in VARIANTS:
        yield Job("avt", space, "naive", TOGETHER, 2 * steps)
    for order, stages in ORDERS.items():
        for strategy in STRATEGIES:
            for space in KINDS:
                yield Job(order, space, strategy, stages, steps)


def with_missing_parts(dataset: cm.Dataset) -> cm.Dataset:
    """The test items; some lack their video, others their sound."""
    raw = load(DATASET, standardise=False)
    rows = np.flatnonzero(raw.split == 2)
    drawn = np.random.default_rng(0).random(len(rows))
    lacks = {"video": drawn < LACKING, "audio": drawn > 1 - LACKING}
    columns = {name: raw.columns[name] for name in ("text", *BOTH)}
    return cm.Dataset.from_arrays(
        {name: column.values[rows] for name, column in columns.items()},
        lengths={name: column.lengths[rows] for name, column in columns.items()},
        kinds={name: column.modality.kind for name, column in columns.items()},
        present={name: ~each for name, each in lacks.items()},
        split=[2] * len(rows),
        splits=["test"],
        standardise=dataset.statistics,
    )


def figures(history: History) -> Iterator[tuple[str, float]]:
    """R@1 of pairs at the end, of old ones before the last stage, and of captions to both."""
    for pair, role in history.roles.by_pair.items():
        yield f"{role} {pair}", history.recall(str(pair))
        before = history.recall(str(pair), stage=1) if len(history.arrivals) > 1 else nan
        if role == "old" and not isnan(before):  # joint training has one stage
            yield f"before {pair}", before
    for one in history.protocols:
        if one.stage == len(history.arrivals):
            yield one.name, one.measures["recall@1"]


if __name__ == "__main__":
    main()
