"""The command line: parse, call, print. What takes long to import waits until it is asked for."""

import os
import sys
from collections.abc import Sequence

import click

from continual_mm import __version__
from continual_mm.cli import definitions as cli_definitions
from continual_mm.cli import inspect as cli_data
from continual_mm.cli import results as cli_results
from continual_mm.cli import terminal
from continual_mm.cli import train as cli_training
from continual_mm.cli import tune as cli_tuning
from continual_mm.system.errors import InputError
from continual_mm.system.imports import optional_import

OTHER_BACKENDS = ("JAX", "CUPY", "TENSORFLOW")
"""Array libraries that POT imports if they are installed; here it works on those of torch."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def app() -> None:
    """Add modalities to a joint embedding space one after another; measure what is forgotten."""


for room in (cli_definitions, cli_data, cli_training, cli_tuning, cli_results):
    for command in room.COMMANDS:
        app.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are one line each, without traceback.

    It exits with 0, 1 if something failed, 2 if the input cannot be used, 130 after Ctrl-C.
    """
    for backend in OTHER_BACKENDS:
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
    code: int | None = None
    try:
        with optional_import("this command"):
            code = app.main(arguments, prog_name="continual-mm", standalone_mode=False)
    except InputError as error:
        terminal.print_refusal(error)
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except terminal.EndedError as error:
        terminal.err.print(f"continual-mm: {error}")
        code = error.code
    except (FloatingPointError, OSError) as error:
        terminal.err.print(f"continual-mm: {error}")
        code = 1
    except click.Abort:
        terminal.err.print(
            "continual-mm: stopped; finished stages are kept, the same command goes on from there"
        )
        code = terminal.INTERRUPTED
    sys.exit(code or 0)
