"""Loggers that get every number of the board: CSV files, Weights & Biases, MLflow."""

import csv
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from continual_mm.learning.avalanche import BaseLogger
from continual_mm.system.errors import InputError, first_line, suggestion
from continual_mm.system.files import atomic_write, writing
from continual_mm.system.imports import check_installed

CSV = "curves.csv"
PROJECT = "continual-mm"
TRACKING = "sqlite:///mlflow.db"  # where MLflow writes if MLFLOW_TRACKING_URI does not say
HEADINGS = ("step", "name", "value")


class CsvLogger(BaseLogger):
    """Writes ``step,name,value`` lines into a file, those of steps until now kept.

    Args:
        path: The file.
        done: Optimiser steps that the run had made when it was begun or resumed; what an earlier
            process wrote of later ones is dropped, and nothing is written twice.
    """

    def __init__(self, path: Path, *, done: int = 0) -> None:
        super().__init__()
        self._path = path
        kept = [row for row in _rows(path) if int(row[0]) <= done]
        self._there = {(row[0], row[1]) for row in kept if int(row[0]) == done}
        with atomic_write(path) as temporary, temporary.open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([HEADINGS, *kept])
        with writing(path):
            self._file = path.open("a", newline="", encoding="utf-8")
        self._lines = csv.writer(self._file, lineterminator="\n")
        self._step = done

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Write a number; figures are left out."""
        row = (str(x_plot), name, value)
        if isinstance(value, int | float) and row[:2] not in self._there:
            with writing(self._path):
                if x_plot != self._step:  # a killed process leaves whole steps behind
                    self._file.flush()
                    self._step = x_plot
                self._lines.writerow(row)

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        with writing(self._path):
            self._file.close()


def _rows(path: Path) -> list[list[str]]:
    """The lines that an earlier process wrote whole."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = csv.reader(whole.splitlines())
    return [row for row in rows if len(row) == len(HEADINGS) and row[0].isdigit()]


class MLflowLogger(BaseLogger):
    """Writes a run of MLflow, in a database or to a server.

    ``@`` in names, which MLflow does not allow, is ``_at_``.

    Args:
        name: Of the run: ``<scenario>/<strategy>/seed-<seed>``.
        settings: What the run was begun with.
        identity: Equal for a run that is resumed, which is then gone on with.
        uri: Where; the variable MLFLOW_TRACKING_URI, or a file ``mlflow.db``, if left out.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], *, identity: str = "", uri: str = ""
    ) -> None:
        super().__init__()
        from mlflow import MlflowClient  # noqa: PLC0415 - an extra

        self._client = MlflowClient(uri or os.environ.get("MLFLOW_TRACKING_URI") or TRACKING)
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        found = self._client.search_runs(
            [experiment], filter_string=f"tags.continual_mm = '{identity}'", max_results=1
        )
        run = (
            found[0]
            if identity and found
            else self._client.create_run(experiment, run_name=name, tags={"continual_mm": identity})
        )
        self._run = run.info.run_id
        if not run.data.params:
            for key, value in settings.items():
                self._client.log_param(self._run, key, value)

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Write a number; figures are left out."""
        if isinstance(value, int | float) and math.isfinite(value):
            self._client.log_metric(self._run, name.replace("@", "_at_"), value, step=x_plot)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


class WandbLogger(BaseLogger):
    """Writes a run of Weights & Biases. Avalanche's own logger fails with its versions of today.

    Args:
        name: Of the run: ``<scenario>/<strategy>/seed-<seed>``.
        settings: What the run was begun with.
        identity: Equal for a run that is resumed, which is then gone on with.
        folder: Where its local files go.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], *, identity: str, folder: Path
    ) -> None:
        super().__init__()
        import wandb  # noqa: PLC0415 - an extra

        self._picture = wandb.Image
        self._run = wandb.init(
            project=PROJECT,
            name=name,
            config=dict(settings),
            dir=str(folder),
            id=identity,
            resume="allow",
            reinit="finish_previous",
        )
        self._last = 0

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Write a number or a figure; steps of Weights & Biases never go back."""
        if x_plot < self._last:
            return
        self._last = x_plot
        if isinstance(value, int | float):
            self._run.log({name: value}, step=x_plot)
        elif isinstance(value, Figure):
            self._run.log({name: self._picture(value)}, step=x_plot)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _csv(folder: Path, name: str, settings: Mapping[str, Any], done: int) -> CsvLogger:
    return CsvLogger(folder / CSV, done=done)


def _wandb(folder: Path, name: str, settings: Mapping[str, Any], done: int) -> WandbLogger:
    check_installed("wandb", "--logger wandb")
    return WandbLogger(name, settings, identity=_identity(folder), folder=folder)


def _mlflow(folder: Path, name: str, settings: Mapping[str, Any], done: int) -> MLflowLogger:
    check_installed("mlflow", "--logger mlflow")
    return MLflowLogger(name, settings, identity=_identity(folder))


def _identity(folder: Path) -> str:
    """Equal for a run in the same folder."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


LOGGERS: Mapping[str, Callable[[Path, str, Mapping[str, Any], int], BaseLogger]] = MappingProxyType(
    {"csv": _csv, "wandb": _wandb, "mlflow": _mlflow}
)
"""Name -> what opens a logger of a run's folder, its name, its settings and the steps it made."""


def open_loggers(
    wanted: Sequence[str | BaseLogger],
    folder: Path,
    name: str,
    settings: Mapping[str, Any],
    *,
    done: int,
) -> list[BaseLogger]:
    """Loggers by their names, beside those that are given as objects.

    Raises:
        InputError: If there is none of a name, its package is not installed, or it cannot begin.
    """
    return [
        _opened(one, folder, name, settings, done) if isinstance(one, str) else one
        for one in wanted
    ]


def check_loggers(wanted: Sequence[str | BaseLogger]) -> None:
    """Refuse names of no logger."""
    for name in wanted:
        if isinstance(name, str) and name not in LOGGERS:
            remedy = f"{suggestion(name, LOGGERS)}there are {', '.join(LOGGERS)}"
            raise InputError.at(f"logger {name!r}", "there is none of this name", remedy)


def _opened(
    name: str, folder: Path, run: str, settings: Mapping[str, Any], done: int
) -> BaseLogger:
    try:
        return LOGGERS[name](folder, run, settings, done)
    except (InputError, OSError):
        raise
    except Exception as error:  # whatever a service's own code says
        remedy = "see its own documentation, or leave the logger out"
        raise InputError.at(f"logger {name!r}", first_line(error), remedy) from error


def close_loggers(loggers: Sequence[BaseLogger]) -> None:
    """Close those that can be."""
    for logger in loggers:
        if close := getattr(logger, "close", None):
            close()
