"""Files of a user: whatever they are, one line says what is wrong, and where."""

import os
import pwd
import re
import stat
import time
from pathlib import Path

import pytest

from continual_mm.system.errors import InputError
from continual_mm.system.reading import check_regular, read_text, reading, reads, user_path


def test_a_home_and_a_user_are_those_of_the_shell(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    me = pwd.getpwuid(os.getuid())
    assert user_path("~/x.npz", "/data") == Path("/home/me/x.npz")
    assert user_path(f"~{me.pw_name}/x.npz") == Path(me.pw_dir, "x.npz")
    assert user_path("x.npz", "/data") == Path("/data/x.npz")
    assert user_path("./~x") == Path("~x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("~nosuchuser/x.npz", "begins with a user who is not known here"),
        ("a\0b", "contains a NUL character"),
        ("a\ud800b", "is no valid text"),
    ],
)
def test_what_names_no_file_is_refused(text, problem):
    with pytest.raises(InputError, match=problem) as caught:
        user_path(text)
    assert str(caught.value).isprintable()


def test_a_device_and_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(InputError, match="is no regular file"):
            read_text(path)
    assert time.monotonic() - began < 1
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="no such file; look elsewhere"):
        read_text(tmp_path / "missing", "look elsewhere")


def test_a_file_of_a_terabyte_is_refused_at_once(tmp_path):
    path = tmp_path / "large.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(InputError, match="has 1,099,511,627,776 bytes"):
        read_text(path)


def test_text_is_utf_8_and_the_mark_in_front_is_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffcafé".encode())
    assert read_text(path) == "café"
    path.write_bytes(b"a\nb\xff")
    with pytest.raises(InputError, match=r"is not UTF-8: byte 0xff in line 2"):
        read_text(path)


def test_an_error_that_nobody_thought_of_names_the_file_and_keeps_its_traceback(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    @reads
    def read(path):
        return {}[path]

    with pytest.raises(InputError, match=r"^mine: unexpected KeyError: 'mine'; ") as caught:
        read("mine")
    (log,) = tmp_path.rglob("*.log")
    assert str(log) in str(caught.value)
    assert re.search(r"KeyError: 'mine'$", log.read_text(), re.MULTILINE)
    assert stat.S_ISREG(log.lstat().st_mode)
    with pytest.raises(InputError):
        read("mine")
    assert len([*tmp_path.rglob("*.log")]) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "mine: needs more memory than there is"),
        (RecursionError("maximum"), "mine: is nested too deeply to be read"),
        (
            PermissionError(13, "Permission denied", "other"),
            "other: cannot be read or written: Per",
        ),
        (InputError.at("there", "is wrong"), "there: is wrong"),
        (RuntimeError("Symlink loop from 'x'"), "mine: cannot be followed: links lead in a circle"),
    ],
)
def test_known_errors_need_no_log(error, said, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(InputError) as caught, reading("mine"):
        raise error
    assert str(caught.value).startswith(said)
    assert not [*tmp_path.iterdir()]


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt), reading("mine"):
        raise KeyboardInterrupt


def test_where_no_log_can_be_written_the_error_is_told_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="unexpected ZeroDivisionError"), reading("mine"):
        raise ZeroDivisionError


def test_check_regular_takes_a_link_to_a_file_and_no_ring_of_links(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "ring").symlink_to("ring")
    check_regular(tmp_path / "link")
    with pytest.raises(InputError, match="cannot be read: Too many levels of symbolic links"):
        check_regular(tmp_path / "ring")
