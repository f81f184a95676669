"""Words of captions, and files of their vectors, converted once and then mapped."""

import gzip
import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from continual_mm.preparation.formats.caption_vectors import trained
from continual_mm.preparation.formats.recipe import Recipe
from continual_mm.preparation.formats.word_vectors import (
    WordVectors,
    digest_of,
    known_rows,
    open_vectors,
    tokens,
)
from continual_mm.system.errors import InputError

WORDS = ["salt", "New_York", "don't", "öl", "the"]
VALUES = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


FINGERPRINT, DIGEST = "43039a7b043abb6082591feabeb7fab0", "1e4db956b9f3286cf663daaf908623b4"
"""Of :data:`WORDS` with the numbers from 0 to 19, as stored data keep them."""


def by_gensim(path, *, binary, values=VALUES):
    vectors = KeyedVectors(4)
    vectors.add_vectors(WORDS, values)
    vectors.save_word2vec_format(str(path), binary=binary)
    return path


def refusal(path):
    with pytest.raises(InputError) as caught:
        open_vectors(path)
    (problem,) = caught.value.problems
    assert problem.place == str(path)
    return str(problem)


@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt"])
def test_files_of_gensim_are_read_as_gensim_reads_them(tmp_path, name):
    path = by_gensim(tmp_path / name, binary=name.endswith("bin"))
    vectors = open_vectors(path)
    expected = KeyedVectors.load_word2vec_format(str(path), binary=name.endswith("bin"))
    assert dict(vectors.rows) == expected.key_to_index
    np.testing.assert_array_equal(vectors.values, expected.vectors)
    assert vectors.features == 4


def test_the_original_binary_form_with_newlines_and_gzip_is_read(tmp_path):
    rows = [word.encode() + b" " + struct.pack("<2f", 1, n) + b"\n" for n, word in enumerate(WORDS)]
    path = tmp_path / "GoogleNews.bin.gz"
    path.write_bytes(gzip.compress(b"5 2\n" + b"".join(rows)))
    vectors = open_vectors(path)
    assert list(vectors.rows) == WORDS
    assert vectors.values.tolist() == [[1, n] for n in range(5)]


