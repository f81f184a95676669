"""What several commands share: options, and the scenario that stands for all in examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from continual_mm.definitions.rules import MOST_ROWS, MOST_STEPS, MOST_UNITS, UNASKED_STEPS
from continual_mm.system.errors import InputError
from continual_mm.system.files import check_target

A_PATH = click.Path(path_type=Path)


class Target(click.Path):
    """A path that is written; one that cannot be is refused before any work is done.

    ``folder`` as for :func:`~continual_mm.system.files.check_target`.
    """

    def __init__(self, *, folder: bool | None = None) -> None:
        super().__init__(path_type=Path)
        self._folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        path = Path(str(value))
        check_target(path, folder=self._folder)
        return path


NEW_FILE, NEW_FOLDER, NEW_PATH = Target(folder=False), Target(folder=True), Target()
A_COUNT = click.IntRange(min=1, max=MOST_ROWS)
A_SEED = click.IntRange(min=0, max=(1 << 63) - 1)
UNITS = click.IntRange(min=1, max=MOST_UNITS)
SEEDS = click.IntRange(min=1, max=1000)
THREADS = click.IntRange(min=1, max=4096)
PROCESSES = click.IntRange(min=1, max=1024)


class FiniteRange(click.FloatRange):
    """A number between two others, not NaN, which is neither smaller nor larger than any."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it, or refuse it."""
        found: float = super().convert(value, param, ctx)
        if found != found:
            self.fail(f"{value!r} is no number.", param, ctx)
        return found


DEMO_SCENARIO = "av_vt"  # the main job, and an example in hints

_Command = TypeVar("_Command", bound=Callable[..., Any])

out_option = click.option(
    "--out", type=NEW_FOLDER, default="runs", help="Folder that the runs go into."
)
_device = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 and so on.")
_jobs = click.option(
    "--jobs",
    type=PROCESSES,
    default=1,
    help="Runs at the same time, each in a process of its own if more than 1.",
)
_threads = click.option(
    "--threads",
    type=THREADS,
    help="CPU threads of each run; the same number gives the same bits, whatever the jobs. If left "
    "out: what torch chooses, or with several jobs the cores divided by the jobs.",
)
_checkpoint = click.option(
    "--checkpoint-every",
    type=click.IntRange(min=0, max=MOST_STEPS),
    default=500,
    help="Steps between checkpoints inside a stage; 0: at stage ends only.",
)
_workers = click.option(
    "--workers",
    type=click.IntRange(min=0, max=256),
    default=0,
    help="Threads per run that fetch batches ahead. No number depends on it.",
)
_yes = click.option(
    "--yes",
    is_flag=True,
    help=f"Train even what needs more memory than there is, or more than {UNASKED_STEPS:,} steps.",
)
_board = click.option(
    "--board/--no-board", default=True, help="Write TensorBoard's files. No number depends on it."
)
_logger = click.option(
    "--logger",
    "loggers",
    multiple=True,
    type=click.Choice(("csv", "wandb", "mlflow")),
    default=["csv"],
    help="Who gets the board's numbers as well, as often as you like.",
)
_set = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change the scenario (training.steps=50) or a strategy (transport.weight=1).",
)


def _offer(_: click.Context, __: click.Parameter, files: tuple[Path, ...]) -> None:
    if files:
        from continual_mm.plugins.files import offer

        offer(files)


plugins_option = click.option(
    "--plugins",
    type=A_PATH,
    multiple=True,
    metavar="FILE",
    callback=_offer,
    is_eager=True,
    expose_value=False,
    help='A Python file whose plugins strategies may name: [plugin."my_plugin.py:MyPlugin"].',
)
column_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Read a column of the list as ours, such as path=fname; as nothing: start=.",
)


def columns_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Columns of a list by ours, of texts such as ``path=fname``; none where nothing follows.

    >>> columns_of(["text=caption_1", "text=caption_2", "start="])
    {'text': ['caption_1', 'caption_2'], 'start': []}
    """
    found: dict[str, list[str]] = {}
    for text in given:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours:
            raise InputError.at(f"--column {text}", "is no OURS=THEIRS", "write path=fname")
        found.setdefault(ours, []).extend([theirs] if theirs else [])
    return found


def training_options(command: _Command) -> _Command:
    """Options of every command that trains, in the order of its help."""
    for option in (
        _yes,
        plugins_option,
        _device,
        _checkpoint,
        _logger,
        _board,
        _workers,
        _threads,
        _jobs,
        _set,
    ):
        command = option(command)
    return command
