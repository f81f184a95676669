"""Frames of pandas, old and new, are read as columns; pandas itself is not asked."""

import base64
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.preparation.formats.machine.unpickling import unpickled

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def opened(data: bytes) -> Any:
    return unpickled(data, place="it")


# By pandas 1.5.3: DataFrame({"start": [0., 1.5], "end": [1., 2.], "text": ["a", "é"]}), protocol 4.
PANDAS_1 = base64.b64decode(
    "gASV7AIAAAAAAACMEXBhbmRhcy5jb3JlLmZyYW1llIwJRGF0YUZyYW1llJOUKYGUfZQojARfbWdylIwecGFuZGFzLmNv"
    "cmUuaW50ZXJuYWxzLm1hbmFnZXJzlIwMQmxvY2tNYW5hZ2VylJOUjBZwYW5kYXMuX2xpYnMuaW50ZXJuYWxzlIwPX3Vu"
    "cGlja2xlX2Jsb2NrlJOUjBVudW1weS5jb3JlLm11bHRpYXJyYXmUjAxfcmVjb25zdHJ1Y3SUk5SMBW51bXB5lIwHbmRh"
    "cnJheZSTlEsAhZRDAWKUh5RSlChLAUsCSwKGlGgPjAVkdHlwZZSTlIwCZjiUiYiHlFKUKEsDjAE8lE5OTkr/////Sv//"
    "//9LAHSUYolDIAAAAAAAAAAAAAAAAAAA+D8AAAAAAADwPwAAAAAAAABAlHSUYowIYnVpbHRpbnOUjAVzbGljZZSTlEsA"
    "SwJLAYeUUpRLAoeUUpRoC2gOaBFLAIWUaBOHlFKUKEsBSwFLAoaUaBiMAk84lImIh5RSlChLA4wBfJROTk5K/////0r/"
    "////Sz90lGKJXZQojAFhlIwCw6mUZXSUYmgiSwJLA0sBh5RSlEsCh5RSlIaUXZQojBhwYW5kYXMuY29yZS5pbmRleGVz"
    "LmJhc2WUjApfbmV3X0luZGV4lJOUaDqMBUluZGV4lJOUfZQojARkYXRhlGgOaBFLAIWUaBOHlFKUKEsBSwOFlGgtiV2U"
    "KIwFc3RhcnSUjANlbmSUjAR0ZXh0lGV0lGKMBG5hbWWUTnWGlFKUaDyMGXBhbmRhcy5jb3JlLmluZGV4ZXMucmFuZ2WU"
    "jApSYW5nZUluZGV4lJOUfZQoaEpOaEZLAIwEc3RvcJRLAowEc3RlcJRLAXWGlFKUZYaUUpSMBF90eXCUjAlkYXRhZnJh"
    "bWWUjAlfbWV0YWRhdGGUXZSMBWF0dHJzlH2UjAZfZmxhZ3OUfZSMF2FsbG93c19kdXBsaWNhdGVfbGFiZWxzlIhzdWIu"
)


def test_a_frame_of_pandas_1_is_read_as_columns() -> None:
    assert_captions(opened(PANDAS_1))


def assert_captions(read: Any) -> None:
    assert list(read) == ["start", "end", "text"]
    columns = {name: list(column) for name, column in read.items()}
    assert columns == {"start": [0.0, 1.5], "end": [1.0, 2.0], "text": ["a", "é"]}


