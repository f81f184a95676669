"""What decides the numbers of protocols, for the definition of a run; needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Scenario
from continual_mm.modality import DatasetCard
from continual_mm.runs.files import checksum
from continual_mm.runs.protocols.annotations import annotations_of
from continual_mm.runs.protocols.misfits import card_of

Cards = Mapping[str, DatasetCard]
"""Name of a protocol -> the card of the dataset that it scores."""
NO_CARDS: Cards = MappingProxyType({})


def identity(scenario: Scenario, own: DatasetCard, cards: Cards = NO_CARDS) -> list[dict[str, Any]]:
    """The protocols of a scenario; where their files lie does not count, but what is in them.

    Args:
        scenario: The definition.
        own: The card of what is trained on.
        cards: Of datasets that are loaded already.

    Raises:
        RefusedError: If a dataset or a file of annotations is not there.
    """
    found = []
    for protocol in scenario.protocols:
        card = cards.get(protocol.name) or card_of(protocol, scenario, own)
        said = protocol.model_dump(mode="json", exclude={"dataset", "annotations"})
        said["data"] = {"name": card.name, "fingerprint": card.fingerprint}
        if protocol.kind == "steps":
            said["annotations"] = _checksum(annotations_of(protocol, scenario.folder))
        found.append(said)
    return found


def _checksum(path: Path) -> str:
    try:
        return checksum(path)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise RefusedError(Complaint(str(path), problem, "give the file of annotations")) from error
