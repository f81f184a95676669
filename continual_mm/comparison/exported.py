"""The files of an export, written and read: all that a comparison needs of many runs.

``runs.csv`` has a row per run, ``definitions.json`` every definition, ``ranks.npz`` all ranks.
"""

import csv
import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from continual_mm.comparison.run_table import EARLIER_HEADINGS, HEADINGS, table
from continual_mm.metrics.answers import Answers
from continual_mm.runs import records
from continual_mm.runs.finished import (
    FinishedRun,
    PairFacts,
    answers_of,
    arrays_of,
    fewest,
    protocols_of,
    ranked_of,
    ranked_stages,
)
from continual_mm.system.errors import InputError, first_few
from continual_mm.system.files import atomic_write, write_json
from continual_mm.system.reading import reads

ROWS, DEFINITIONS, RANKS = "runs.csv", "definitions.json", "ranks.npz"
UNFINISHED = "export.unfinished"
"""A file in the folder while the others are written; it stays if that is interrupted."""
FORMAT = 1
KINDS = ("seeds/", "ranks/", "rows/", "recordings/", "protocol-")
"""How names of arrays begin."""
REMEDY = "take the folder from where it was kept, or export the runs again into another one"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member of the archive, so that equal runs give equal bytes."""

Groups = Mapping[str, Mapping[str, Sequence[FinishedRun]]]  # scenario -> strategy -> runs

_Blank = BeforeValidator(lambda text: None if text == "" else text)


class PairDefinition(records.PairRecord):
    """A pair; ``chance`` is recall at 1 of a random order, both directions averaged."""

    chance: records.Fraction
    galleries: tuple[int, ...] = ()  # answers in each direction, where not as many as items


class ScenarioDefinition(records.Record):
    """What all runs of a scenario have in common; ``stages`` are names of what each adds.

    ``label`` is its name in rows, where several definitions have one name.
    """

    scenario: records.ScenarioRecord
    data: dict[str, Any]
    pairs: dict[str, PairDefinition]
    stages: Annotated[tuple[tuple[str, ...], ...], Field(min_length=1)]
    split: Literal["validation"] | None = None
    # Pairs that are not scored, and 1-based stage -> pair that it trains on a handful of items ->
    # the least number of them in any run.
    unscored: tuple[str, ...] = ()
    handful: dict[str, dict[str, records.Count]] = Field(default_factory=dict)
    label: str | None = None

    @property
    def row(self) -> str:
        """Its name in rows."""
        return self.label or self.scenario.name


class StrategyDefinition(records.Record):
    """A strategy, and names of the scenarios in which it was defined like this.

    ``label`` is its name in rows, where several definitions have one name.
    """

    scenarios: tuple[str, ...]
    definition: records.StrategyRecord
    label: str | None = None

    @property
    def row(self) -> str:
        """Its name in rows."""
        return self.label or self.definition.name


class Definitions(records.Record):
    """``definitions.json``."""

    format: Literal[1]
    scenarios: dict[str, ScenarioDefinition]
    strategies: tuple[StrategyDefinition, ...]


class RunRow(records.Record):
    """What is read of a row of ``runs.csv``; an empty cell is None.

    The percentages of a row follow from the ranks and are for people: they are never read back.
    """

    model_config = ConfigDict(frozen=True, strict=False)

    scenario: str
    strategy: str
    seed: int
    memory_items: Annotated[records.Count | None, _Blank]
    memory_bytes: records.Count
    steps: Annotated[records.Count | None, _Blank]
    seconds: records.Seconds
    step_seconds: Annotated[records.Seconds | None, _Blank]
    stability_gap: Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, _Blank]
    mixed_recall: Annotated[records.Fraction | None, _Blank] = None
    earlier_recall: Annotated[records.Fraction | None, _Blank] = None
    vector_size: Annotated[records.Count | None, _Blank] = None


def write_exported(groups: Groups, folder: Path) -> None:
    """Write runs that belong together; equal runs give equal bytes.

    The rows come last: whatever they name is then there already, so the folder can be read at any
    moment, even if the process is killed. The file :data:`UNFINISHED` says that there may be more
    than they name; without it rows were lost.
    """
    with atomic_write(folder / UNFINISHED):
        pass
    with atomic_write(folder / RANKS) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in sorted(arrays_in(groups)):
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    write_json(folder / DEFINITIONS, _definitions(groups))
    every = [run for strategies in groups.values() for runs in strategies.values() for run in runs]
    with atomic_write(folder / ROWS) as temporary, temporary.open("w", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEADINGS, *table(every)])
    (folder / UNFINISHED).unlink()


def _definitions(groups: Groups) -> dict[str, Any]:
    scenarios: dict[str, Any] = {}
    strategies: list[dict[str, Any]] = []
    for scenario, known in groups.items():
        first = next(iter(known.values()))[0]
        pairs = {
            name: {"birth": facts.birth + 1, "role": facts.role, "chance": facts.chance}
            | ({"galleries": facts.galleries} if facts.galleries else {})
            for name, facts in first.pairs.items()
        }
        scenarios[scenario] = {
            **first.task,
            "pairs": pairs,
            "stages": first.arrivals,
            **_few(list(chain.from_iterable(known.values()))),
            **_labelled(scenario, first.task["scenario"]),
        }
        for label, runs in known.items():
            definition = runs[0].protection
            entry = {"definition": definition, **_labelled(label, definition)}
            same = [
                each
                for each in strategies
                if {**each, "scenarios": []} == {**entry, "scenarios": []}
            ]
            if not same:
                same = [{"scenarios": [], **entry}]
                strategies += same
            same[0]["scenarios"].append(scenario)
    strategies.sort(key=lambda each: (each["definition"]["name"], each["scenarios"]))
    return {"format": FORMAT, "scenarios": scenarios, "strategies": strategies}


def _few(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Pairs of a scenario that are not scored, or trained on a handful of items, if any are."""
    handful: dict[str, dict[str, int]] = {}
    for (stage, pair), items in sorted(fewest(runs).items()):
        handful.setdefault(str(stage), {})[pair] = items
    found = {"unscored": runs[0].unscored, "handful": handful}
    return {key: value for key, value in found.items() if value}


