"""Untrusted files: damaged, misleading or malicious ones are refused, and nothing is run."""

import io
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual_mm.data.pack import read_card, read_pack, write_pack
from continual_mm.system.errors import InputError


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_pack(path)
    return str(caught.value)


def crafted(path, *members):
    """A pack with members that are given byte by byte."""
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("column", ["video", "ids", "split", "video_kind", "extra"])
def test_a_pickle_is_refused_by_column_and_never_run(tmp_path, saved, column):
    target = tmp_path / "was-run"
    hostile = np.empty(6, dtype=object)
    hostile[:] = [Malicious(target)] * 6
    others = {"video_length": None} if column == "video" else {}
    path = saved(**{column: hostile}, **others)
    for read in (read_card, read_pack):
        with pytest.raises(InputError) as caught:
            read(path)
        (problem,) = caught.value.problems
        assert str(problem).startswith(f"{path}, column {column!r}: holds pickled Python objects")
    assert not target.exists()
    np.load(path, allow_pickle=True)[column]
    assert target.exists()


def test_a_bare_pickle_in_or_as_the_pack_is_never_run(tmp_path, saved):
    target = tmp_path / "was-run"
    hostile = pickle.dumps(Malicious(target))
    (tmp_path / "bare.npz").write_bytes(hostile)
    assert "bare.npz: is no .npz file" in refusal(tmp_path / "bare.npz")
    assert "'extra': cannot be read" in refusal(crafted(saved(), ("extra.npy", hostile)))
    read_pack(crafted(saved(), ("extra.pkl", hostile)))
    assert not target.exists()


@pytest.mark.parametrize("read", [read_card, read_pack])
def test_what_is_no_pack_is_refused(tmp_path, saved, read):
    whole = saved().read_bytes()
    (tmp_path / "single.npz").write_bytes(npy_bytes(np.ones((6, 2))))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "endless.npz").symlink_to("/dev/zero")
    for name, problem in (
        *((f"{name}.npz", "is no .npz file") for name in ("single", "empty", "short")),
        *((name, "is no regular file") for name in ("pipe.npz", "endless.npz", ".")),
        ("missing.npz", "cannot be opened: No such file or directory"),
    ):
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {problem}")


def test_damaged_bytes_are_noticed(saved, columns):
    path = saved()
    content = bytearray(path.read_bytes())
    content[content.index(columns()["video"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert "column 'video': cannot be read (Bad CRC-32" in refusal(path)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(saved):
    honest = npy_bytes(np.ones((6, 2), dtype=np.float32))
    bomb = honest.replace(b"(6, 2), }      ", b"(6, 99999999), }")[: len(honest)]
    message = refusal(crafted(saved(), ("bomb.npy", bomb)))
    assert "column 'bomb': claims float32 of shape (6, 99999999), " in message
    empty_words = honest.replace(b"'<f4'", b"'<U0'").replace(b"(6, 2)", b"(9, 9)")[:128]
    assert "column 'words'" in refusal(crafted(saved(), ("words.npy", empty_words)))


def test_a_header_of_many_megabytes_is_not_read(tmp_path):
    path = tmp_path / "mine.npz"
    size = 1 << 26
    header = b"\x93NUMPY\x02\x00" + struct.pack("<I", size) + b" " * size
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", header)
    tracemalloc.start()
    assert "column 'bomb': cannot be read" in refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 8


def test_a_directory_that_claims_more_than_deflate_can_hold_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    huge = npy_bytes(np.ones(2))[:128].replace(b"(2,), }       ", b"(99999999999,)}")[:128]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("huge.npy", huge)
    size = 128 + 8 * 99999999999
    with zipfile.ZipFile(path, "a") as archive:
        archive.infolist()[0].file_size = size
        archive.comment = b"rewrites the directory"
    assert f"compressed bytes cannot hold {size}" in refusal(path)


def test_no_honest_file_is_taken_for_a_bomb(tmp_path, columns):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, **columns(video=np.zeros((6, 4, 200_000), dtype=np.float32)))
    assert path.stat().st_size < 6 * 4 * 200_000 * 4 / 900
    assert read_card(path).items == (4, 1, 1)


def test_repeated_and_overlapping_members_are_refused(saved):
    again = npy_bytes(np.ones((7, 200)))
    path = crafted(saved(), ("twin.npy", again), ("twin.npy", again))
    assert refusal(path) == f"{path}, column 'twin': is in the file more than once"
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist.extend([archive.getinfo("twin.npy")] * 5)
        archive.comment = b"rewrites the directory"
    assert "its members overlap" in refusal(path)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_happens_to_the_bytes_it_is_read_or_refused(tmp_path, columns, data):
    path = tmp_path / "mine.npz"
    write_pack(path, columns())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    for read in (read_card, read_pack):
        try:
            read(path)
        except InputError as refused:
            assert refused.problems