def old_frame(forge: Any, module: str, blocks: Callable[[list[Any], Any], object]) -> bytes:
    """A frame as pandas wrote it before 1.4, from its documented parts."""
    numbers, texts = np.array([[0.0, 1.5], [1.0, 2.0]]), np.array([["a", "é"]], dtype=object)
    new_index = forge.Named("pandas.core.indexes.base", "_new_Index")
    index, names = (
        forge.Named("pandas.core.indexes.base", "Index"),
        np.array(["start", "end", "text"]),
    )
    axes = [
        forge.Made(new_index, index, {"data": names.astype(object), "name": None}),
        forge.Made(
            new_index,
            forge.Named("pandas.core.indexes.range", "RangeIndex"),
            {"name": None, "start": 0, "stop": 2, "step": 1},
        ),
    ]
    manager = blocks(axes, [(numbers, slice(0, 2, 1)), (texts, np.array([2]))])
    frame = forge.Named("pandas.core.frame", "DataFrame")
    key = "_mgr" if module == "_mgr" else "_data"
    return forge(forge.Made(frame, state={key: manager, "_typ": "dataframe", "_metadata": []}))


def test_frames_of_pandas_before_1_3_are_read_as_columns(forge: Any) -> None:
    def blocks(axes: list[Any], parts: Any) -> object:
        made = [{"values": values, "mgr_locs": places} for values, places in parts]
        values = [values for values, _ in parts]
        state = (axes, values, axes[:1], {"0.14.1": {"axes": axes, "blocks": made}})
        return forge.Made(
            forge.Named("pandas.core.internals.managers", "BlockManager"), state=state
        )

    assert_captions(opened(old_frame(forge, "_data", blocks)))


def test_frames_of_pandas_1_3_are_read_as_columns(forge: Any) -> None:
    def blocks(axes: list[Any], parts: Any) -> object:
        new_block = forge.Named("pandas.core.internals.blocks", "new_block")
        state = (new_block, (), {"ndim": 2}, None)
        partial = forge.Made(forge.Named("functools", "partial"), new_block, state=state)
        made = tuple(forge.Made(partial, *part) for part in parts)
        return forge.Made(forge.Named("pandas.core.internals.managers", "BlockManager"), made, axes)

    assert_captions(opened(old_frame(forge, "_mgr", blocks)))