def _labelled(label: str, definition: Mapping[str, Any]) -> dict[str, str]:
    """What says that rows have another name than the definition, where they have."""
    return {} if label == definition["name"] else {"label": label}


def arrays_in(groups: Groups) -> Iterator[tuple[str, bytes]]:
    """Name and ``.npy`` file of every array: those of strategies, and what scenarios share.

    Runs of a scenario with different test items or queries are refused.
    """
    for scenario, strategies in groups.items():
        shared: dict[str, NDArray[Any]] = {}
        for strategy, runs in strategies.items():
            for run in runs:
                _share(run, runs[0], shared)
            place = f"{scenario}/{strategy}"
            yield f"seeds/{place}", _npy(np.array([run.seed for run in runs]))
            yield f"ranks/{place}", _npy(_packed(np.stack([_all_ranks(run) for run in runs])))
            for cell in sorted(runs[0].judged):
                stage, protocol, series = cell
                values = np.stack([run.judged[cell].values for run in runs])
                name = f"protocol-values/{place}/{protocol}/{series}/stage-{stage + 1}"
                yield name, _npy(_single(values))
        yield from ((name, _npy(array)) for name, array in shared.items())


def _share(run: FinishedRun, first: FinishedRun, shared: dict[str, NDArray[Any]]) -> None:
    """Add a run's test items and queries to those of its scenario."""
    found: dict[str, NDArray[Any]] = {}
    for (_, pair), ranked in run.ranked.items():
        found[f"rows/{run.scenario}/{pair}"] = _small(ranked.rows)
        if ranked.recordings is not None:
            found[f"recordings/{run.scenario}/{pair}"] = _small(ranked.recordings)
    for (_, protocol, series), answers in run.judged.items():
        place = f"{run.scenario}/{protocol}/{series}"
        found[f"protocol-units/{place}"] = answers.units
        if answers.groups:
            found[f"protocol-groups/{place}"] = np.array(answers.groups)
        if answers.recordings is not None:
            found[f"protocol-recordings/{place}"] = answers.recordings
    odd = [
        k for k, array in found.items() if not np.array_equal(shared.setdefault(k, array), array)
    ]
    if odd or run.judged.keys() != first.judged.keys():
        what = f"other test items or queries ({odd[0]})" if odd else "other scores of protocols"
        problem = f"has {what} than further runs of the scenario"
        raise InputError.at(run.folder, problem, "export it by itself")


