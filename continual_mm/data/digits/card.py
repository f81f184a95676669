"""What the dataset contains, known without scikit-learn and without numpy."""

from dataclasses import replace

from continual_mm.definitions.modality import DatasetCard, Kind, Modality

VERSION = 1  # goes up whenever a byte of the dataset changes; cached files carry it in their name

CARD = DatasetCard(
    name="digits",
    modalities=tuple(Modality(name, Kind.VECTOR, (16,)) for name in ("nw", "ne", "sw", "se")),
    items=(1297, 200, 300),
    fingerprint=f"digits-v{VERSION}",
    has_labels=True,
)

NAMED = replace(
    CARD,
    name="named_digits",
    modalities=(*CARD.modalities, Modality("name", Kind.VECTOR, (10,))),
    items=(1297, 200, 310),
    fingerprint=f"named_digits-v{VERSION}",
    presence=(((*CARD.names, "name"), CARD.items), (("name",), (0, 0, 10))),
)
"""The same with the names of the digits, a number for each class, beside every image; and ten more
test items that have the name alone, for protocols of kind ``classes``."""
