"""Open TensorBoard."""

import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

from tensorboard import program


def serve(folder: Path, *, port: int | None, browser: bool, tell: Callable[[str], None]) -> None:
    """Serve the runs in a folder until interrupted.

    Args:
        folder: Where runs lie, at any depth.
        port: TCP port; a free one, if None.
        browser: Whether to open a browser.
        tell: Is told the address.
    """
    server = program.TensorBoard()
    chosen = ["--port", str(port)] if port is not None else []
    server.configure(argv=["tensorboard", "--logdir", str(folder), *chosen])
    address = server.launch()
    tell(f"TensorBoard at {address}  (Ctrl-C ends it)")
    if browser:
        webbrowser.open(address)
    while True:
        time.sleep(3600)
