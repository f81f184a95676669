"""Write what the results say as Markdown and CSV: ``README.md`` and ``summary.csv`` beside them.

python benchmarks/evidence/table.py
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import FURTHER, INDEXES, OF_ROLES, Bench, Line, lines
from plan import HERE, Group, Plan
from step_time import step_times

from continual_mm.comparison.collect import grouped
from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.exported import read_exported
from continual_mm.runs.finished import FinishedRun
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write

REFERENCES = ("recommended_128", "recommended", "recommended_32", "naive")
"""Strategies that differences are taken to: the first that was run."""

PLAIN = "naive"

SHOWN = {
    "harmonic_mean": "harmonic mean",
    "harmonic_mean_at_10": "of R@10",
    "harmonic_mean_mrr": "of MRR",
    "old_pairs": "old",
    "new_pairs": "new",
    "emergent_pairs": "emergent",
    "retention": "retention",
}
"""Measure -> heading."""

ABOUT = """\
Written by `benchmarks/evidence/table.py` from the runs beside it; `summary.csv` has the same
numbers with all intervals, R@10 and MRR of old, new and emergent pairs too, intransigence (what new
pairs lack of joint training), forgetting, and the items that are kept of the past.

All is in % and of the test split, the mean of both directions. Old, new and emergent pairs have
their R@1; beside the harmonic mean of old and new pairs' R@1 stand those of their R@10 and of their
mean reciprocal rank. `±` is half the width of the 95 % interval of a paired bootstrap over queries
and seeds. Differences are those of the harmonic mean of R@1, in percentage points, on the same
queries and seeds. Retention is the share of what old pairs had learned above chance that is left;
its heading has chance, R@1 in a random order. There is none where the first R@1 of an old pair is
not above chance by 4 standard errors over items. Where runs have them, *mixed* is R@10 of
all partners in one index of all modalities, and *earlier* R@1 of old pairs in an index that was
filled before the last stage; their intervals are over seeds only. Memory is what is kept of the
past. Step time is that of the last stage as a multiple of naive's, from `step_times.csv`. *Size* is
how many numbers an item has, in several vectors where pairs have their own. Where seeds are given
as 5/5/3, the scenarios have different numbers of runs, and where one of them has none there is no
mean. The interval of a single seed covers the queries only.

`joint_wide`, `joint_two` and `joint_two_twice` are bounds of the size of a space that has grown,
see [the evidence](../README.md#bounds-of-the-same-size)."""


def as_markdown(title: str, found: Sequence[Line], reference: str) -> str:
    """A heading and a table; with columns for indexes where a run has scores of them."""
    indexes = [name for name in INDEXES if any(line.estimates.get(name) for line in found)]
    chance = next((line.chance for line in found if line.chance is not None), None)
    stated = "" if chance is None else f" (chance {100 * chance:.2f})"
    headings = (
        *("strategy", "seeds", *list(SHOWN.values())[:-1], f"{SHOWN['retention']}{stated}"),
        f"difference to {reference}",
        *(f"{name.removesuffix('_recall')}" for name in indexes),
        *("memory", "step time", "size"),
    )
    rows = [headings, (":--", *("--:" for _ in headings[1:])), *(_cells(e, indexes) for e in found)]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in rows)])


def _cells(line: Line, indexes: Sequence[str]) -> tuple[str, ...]:
    same = len(set(line.seeds)) == 1
    return (
        line.strategy,
        str(line.seeds[0]) if same else "/".join(map(str, line.seeds)),
        *(_half(line.estimates.get(name)) for name in SHOWN),
        _range(line.estimates.get("difference")),
        *(_half(line.estimates.get(name)) for name in indexes),
        "-" if line.memory_bytes is None else f"{line.memory_bytes / 1000:.0f} kB",
        "-" if line.step_time is None else f"{line.step_time:.2f}",
        "-" if line.vector_size is None else f"{line.vector_size:.0f}",
    )


def _half(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.mean:z.1f}±{50 * (estimate.high - estimate.low):.1f}"


def _range(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    mean, low, high = (100 * end for end in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:+z.1f} [{low:z.1f}, {high:z.1f}]"


MEASURES = (
    *(*OF_ROLES, "retention", "intransigence", "forgetting", "difference"),
    *(f"{name}{ending}" for ending in FURTHER.values() for name in OF_ROLES),
    *INDEXES,
)
HEADINGS = (
    *("dataset", "group", "scenario", "strategy", "seeds", "reference"),
    *(f"{name}_{end}" for name in MEASURES for end in ("mean", "low", "high")),
    *("memory_items", "memory_bytes", "step_time", "vector_size", "chance"),
)


def as_records(
    group: Group, scenario: str, found: Iterable[Line], reference: str
) -> list[list[str]]:
    """Rows of ``summary.csv``, in percent and percentage points; empty where undefined."""
    return [
        [
            *(group.dataset, group.title, scenario, line.strategy),
            "/".join(map(str, line.seeds)),
            reference,
            *(end for name in MEASURES for end in _ends(line.estimates.get(name))),
            *map(_plain, (line.memory_items, line.memory_bytes, line.step_time, line.vector_size)),
            "" if line.chance is None else f"{100 * line.chance:z.3f}",
        ]
        for line in found
    ]


def _ends(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["", "", ""]
    return [f"{100 * end:z.3f}" for end in (estimate.mean, estimate.low, estimate.high)]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def tables(
    group: Group,
    known: Mapping[str, Mapping[str, Sequence[FinishedRun]]],
    times: Mapping[tuple[str, str], float],
) -> tuple[list[str], list[list[str]]]:
    """Markdown and records of a group: averaged over its scenarios, then each by itself.

    Args:
        group: From the plan.
        known: Scenario -> strategy -> runs.
        times: Scenario and strategy -> time of a step as a multiple of naive's.
    """
    present = [name for name in group.scenarios if name in known]
    if not present:
        return [], []
    benches = {name: Bench(known[name], _of(name, times)) for name in present}
    reference = _reference(benches.values())
    views = {name: [bench] for name, bench in benches.items()}
    if len(present) > 1:
        views = {f"mean of {', '.join(present)}": list(benches.values()), **views}
    pages = [f"## {group.dataset}: {group.title}"]
    records: list[list[str]] = []
    for name, chosen in views.items():
        found = lines(chosen, reference)
        pages.append(as_markdown(f"### {name}", found, reference))
        records += as_records(group, name, found, reference)
    return pages, records


def _of(scenario: str, times: Mapping[tuple[str, str], float]) -> dict[str, float]:
    return {strategy: value for (other, strategy), value in times.items() if other == scenario}


def _reference(benches: Iterable[Bench]) -> str:
    shared = set.intersection(*(set(bench.strategies) for bench in benches))
    return next((name for name in REFERENCES if name in shared), PLAIN)


def write(plan: Plan, folder: Path) -> None:
    """Write both files into the folder of the results.

    Raises:
        InputError: If the results are missing or damaged.
    """
    known = grouped(read_exported(folder))
    times = step_times(folder)
    pages, records = ["# Results", ABOUT], [list(HEADINGS)]
    for group in plan.groups:
        some, rows = tables(group, known, times)
        pages += some
        records += rows
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    for name, contents in (
        ("README.md", "\n\n".join(pages) + "\n"),
        ("summary.csv", text.getvalue()),
    ):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(contents, encoding="utf-8")


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.toml")
    asked = parser.parse_args(given)
    write(Plan(asked.plan), asked.results)
    print(f"written: {asked.results / 'README.md'}, {asked.results / 'summary.csv'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit("\n".join(map(str, error.problems)))
