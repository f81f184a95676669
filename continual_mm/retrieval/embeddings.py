"""Vectors of a dataset's items, written block by block."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from continual_mm.data import registry
from continual_mm.data.batch import Items, Share
from continual_mm.data.dataset import Dataset, Split
from continual_mm.learning.learner import EVALUATION_ROWS
from continual_mm.learning.loader import BlockLoader
from continual_mm.runs.run import open_run
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write

FORMATS = (".npz", ".parquet")
Block = tuple[str, np.ndarray, np.ndarray]


def embed(run: Path, data: str, to: Path, *, pair: str = "") -> dict[str, int]:
    """Write vectors of all items of a dataset; modality -> how many.

    A ``.npz`` has an array for each modality, ``<modality>_ids`` and ``<modality>_split``; a
    ``.parquet`` a row for each item and modality with ``id``, ``split``, ``modality`` and
    ``vector``. No more than a block of items is in memory.

    Raises:
        InputError: If the run or the dataset is not there, they share no modality, or the file's
            name says no format.
    """
    if to.suffix.lower() not in FORMATS:
        raise InputError.at(to, f"{to.suffix!r} is no format here", "end it with .npz or .parquet")
    space = open_run(run, pair=pair)
    known = {one.name: space.statistics.get(one.name) for one in space.modalities}
    dataset = registry.load(data, standardise=known, splits=())
    names = [name for name in known if name in dataset.columns]
    if not names:
        have = ", ".join(dataset.card.names)
        raise InputError.at(data, f"has {have}, none of {', '.join(known)}", "give another dataset")
    _check_shapes(space, dataset, names)
    write = _npz if to.suffix.lower() == ".npz" else _parquet
    counts = {name: int(dataset.columns[name].present.sum()) for name in names}
    with atomic_write(to) as temporary:
        write(temporary, _blocks(space, dataset, names), dataset, counts, space.size)
    return counts


def _check_shapes(space: JointSpace, dataset: Dataset, names: list[str]) -> None:
    mine = {one.name: one for one in space.modalities}
    for name in names:
        other, own = dataset.card[name], mine[name]
        if (other.kind, other.features) != (own.kind, own.features):
            place = f"dataset {dataset.card.name!r}, {name}"
            message = f"is {other.kind} of {other.shape}, the run's is {own.kind} of {own.shape}"
            raise InputError.at(place, message, "extract it as the run's dataset was")


@torch.no_grad()
def _blocks(space: JointSpace, dataset: Dataset, names: list[str]) -> Iterator[Block]:
    rows = torch.arange(len(dataset))
    for name in names:
        items = Items(dataset, (Share(0, rows, (name,)),))
        for block in BlockLoader(items, rows=EVALUATION_ROWS):
            if name in block.features:
                batch = block.to(space.log_scale.device)
                found = space.vectors(name, space(batch.features, batch.lengths)[name])
                yield name, batch.index[batch.rows[name]].numpy(), found.cpu().numpy()


def _npz(
    path: Path, blocks: Iterator[Block], dataset: Dataset, counts: dict[str, int], size: int
) -> None:
    with TemporaryDirectory(dir=path.parent) as folder:
        arrays = {
            name: np.lib.format.open_memmap(
                Path(folder) / f"{number}.npy", mode="w+", dtype=np.float32, shape=(count, size)
            )
            for number, (name, count) in enumerate(counts.items())
        }
        rows: dict[str, list[np.ndarray]] = {name: [] for name in counts}
        done = dict.fromkeys(counts, 0)
        for name, some, vectors in blocks:
            arrays[name][done[name] : done[name] + len(some)] = vectors
            done[name] += len(some)
            rows[name].append(some)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for number, (name, array) in enumerate(arrays.items()):
                array.flush()
                every = np.concatenate([np.empty(0, np.int64), *rows[name]])
                archive.write(Path(folder) / f"{number}.npy", f"{name}.npy")
                _put(archive, f"{name}_ids", np.asarray(dataset.ids[every]).astype(np.str_))
                _put(archive, f"{name}_split", dataset.split[every].astype(np.int64))


def _put(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


def _parquet(
    path: Path, blocks: Iterator[Block], dataset: Dataset, counts: dict[str, int], size: int
) -> None:
    import pyarrow as pa  # noqa: PLC0415 - the extra ``data`` brings it
    import pyarrow.parquet as pq  # noqa: PLC0415

    vector = pa.list_(pa.float32(), size)
    fields = {"id": pa.string(), "split": pa.string(), "modality": pa.string(), "vector": vector}
    splits = {one.value: one.name.lower() for one in Split}
    with pq.ParquetWriter(path, pa.schema(fields)) as writer:
        for name, rows, vectors in blocks:
            flat = pa.array(vectors.reshape(-1), pa.float32())
            columns = {
                "id": pa.array([str(one) for one in dataset.ids[rows]]),
                "split": pa.array([splits[int(one)] for one in dataset.split[rows]]),
                "modality": pa.array([name] * len(rows)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, size),
            }
            writer.write_table(pa.table(columns, schema=pa.schema(fields)))
