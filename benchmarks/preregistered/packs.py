"""Feature packs made of narrated_shapes: another domain in the second stage, or wrong partners."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes.generate import pack_path
from continual_mm.data.pack import read_pack, write_pack
from continual_mm.data.statistics import measured, standardise
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.catalog import Entry
from continual_mm.definitions.reading import draft_scenario
from continual_mm.learning.stream import benchmark

Arrays = Mapping[str, NDArray[np.generic]]
Rows = NDArray[np.int64]
Recipe = Callable[[Arrays, Rows], Arrays]
"""(columns of a pack, training rows of the last stage) -> columns of another pack."""

DICE = 57
"""Seed of the maps and exchanges, which do not depend on the seeds of runs."""
DIM = 256
"""Size of the space, and so of texts that are embeddings already."""


def shifted(arrays: Arrays, late: Rows) -> Arrays:
    """Another domain for video of the last stage, and texts in a frame of their own.

    Args:
        arrays: With video, audio and captions; training items come first.
        late: Rows of the last stage, whose video is turned.

    Returns:
        The training items, and three copies of every other one: video and audio as they were;
        turned video and text; audio and text. Text is a vector of the size of the space.
    """
    training = arrays["split"] == 0
    ends = np.flatnonzero(~training)
    rows = np.concatenate([np.flatnonzero(training), ends, ends, ends])
    copy = np.concatenate([np.zeros(training.sum(), int), np.repeat([1, 2, 3], len(ends))])
    old, new = standardised_and_turned(arrays, training)
    away = np.isin(rows, late) & (copy == 0) | (copy == 2)
    kept = {name: arrays[name][rows] for name in ("audio", "audio_length", "video_length", "split")}
    return {
        **kept,
        "video": np.where(away[:, None, None], new[rows], old[rows]),
        "text": embedded(arrays["text_raw"], training)[rows],
        "video_present": copy != 3,
        "audio_present": copy != 2,
        "text_present": copy != 1,
        "video_kind": arrays["video_kind"],
        "audio_kind": arrays["audio_kind"],
        "text_kind": np.array("vector"),
        "text_raw": arrays["text_raw"][rows],
        "ids": np.char.add(
            arrays["ids"][rows].astype(str), np.array(["", "-va", "-vt", "-at"])[copy]
        ),
    }


def standardised_and_turned(
    arrays: Arrays, training: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Video z, standardised on the training items, and (z + Q z) / √2 for a fixed rotation Q."""
    steps = np.array(arrays["video"], dtype=np.float32)
    valid = np.asarray(arrays["video_length"], dtype=np.int64)
    standardise(steps, valid, measured(steps, valid, training))
    rotation = orthonormal(steps.shape[-1], steps.shape[-1]).astype(np.float32)
    turned = (steps + steps @ rotation) / np.sqrt(2)
    return steps, turned.astype(np.float32)


def embedded(captions: NDArray[np.generic], training: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(items, DIM) centred bags of the training captions' words, their angles kept."""
    words = [set(str(caption).split()) for caption in captions]
    known = sorted(set().union(*(words[row] for row in np.flatnonzero(training))))
    bags = np.array([[word in each for word in known] for each in words], dtype=np.float64)
    centred = bags - bags[training].mean(axis=0)
    vectors: NDArray[np.float32] = (centred @ orthonormal(len(known), DIM)).astype(np.float32)
    return vectors


def orthonormal(rows: int, columns: int) -> NDArray[np.float64]:
    """(rows, columns) a random matrix of orthonormal rows, the same whenever it is asked for."""
    tall, upper = np.linalg.qr(np.random.default_rng(DICE).standard_normal((columns, rows)))
    # The sign makes it uniform among all such matrices.
    wide: NDArray[np.float64] = (tall * np.sign(np.diagonal(upper))).T
    return wide


def mismatched(arrays: Arrays, late: Rows) -> Arrays:
    """Half of the training items exchange their audio, so that none of them has its own.

    Args:
        arrays: With audio.
        late: Not looked at; which stage an item belongs to makes no difference.
    """
    del late
    training = np.flatnonzero(arrays["split"] == 0)
    ring = np.random.default_rng(DICE).permutation(training)[: len(training) // 2]
    changed = dict(arrays)
    for name in ("audio", "audio_length"):
        changed[name] = arrays[name].copy()
        changed[name][ring] = arrays[name][np.roll(ring, 1)]
    return changed


def prepared(entry: Entry, recipe: Recipe, *, seed: int, folder: Path) -> Entry:
    """A scenario on a pack made for it and a seed, once, as if its file lay beside the pack.

    Args:
        entry: A scenario on narrated_shapes.
        recipe: Makes the pack.
        seed: Of the run; it draws the stages' items.
        folder: Where packs are kept.
    """
    pack = folder / f"{entry.name}-seed{seed}.npz"
    if not pack.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(pack_path()) as arrays:
            write_pack(pack, recipe(dict(arrays), late_rows(entry, seed)))
    return beside(entry, pack)


def late_rows(entry: Entry, seed: int) -> Rows:
    """The training rows of narrated_shapes that a run with some seed shows in its last stage."""
    dataset = read_pack(pack_path(), standardise=False)
    scenario = draft_scenario(entry.document, name=entry.name, folder="", file=entry.name).scenario
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=seed)
    rows: Rows = streams.train[-1].items.shares[-1].rows.numpy()
    return rows


def beside(entry: Entry, pack: Path) -> Entry:
    """A scenario on another pack, as if its file lay beside it: no path enters what defines it."""
    document = {**entry.document, "dataset": pack.name}
    return Entry(entry.kind, entry.name, pack.with_name(entry.path.name), document)
