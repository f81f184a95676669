"""What torch.save wrote is read by the same machine; it takes no file at its word."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.preparation.formats.machine.unpickling import load_pickle, unpickled
from continual_mm.system.errors import InputError


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_pickle(path)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saved_is_read(forge: Any, tmp_path: Path, zipped: bool) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
    saved = {
        "audio": values,
        "shared": values[1],
        "turned": values.T,
        "own": torch.nn.Parameter(torch.ones(2)),
        "none": torch.zeros(0, 3),
        "ordered": OrderedDict(a=torch.tensor(1.5)),
        **{str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in dtypes},
    }
    path = tmp_path / "it.pt"
    path.write_bytes(forge.saved(saved, zipped=zipped))
    read, expected = load_pickle(path), torch.load(path)
    assert isinstance(read, dict)
    assert torch.equal(read["ordered"].pop("a"), expected["ordered"].pop("a"))
    for name in saved.keys() - {"ordered"}:
        assert read[name].dtype == expected[name].dtype
        assert torch.equal(read[name], expected[name])
    read["audio"][1, 0] = 9
    assert read["shared"][0] == 9


@pytest.mark.parametrize("zipped", [True, False])
def test_clips_of_arrays_and_tensors_are_read_from_what_torch_saved(
    forge: Any, tmp_path: Path, zipped: bool
) -> None:
    """Torch's own weights-only load refuses NumPy's arrays, of which published clips are made."""
    clip = {"id": "a", "2d": np.arange(3, dtype=np.float32), "audio": torch.ones(2, 3)}
    path = tmp_path / "it.pt"
    path.write_bytes(forge.saved([clip], zipped=zipped))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    (read,) = load_pickle(path)
    assert read["2d"].tolist() == [0, 1, 2]
    assert torch.equal(read["audio"], clip["audio"])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_of_few_values_cannot_claim_to_be_large(
    forge: Any, tmp_path: Path, zipped: bool
) -> None:
    """Expanded to 2**33 values it takes one in the file, and 32 GB once anything is made of it."""
    large = forge.saved([torch.zeros(1).expand(2**33)], zipped=zipped)
    assert "in a storage of 1 values" in refused(tmp_path / "it.pt", large)


@pytest.mark.parametrize("count", [5, 2**20, 2**31 - 1])
def test_a_storage_has_the_size_that_is_there(forge: Any, tmp_path: Path, count: int) -> None:
    old = forge.saved([torch.arange(4.0)], zipped=False)
    assert old.count(b"K\x04Nt") == 1
    claimed = b"J" + struct.pack("<i", count) + b"Nt"
    why = "another size than" if count < len(old) / 4 else "more than its size"
    assert why in refused(tmp_path / "old.pt", old.replace(b"K\x04Nt", claimed))
    new = rezipped(forge.saved([torch.arange(4.0)], zipped=True), cut_values=True)
    assert "another size" in refused(tmp_path / "new.pt", new)


def rezipped(data: bytes, *, cut_values: bool = False, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(stream, "w", method) as target,
    ):
        for member in source.infolist():
            values = cut_values and "/data/" in member.filename
            target.writestr(member.filename, source.read(member)[: 3 if values else None])
    return stream.getvalue()


def test_storages_whose_values_never_come_are_refused(forge: Any, tmp_path: Path) -> None:
    """Torch hands out whatever lay in that memory before."""
    whole = forge.saved([torch.arange(4.0)], zipped=False)
    start = whole.rindex(b"\x80\x02]q")
    for keys in (b"\x80\x02].", b"\x80\x02](K\x01e.", b"\x80\x02}."):
        assert "without values" in refused(tmp_path / "it.pt", whole[:start] + keys)


def test_a_zip_that_grows_is_refused(forge: Any, tmp_path: Path) -> None:
    whole = forge.saved(torch.zeros(100_000), zipped=True)
    grown = rezipped(whole, method=zipfile.ZIP_DEFLATED)
    assert len(grown) < len(whole) / 100
    assert "compressed" in refused(tmp_path / "it.pt", grown)


def zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_a_zip_leads_to_no_file_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    kind = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX"
    for key in ("../secret", "../../secret", str(tmp_path / "secret")):
        claim = kind + struct.pack("<I", len(key)) + key.encode() + b"X\x03\0\0\0cpuK\x01tQ."
        data = zip_of(**{"a/data.pkl": b"\x80\x02" + claim})
        assert "KeyError" in refused(tmp_path / "it.pt", data)


def test_other_zips_are_told_from_those_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    assert "did not write" in refused(path, zip_of(**{"a.npy": b""}))
    assert "did not write" in refused(path, zip_of(**{"a/data.pkl": b"N.", "b/data.pkl": b"N."}))
    assert "big-endian" in refused(path, zip_of(**{"a/data.pkl": b"N.", "a/byteorder": b"big"}))
    assert "bytearray" in refused(
        path, zip_of(**{"a/data.pkl": b"c__builtin__\nbytearray\n(I9999999999\ntR."})
    )


def test_a_storage_within_a_pickle_holds_nothing_else(forge: Any) -> None:
    for thing in ([torch.zeros(1)], {"a": 1}, np.zeros(2)):
        loaded = forge.Made(
            forge.Named("torch.storage", "_load_from_bytes"), forge.saved(thing, zipped=False)
        )
        with pytest.raises(InputError):
            unpickled(forge(loaded), place="it")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_of_torch_are_read_or_refused_and_nothing_else(
    forge: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    clip = [{"audio": torch.ones(2, 3), "2d": np.zeros(2), "id": "a"}]
    damaged = bytearray(forge.saved(clip, zipped=data.draw(st.booleans())))
    # torch writes addresses into the older form, so that its length is not always the same.
    places = st.integers(0, 10_000)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(places) % len(damaged)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(damaged[: 1 + data.draw(places) % len(damaged)])
    try:
        load_pickle(path)
    except InputError as refusal:
        assert len(refusal.problems) == 1
