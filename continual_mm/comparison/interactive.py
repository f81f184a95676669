"""A comparison for Python and notebooks: as a data frame, as figures, as HTML."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from continual_mm.comparison import compare as comparing
from continual_mm.comparison.figure import plot
from continual_mm.comparison.matrix import plot_matrix
from continual_mm.comparison.tables import scenario_tables
from continual_mm.comparison.tidy import rows_by
from continual_mm.comparison.trade_off import plot_trade_off
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, suggestion
from continual_mm.system.imports import check_installed
from continual_mm.system.notebook import html_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURES: Mapping[str, Callable[[comparing.Comparison, str], "Figure"]] = {
    "recall": plot,
    "trade-off": plot_trade_off,
    "matrix": plot_matrix,
}
"""Name of a figure -> what draws it."""

FRAMES = ("strategy", "pair", "stage", "direction")


@dataclass(frozen=True, slots=True)
class Comparison(comparing.Comparison):
    """Strategies side by side, scenario by scenario; a notebook shows it as tables.

    Attributes:
        baseline: Strategy that differences are taken to.
        reports: Scenario -> its strategies, best first, with estimates and intervals.
        notes: What is to be known of the numbers, such as runs left out.
        metric: What was compared.
    """

    def frame(self, by: str = "strategy") -> "pd.DataFrame":
        """A row for each strategy, or for each ``pair``, ``stage`` or ``direction`` of it.

        Scores are fractions, with the ends of their 95 % intervals in columns of their own; median
        ranks count from 1. It needs pandas: ``pip install "continual-mm[frames]"``.

        Raises:
            InputError: If there is no such frame, or pandas is not installed.
        """
        check_installed("pandas", "Comparison.frame")
        import pandas as pd  # noqa: PLC0415 - few need it

        return pd.DataFrame(rows_by(self, _known("by", by, FRAMES)))

    def plot(self, figure: str = "recall", scenario: str | None = None) -> "Figure":
        """A matplotlib figure of a scenario, of the first one if none is named.

        Args:
            figure: ``recall`` (every pair over the stages), ``trade-off`` (old against new pairs)
                or ``matrix`` (pairs and stages, a panel for each strategy).
            scenario: By its name in ``reports``.

        Raises:
            InputError: If there is no such figure or scenario.
        """
        name = next(iter(self.reports), "") if scenario is None else scenario
        drawn = FIGURES[_known("figure", figure, FIGURES)]
        return drawn(self, _known("scenario", name, self.reports))

    def __repr__(self) -> str:
        """The scenarios, and how many strategies each has."""
        told = [f"{name!r}: {len(report.rows)} strategies" for name, report in self.reports.items()]
        return f"Comparison({{{', '.join(told)}}}, metric={self.metric!r})"

    def _repr_html_(self) -> str:
        tables = scenario_tables(self)
        shown = "".join(html_table(one.title, one.headings, one.rows) for one in tables)
        return shown + "".join(f"<p>{escape(note)}</p>" for note in self.notes)


@checked_arguments
def compare(
    folders: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    metric: str = "r@1",
    baseline: str = "naive",
) -> Comparison:
    """Compare the finished runs at or below some folders: means, 95 % intervals, differences.

    Args:
        folders: One or several that ``run`` or ``export`` wrote to.
        metric: ``r@1``, ``r@5``, ``r@10``, ``mrr`` or ``medr``.
        baseline: Strategy that differences are taken to.

    Raises:
        InputError: If there is no finished run, runs do not go together, or there is no such
            metric.
    """
    several = [folders] if isinstance(folders, str | PathLike) else folders
    places = [Path(each) for each in several]
    (found,) = comparing.compare_by(places, (metric,), baseline=baseline, directions=True)
    return Comparison(**{each.name: getattr(found, each.name) for each in fields(found)})


def _known(what: str, given: str, known: Iterable[str]) -> str:
    names = list(known)
    if given not in names:
        remedy = f"{suggestion(given, names)}there are {', '.join(names) or 'none'}"
        raise InputError.at(what, f"{given!r} is unknown", remedy)
    return given
