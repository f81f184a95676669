"""Draw docs/merging.png: python benchmarks/merging/picture.py results.csv docs/merging.png."""

import sys
from pathlib import Path

import numpy as np
import tables
from matplotlib.axes import Axes
from matplotlib.figure import Figure

VIDEO, TEXT, AUDIO, NEVER = "#4c72b0", "#55a868", "#dd8452", "#8172b3"
ANGLES = np.array([0.35, 1.15, 2.1, 3.5, 4.6])  # of five texts in the first space
SHOWN = {
    "none_average": "plain\naverage",
    "transport_average": "transport,\naverage",
    "procrustes_keep_a": "rotation,\nkeep first",
    "procrustes_keep_both": "rotation,\nkeep both",
    "naive": "naive",
    "recommended": "recommended",
    "joint": "joint",
}
SCENARIO = "vt_at_merge"
PAIRS = {"old": ("video-text", VIDEO), "new": ("audio-text", AUDIO), "never paired": ("", NEVER)}


def spaces(axes: Axes) -> None:
    """Two spaces with texts in other places, one of which is turned."""
    axes.set(xlim=(-1.35, 4.9), ylim=(-1.75, 1.6), aspect="equal")
    axes.axis("off")
    for centre, turn, colour, shift, name in (
        (0.0, 0.0, VIDEO, 0.22, "first run"),
        (3.5, 1.4, AUDIO, -0.22, "second run"),
    ):
        round_ = np.linspace(0, 2 * np.pi, 200)
        axes.plot(centre + np.cos(round_), np.sin(round_), color="#999999", lw=1)
        texts, others = ANGLES + turn, ANGLES + turn + shift
        axes.scatter(centre + np.cos(texts), np.sin(texts), color=TEXT, s=42, zorder=3)
        axes.scatter(
            centre + np.cos(others), np.sin(others), color=colour, marker="s", s=34, zorder=3
        )
        for number, angle in enumerate(texts, start=1):
            place = centre + 0.72 * np.cos(angle), 0.72 * np.sin(angle)
            axes.text(*place, str(number), ha="center", va="center", fontsize=8, color=TEXT)
        axes.text(centre, 1.28, name, ha="center", fontsize=10)
    axes.annotate("", (1.25, 0), (2.25, 0), arrowprops={"arrowstyle": "-|>", "lw": 1.4})
    axes.text(1.75, 0.14, "turn by $Q$", ha="center", fontsize=10)
    for x, colour, mark, name in (
        (-0.7, VIDEO, "s", "video"),
        (0.75, TEXT, "o", "text, in both"),
        (2.9, AUDIO, "s", "audio"),
    ):
        axes.scatter([x], [-1.5], color=colour, marker=mark, s=40)
        axes.text(x + 0.15, -1.5, name, va="center", fontsize=9)


def bars(axes: Axes, recalls: tables.Recalls) -> None:
    """R@1 of three pairs for each way."""
    for place, (role, (name, colour)) in enumerate(PAIRS.items()):
        values = [recalls["plain", SCENARIO, strategy, role] for strategy in SHOWN]
        means = [np.mean([*each.values()]) for each in values]
        across = np.arange(len(SHOWN)) + 0.27 * (place - 1)
        label = f"{name}, {role}" if name else "video-audio, never paired"
        drawn = axes.bar(across, means, 0.27, color=colour, label=label)
        axes.bar_label(drawn, [f"{mean:.0f}" for mean in means], fontsize=7.5)
    axes.set_xticks(range(len(SHOWN)), [*SHOWN.values()], fontsize=8.5)
    axes.axvline(3.5, color="#cccccc", lw=1, ls="--")
    axes.set(ylabel="R@1 in %, test items", ylim=(0, 82))
    axes.set_title(f"{SCENARIO}; right of the line: trained in one space", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def main(results: Path, target: Path) -> None:
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.45])
    spaces(left)
    bars(right, tables.read(results))
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
