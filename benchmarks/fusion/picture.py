"""Draw docs/fusion.png: python benchmarks/fusion/picture.py RESULTS.csv docs/fusion.png."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from tables import SPACES, read

COLOURS = {"text": "#d6604d", "video": "#4393c3", "audio": "#5aae61"}
TOKENS = {"text": 3, "video": 4, "audio": 2}


def main(results: Path, target: Path) -> None:
    figure, (scheme, bars) = plt.subplots(
        1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(1.5, 1)
    )
    _scheme(scheme)
    _bars(bars, results)
    figure.savefig(target, dpi=90)


def _scheme(axis: Axes) -> None:
    """Two modalities meet in the transformer; the third goes through it alone."""
    axis.set(xlim=(0, 10), ylim=(0, 6.2))
    axis.axis("off")
    for left, names in ((0.2, ("text",)), (4.2, ("video", "audio"))):
        width = 3.2 if len(names) == 1 else 5.4
        axis.add_patch(plt.Rectangle((left, 2.6), width, 0.8, fc="#eeeeee", ec="#555555"))
        axis.text(left + width / 2, 3.0, "transformer", ha="center", va="center")
        place = left + 0.3
        for name in names:
            middle = place + 0.6 * (TOKENS[name] - 1) / 2 + 0.2
            for step in range(TOKENS[name]):
                corner = (place + 0.6 * step, 1.5)
                axis.add_patch(plt.Rectangle(corner, 0.4, 0.4, fc=COLOURS[name], ec="none"))
                _arrow(axis, (corner[0] + 0.2, 1.95), (corner[0] + 0.2, 2.55))
            axis.text(middle, 0.9, name, ha="center", va="center", color=COLOURS[name])
            _arrow(axis, (middle, 3.45), (middle, 3.95))
            axis.text(middle, 4.2, "mean, unit", ha="center", va="center", fontsize=8)
            _arrow(axis, (middle, 4.45), (left + width / 2, 5.1))
            place += 0.6 * TOKENS[name] + 0.6
        label = "+".join(names)
        axis.text(left + width / 2, 5.4, f"$e_{{{label}}}$", ha="center", fontsize=12)
    both = {"arrowstyle": "<->", "color": "#555555"}
    axis.annotate("", (2.5, 5.5), (5.6, 5.5), arrowprops=both)
    axis.text(4.05, 5.7, "contrast", ha="center", fontsize=9)
    axis.text(5, 0.25, "the same weights; a modality that an item lacks has no tokens", ha="center")


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#777777", "lw": 0.8})


def _bars(axis: Axes, results: Path) -> None:
    """Captions against video and sound together, with and without missing parts."""
    values = read(results)
    names = [name.replace("`", "").replace(", ", "\n") for name in SPACES.values()]
    for shift, measure, label in ((0.2, "both", "all there"), (-0.2, "lacking", "30 % lack one")):
        seeds = [values["avt", space, "naive", measure] for space in SPACES]
        means = [sum(each) / len(each) for each in seeds]
        heights = [place + shift for place in range(len(names))]
        axis.barh(heights, means, 0.38, label=label, color="#2166ac" if shift > 0 else "#92c5de")
        for height, each in zip(heights, seeds, strict=True):
            axis.plot(each, [height] * len(each), "k.", ms=4)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="R@1 of captions among video + sound, %")
    axis.legend(fontsize=8, loc="lower right")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
