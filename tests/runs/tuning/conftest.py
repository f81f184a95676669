"""A small scenario whose runs are evaluated at known moments."""

import pytest

from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.definitions.scenario import Scenario, Stage, Training
from continual_mm.runs.specification import opened

MODALITIES = tuple(Modality(name, Kind.VECTOR, (4,)) for name in ("video", "audio", "text"))
CARD = DatasetCard("mine", MODALITIES, (9, 3, 3), "print")


@pytest.fixture(scope="session")
def small_scenario():
    """(name, steps, steps between evaluations) -> video and audio, then text, opened."""

    def make(name, steps, every=0):
        made = Scenario(
            name=name,
            training=Training(steps=steps, evaluate_every=every),
            stages=(
                Stage(add=("video", "audio")),
                Stage(add=("text",), pairs=("video-text",), steps=steps - 3),
            ),
        )
        return opened(made, CARD)

    return make
