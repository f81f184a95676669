"""A pool of processes: results, reports, and what becomes of tasks whose process dies."""

import os
import signal
import subprocess
import sys
import time
from collections import deque

import pytest

from continual_mm.system.errors import InputError
from continual_mm.system.processes import Died, Pool, Progress, Result, Worker

# Imported by name in the processes: `tests` is no package.
WORK = """
import os, signal, sys, time
from continual_mm.system.errors import InputError, Problem

def factory(folder):
    def work(task, report):
        report(os.getpid())
        if task == "wait":
            with open(f"{folder}/begun", "a") as stream:
                stream.write(f"{os.getpid()}\\n")
            try:
                while True:
                    time.sleep(0.05)
                    report(os.getpid())
            finally:
                open(f"{folder}/cleaned-up", "w").close()
        if task == "exit":
            sys.exit(3)
        if task == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "refused":
            raise InputError(Problem("data", "is bad"))
        return task.upper()
    return work
"""

PARENT = """
import os, signal, sys, threading
from continual_mm.system.processes import Pool, Worker
def end():
    os.kill(os.getpid(), int(sys.argv[2]))
tasks = ["wait", "wait"]
with Pool(Worker("pool_work_of_the_tests:factory", (sys.argv[1],)), size=2, threads=1) as pool:
    timer = threading.Timer(0.5, end)
    begun = set()
    for _, event in pool.run(lambda: tasks.pop() if tasks else None):
        begun.add(event.value)
        if len(begun) == 2 and not timer.is_alive():
            timer.start()
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "pool_work_of_the_tests.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
    return Worker("pool_work_of_the_tests:factory", (str(tmp_path),))


def giving(*tasks):
    left = deque(tasks)
    return lambda: left.popleft() if left else None


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def gone(processes, seconds):
    end = time.monotonic() + seconds
    while any(map(is_there, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(is_there, processes))


def test_processes_do_several_tasks_each_and_report_while_they_do(worker):
    with Pool[str](worker, size=2, threads=1) as pool:
        events = [*pool.run(giving(*"abcdef"))]
        processes = {event.value for _, event in events if isinstance(event, Progress)}
    results = {task: event.value for task, event in events if isinstance(event, Result)}
    assert results == {letter: letter.upper() for letter in "abcdef"}
    assert len(processes) <= 2
    for task in "abcdef":
        assert [type(event) for about, event in events if about == task] == [Progress, Result]
    assert gone(processes, 0)


def test_a_process_that_dies_fails_its_own_task_only(worker):
    with Pool[str](worker, size=2, threads=1) as pool:
        ends = {
            task: event
            for task, event in pool.run(giving("killed", "a", "exit", "b"))
            if not isinstance(event, Progress)
        }
    assert ends == {
        "killed": Died("its process was killed by SIGKILL, perhaps for lack of memory"),
        "exit": Died("its process ended with exit code 3"),
        "a": Result("A"),
        "b": Result("B"),
    }


def test_a_process_that_is_not_reusable_is_replaced(worker):
    with Pool[str](worker, size=1, threads=1, reusable=lambda result: result != "A") as pool:
        events = [event for _, event in pool.run(giving("a", "b", "c"))]
    first, second, third = [event.value for event in events if isinstance(event, Progress)]
    assert first != second == third


def test_a_refused_input_ends_the_pool_and_interrupts_what_it_does(worker, tmp_path):
    processes = set()
    with (
        pytest.raises(InputError, match="data: is bad"),
        Pool[str](worker, size=2, threads=1) as pool,
    ):
        for _, event in pool.run(giving("wait", "a", "b", "c", "refused")):
            if isinstance(event, Progress):
                processes.add(event.value)
    assert gone(processes, 0)
    assert (tmp_path / "cleaned-up").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(worker, tmp_path, number):
    given = [sys.executable, "-c", PARENT, str(tmp_path), str(int(number))]
    parent = subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)
    processes = set(map(int, (tmp_path / "begun").read_text().split()))
    assert len(processes) == 2
    assert gone(processes, 0 if number == signal.SIGINT else 30)
    assert parent.stderr.count("Traceback") == (number == signal.SIGINT)  # the parent's own
    assert (tmp_path / "cleaned-up").exists()
