"""Adds depth to a space of pictures and captions: python benchmarks/depth/run.py FOLDER.

Runs go into FOLDER/runs, where those that are finished stay, and figures into FOLDER/results.csv.
"""

import csv
import sys
from hashlib import sha256
from itertools import product
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity

from continual_mm.data import registry
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.catalog import find
from continual_mm.runs.checkpoint import load_space
from continual_mm.runs.history import History
from continual_mm.runs.opening import open_scenario, open_strategy
from continual_mm.runs.run import run
from continual_mm.space.convolution import rescaled
from continual_mm.space.space import JointSpace

DATASETS = ("solids", "solids_with_gap")
STRATEGIES = {
    "freeze_cross_intra": (),
    "freeze_cross": (("cross_intra.intra", "0"),),
    "freeze": (),
    "cross_intra": (),
    "naive": (),
    "joint": (),
}
"""Row of the table -> settings of the strategy that it is called as."""
SEEDS = {
    "freeze_cross_intra": (0, 1, 2),
    "freeze_cross": (0, 1, 2),
    "freeze": (0, 1, 2),
    "cross_intra": (0, 1, 2),
    "naive": (0, 1, 2),
    "joint": (0, 1, 2),
}

PATHS = ("depth_classes", "depth_old_path", "depth_equal_paths", "depth_chosen_paths")


def main(folder: Path) -> None:
    """Train what is missing, and write all figures."""
    rows = []
    for name, dataset in product(STRATEGIES, DATASETS):
        for seed in SEEDS[name]:
            found = measured(folder / "runs" / dataset, dataset, name, seed)
            rows += [(dataset, name, seed, measure, f"{v:.6f}") for measure, v in found.items()]
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("dataset", "strategy", "seed", "measure", "value"))
        table.writerows(rows)


def measured(out: Path, dataset: str, name: str, seed: int) -> dict[str, float]:
    """The figures of one run, by measure."""
    scenario = open_scenario(find("scenarios", "solids"), [("dataset", dataset)]).scenario
    known = "freeze_cross_intra" if name == "freeze_cross" else name
    strategy = open_strategy(find("strategies", known), STRATEGIES[name])
    strategy = strategy.model_copy(update={"name": name})
    items = registry.load(dataset, standardise=False)
    history = run(scenario, strategy, items, out, seed=seed, device="cpu")
    last = {score.name: score for score in history.protocols if score.stage == 2}
    found = {path: last[path].measures["accuracy"] for path in PATHS}
    found |= {"image_classes": last["image_classes"].measures["accuracy"]}
    found["old_path_weight"] = last["depth_chosen_paths"].old_path or 0.0
    found["views_agree"] = agreement(history.space, items)
    if name != "joint":
        saved = out / scenario.name / name / f"seed-{seed}" / "checkpoints"
        before, after = (load_space(saved / f"stage-{n}").state_dict() for n in (1, 2))
        same = digest(before) == digest({key: after[key] for key in before})
        found |= {"image_classes_before": first_image(history), "same_hash": float(same)}
    return found


def first_image(history: History) -> float:
    """Accuracy of pictures before depth arrived."""
    scores = [s for s in history.protocols if (s.name, s.stage) == ("image_classes", 1)]
    return scores[0].measures["accuracy"]


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """A hash of all parameters and buffers."""
    found = sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def agreement(space: JointSpace, dataset: Dataset) -> float:
    """Mean cosine of test items' first views seen from a distance of 0.9 and of 1.1."""
    column = dataset.columns["depth"]
    rows = dataset.rows_of(Split.TEST)
    maps = torch.from_numpy(column.values[rows[column.present[rows]], :1])
    near, far = (
        space.encode("depth", rescaled(maps, torch.full((len(maps),), d))) for d in (0.9, 1.1)
    )
    return float(cosine_similarity(near, far).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