def test_glove_without_a_first_line_and_with_spaces_in_words_is_read(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("salt 1 2.5\n. . . 3 4\nsalt 9 9\n", encoding="utf-8")
    vectors = open_vectors(path)
    assert dict(vectors.rows) == {"salt": 0, ". . .": 1}
    assert vectors.values.tolist() == [[1, 2.5], [3, 4]]


def test_the_second_opening_maps_the_table_and_reads_only_a_file_that_changed(tmp_path):
    path = by_gensim(tmp_path / "vectors.bin", binary=True)
    open_vectors(path)
    times = path.stat()
    path.write_bytes(b"x" * times.st_size)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    vectors = open_vectors(path)
    assert isinstance(vectors.values, np.memmap)
    assert not vectors.values.flags.writeable
    np.testing.assert_array_equal(vectors.values, VALUES)
    by_gensim(path, binary=True, values=VALUES + 1)
    np.testing.assert_array_equal(open_vectors(path).values, VALUES + 1)


def test_a_damaged_table_is_made_anew_and_nothing_else_is_left(tmp_path):
    path = by_gensim(tmp_path / "vectors.bin", binary=True)
    folder = tmp_path / "kept"
    open_vectors(path, folder)
    table = folder / "vectors.bin.vectors.npy"
    table.write_bytes(table.read_bytes()[:-4])
    np.testing.assert_array_equal(open_vectors(path, folder).values, VALUES)
    assert {each.suffix for each in folder.iterdir()} == {".json", ".npy"}
    assert json.loads((folder / "vectors.bin.vectors.json").read_text())["words"] == WORDS


def test_every_truncation_of_a_binary_is_refused_as_cut_short(tmp_path):
    whole = by_gensim(tmp_path / "whole.bin", binary=True).read_bytes()
    header = whole.index(b"\n") + 1
    path = tmp_path / "cut.bin"
    for end in range(header, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert "cut short" in refusal(path)
    packed = tmp_path / "cut.bin.gz"
    packed.write_bytes(gzip.compress(whole)[:-9])
    assert "cut short" in refusal(packed)
    assert not list(tmp_path.glob("*.npy"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "claim", [b"99999999 300\n", b"3 9999999999\n", b"0 3\n", b"-1 3\n", b"hello\n", b""]
)
def test_a_header_that_claims_too_much_is_refused_before_memory_or_disk_is_taken(tmp_path, claim):
    path = tmp_path / "claims.bin"
    path.write_bytes(claim + b"salt " + bytes(16))
    refusal(path)


def test_vectors_that_are_no_numbers_or_not_finite_are_refused_by_word(tmp_path):
    path = tmp_path / "vectors.txt"
    for line, why in (
        ("stir 1 nan\n", "'stir'"),
        ("stir 1 x\n", "word 1 does not have 2 numbers"),
        ("", "cut short"),
    ):
        path.write_text(f"2 2\nsalt 1 2\n{line}")
        assert why in refusal(path)
    assert "No such file" in refusal(tmp_path / "missing.bin")


def in_a_fork(work):
    """The signal, or else the exit code, that a copy of this process ends with after some work."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_full_disk_is_one_clear_refusal_and_leaves_nothing(tmp_path):
    path = tmp_path / "vectors.bin"
    vectors = KeyedVectors(8)
    vectors.add_vectors([f"word{n}" for n in range(5000)], np.ones((5000, 8), np.float32))
    vectors.save_word2vec_format(str(path), binary=True)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        assert "cannot be converted: File too large; make room in" in refusal(path)

    assert in_a_fork(fill) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["vectors.bin"]


def test_a_folder_that_cannot_be_written_leads_to_the_cache(tmp_path, monkeypatch):
    by_gensim(tmp_path / "vectors.bin", binary=True)
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    (tmp_path / "vectors.bin").chmod(0o644)
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTINUAL_MM_CACHE", "cache")

    def work():
        if not os.geteuid():  # whom no permissions concern
            os.setuid(65534)
        for _ in range(2):
            np.testing.assert_array_equal(open_vectors(Path("vectors.bin")).values, VALUES)

    try:
        assert in_a_fork(work) == 0
        assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
        assert not list(tmp_path.glob("*.npy"))
    finally:
        tmp_path.chmod(0o755)


def test_a_table_that_was_converted_before_is_still_opened(tmp_path):
    """The files, the digests and the origin as version 0.1 wrote them; the vectors are not read."""
    path = tmp_path / "vectors.bin"
    path.write_bytes(b"x")
    status = path.stat()
    origin = {"form": 2, "bytes": 1, "changed": status.st_mtime_ns}
    content = {"origin": origin, "fingerprint": "f" * 32, "words": WORDS}
    (tmp_path / "vectors.bin.vectors.json").write_text(json.dumps(content, ensure_ascii=False))
    np.save(tmp_path / "vectors.bin.vectors.npy", VALUES)
    vectors = open_vectors(path)
    assert (list(vectors.rows), vectors.fingerprint) == (WORDS, "f" * 32)
    np.testing.assert_array_equal(vectors.values, VALUES)


def test_digests_are_of_words_and_vectors_and_as_they_always_were(tmp_path):
    values = np.arange(20, dtype=np.float32).reshape(5, 4)
    found = [
        open_vectors(by_gensim(tmp_path / name, binary=name.endswith("bin"), values=values))
        for name in ("vectors.bin", "copy.bin", "vectors.txt")
    ]
    assert {each.fingerprint for each in found} == {FINGERPRINT}
    assert {digest_of(each) for each in found} == {DIGEST}
    other = open_vectors(by_gensim(tmp_path / "other.bin", binary=True, values=values + 1))
    assert other.fingerprint != FINGERPRINT
    assert digest_of(other) != DIGEST


def test_known_words_become_rows_and_reference_fills_up_with_zeros():
    vectors = WordVectors({word: row for row, word in enumerate(WORDS)}, VALUES)
    text = "Don't add THE salt"
    assert np.array_equal(vectors.of(text, Recipe(max_words=6)), VALUES[[2, 4, 0]])
    reference = vectors.of(text, Recipe(max_words=6, mode="reference"))
    assert np.array_equal(reference, np.vstack([VALUES[:1], np.zeros((5, 4))]))
    assert vectors.of("unknown", Recipe()) is None
    assert np.array_equal(vectors.of("unknown", Recipe(mode="reference")), np.zeros((20, 4)))


def test_words_are_runs_of_letters_digits_underscores_and_apostrophes():
    text = "don't stop, it's 20°C—OK_ay"
    assert tokens(text) == ["don't", "stop", "it's", "20", "C", "OK_ay"]
    assert tokens("") == tokens("... -- !") == []
    assert tokens("naïve Öl") == ["naïve", "Öl"]


@pytest.mark.parametrize(
    ("mode", "text", "expected"),
    [
        ("reference", "Add Salt, don't STIR the salt", [1, 3]),
        ("robust", "Add Salt, don't STIR the salt", [0, 1, 3, 2]),
        ("reference", "the " * 30 + "add " * 25, [0] * 20),
    ],
)
def test_known_words_count_as_written_and_in_robust_in_lower_case(mode, text, expected):
    vocabulary = {"add": 0, "Salt": 1, "stir": 2, "don't": 3}
    assert known_rows(text, vocabulary, max_words=20, mode=mode) == expected


TRAIN = (
    "from continual_mm.preparation.formats.caption_vectors import trained\n"
    "v = trained(['add the salt', 'add the oil', 'stir'] * 5, features=8, seed=3)\n"
    "print(v.index_to_key, v.vectors.tobytes().hex())"
)


def test_training_gives_the_same_vectors_in_every_process(capsys):
    other = {**os.environ, "PYTHONHASHSEED": "1"}
    first = subprocess.check_output([sys.executable, "-c", TRAIN], env=other, text=True)
    exec(TRAIN, {})
    assert first == capsys.readouterr().out
    assert "'salt'" in first and "'stir'" in first


def test_another_seed_gives_other_vectors_and_no_words_none():
    texts = ["add the salt", "stir the salt"]
    first, second = (trained(texts, features=4, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.vectors, second.vectors)
    with pytest.raises(InputError, match="no word"):
        trained(["...", ""], features=4, seed=0)
