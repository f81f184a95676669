"""From the protocols of a scenario to judges, with their datasets loaded and checked."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from continual_mm.complaint import Complaint, RefusedError, suggestion
from continual_mm.data import registry as datasets
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario
from continual_mm.modality import Modality
from continual_mm.protocol_definitions import Protocol
from continual_mm.runs.protocols.annotations import annotations_of
from continual_mm.runs.protocols.classes import Classes
from continual_mm.runs.protocols.judge import Judge
from continual_mm.runs.protocols.misfits import SCORED, misfits
from continual_mm.runs.protocols.retrieval import Retrieval, VideoRetrieval
from continual_mm.runs.protocols.steps import Steps

Scored = Mapping[str, Dataset]
"""Name of a protocol -> the dataset whose test items it scores."""
NOTHING: Scored = MappingProxyType({})


def load_scored(
    scenario: Scenario, dataset: Dataset, given: Scored = NOTHING
) -> dict[str, Dataset]:
    """The dataset of every protocol, standardised as the items that are trained on.

    Args:
        scenario: The definition.
        dataset: What is trained on.
        given: Datasets that are there already; they stay as they are.

    Raises:
        RefusedError: If a dataset is not there or unsound, or is given for no protocol.
    """
    known = [protocol.name for protocol in scenario.protocols]
    if strange := [name for name in given if name not in known]:
        problem = f"no protocol {strange[0]!r} in scenario '{scenario.name}'"
        remedy = f"{suggestion(strange[0], known)}there are {', '.join(known) or 'none'}"
        raise RefusedError(Complaint("scored", problem, remedy))
    found = dict(given)
    for protocol in scenario.protocols:
        if protocol.name in found:
            continue
        if not protocol.dataset:
            found[protocol.name] = dataset
            continue
        # One copy for all protocols of a dataset, with whatever any of them looks at standardised.
        same = [one for one in scenario.protocols if one.dataset == protocol.dataset]
        names = {name for one in same for name in one.modalities}
        statistics = {name: by for name, by in dataset.statistics.items() if name in names}
        folder = Path(scenario.folder)
        loaded = datasets.load(
            protocol.dataset, folder=folder, standardise=statistics, splits=SCORED
        )
        found |= {one.name: loaded for one in same if one.name not in found}
    return found


def open_judges(
    scenario: Scenario, dataset: Dataset, modalities: Iterable[Modality], given: Scored = NOTHING
) -> tuple[Judge, ...]:
    """A judge for each protocol of a scenario.

    Args:
        scenario: The definition.
        dataset: What is trained on.
        modalities: Everything that arrives.
        given: Datasets that are there already.

    Raises:
        RefusedError: With everything that keeps protocols from being scored.
    """
    known, scored = tuple(modalities), load_scored(scenario, dataset, given)
    judges: list[Judge] = []
    complaints: list[Complaint] = []
    for protocol in scenario.protocols:
        place = f"scenario '{scenario.name}', protocol '{protocol.name}'"
        items = scored[protocol.name]
        wrong = [*misfits(protocol, items.card, known, place, trained=dataset.card)]
        complaints += wrong
        if wrong:
            continue
        try:
            judges.append(_judge(scenario, protocol, items, place))
        except RefusedError as error:
            complaints += error.complaints
    if complaints:
        raise RefusedError(complaints)
    return tuple(judges)


def _judge(scenario: Scenario, protocol: Protocol, items: Dataset, place: str) -> Judge:
    if protocol.kind == "steps":
        annotations = annotations_of(protocol, scenario.folder)
        return Steps(protocol, items, place, annotations=annotations)
    kinds = {"retrieval": Retrieval, "video_retrieval": VideoRetrieval, "classes": Classes}
    return kinds[protocol.kind](protocol, items, place)
