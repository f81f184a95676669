"""Clips in pickles: what no loader of the published work would have noticed is told or mended."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from continual_mm.preparation.formats.clip_pickles import Entry, entries_in
from continual_mm.system.errors import InputError

PATH = Path("clips.pkl")


def entry(**values: Any) -> Entry:
    return Entry.of({"id": "a"} | values, 3, PATH, set())


def refusal(action: Any) -> str:
    with pytest.raises(InputError) as caught:
        action()
    (problem,) = caught.value.problems
    return str(problem)


def test_a_text_may_be_alone_in_an_array_or_one_of_a_list() -> None:
    for given in (
        "mix",
        ["mix"],
        ("mix",),
        np.array("mix"),
        np.array(["mix"]),
        np.array([["mix"]]),
    ):
        assert entry(caption=given).texts("caption") == ["mix"]
    for wrong in ([], np.array([]), [1], None, np.array(1), {"mix"}, [["mix"]]):
        assert "is no text" in refusal(lambda wrong=wrong: entry(caption=wrong).texts("caption"))


def test_halves_of_characters_are_joined_as_python_2_meant_them() -> None:
    """Its narrow builds pickled a character beyond 16 bits as two, which UTF-8 cannot hold."""
    old = pickle.loads(b"V\\ud83d\\ude00\n.")
    assert len(old) == 2
    assert entry(caption=old).texts("caption") == ["\N{GRINNING FACE}"]
    assert entry(caption="a\ud800b\0").text("caption") == "a\ufffdb\ufffd"


def test_an_id_that_no_file_can_hold_is_refused() -> None:
    for wrong in ("a\ud800", "a\0", "", None, 3, b"a"):
        assert "has no 'id'" in refusal(lambda wrong=wrong: entry(id=wrong))
    assert entry(id="é b").name == "é b"


def test_problems_repeat_nothing_that_steers_a_terminal_or_fills_it() -> None:
    keys = {
        "\x1b[2J\ud800": 1,
        10**5000: 2,
        (1, 2): 3,
        "k" * 10**6: 4,
        **{str(n): 5 for n in range(99)},
    }
    told = refusal(lambda: Entry.of({"id": "a" * 10**6} | keys, 0, PATH, set()).vector("2d"))
    assert told.isprintable()
    assert len(told) < 2000
    assert r"\x1b[2J\ud800" in told


def test_numbers_are_whole_and_of_64_bits() -> None:
    for given in (1, True, np.True_, np.int8(1), np.array(1), torch.tensor(1)):
        assert entry(training=given).number("training") == 1
    for wrong in (10**5000, -(2**63) - 1, 1.0, "1", None, np.array([1]), torch.tensor(1.0)):
        told = refusal(lambda wrong=wrong: entry(training=wrong).number("training"))
        assert "is no whole number" in told


def test_tensors_are_floats_as_arrays_are() -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        assert entry(audio=torch.ones(2, 3, dtype=dtype)).rows("audio").shape == (2, 3)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        tensor, array = torch.ones(2, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype).numpy()
        for wrong in (tensor, array):
            refusal(lambda wrong=wrong: entry(audio=wrong).rows("audio"))


def test_a_file_of_one_clip_that_holds_itself_is_refused_clip_by_clip(tmp_path: Path) -> None:
    path = tmp_path / "clips.pkl"
    whole: list[Any] = []
    whole += [whole, {"id": "a", "2d": whole, "caption": whole}]
    path.write_bytes(pickle.dumps(whole))
    first, second = entries_in(path)
    assert "is a list" in refusal(lambda: Entry.of(first, 0, path, set()))
    clip = Entry.of(second, 1, path, set())
    assert "is a list" in refusal(lambda: clip.vector("2d"))
    assert "is no text" in refusal(lambda: clip.texts("caption"))


def python_2(text: bytes, code: bytes) -> bytes:
    """A string as Python 2 pickled it: short, long, or in letters."""
    if code == pickle.STRING:
        return code + b"'" + text.decode("latin-1").encode("unicode-escape") + b"'\n"
    size = len(text).to_bytes(1 if code == pickle.SHORT_BINSTRING else 4, "little")
    return code + size + text


@pytest.mark.parametrize("code", [pickle.STRING, pickle.SHORT_BINSTRING, pickle.BINSTRING])
def test_strings_of_python_2_are_utf_8_where_they_can_be(tmp_path: Path, code: bytes) -> None:
    path = tmp_path / "clips.pkl"
    for raw, text in (
        ("don\u2019t add salt".encode(), "don\u2019t add salt"),
        ("crème brûlée".encode("latin-1"), "crème brûlée"),
        ("\N{GRINNING FACE}".encode(), "\N{GRINNING FACE}"),
        (b"salt", "salt"),
    ):
        entries = b"]}(U\x02id" + python_2(raw, code) + b"U\x07caption" + python_2(raw, code)
        path.write_bytes(b"\x80\x02" + entries + b"U\x04many]" + python_2(raw, code) + b"aua.")
        (raw_entry,) = entries_in(path)
        found = Entry.of(raw_entry, 0, path, set())
        assert (found.name, found.text("caption"), found.texts("many")) == (text, text, [text])
        assert {type(one) for one in (found.name, *found.texts("many"))} == {str}


def test_what_looks_like_wrongly_read_bytes_and_is_text_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps([{"id": "a", "caption": "donâ\x80\x99t"}], 2))
    (raw_entry,) = entries_in(path)
    assert Entry.of(raw_entry, 0, path, set()).text("caption") == "donâ\x80\x99t"


def test_bytes_of_an_array_of_python_2_stay_bytes(tmp_path: Path) -> None:
    values = np.frombuffer(
        "\u2019\u2019\u2019\u2019".encode(), np.float32
    )  # valid UTF-8, and numbers
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    order = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR" + order
    raw = values.tobytes()
    state = b"(K\x01(K\x03t" + dtype + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    path = tmp_path / "clips.pkl"
    path.write_bytes(b"\x80\x02]}(U\x02idU\x01aU\x022d" + array + state + b"ua.")
    (raw_entry,) = entries_in(path)
    np.testing.assert_array_equal(Entry.of(raw_entry, 0, path, set()).vector("2d"), values)
