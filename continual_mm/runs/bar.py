"""A bar of one run for Python and notebooks, as text that needs no widgets."""

import sys
from types import TracebackType

from tqdm import tqdm

from continual_mm.runs.reporter import RunReporter, percent


class RunBar(RunReporter):
    """Shows the steps of a run, and R@1 after each stage; it is closed by leaving a ``with``."""

    def __init__(self, steps: int) -> None:
        self._bar = tqdm(total=steps, unit="step", dynamic_ncols=True)

    def __enter__(self) -> "RunBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def steps(self, count: int) -> None:
        """Move the bar."""
        self._bar.update(count)

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """Say what the stage came to."""
        shown = "  ".join(f"{pair} {percent(value)}" for pair, value in recalls.items())
        tqdm.write(f"stage {stage}: R@1 {shown or 'no pair yet'}", file=sys.stderr)
