"""Draw docs/adapters.png: python benchmarks/lora/picture.py docs/adapters.png."""

import sys
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from tables import BARE, DATA, SPACES, by_seed, chosen, read

TOWERS, PAIRS = {"video": 0.85, "text": 0.5, "audio": 0.15}, (("video", "text"), ("text", "audio"))
COLOURS = ("#e08214", "#8073ac")
SHOWN = {
    "one space": "one space",
    "joint_lora, rank 8": "adapters, rank 8",
    "three spaces": "three spaces",
}
METHODS = ("single ones, added (UME)", "joint, mean of logits", "MMLoRA, rank 8")


def main(target: Path) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=(1.25, 1, 1)
    )
    sketch(left)
    recalls(middle)
    accuracies(right)
    figure.savefig(target, dpi=90)


def sketch(axis: Axes) -> None:
    """Shared towers, and for two pairs an adapter beside each."""
    axis.axis("off")
    axis.set(xlim=(0, 1), ylim=(0, 1), title="each pair adapts the towers that all share")
    for name, height in TOWERS.items():
        box(axis, (0.02, height), f"{name} tower", "#dddddd", width=0.26)
    for (pair, colour), x in zip(zip(PAIRS, COLOURS, strict=True), (0.4, 0.62), strict=True):
        middle = mean(TOWERS[name] for name in pair)
        for name in pair:
            box(axis, (x, TOWERS[name]), "A, B", colour, width=0.13)
            axis.annotate(
                "", (0.85, middle), (x + 0.14, TOWERS[name]), arrowprops={"arrowstyle": "-"}
            )
        axis.text(0.86, middle, "-".join(pair), va="center", color=colour, weight="bold")
    for name, height in TOWERS.items():
        end = 0.62 if name == "audio" else 0.4
        axis.plot((0.29, end), (height, height), c="#888888", zorder=0)


def box(axis: Axes, place: tuple[float, float], text: str, colour: str, *, width: float) -> None:
    x, y = place
    shape = FancyBboxPatch((x, y - 0.06), width, 0.12, boxstyle="round,pad=0.01", fc=colour, ec="k")
    axis.add_patch(shape)
    axis.text(x + width / 2, y, text, ha="center", va="center", fontsize=9)


def recalls(axis: Axes) -> None:
    """R@1 of pairs, and of the bare towers."""
    values = read("pairs.csv", "data", "dim", "method", "measure")
    for number, (method, name) in enumerate(SHOWN.items()):
        heights = [100 * mean(by_seed(values[*space, method, "R@1 test"])) for space in SPACES]
        places = [place + 0.27 * (number - 1) for place in range(len(SPACES))]
        axis.bar(places, heights, 0.25, label=name)
        if (*SPACES[0], method, BARE) in values:
            bare = [100 * mean(by_seed(values[*space, method, BARE])) for space in SPACES]
            axis.plot(places, bare, "k_", ms=14, label="the same, bare")
    axis.set_xticks(range(len(SPACES)), [f"{data}\nD = {dim}" for data, dim in SPACES], fontsize=8)
    axis.set(title="R@1 in %, mean of three pairs", ylim=(0, 115))
    axis.legend(fontsize=7, loc="upper right", ncols=2)


def accuracies(axis: Axes) -> None:
    """Accuracy of classes by all modalities."""
    values = read("classes.csv", "data", "learning_rate", "method", "split", "scored")
    for number, method in enumerate(METHODS):
        heights = [
            100 * mean(by_seed(values[data, chosen(values, data, method), method, "test", "all"]))
            for data in DATA
        ]
        places = [place + 0.27 * (number - 1) for place in range(len(DATA))]
        drawn = axis.bar(places, heights, 0.25, label=method)
        axis.bar_label(drawn, fmt="%.1f", fontsize=7)
    axis.set_xticks(range(len(DATA)), DATA, fontsize=8)
    axis.set(title="classes: accuracy in %", ylim=(0, 140), yticks=range(0, 101, 20))
    axis.legend(fontsize=7, loc="upper right")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