def cells(pairs: Mapping[str, PairFacts], stages: range) -> list[tuple[int, str]]:
    """(0-based stage, pair) of all ranks of a run, in the order in which they are stored."""
    names = sorted(pairs)
    return [(stage, name) for stage in stages for name in names if pairs[name].birth <= stage]


def _all_ranks(run: FinishedRun) -> NDArray[np.float64]:
    """(ranks,) of all cells one after another."""
    stages = ranked_stages(len(run.arrivals), joint=run.joint)
    parts = [run.ranked[cell].ranks.ravel() for cell in cells(run.pairs, stages)]
    return np.concatenate(parts) if parts else np.empty(0)


def _packed(ranks: NDArray[np.float64]) -> NDArray[Any]:
    """Twice the ranks as small whole numbers: ties make halves. The ranks themselves if not."""
    doubled = 2 * ranks
    whole = (doubled == np.round(doubled)).all() and (doubled < 2**32).all()
    return _small(doubled.astype(np.uint64)) if whole else ranks


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers from 0 in as few bytes as they need."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _single(values: NDArray[np.float64]) -> NDArray[Any]:
    """Single precision where nothing is lost by it: ranks are whole or halves."""
    half = values.astype(np.float32)
    return half if np.array_equal(half.astype(np.float64), values, equal_nan=True) else values


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    npy.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


@reads
def read_exported(folder: Path) -> list[FinishedRun]:
    """Read exported runs, also while another process adds to them."""
    before = _state(folder)
    try:
        return _read(folder)
    except InputError:
        if _state(folder) == before:
            raise
    return read_exported(folder)


def _state(folder: Path) -> list[tuple[int, int]]:
    """Changes whenever one of the files is replaced."""
    known = [folder / name for name in (ROWS, DEFINITIONS, RANKS) if (folder / name).is_file()]
    return [(found.st_ino, found.st_mtime_ns) for found in map(Path.stat, known)]


def _read(folder: Path) -> list[FinishedRun]:
    definitions = records.read(Definitions, folder / DEFINITIONS, REMEDY)
    rows = _rows(folder / ROWS)
    with arrays_of(folder / RANKS, KINDS, REMEDY) as arrays:
        _check_names(folder, rows, definitions, arrays)
        return [_run(folder, row, definitions, arrays) for row in rows]


def _rows(path: Path) -> list[RunRow]:
    rows: list[RunRow] = []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            cells_by_name = csv.DictReader(stream, restkey="", restval="?", strict=True)
            if tuple(cells_by_name.fieldnames or ()) not in (HEADINGS, *EARLIER_HEADINGS):
                raise ValueError("its first line does not name the columns of an export")
            for row in cells_by_name:
                rows.append(RunRow.model_validate(row))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValidationError as error:
        problem = f"is damaged: row {len(rows) + 1}, {records.first_fault(error)}"
    except (csv.Error, ValueError) as error:
        problem = f"is damaged: {error}"
    else:
        return rows
    raise InputError.at(path, problem, REMEDY)


def _check_names(
    folder: Path, rows: Iterable[RunRow], definitions: Definitions, arrays: Mapping[str, Any]
) -> None:
    """Refuse files that do not name the same runs: the next export would lose some for good."""
    strategies = {f"{row.scenario}/{row.strategy}" for row in rows}
    named = {f"{row.scenario}/{row.strategy}/seed-{row.seed}" for row in rows} | strategies
    held = {
        f"{name.removeprefix('seeds/')}/seed-{seed}"
        for name, seeds in arrays.items()
        if name.startswith("seeds/")
        for seed in seeds
    }
    defined = {
        f"{definitions.scenarios[scenario].row}/{each.row}"
        for each in definitions.strategies
        for scenario in each.scenarios
    }
    more = set() if (folder / UNFINISHED).exists() else (held | defined) - named
    if differ := sorted((named - held - defined) | more):
        problem = f"is damaged: not all of {ROWS}, {DEFINITIONS} and {RANKS} have "
        raise InputError.at(folder, problem + first_few(differ), REMEDY)


