"""Data that were read in another mode than that of the space that learns them."""

from collections.abc import Iterator

from continual_mm.definitions import Scenario
from continual_mm.modality import DatasetCard
from continual_mm.runs.protocols.misfits import card_of

_REMEDIES = {
    "reference": "to come close to published numbers, convert it with --reference",
    "robust": "convert it without --reference to have it without the published mistakes",
}


def strangers(scenario: Scenario, card: DatasetCard) -> Iterator[str]:
    """A sentence for each dataset of a scenario whose mode is not that of its space.

    Args:
        scenario: The definition, whose datasets are there or known.
        card: Of what is trained on.
    """
    mode = scenario.space.mode
    known = [card, *(card_of(protocol, scenario, card) for protocol in scenario.protocols)]
    for one in {each.fingerprint: each for each in known}.values():
        if one.provenance and one.provenance.mode != mode:
            yield (
                f"dataset '{one.name}' was read in {one.provenance.mode} mode, but the space of"
                f" '{scenario.name}' is in {mode} mode; {_REMEDIES[mode]}"
            )
