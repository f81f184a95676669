"""What the datasets contain, known without generating them and without numpy."""

from continual_mm.definitions.modality import DatasetCard, Kind, Modality

VERSION = 1  # goes up whenever a byte of a dataset changes; cached files carry it in their name

SIDE = 24  # pixels
VIEWS = 6
CLASSES = (
    "ball",
    "cube",
    "cylinder",
    "cone",
    "ring",
    "pyramid",
    "diamond",
    "bowl",
    "tube",
    "cross",
    "stairs",
    "table",
)
"""The solids, in the order of their labels."""

_OBJECTS = (1400, 200, 400)  # per split; besides, a test item for each class, its name alone


def _card(name: str) -> DatasetCard:
    training, validation, test = _OBJECTS
    return DatasetCard(
        name=name,
        modalities=(
            Modality("image", Kind.FRAMES, (VIEWS, SIDE, SIDE)),
            Modality("depth", Kind.FRAMES, (VIEWS, SIDE, SIDE)),
            Modality("text", Kind.TOKENS, (4, 32)),
        ),
        items=(training, validation, test + len(CLASSES)),
        fingerprint=f"{name}-v{VERSION}-seed0",
        has_labels=True,
        presence=(
            (("image", "depth", "text"), _OBJECTS),
            (("text",), (0, 0, len(CLASSES))),
        ),
    )


CARD = _card("solids")
GAP = _card("solids_with_gap")
"""The same solids; in the second, pictures are negatives on grey of any lightness, with noise."""
