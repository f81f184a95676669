"""What the dataset and its halves contain, known without generating it and without numpy."""

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


def _half(name: str, *modalities: str) -> DatasetCard:
    training, validation, test = (count // 2 for count in CARD.items)
    return DatasetCard(
        name=name,
        modalities=tuple(CARD[modality] for modality in modalities),
        items=(training, validation, test),
        fingerprint=f"{name}-v{VERSION}-seed0",
    )


SOUND = _half("shapes_with_sound", "video", "audio")
CAPTIONS = _half("shapes_with_captions", "video", "text")
"""Two datasets that share no item: every other clip without its caption, the others silent."""
