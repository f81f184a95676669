"""What the dataset contains, known without generating it and without numpy."""

from continual_mm.definitions.modality import DatasetCard, Kind, Modality

VERSION = 2  # goes up whenever a byte of the dataset changes; cached files carry it in their name

CARD = DatasetCard(
    name="narrated_shapes",
    modalities=(
        Modality("video", Kind.FRAMES, (12, 54)),
        Modality("audio", Kind.SPECTROGRAM, (31, 40)),
        Modality("text", Kind.TOKENS, (12, 32)),
    ),
    items=(2000, 200, 400),
    fingerprint=f"narrated_shapes-v{VERSION}-seed0",
)
