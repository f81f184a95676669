"""What it costs to train from a store that outgrows memory: ``make bench``.

Speed is a ratio to the same training with the items of the smallest store in memory, in the same
process; files are in the page cache as far as there is room. Memory is what a training allocates
for itself (RssAnon), in a process of its own for each size of the store; pages of the store's files
are not counted, since the system takes them back when it needs them.

At full size, stores of 1 and 4 GB, it needs 5 GB of disk and 4 GB of memory.
``python benchmarks/store.py --gigabytes 0.05 0.2`` tries it on small ones. What was made is removed
at the end, also after Ctrl-C or SIGTERM.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from continual_mm.data.columns import Column, MemoryColumn, blocks
from continual_mm.data.dataset import Dataset
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import Scenario, Stage, Strategy, Training
from continual_mm.runs.session import Session, open_session
from continual_mm.runs.specification import Specification, opened

LAYOUT = (
    Modality("video", Kind.VECTOR, (4096,)),
    Modality("audio", Kind.SPECTROGRAM, (0, 40)),
    Modality("text", Kind.TOKENS, (0, 300)),
)
ITEM_BYTES = 2 * (4096 + 75 * 40 + 10 * 300)
HELD_OUT = 100
SPEED_STEPS, ROUNDS = 30, 4
MEMORY_STEPS = 200
LEAST_SPEED, MOST_MEGABYTES = 0.9, 200


def records(items: int) -> Iterator[dict[str, object]]:
    """Random features in the shapes of HowTo100M, sound and words of many lengths."""
    rng = np.random.default_rng(0)
    for number in range(items):
        held_out = (items - number - 1) // HELD_OUT
        yield {
            "ids": f"clip {number}",
            "split": (2, 1)[held_out] if held_out < 2 else 0,
            "text_raw": f"words of clip {number}",
            "video": rng.standard_normal(4096, dtype=np.float32),
            "audio": rng.standard_normal((rng.integers(50, 101), 40), dtype=np.float32),
            "text": rng.standard_normal((rng.integers(1, 21), 300), dtype=np.float32),
        }


def begun(dataset: Dataset, steps: int, workers: int = 0) -> Session:
    """A session of the default space before its only stage."""
    training = Training(steps=steps, batch_size=128)
    stages = (Stage(add=("video", "audio", "text")),)
    scenario = Scenario(name="bench", stages=stages, training=training)
    naive = Specification(opened(scenario, dataset.card), Strategy(name="naive"))
    return open_session(naive, dataset, {}, workers=workers)


def stored_gigabytes(store: Path) -> float:
    """What a store's shards take on the disk."""
    return sum(file.stat().st_size for file in store.rglob("*.arrow")) / 1e9


def in_memory(column: Column) -> MemoryColumn:
    """The same column with all its values in memory; every item has it."""
    modality, items = column.modality, len(column.present)
    values = np.zeros((items, *modality.shape), dtype=np.float32)
    steps, place = values.reshape(items, -1, modality.features), 0
    for block, _ in blocks(column, np.arange(items)):
        steps[place : place + len(block), : block.shape[1]] = block
        place += len(block)
    lengths = column.valid if modality.kind.has_length else None
    return MemoryColumn(modality, values, column.present, lengths)


def speed(stores: Sequence[Path]) -> bool:
    """Print how fast training from stores is; the first round warms up."""
    datasets = {f"store of {stored_gigabytes(each):.2f} GB": read_store(each) for each in stores}
    first = next(iter(datasets.values()))
    held = {name: in_memory(column) for name, column in first.columns.items()}
    datasets["memory"] = replace(first, columns=held)
    ahead = "memory, --workers 1"
    times: dict[str, list[float]] = {name: [] for name in (*datasets, ahead)}
    for _ in range(ROUNDS):
        for name in times:
            workers = int(name == ahead)
            session = begun(datasets["memory" if workers else name], SPEED_STEPS, workers)
            start = time.perf_counter()
            session.learn(0)
            times[name].append(time.perf_counter() - start)
    best = {name: min(found[1:]) for name, found in times.items()}
    step, items = 1e3 * best["memory"] / SPEED_STEPS, f"{len(first):,} items"
    print(f"\ntraining from a store (baseline: {items} in memory, {step:.0f} ms a step)")
    ratios = {name: best["memory"] / best[name] for name in datasets if name != "memory"}
    for name, ratio in ratios.items():
        print(f"  {name:28} x {ratio:.2f} (at least {LEAST_SPEED})")
    print(f"  {ahead:28} x {best['memory'] / best[ahead]:.2f}")
    return min(ratios.values()) >= LEAST_SPEED


def anonymous_megabytes() -> float:
    """Memory of this process that no file stands behind."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024


def most_memory(store: Path, steps: int) -> float:
    """Train from a store; the most anonymous memory after any step, in megabytes."""
    session = begun(read_store(store), steps)
    seen: list[float] = []
    session.learner.after_step = lambda: seen.append(anonymous_megabytes())
    session.learn(0)
    return max(seen)


def growth(stores: Sequence[Path], steps: int) -> bool:
    """Print how the memory of training grows with the store."""
    print(f"\nanonymous memory of training, {steps} steps (baseline: the smallest store)")
    found = []
    for store in stores:
        command = [sys.executable, __file__, "--train", str(store), "--steps", str(steps)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(float(done.stdout.split()[-1]))
        print(f"  store of {stored_gigabytes(store):5.2f} GB            {found[-1]:8.0f} MB")
    grown = found[-1] - found[0]
    print(f"  growth                       {grown:8.0f} MB (less than {MOST_MEGABYTES})")
    return grown < MOST_MEGABYTES


def written(folder: Path, gigabytes: float) -> Path:
    """A store of about this size."""
    store = folder / f"{gigabytes}"
    write_store(records(max(1000, int(gigabytes * 1e9 / ITEM_BYTES))), store, layout=LAYOUT)
    return store


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--steps", type=int, default=MEMORY_STEPS)
    parser.add_argument("--folder", help="where the stores are made, and removed again")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        print(most_memory(Path(given.train), given.steps))
        sys.exit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        stores = [written(Path(made), each) for each in sorted(given.gigabytes)]
        # In this order, so that nothing of the one is in memory while the other is measured.
        kept = [growth(stores, given.steps), speed(stores)]
    sys.exit(not all(kept))
