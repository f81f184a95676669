"""Files are complete or absent, and a lock excludes other processes until its process ends."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from continual_mm.system.errors import InputError
from continual_mm.system.files import (
    WriteError,
    atomic_folder,
    atomic_write,
    check_target,
    differing,
    is_locked,
    locked,
    new_folder,
    read_json,
    remove_temporary,
    write_json,
    write_lock,
)

HOLD = """
import sys
from pathlib import Path
from continual_mm.system.files import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("write", [atomic_write, atomic_folder, new_folder])
def test_a_write_that_fails_leaves_nothing(tmp_path, write):
    with pytest.raises(KeyError), write(tmp_path / "new") as temporary:
        assert temporary.parent == tmp_path
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def little_room():
    """No file may become larger than 64 KiB, as if the disk were full behind that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


ZEROS = np.zeros(1 << 16)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(ZEROS.tobytes()),
        lambda path: ZEROS.tofile(path),
        lambda path: save_file({"zeros": ZEROS}, path),
    ],
    ids=["python", "numpy", "safetensors"],
)
def test_whoever_writes_a_file_that_has_no_room_is_named_with_it(tmp_path, little_room, write):
    with pytest.raises(WriteError) as caught, atomic_write(tmp_path / "new") as temporary:
        write(temporary)
    assert str(caught.value).startswith(f"{tmp_path / 'new'}: cannot be written: ")
    with pytest.raises(WriteError) as caught, atomic_folder(tmp_path / "folder") as temporary:
        write_json(temporary / "a.json", ["x" * (1 << 17)])
    text = f"{tmp_path / 'folder' / 'a.json'}: cannot be written: File too large"
    assert str(caught.value) == text
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_while_a_file_is_written_stays_the_error_that_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "new") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())
    assert not isinstance(caught.value, WriteError)
    assert caught.value.filename == str(tmp_path / "missing")


def test_a_file_or_folder_is_replaced_at_the_end_of_the_block_only(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    for text in "first", "second":
        before = file.read_text() if file.exists() else None
        with atomic_write(file) as temporary, atomic_folder(folder) as inside:
            temporary.write_text(text)
            (inside / text).touch()
            assert (file.read_text() if file.exists() else None) == before
        assert file.read_text() == text
        assert [path.name for path in folder.iterdir()] == [text]


def test_files_have_the_permissions_that_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            # As safetensors does it: a file of its own, for the owner only.
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_new_folder_replaces_nothing(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is there already"), new_folder(tmp_path / "dangling"):
        pass
    with (
        new_folder(tmp_path / "new"),
        pytest.raises(InputError, match="new: is being written by another process"),
        new_folder(tmp_path / "new"),
    ):
        pass
    with pytest.raises(InputError, match="is there already"), new_folder(tmp_path / "new"):
        pass


def test_a_folder_that_was_made_before_the_lock_was_taken_stays(tmp_path, monkeypatch):
    path = tmp_path / "new"
    # Another process puts its folder in place before it releases the lock.
    monkeypatch.setattr("fcntl.flock", lambda *_: path.mkdir())
    with pytest.raises(InputError, match="is there already"), new_folder(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from continual_mm.system.files import atomic_folder, atomic_write, new_folder

here = Path(sys.argv[1])
with atomic_write(here / "a"), atomic_folder(here / "b"), new_folder(here / "c") as temporary:
    (temporary / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not {"a", "b", "c"} & {path.name for path in tmp_path.iterdir()}
    with new_folder(tmp_path / "c"):
        pass
    remove_temporary(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert list((tmp_path / "c").iterdir()) == []


def test_a_lock_goes_with_its_process_even_if_that_is_killed(tmp_path):
    path = tmp_path / "run.lock"
    assert not is_locked(path)
    assert not path.exists()
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        assert is_locked(path)
        with pytest.raises(InputError, match="is being written by another process"), locked(path):
            pass
        holder.kill()
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
    assert path.exists()


def test_asking_whether_a_run_is_locked_keeps_none_from_beginning(tmp_path):
    path, ended = tmp_path / "run.lock", threading.Event()

    def ask():
        while not ended.is_set():
            is_locked(path)
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(200):
            with locked(path):
                pass
    finally:
        ended.set()
        asking.join()


@pytest.mark.parametrize("lock", [lambda path: locked(path), lambda path: new_folder(path)])
def test_a_link_in_the_place_of_a_lock_is_refused_and_where_it_leads_stays(tmp_path, lock):
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    for name in ("folder", ".folder.lock"):
        (tmp_path / name).symlink_to(precious)
    assert not is_locked(tmp_path / "folder")
    with pytest.raises(InputError), lock(tmp_path / "folder"):
        pass
    (tmp_path / "folder").unlink()
    with pytest.raises(InputError, match="is a link"), new_folder(tmp_path / "folder"):
        pass
    assert precious.read_text() == "thesis"


@pytest.mark.parametrize("place", ["scores.json", "checkpoints", "checkpoints/stage-1/state.json"])
def test_nothing_is_written_in_a_folder_with_a_link_in_it(tmp_path, place):
    link = tmp_path / "run" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    with pytest.raises(InputError) as caught, locked(tmp_path / "run" / "run.lock"):
        pass
    assert str(caught.value).startswith(f"{link}: is a link")


def test_a_folder_that_is_reached_through_a_link_is_like_any_other(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large")
    with locked(tmp_path / "run" / "run.lock"):
        assert (tmp_path / "large" / "run.lock").exists()


def test_a_pipe_in_the_place_of_a_lock_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.lock")
    assert not is_locked(tmp_path / "run.lock")
    with pytest.raises(WriteError, match="cannot be written"), locked(tmp_path / "run.lock"):
        pass


def test_earlier_versions_and_this_one_exclude_each_other(tmp_path):
    # They called flock themselves.
    path = tmp_path / "run.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(path)
        with pytest.raises(InputError), locked(path):
            pass
    with locked(path), path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_writers_that_wait_come_one_after_the_other(tmp_path):
    code = """
