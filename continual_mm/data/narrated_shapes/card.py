"""What the dataset contains, known without generating it and without numpy."""

from continual_mm.modality import DatasetCard, Kind, Modality

VERSION = 1
"""Goes up whenever one byte of the dataset changes; it names the cached file."""

CARD = DatasetCard(
    name="narrated_shapes",
    modalities=(
        Modality("video", Kind.FRAMES, (12, 54)),
        Modality("audio", Kind.SPECTROGRAM, (61, 40)),
        Modality("text", Kind.TOKENS, (13, 32)),
    ),
    items=(2000, 200, 400),
    fingerprint=f"narrated_shapes-v{VERSION}-seed0",
)
