"""The command line: parse, call, print. What takes long to import waits until it is asked for."""

import os
import sys
from collections.abc import Sequence
from io import StringIO

import click

from continual_mm import __version__
from continual_mm.cli import compress as cli_compressing
from continual_mm.cli import definitions as cli_definitions
from continual_mm.cli import inspect as cli_data
from continual_mm.cli import merge as cli_merging
from continual_mm.cli import results as cli_results
from continual_mm.cli import search as cli_search
from continual_mm.cli import terminal
from continual_mm.cli import train as cli_training
from continual_mm.cli import tune as cli_tuning
from continual_mm.system.errors import InputError, Problem, printable
from continual_mm.system.imports import optional_import
from continual_mm.system.reading import unforeseen

OTHER_BACKENDS = ("JAX", "CUPY", "TENSORFLOW")
"""Array libraries that POT imports if they are installed; here it works on those of torch."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def app() -> None:
    """Add modalities to a joint embedding space one after another; measure what is forgotten."""


ROOMS = (
    *(cli_definitions, cli_data, cli_training, cli_tuning),
    *(cli_results, cli_search, cli_merging, cli_compressing),
)
for room in ROOMS:
    for command in room.COMMANDS:
        app.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error is a line, without traceback.

    It exits with 0, 1 if something failed, 2 if the input cannot be used, 130 after Ctrl-C.
    """
    for backend in OTHER_BACKENDS:
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
    code: int | None = None
    terminal.write_anything()
    try:
        with optional_import("this command"):
            code = app.main(arguments, prog_name="continual-mm", standalone_mode=False)
    except click.Abort:
        terminal.say("stopped")
        code = terminal.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a user is never shown a traceback
        code = _told(error, sys.argv[1:] if arguments is None else arguments)
    sys.exit(code or 0)


def _told(error: Exception, arguments: Sequence[str]) -> int:
    """Say what went wrong, in a line; the exit code."""
    if isinstance(error, InputError):
        terminal.print_refusal(error)
        return 2
    if isinstance(error, click.ClickException):
        shown = StringIO()
        error.show(shown)
        for line in shown.getvalue().splitlines():
            terminal.err.print(printable(line, terminal.LONGEST))
        return error.exit_code
    if isinstance(error, FloatingPointError | OSError | terminal.EndedError):
        terminal.say(str(error))
        return error.code if isinstance(error, terminal.EndedError) else 1
    terminal.say(str(Problem(" ".join(map(str, arguments)), *unforeseen(error))))
    return 1
