"""Optuna's journal of a search: opened with what a kill cut off removed, damage refused."""

from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from continual_mm.system.errors import InputError

REMEDY = "remove it: finished runs are kept, and the same command records their trials anew"


def open_study(path: Path) -> optuna.Study:
    """The study in a journal, begun anew if there is none; called by one process at a time.

    Raises:
        InputError: If the journal is damaged. A line whose end is missing is no damage: it was
            being written when the process was killed, and is removed.
    """
    _remove_unfinished_line(path)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        # Nothing is left to this sampler: what is tried is decided before Optuna is asked.
        study = optuna.create_study(
            storage=storage,
            sampler=RandomSampler(),
            study_name="tuning",
            direction="maximize",
            load_if_exists=True,
        )
        study.get_trials(deepcopy=False)
    except OSError:
        raise
    except Exception as error:  # whatever Optuna meets in lines that it did not write
        raise InputError.at(path, "is damaged", REMEDY) from error
    return study


def _remove_unfinished_line(path: Path) -> None:
    """Optuna would write on behind it, and read neither line again."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        position = kept = 0
        for line in file:
            position += len(line)
            kept = position if line.endswith(b"\n") else kept
        if kept < position:
            file.truncate(kept)
