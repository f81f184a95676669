"""At which drift of their transport plans old pairs lose recall; see docs/why-it-forgot.md.

python benchmarks/watch/run.py FOLDER     some ten minutes; runs lie there and are resumed

``results.csv`` has a row for each old pair at each evaluation after the first stage: the drift of
its plan on validation items, which no run reports otherwise, and the share of its recall at 1 on
test items that is lost since the end of the stage before.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import continual_mm as cm
from continual_mm.evaluation.drift import Drift, Geometry
from continual_mm.runs.history import curve

SCENARIOS = ("av_vt", "vt_at", "at_av")
STRATEGIES = ("naive", "slow", "replay", "ewc", "transport")
COLUMNS = ("scenario", "strategy", "seed", "pair", "step", "drift", "recall_before", "recall")


def rows(scenario: str, strategy: str, seed: int, folder: Path) -> Iterator[tuple[object, ...]]:
    """Of one run: drift on validation items, recall on test items."""
    defined = cm.load_scenario(scenario, {"training.evaluate_every": 30})
    seen: list[Geometry] = []
    history = cm.run(
        defined,
        cm.load_strategy(strategy),
        cm.load_dataset(defined),
        folder,
        seed=seed,
        device="cpu",
        board=False,
        observers=[Drift(seen.append, split="validation")],
    )
    for pair in map(str, history.roles.old):
        points = {(p.stage, p.step): p for p in curve(history.scores, pair, split="test")}
        ends = [p for p in points.values() if p.final and p.stage == 1]
        for one in seen:
            point = points.get((one.stage, one.step))
            if one.stage > 1 and point and pair in one.plan_drift:
                yield (
                    scenario,
                    strategy,
                    seed,
                    pair,
                    one.step,
                    one.plan_drift[pair],
                    ends[-1].recall,
                    point.recall,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed in asked.seeds:
            for scenario in SCENARIOS:
                for strategy in STRATEGIES:
                    writer.writerows(rows(scenario, strategy, seed, asked.folder / "runs"))
                    stream.flush()


if __name__ == "__main__":
    main()
