"""Hostile inputs, kills and full disks; counts what must not happen. ``make torture`` runs it.

python benchmarks/torture [--trials N] [--seed S] [--only KIND] [--keep FOLDER]
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import dataset_files
import definition_files
import manifest_files
import option_values
import run_folders
from trial import FAULTS, Trial, Verdict, judged

KINDS: Mapping[str, tuple[Trial, float]] = {
    "definitions": (definition_files.trial, 0.3),
    "options": (option_values.trial, 0.1),
    "packs": (dataset_files.pack_trial, 0.15),
    "stores": (dataset_files.store_trial, 0.15),
    "tables": (dataset_files.table_trial, 0.05),
    "pickles": (dataset_files.pickle_trial, 0.05),
    "manifests": (manifest_files.trial, 0.2),
    "kills": (run_folders.killed, 0.03),
    "full disks": (run_folders.without_room, 0.03),
    "run folders": (run_folders.damaged, 0.06),
}
"""Kind of trial -> what carries one out, and its share of ``--trials``. Add a kind by a line."""

TRIALS = 1000
WARM = (
    *("continual_mm.runs.worker", "continual_mm.runs.data_checks", "continual_mm.runs.estimate"),
    *("continual_mm.data.pack", "continual_mm.data.store.reader", "continual_mm.runs.status"),
    *(
        "continual_mm.preparation.extraction.clip_features",
        "continual_mm.preparation.inspection.report",
    ),
    *("continual_mm.preparation.extraction.spectrogram_tower", "librosa.filters", "scipy.fft"),
    *("continual_mm.preparation.extraction.word_towers", "continual_mm.preparation.extraction.job"),
    *("continual_mm.preparation.formats.clip_pickles", "continual_mm.comparison.compare"),
)
"""Modules that are imported before the first trial, for all of them."""

SETTINGS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What libraries read when they are imported: no command waits for a network."""

SHOWN = 20  # trials with a fault that are told


def main() -> int:
    """0 if nothing happened that must not."""
    given = arguments()
    kinds = [given.only] if given.only else [*KINDS]
    if given.number is not None:
        wanted = [(kind, given.number) for kind in kinds]
    else:
        wanted = [(kind, number) for kind in kinds for number in range(_count(kind, given.trials))]
    root = Path(tempfile.mkdtemp(prefix="torture-")) if given.keep is None else given.keep
    started = time.monotonic()
    try:
        verdicts = list(carried_out(wanted, given.seed, root.absolute(), jobs=given.jobs))
    finally:
        if given.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    seconds = time.monotonic() - started
    print(f"seed {given.seed}, {len(verdicts)} trials in {seconds:.0f} s")
    print(table(kinds, verdicts))
    bad = sorted((v for v in verdicts if v.faults), key=lambda v: (v.kind, v.number))
    for verdict in bad[:SHOWN]:
        again = f"--seed {given.seed} --only {verdict.kind!r} --number {verdict.number}"
        print(f"\n{', '.join(verdict.faults)}: {again}\n{verdict.story}", file=sys.stderr)
    return int(bool(bad))


def _count(kind: str, trials: int) -> int:
    return max(1, round(trials * KINDS[kind][1]))


def carried_out(
    wanted: Sequence[tuple[str, int]], seed: int, root: Path, *, jobs: int
) -> Iterator[Verdict]:
    """Trials in so many processes, as they end."""
    home = root / "home"
    home.mkdir(parents=True, exist_ok=True)
    # Caches and logs of the commands go there.
    os.environ.update(HOME=str(home), XDG_CACHE_HOME=str(home / "cache"))
    os.chdir(home)
    for module in WARM:
        import_module(module)
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        futures = [pool.submit(_judge, kind, number, seed, root) for kind, number in wanted]
        for future in as_completed(futures):
            yield future.result()


def _judge(kind: str, number: int, seed: int, root: Path) -> Verdict:
    return judged(kind, KINDS[kind][0], number, seed, root)


def table(kinds: Iterable[str], verdicts: Sequence[Verdict]) -> str:
    """How many of each kind were tried, were accepted, and had which fault."""
    headings = ("", "tried", "accepted", *FAULTS)
    rows: list[tuple[str, ...]] = [headings]
    for kind in (*kinds, "all"):
        mine = [verdict for verdict in verdicts if kind in (verdict.kind, "all")]
        faults = Counter(fault for verdict in mine for fault in verdict.faults)
        accepted = sum(verdict.accepted for verdict in mine)
        rows.append((kind, *map(str, (len(mine), accepted, *(faults[one] for one in FAULTS)))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*KINDS], help="one kind of trial")
    parser.add_argument("--number", type=int, help="one trial of each kind")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="a folder for the files of the trials, kept")
    return parser.parse_args()


if __name__ == "__main__":
    if not os.environ.items() >= SETTINGS.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    sys.exit(main())