import sys, time
from pathlib import Path
from continual_mm.system.files import write_lock

path = Path(sys.argv[1])
with write_lock(path, wait=True):
    before = path.read_text() if path.exists() else ""
    time.sleep(0.05)
    path.write_text(before + "x")
"""
    path = tmp_path / "file"
    with write_lock(path):
        command = [sys.executable, "-c", code, str(path)]
        writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert path.read_text() == "xxx"
    assert list(tmp_path.iterdir()) == [path]


def test_json_keeps_its_order_and_has_null_for_nan(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_json(path, {"b": float("nan"), "a": ("é", [1, None])})
    assert path.read_text(encoding="utf-8") == (
        '{\n  "b": null,\n  "a": [\n    "é",\n    [\n      1,\n      null\n    ]\n  ]\n}\n'
    )
    assert read_json(path) == {"b": None, "a": ["é", [1, None]]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("inf"))
    assert json.loads(path.read_text(encoding="utf-8")) == read_json(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(path)


@pytest.mark.parametrize(
    ("old", "new", "places"),
    [
        ({"steps": 5}, {"steps": 5, "epochs": 0}, []),  # what an earlier version did not know
        ({"steps": 5}, {"steps": 5, "epochs": 3}, ["scenario.epochs"]),
        ({"stages": [{}]}, {"stages": [{"epochs": 0, "pairs": []}]}, []),
        ({"stages": [{"steps": None}]}, {"stages": [{"steps": 0}]}, ["scenario.stages[1].steps"]),
        ({"stages": [{"pairs": []}]}, {"stages": [{"pairs": None}]}, ["scenario.stages[1].pairs"]),
        ({"towers": {}}, {"towers": {"video": {"trained": False}}}, ["scenario.towers.video"]),
        ({"dropout": 0.2}, {"dropout": 0.0}, ["scenario.dropout"]),
    ],
)
def test_what_is_off_is_as_good_as_missing_only_where_it_is_missing(old, new, places):
    for first, second in ((old, new), (new, old)):
        found = differing({"scenario": first}, {"scenario": second}, off=("scenario",))
        assert [where for where, *_ in found] == places
    strategy = differing({"strategy": {}}, {"strategy": {"weight": 0}}, off=("scenario",))
    assert [where for where, *_ in strategy] == ["strategy.weight"]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000])
def test_json_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(InputError, match=r"file\.json: cannot be read"):
        read_json(tmp_path / "file.json")


def test_a_target_is_refused_where_nothing_can_be_made_and_stays_unmade(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, folder, problem in (
        (tmp_path / "file", True, "is no folder"),
        (tmp_path / "file" / "deeper" / "x", None, "file: is no folder"),
        (tmp_path, False, "is a folder, where a file is needed"),
        (tmp_path / "pipe", False, "is no regular file"),
        (tmp_path / "dangling" / "x", True, "dangling: cannot be written: its link leads nowhere"),
        (tmp_path / ("x" * 300), None, "cannot be written: File name too long"),
        (Path("/proc/nowhere"), True, "cannot be written"),
    ):
        with pytest.raises(InputError, match=problem):
            check_target(path, folder=folder)
    for path, folder in (
        (tmp_path / "a" / "b", True),
        (tmp_path / "a.toml", False),
        (tmp_path / "file", False),
        (tmp_path, True),
        (tmp_path / "file", None),
        (tmp_path / "dangling", False),
    ):
        check_target(path, folder=folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "pipe"]
