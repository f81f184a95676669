"""One self-contained page of a comparison."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from continual_mm import __version__
from continual_mm.comparison.estimates import METRICS
from continual_mm.comparison.tables import Table, scenario_tables
from continual_mm.reporting.charts import charts, title_of
from continual_mm.reporting.content import Content, StrategyContent
from continual_mm.reporting.diagram import diagram
from continual_mm.reporting.figures import program
from continual_mm.reporting.media import Media
from continual_mm.reporting.why import panels
from continual_mm.runs.why import cause

MARK = "continual-mm report"
"""What a report says of itself, so that nothing else is overwritten."""

_FIGURES = {
    "recall": (
        "Scores over stages",
        "A panel for each pair: its score after each stage, strategy by strategy, with 95 % "
        "intervals.",
    ),
    "trade-off": (
        "Old against new pairs",
        "Above and to the right is good. The dashed line is the Pareto front: no other strategy is "
        "better at both. Hollow marks train past items again: they are bounds and no competitors.",
    ),
    "matrix": (
        "Pairs and stages",
        "A panel for each strategy, all on one scale of colours.",
    ),
}
_MEANINGS = {
    "old": "pairs that were trained before the last stage",
    "new": "pairs that are trained first in the last stage",
    "emergent": "pairs that no stage trains",
    "harmonic mean": "of the mean scores of old and new pairs",
    "forgetting": "best score of an old pair at an earlier stage's end minus its last one",
    "retention": "last score over the first, both above chance",
    "interval": "95 %, of a paired bootstrap over queries and seeds",
}


def page(content: Content, media: Callable[[str], Media | None]) -> str:
    """The page as HTML; ``media`` gives what there is of a scenario's dataset."""
    comparison = content.comparison
    tables = {table.name: table for table in scenario_tables(comparison)}
    sections: list[str] = []
    specs: dict[str, Any] = {}
    for number, scenario in enumerate(comparison.reports):
        drawn = charts(comparison, scenario)
        specs |= {f"s{number}-{name}": chart.to_dict() for name, chart in drawn.items()}
        sections += _section(
            content, scenario, number, tables[scenario], list(drawn), media(scenario)
        )
    scripts = [program(), _file("page.js")]
    style = _file("page.css")
    links = "".join(
        f'<li><a href="#s{number}">{escape(name)}</a></li>'
        for number, name in enumerate(comparison.reports)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    about = "".join(f"<dt>{name}<dd>{text}" for name, text in _MEANINGS.items())
    metric = METRICS[comparison.metric]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            f'<head><meta charset="utf-8"><meta name="generator" content="{MARK} {__version__}">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts, style)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(', '.join(comparison.reports))}: continual_mm</title>",
            f"<style>{style}</style></head><body>",
            "<header><h1>What was kept, what was learned</h1>"
            '<button type="button" id="theme" aria-pressed="false">dark</button></header>',
            f'<nav aria-label="scenarios"><ul>{links}</ul></nav><main>',
            f"<p>{escape(title_of(metric))}; differences are to "
            f"<em>{escape(comparison.baseline)}</em>.</p>",
            *sections,
            f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else "",
            f"<section><h2>What the words mean</h2><dl>{about}</dl></section>",
            "</main>",
            f'<script type="application/json" id="specs">{_json(specs)}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>",
        ]
    )


def _section(
    content: Content,
    scenario: str,
    number: int,
    table: Table,
    figures: list[str],
    media: Media | None,
) -> Iterator[str]:
    report = content.comparison.reports[scenario]
    yield f'<section id="s{number}" aria-labelledby="h{number}">'
    yield f'<h2 id="h{number}">{escape(scenario)}</h2>'
    yield diagram(report.arrivals, report.pairs)
    yield _table(table)
    for name in figures:
        title, text = _FIGURES[name]
        told = escape(f"{title}. {text} The numbers are in the table.")
        yield (
            f'<h3>{title}</h3><p>{text}</p><div class="chart" id="s{number}-{name}" role="img" '
            f'aria-label="{told}"></div>'
        )
    yield "<h3>Why</h3>"
    known = content.strategies[scenario]
    for strategy in (row.strategy for row in report.rows):
        yield from _why(strategy, known[strategy], media)
    yield "<h3>Definitions</h3>"
    for strategy, found in known.items():
        yield _definition(strategy, found)
    yield "</section>"


def _why(strategy: str, found: StrategyContent, media: Media | None) -> Iterator[str]:
    if found.reasons is None:
        return
    title = f"{strategy}, seed {found.seed}, stage {found.reasons.stage}"
    causes = "; ".join(
        f"{pair}: {cause(pair, found.reasons)}" for pair in found.reasons.diagnosis.pairs
    )
    yield f"<details><summary><h4>{escape(title)}</h4> {escape(causes)}</summary>"
    yield from panels(found.reasons, media)
    yield "</details>"


def _definition(strategy: str, found: StrategyContent) -> str:
    folders = "".join(f"<li><code>{escape(folder.name)}</code></li>" for folder in found.folders)
    versions = ", ".join(f"{name} {value}" for name, value in found.versions.items())
    text = json.dumps(found.definition, indent=2, ensure_ascii=False)
    return (
        f"<details><summary><h4>{escape(strategy)}</h4></summary><ul>{folders}</ul>"
        f"<p>{escape(versions)}</p><pre tabindex=0>{escape(text)}</pre></details>"
    )


def _table(table: Table) -> str:
    """A table whose columns are sorted by buttons in their headings."""
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(heading)}</button></th>'
        for heading in table.headings
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        f"{''.join(f'<td class=number>{escape(cell)}</td>' for cell in cells)}</tr>"
        for first, *cells in table.rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(table.title)}">'
        f'<table class="sortable"><caption>{escape(table.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _policy(scripts: list[str], style: str) -> str:
    """Nothing but what the page holds: no network, and no script but its own."""
    known = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {known}; style-src 'unsafe-inline'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _file(name: str) -> str:
    return (files("continual_mm.reporting") / name).read_text(encoding="utf-8")


def _json(value: Mapping[str, Any]) -> str:
    """Without what would end a script."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def is_report(path: Path) -> bool:
    """Whether a file is a report of an earlier time."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        return MARK in stream.read(2000)
