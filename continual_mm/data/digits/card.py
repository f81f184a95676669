"""What the dataset contains, known without scikit-learn and without numpy."""

from continual_mm.definitions.modality import DatasetCard, Kind, Modality

VERSION = 1  # goes up whenever a byte of the dataset changes; cached files carry it in their name

CARD = DatasetCard(
    name="digits",
    modalities=tuple(Modality(name, Kind.VECTOR, (16,)) for name in ("nw", "ne", "sw", "se")),
    items=(1297, 200, 300),
    fingerprint=f"digits-v{VERSION}",
    has_labels=True,
)
