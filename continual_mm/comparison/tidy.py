"""Comparisons as rows of plain values, for CSV files and data frames."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from continual_mm.comparison.compare import Comparison, Headline, Row, ScenarioReport
from continual_mm.comparison.estimates import Estimate
from continual_mm.definitions.modality import Pair

Values = dict[str, Any]


def rows_by(comparison: Comparison, what: str = "strategy") -> list[Values]:
    """A row for each strategy, and for each ``pair``, ``stage`` and pair, or ``direction`` of it.

    Scores are fractions, median ranks count from 1; the ends of an interval are in ``<name>_low``
    and ``<name>_high``, and what is undefined is None. All rows have the same keys in one order.
    Those of directions are empty unless the comparison has them.
    """
    return [
        {"scenario": name, "strategy": row.strategy, "seeds": len(row.seeds)}
        | {"metric": comparison.metric}
        | values
        for name, report in comparison.reports.items()
        for row in report.rows
        for values in _BY[what](row, report, comparison)
    ]


def as_csv(comparisons: Sequence[Comparison], what: str = "strategy") -> str:
    """The rows of some comparisons as text, empty where undefined; ends with a line break."""
    rows = [row for each in comparisons for row in rows_by(each, what)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _by_strategy(row: Row, report: ScenarioReport, comparison: Comparison) -> Iterator[Values]:
    measures = {each.name: getattr(row.headline, each.name) for each in fields(Headline)}
    measures |= {"difference": row.difference}
    found = [_ends(each, name) for name, each in measures.items()]
    values = {key: value for each in found for key, value in each.items()}
    yield values | {
        "baseline": comparison.baseline,
        "chance": report.chance,
        "memory_bytes": row.memory_bytes,
        "seconds": row.seconds,
        "vector_size": row.vector_size,
    }


def _by_pair(row: Row, report: ScenarioReport, _: Comparison) -> Iterator[Values]:
    for pair, facts in report.pairs.items():
        yield {"pair": pair, "role": facts.role} | _ends(row.recalls[pair][-1])


def _by_stage(row: Row, report: ScenarioReport, _: Comparison) -> Iterator[Values]:
    for pair, facts in report.pairs.items():
        for stage, estimate in enumerate(row.recalls[pair], start=1):
            yield {"pair": pair, "role": facts.role, "stage": stage} | _ends(estimate)


def _by_direction(row: Row, report: ScenarioReport, _: Comparison) -> Iterator[Values]:
    for pair, estimates in row.directions.items():
        ways = zip(Pair.parse(pair).directions, estimates, strict=True)
        for (query, answers), estimate in ways:
            known = {"pair": pair, "role": report.pairs[pair].role}
            yield known | {"query": query, "answers": answers} | _ends(estimate)


_BY = {
    "strategy": _by_strategy,
    "pair": _by_pair,
    "stage": _by_stage,
    "direction": _by_direction,
}


def _ends(estimate: Estimate | None, name: str = "") -> Values:
    known: Values = asdict(estimate) if estimate else dict.fromkeys(("mean", "low", "high"))
    if not name:
        return known
    return {name: known["mean"], f"{name}_low": known["low"], f"{name}_high": known["high"]}
