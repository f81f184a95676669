"""Open TensorBoard."""

import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tensorboard import program

from continual_mm.system.errors import InputError

PAGE = "#custom_scalars&_smoothingWeight=0"
"""The page of custom scalars; smoothed over a few evaluations, recalls would look wrong."""


def serve(folder: Path, *, port: int | None, browser: bool, tell: Callable[[str], None]) -> None:
    """Serve the runs in a folder until interrupted, at a free port if ``port`` is None."""
    server = program.TensorBoard()
    chosen = ["--port", str(port)] if port is not None else []
    server.configure(argv=["tensorboard", "--logdir", str(folder), *chosen])
    try:
        address = server.launch()
    except program.TensorBoardServerException as error:
        remedy = "give another --port, or none for a free one"
        raise InputError.at(f"port {port}", error.msg, remedy) from error
    page = f"{address}{PAGE}"
    tell(f"TensorBoard at {page}  (Ctrl-C ends it)")
    tell('untick "Ignore outliers in chart scaling" there once: it cuts off the ends of curves')
    if browser:
        webbrowser.open(page)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