@pytest.mark.parametrize("storage", ["python", "pyarrow"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_of_the_installed_pandas_are_read_as_columns(protocol: int, storage: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    columns = {"start": [0.0, 1.5], "end": [1.0, 2.0], "text": ["a", "é"]}
    with pandas.option_context("mode.string_storage", storage):
        frame = pandas.DataFrame(columns)
    assert_captions(opened(pickle.dumps(frame, protocol)))
    assert_captions(opened(pickle.dumps(frame.astype({"text": object}), protocol)))
    cut = opened(pickle.dumps(frame.iloc[1:], protocol))
    assert {name: list(column) for name, column in cut.items()} == {
        "start": [1.5],
        "end": [2.0],
        "text": ["é"],
    }
    assert list(opened(pickle.dumps(frame["text"], protocol))) == ["a", "é"]


def test_reading_a_frame_imports_nothing_of_pandas(tmp_path: Path) -> None:
    path = tmp_path / "frame.pickle"
    path.write_bytes(PANDAS_1)
    program = (
        "import sys; from pathlib import Path\n"
        "from continual_mm.preparation.formats.machine.unpickling import load_pickle\n"
        f"load_pickle(Path({str(path)!r}))\n"
        "sys.exit('pandas' in sys.modules or 'pyarrow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def strings_at(forge: Any, begin: int, end: int) -> object:
    """One Arrow string in the text "abc"."""
    marks = struct.pack("<2q", begin, end)
    kind = forge.Made(forge.Named("pyarrow.lib", "type_for_alias"), "large_string")
    array = (kind, 1, 0, 0, [None, marks, b"abc"], [], None)
    return forge.Made(forge.Named("pyarrow.lib", "_restore_array"), array)


def test_strings_of_arrow_are_read(forge: Any) -> None:
    assert opened(forge(strings_at(forge, 1, 3))) == ["bc"]


@pytest.mark.parametrize(("begin", "end"), [(0, 5), (0, 2**40), (-2, 3), (3, 0)])
def test_strings_that_lie_outside_of_their_text_are_refused(
    forge: Any, refusal: Callable[[bytes], str], begin: int, end: int
) -> None:
    assert "outside of their text" in refusal(forge(strings_at(forge, begin, end)))


def test_which_strings_of_arrow_are_missing_is_told_by_the_bits_from_the_first_on(
    forge: Any,
) -> None:
    texts = [None if n % 3 else "abcdefghijklmnopqrst"[n] for n in range(20)]
    marks = np.cumsum([0, *(text is not None for text in texts)]).astype("<i4").tobytes()
    valid = np.packbits([text is not None for text in texts], bitorder="little").tobytes()
    data = "".join(text or "" for text in texts).encode()
    kind = forge.Made(forge.Named("pyarrow.lib", "type_for_alias"), "string")
    for first, length in ((0, 20), (7, 5), (8, 12), (19, 1), (20, 0)):
        array = (kind, length, 0, first, [valid, marks, data], [], None)
        made = forge.Made(forge.Named("pyarrow.lib", "_restore_array"), array)
        assert opened(forge(made)) == texts[first : first + length]


def frame_of(forge: Any, blocks: list[Any], *sizes: int, kind: str = "Frame") -> bytes:
    """A frame, or a series, with blocks of values and places, and axes of these sizes."""
    new_index = forge.Named("pandas.core.indexes.base", "_new_Index")
    index = forge.Named("pandas", "RangeIndex")
    axes = [forge.Made(new_index, index, {"start": 0, "stop": n, "step": 1}) for n in sizes]
    block = forge.Named("pandas._libs.internals", "_unpickle_block")
    made = tuple(forge.Made(block, *one, 2) for one in blocks)
    manager = forge.Made(forge.Named("pandas.core.internals.managers", "BlockManager"), made, axes)
    name = {"Frame": ("pandas.core.frame", "DataFrame"), "Series": ("pandas", "Series")}[kind]
    return bytes(forge(forge.Made(forge.Named(*name), state={"_mgr": manager})))


def test_frames_whose_blocks_lie_about_their_shapes_are_refused(
    forge: Any, refusal: Callable[[bytes], str]
) -> None:
    two = np.zeros((2, 3))
    assert list(opened(frame_of(forge, [(two, slice(0, 2))], 2, 3))) == [0, 1]
    for blocks, sizes in (
        ([(two, slice(0, 2))], (2, 4)),
        ([(two, slice(0, 2))], (3, 3)),
        ([(two, slice(0, 1))], (1, 3)),
        ([(two, np.array([0, 5]))], (2, 3)),
        ([(two, np.array([0, 0]))], (2, 3)),
        ([(two.reshape(1, 2, 3), slice(0, 1))], (1, 3)),
        ([(np.array(1.0), slice(0, 1))], (1, 1)),
        ([(two, slice(0, 2))], (2,)),
        ([], (2, 3)),
    ):
        refusal(frame_of(forge, blocks, *sizes))
    refusal(frame_of(forge, [(np.zeros(3), slice(0, 3))], 4, kind="Series"))
    assert len(opened(frame_of(forge, [(np.zeros(3), slice(0, 3))], 3, kind="Series"))) == 3


def test_frames_of_columns_without_end_or_one_within_the_other_are_refused(
    forge: Any, refusal: Callable[[bytes], str]
) -> None:
    endless = forge.array((10**12, 0), forge.floats, b"")
    assert "memory" in refusal(frame_of(forge, [(endless, slice(0, 10**12))], 10**12, 0))
    block = (forge.array((10**4, 0), forge.floats, b""), slice(0, 10**4))
    assert "memory" in refusal(frame_of(forge, [block] * 1000, 10**4, 0))
    frame = b"cpandas\nDataFrame\n)Rq\x01}X\x04\0\0\0_mgrh\x01sb."
    assert "pandas' frames" in refusal(b"\x80\x02" + frame)
