"""The dataset that a finished run was trained on, found again and checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from continual_mm.data import corpora
from continual_mm.data.cards import missing_published
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import DatasetCard
from continual_mm.space.statistics import Statistics, same
from continual_mm.system.errors import InputError

SHOWN = 16  # characters of a fingerprint

_REMEDY = "give --dataset PATH, of several datasets once for each"


def dataset_of(
    definition: Mapping[str, Any],
    given: Dataset | str | Path | Sequence[str | Path] | None = None,
    *,
    known: Mapping[str, Statistics | None] = MappingProxyType({}),
) -> Dataset:
    """Load what a run was trained on, standardised as it was there.

    A run does not record in which folder a file lay; a relative path starts where the user stands.

    Args:
        definition: What is in the run's ``definition.json``.
        given: The dataset, or where it lies, of several each in the order in which the scenario
            names them; what the run names, if left out.
        known: By what the run's space standardises its modalities.

    Raises:
        InputError: If it is not there, or another dataset than the run's.
    """
    if isinstance(given, Dataset):
        _check_same(given.card, definition)
        for name in given.columns:
            if name in known and not same(known[name], given.statistics.get(name)):
                message = f"{name} is not standardised as in the run"
                remedy = "read it with standardise=open_run(...).statistics"
                raise InputError.at(f"dataset {given.card.name!r}", message, remedy)
        return given
    scenario = definition["scenario"]
    places = [given] if isinstance(given, str | Path) else [*(given or ())]
    names = [str(place) for place in places if str(place)] or named_datasets(scenario)
    if not names:
        place = f"dataset {definition['data']['name']!r}"
        message = "was given to the run as an object, so that the run does not know where it lies"
        raise InputError.at(place, message, "give the dataset, from Python, or --dataset PATH")
    if lacking := missing_published(names):
        raise InputError(lacking)
    try:
        card = corpora.card(names)
    except InputError as error:
        if given:
            raise
        message = "no file or folder of this name here, and the run was trained on it"
        raise InputError.at(f"dataset {', '.join(map(repr, names))}", message, _REMEDY) from error
    _check_same(card, definition)
    wanted = scenario.get("standardise", True)
    wanted = wanted if isinstance(wanted, bool) else tuple(wanted)
    return corpora.load(names, standardise=wanted, known=known)


def named_datasets(scenario: Mapping[str, Any]) -> list[str]:
    """The datasets that a scenario was trained on, as it names them."""
    stages = (stage.get("dataset") for stage in scenario.get("stages", ()))
    return [name for name in dict.fromkeys((scenario.get("dataset"), *stages)) if name]


def _check_same(card: DatasetCard, definition: Mapping[str, Any]) -> None:
    name, expected = definition["data"]["name"], definition["data"]["fingerprint"]
    if card.fingerprint != expected:
        place = f"dataset {card.name!r} ({card.fingerprint[:SHOWN]})"
        message = f"is not what the run was trained on, {name!r} ({expected[:SHOWN]})"
        raise InputError.at(place, message, "give --dataset PATH of the same data")