def _run(
    folder: Path, row: RunRow, definitions: Definitions, arrays: Mapping[str, NDArray[Any]]
) -> FinishedRun:
    """The run of a row; an array that is missing or does not fit is a KeyError or ValueError."""
    known = definitions.scenarios[row.scenario]
    strategy = next(
        each.definition
        for each in definitions.strategies
        if each.row == row.strategy and row.scenario in each.scenarios
    )
    pairs = {
        name: PairFacts(facts.birth - 1, facts.role, facts.chance, facts.galleries)
        for name, facts in sorted(known.pairs.items())
    }
    place = f"{row.scenario}/{row.strategy}"
    seed = arrays[f"seeds/{place}"].tolist().index(row.seed)
    ranks = arrays[f"ranks/{place}"][seed]
    if ranks.dtype.kind == "u":
        ranks = ranks / 2
    stored = cells(pairs, ranked_stages(len(known.stages), joint=strategy.joint))
    items = [arrays[f"rows/{row.scenario}/{pair}"] for _, pair in stored]
    ends = np.cumsum([2 * len(each) for each in items], dtype=np.int64)
    parts = np.split(ranks, ends)
    if len(parts.pop()):
        raise ValueError(f"'ranks/{place}' holds more ranks than there are queries")
    apart = {"stages": True, "unscored": True, "handful": True, "label": True}
    task = known.model_dump(exclude={**apart, "pairs": {"__all__": {"chance", "galleries"}}})
    if known.split is None:
        del task["split"]
    return FinishedRun(
        folder=folder / row.scenario / row.strategy / f"seed-{row.seed}",
        task=task,
        protection=strategy.model_dump(),
        joint=strategy.joint,
        cumulative=strategy.cumulative,
        arrivals=known.stages,
        pairs=pairs,
        ranked={
            cell: ranked_of(
                each,
                part.reshape(2, -1),
                arrays.get(f"recordings/{row.scenario}/{cell[1]}"),
            )
            for cell, each, part in zip(stored, items, parts, strict=True)
        },
        **row.model_dump(
            exclude={"scenario", "strategy", "stability_gap", "mixed_recall", "earlier_recall"}
        ),
        scenario=known.scenario.name,
        strategy=strategy.name,
        stability_gap=_or_nan(row.stability_gap),
        mixed_recall=_or_nan(row.mixed_recall),
        earlier_recall=_or_nan(row.earlier_recall),
        handful={
            (int(stage), pair): items
            for stage, some in known.handful.items()
            for pair, items in some.items()
        },
        unscored=known.unscored,
        judged=_judged(row, task["scenario"], len(known.stages), seed, arrays),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _judged(
    row: RunRow,
    scenario: Mapping[str, Any],
    stages: int,
    seed: int,
    arrays: Mapping[str, NDArray[Any]],
) -> dict[tuple[int, str, str], Answers]:
    """What protocols found of a run; all of them were scored after the last stage."""
    found: dict[tuple[int, str, str], Answers] = {}
    for protocol, known in protocols_of(scenario).items():
        for series in known:
            shared = f"{row.scenario}/{protocol}/{series.name}"
            own = f"protocol-values/{row.scenario}/{row.strategy}/{protocol}/{series.name}"
            for stage in range(stages):
                name = f"{own}/stage-{stage + 1}"
                if name in arrays or stage + 1 == stages:
                    found[stage, protocol, series.name] = answers_of(
                        series,
                        arrays[f"protocol-units/{shared}"],
                        arrays[name][seed],
                        arrays.get(f"protocol-groups/{shared}"),
                        arrays.get(f"protocol-recordings/{shared}"),
                    )
    return found
