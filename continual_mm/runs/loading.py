"""Definitions and datasets by their names or files, for Python."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual_mm.data import registry
from continual_mm.definitions import catalog
from continual_mm.definitions.scenario import Scenario, Strategy
from continual_mm.runs import opening
from continual_mm.system.arguments import checked_arguments

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset

NOTHING: Mapping[str, Any] = {}


@checked_arguments
def load_scenario(
    name: str | os.PathLike[str], settings: Mapping[str, object] = NOTHING
) -> Scenario:
    """A shipped scenario by its name, or one of your own by its file.

    Args:
        name: Such as ``av_vt`` or ``mine.toml``.
        settings: What ``--set`` says on the command line: ``{"training.steps": 50}``.

    Raises:
        InputError: With everything that is wrong, also with its dataset.
    """
    entry = catalog.find("scenarios", os.fspath(name))
    return opening.open_scenario(entry, _given(settings)).scenario


@checked_arguments
def load_strategy(
    name: str | os.PathLike[str], settings: Mapping[str, object] = NOTHING
) -> Strategy:
    """A shipped strategy by its name, or one of your own by its file; see :func:`load_scenario`.

    Raises:
        InputError: With everything that is wrong.
    """
    entry = catalog.find("strategies", os.fspath(name))
    return opening.open_strategy(entry, _given(settings))


@checked_arguments
def load_dataset(dataset: str | os.PathLike[str] | Scenario) -> "Dataset":
    """The dataset of a name or path, or that of a scenario, standardised as it says.

    Raises:
        InputError: If there is none, or it is not as it must be.
    """
    if not isinstance(dataset, Scenario):
        return registry.load(os.fspath(dataset))
    return registry.load(
        dataset.dataset, folder=Path(dataset.folder), standardise=dataset.standardise
    )


def _given(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Settings as the command line has them."""
    return [(key, _text(value)) for key, value in settings.items()]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
