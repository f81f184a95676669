"""What is wrong with the items that a scenario uses, all of which are read for it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from continual_mm.data import corpora
from continual_mm.data import registry as datasets
from continual_mm.data.cards import missing_published
from continual_mm.definitions.catalog import Entry
from continual_mm.definitions.modality import SPLITS
from continual_mm.definitions.scenario import Scenario
from continual_mm.evaluation.checks import SCORED
from continual_mm.runs.origin import weights_file
from continual_mm.runs.specification import OpenedScenario
from continual_mm.system.errors import InputError, Problem, Problems
from continual_mm.system.memory import gigabytes

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset

LARGEST_STORE = 20_000_000_000
"""Bytes of a store that are read to check it: some minutes' worth."""

MOST_COMPARED = 4_000_000_000
"""Bytes of test items that are searched for what is the same: some seconds' worth."""


def data_problems(opened: OpenedScenario) -> tuple[list[Problem], list[str]]:
    """What is wrong with a scenario's items, and notes on what repeats and what was not read.

    Datasets that come with the project are sound, and those that are not here cannot be read. torch
    is imported for stores, and for protocols, which are opened as a run opens them.
    """
    scenario, problems, notes = opened.scenario, Problems(), list[str]()
    folder = Path(scenario.folder)
    missing = {name for name in scenario.datasets if missing_published([name])}
    absent, trained = missing | set(datasets.REGISTERED), set(scenario.corpora)
    if trained <= absent or trained & missing:
        # What protocols score is standardised as the training items are.
        return problems, notes
    with problems.collected():
        dataset = corpora.load(
            scenario.corpora,
            folder=folder,
            standardise=scenario.standardise,
            known=opened.known,
        )
    for name in scenario.datasets:
        if name in absent:
            continue
        with problems.collected():
            notes += _verified(name, folder)
        if name not in trained:
            with problems.collected():
                datasets.load(name, folder=folder, standardise=False, splits=SCORED)
    if not problems and not scenario.space.reference:
        notes += repeated(dataset, [one.name for one in opened.arrivals[-1].available])
    problems += _wrong_weights(scenario)
    if problems or not scenario.protocols or absent & set(scenario.datasets):
        return problems, notes
    from continual_mm.evaluation.protocols import load_scored, open_judges  # noqa: PLC0415 - torch

    with problems.collected():
        scored = load_scored(scenario, dataset)
        open_judges(scenario, dataset, opened.arrivals[-1].available, scored)
    return problems, notes


def _wrong_weights(scenario: Scenario) -> Problems:
    problems = Problems()
    for tower in scenario.towers.values():
        if tower.weights:
            from continual_mm.data.weights import read_weights  # noqa: PLC0415 - torch

            with problems.collected():
                read_weights(weights_file(scenario, tower))
    return problems


def repeated(dataset: "Dataset", modalities: Iterable[str]) -> Iterator[str]:
    """A note for each modality that several test items show the same of, and what becomes of it."""
    import numpy as np  # noqa: PLC0415 - with the next a tenth of a second, which cards need not

    from continual_mm.data.columns import digests_of  # noqa: PLC0415
    from continual_mm.data.dataset import Split  # noqa: PLC0415

    for name in modalities:
        column = dataset.columns[name]
        rows = np.flatnonzero(column.present & (dataset.split == Split.TEST))
        if 4 * int(column.valid[rows].sum()) * column.modality.features > MOST_COMPARED:
            continue
        different = len(set(digests_of(column, rows)))
        if different < len(rows):
            yield (
                f"{len(rows):,} test items have {different:,} different {name}: what is the same"
                " is asked and listed once, and all items that have it answer"
            )


def named_data_problems(entry: Entry) -> list[Problem]:
    """What is wrong with the items of datasets that a scenario file names, itself sound or not.

    Nothing, where it names none that can be found, which is a problem of the file.
    """
    problems, stages = Problems(), entry.document.get("stage")
    tables = [entry.document, *(stages if isinstance(stages, list) else ())]
    named = [table.get("dataset") for table in tables if isinstance(table, Mapping)]
    names = dict.fromkeys(name for name in named if isinstance(name, str) and name)
    needed = SPLITS if len(names) == 1 else ()
    for name in names:
        if name in datasets.REGISTERED:
            continue
        with suppress(InputError):
            datasets.located(name, folder=entry.path.parent)
            with problems.collected(str(entry)):
                datasets.load(name, folder=entry.path.parent, standardise=False, splits=needed)
    return problems


def _verified(name: str, folder: Path) -> list[str]:
    """Compare a store with its fingerprint; a note where it is too large for that."""
    path = datasets.located(name, folder=folder)
    if not path.is_dir():
        return []
    size = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    if size > LARGEST_STORE:
        return [f"'{name}' has {gigabytes(size)}, of which the features were not read"]
    from continual_mm.data.store.reader import verify_store  # noqa: PLC0415 - torch

    verify_store(path)
    return []
