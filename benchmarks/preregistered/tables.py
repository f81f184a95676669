"""Findings as Markdown for people and as CSV for programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from grid import METRIC, SHOWN, Findings, Line

from continual_mm.comparison.estimates import Estimate

HEADINGS = ("strategy", "role", "weight", "harmonic mean", "old", "new", "emergent")
COMPARED = ("difference to the rival", "old pairs' difference", "bytes held", "seconds")
ABOUT = (
    "R@1 in % on the test items after the second stage, with 95 % intervals over queries and "
    "seeds; differences in percentage points, on the same queries and seeds. Bytes are held in the "
    "second stage. A weight with * is the smallest or largest that was tried."
)


def write(findings: Findings, folder: Path) -> str:
    """Write ``<plan>.md``, ``<plan>.csv`` and ``<plan>_weights.csv``; returns the first's text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = as_markdown(findings)
    name = findings.plan.name
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.csv").write_text(as_csv(results(findings)), encoding="utf-8")
    (folder / f"{name}_weights.csv").write_text(as_csv(weights(findings)), encoding="utf-8")
    return text


def as_markdown(findings: Findings) -> str:
    """The verdict, then a row for each strategy in the order of the plan."""
    contender = findings.contender
    difference = _points(contender.differences[SHOWN[0]], sign="+")
    verdict = {
        "wins": "transport wins",
        "loses": "transport loses",
        "undecided": "undecided",
    }[findings.verdict]
    lines = [
        f"# `{findings.plan.name}`: {verdict}",
        "",
        f"`{contender.chosen.candidate.name}` minus `{findings.rival}`, harmonic mean of old and "
        f"new pairs: **{difference}** points, seeds {', '.join(map(str, findings.seeds))}.",
        "",
        ABOUT,
        "",
        _row([*HEADINGS, *COMPARED]),
        _row([":--", ":--", *["--:"] * (len(HEADINGS) + len(COMPARED) - 2)]),
        *(_row(_cells(line, findings.rival)) for line in findings.lines),
    ]
    return "\n".join(lines) + "\n"


def results(findings: Findings) -> Iterable[Sequence[object]]:
    """Headings, then a row for each strategy and measure; fractions, empty where undefined."""
    ends = ("mean", "low", "high")
    yield (
        *("strategy", "role", "weight", "measure", *ends),
        *(f"difference_{end}" for end in ends),
        *("rival", "bytes_held", "seconds"),
    )
    for line in findings.lines:
        own = line.chosen.candidate
        for measure in SHOWN:
            yield (
                *(own.name, own.role, _weight(line), measure),
                *_ends(line.measured[measure]),
                *_ends(line.differences[measure]),
                *(findings.rival, line.held, f"{line.seconds:.1f}"),
            )


def weights(findings: Findings) -> Iterable[Sequence[object]]:
    """Headings, then a row for each weight that was tried; an empty score if it diverged."""
    yield "strategy", "weight", f"validation_{METRIC}", "chosen"
    for line in findings.lines:
        own = line.chosen
        for weight in own.candidate.weights:
            score = own.scores.get(weight)
            shown = "" if score is None else f"{score:.6f}"
            yield own.candidate.name, f"{weight:g}", shown, int(weight == own.weight)


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as comma-separated text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _cells(line: Line, rival: str) -> list[str]:
    own = line.chosen.candidate
    role = "the rival" if own.name == rival else own.role
    star = "\\*" if line.chosen.at_the_edge else ""
    return [
        f"`{own.name}`",
        role,
        _weight(line) + star,
        *(_points(line.measured[name]) for name in SHOWN),
        _points(line.differences["harmonic_mean"], sign="+"),
        _points(line.differences["old_pairs"], sign="+"),
        f"{line.held:,}",
        f"{line.seconds:.1f}",
    ]


def _weight(line: Line) -> str:
    return "" if line.chosen.weight is None else f"{line.chosen.weight:g}"


def _ends(estimate: Estimate | None) -> tuple[str, str, str]:
    if estimate is None:
        return "", "", ""
    return f"{estimate.mean:.6f}", f"{estimate.low:.6f}", f"{estimate.high:.6f}"


def _points(estimate: Estimate | None, *, sign: str = "") -> str:
    """``53.1 [51.0, 55.2]``."""
    if estimate is None:
        return "-"
    mean, low, high = 100 * estimate.mean, 100 * estimate.low, 100 * estimate.high
    return f"{mean:{sign}z.1f} [{low:{sign}z.1f}, {high:{sign}z.1f}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
