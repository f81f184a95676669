"""The picture of docs/depth.md: python benchmarks/depth/picture.py FILE.png."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from continual_mm.data.solids.generate import make_object

SHAPES = ("cone", "ring", "table", "stairs")
VIEW = 0


def main(path: Path) -> None:
    """Draw a picture, the same with the gap, and three depth maps of a solid in each row."""
    objects = {}
    for index in range(200):
        made = make_object(index)
        if made.solid.proportion == "even" and made.solid.pose == "standing":
            objects.setdefault(made.solid.shape, index)
    figure, axes = plt.subplots(2, 10, figsize=(10, 2.2), dpi=110)
    for place, shape in enumerate(SHAPES):
        plain, gap = (make_object(objects[shape], gap=each) for each in (False, True))
        row, left = axes[place // 2], 5 * (place % 2)
        shown = (plain.image[VIEW], gap.image[VIEW], *plain.depth[[0, 1, 4]])
        heads = ("picture", "with gap", "depth", "from the side", "from above")
        for axis, image, head in zip(row[left : left + 5], shown, heads, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if place < 2:
                axis.set_title(head, fontsize=8)
        row[left].set_ylabel(shape, fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
