"""Many runs: in turn or at once, and what becomes of the others when one fails."""

import inspect
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.data.pack import write_pack
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.parallel import Task, run_many, share_of_cores
from continual_mm.runs.reporter import Reporter, RunReporter
from continual_mm.runs.specification import specify
from continual_mm.runs.status import statuses
from continual_mm.runs.worker import Forwarder
from continual_mm.system.errors import InputError

NAIVE = cm.Strategy(name="naive")
REPLAY = cm.Strategy(
    name="replay", memory=cm.MemorySettings(items=12), plugins={"replay": {"rows": 8}}
)
EXPLODING = cm.Strategy(name="late", plugins={"ewc": {"weight": 1e38, "batches": 1, "rows": 8}})
HERE = {"device": "cpu"}


class Recorder(Reporter):
    """Records its calls; may do something when the first run begins."""

    def __init__(self, at_first=lambda: None):
        self.loaded, self.skipped, self.failed, self.runs = [], [], {}, {}
        self.processes = set()
        self.at_first = at_first
        self.loads, self.skips = self.loaded.append, self.skipped.append
        self.fails = self.failed.__setitem__

    def run_reporter(self, run):
        self.runs[run] = RunRecorder(self)
        return self.runs[run]

    def begun(self):
        self.processes |= {child.pid for child in multiprocessing.active_children()}
        act, self.at_first = self.at_first, lambda: None
        act()


class RunRecorder(RunReporter):
    """Records the calls for one run."""

    def __init__(self, recorder):
        self.recorder = recorder
        self.events = []
        self.made = 0

    def begins(self, run, stages, steps):
        self.events.append(f"begins {run} {stages} {steps}")
        self.recorder.begun()

    def steps(self, count):
        self.made += count

    def scored(self, stage, recalls):
        self.events.append(f"scored {stage}")

    def ends(self, seconds):
        self.events.append("ends")


@pytest.fixture
def pack(tmp_path, written):
    return written(tmp_path / "mine.npz")


@pytest.fixture
def small(brief, pack):
    return brief(pack)


def tasks(small, out, *strategies, seeds=1):
    return [
        Task(specify(small, one, seed=seed), out, HERE)
        for seed in range(seeds)
        for one in strategies
    ]


def scores(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("scores.json"))}


def gone(process):
    try:
        os.kill(process or 0, 0)
    except ProcessLookupError:
        return True
    return False


def test_runs_at_once_are_byte_for_byte_the_runs_in_turn(small, tmp_path):
    turn, once = tmp_path / "turn", tmp_path / "once"
    alone, many = Recorder(), Recorder()
    in_turn = run_many(tasks(small, turn, NAIVE, REPLAY, seeds=2), threads=1, reporter=alone)
    at_once = run_many(tasks(small, once, NAIVE, REPLAY, seeds=2), jobs=2, threads=1, reporter=many)
    assert [o.folder.relative_to(once) for o in at_once] == [
        Path("small", strategy, f"seed-{seed}")
        for seed in range(2)
        for strategy in ("naive", "replay")
    ]
    assert not any(outcome.error or outcome.skipped for outcome in [*in_turn, *at_once])
    assert len(scores(turn)) == 4
    assert scores(turn) == scores(once)
    assert len({*scores(turn).values()}) == 4
    assert alone.loaded[:2] == ["torch", "Avalanche"]
    assert many.loaded == ["torch and the data, in up to 2 processes"]
    assert (len(alone.processes), len(many.processes)) == (0, 2)
    for run, recorder in many.runs.items():
        begins = f"begins {run} 2 12"
        assert recorder.events == [begins, "scored 1", "scored 2", "ends"]
        assert recorder.made == 12
    assert all(map(gone, many.processes))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_is_reported_and_stops_no_other(small, tmp_path, jobs):
    out, recorder = tmp_path / "runs", Recorder()
    blocked = out / "small" / "blocked" / "seed-0" / "events"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("no folder can be here")
    several = tasks(small, out, EXPLODING, cm.Strategy(name="blocked"), NAIVE)
    late, stuck, naive = run_many(several, jobs=jobs, threads=1, reporter=recorder)
    assert "stage 2, step 1" in late.error
    assert "is not finite" in late.error
    assert "blocked" in stuck.error
    assert (late.refused, stuck.refused, naive.error) == (False, False, "")
    assert recorder.failed == {str(one.folder): one.error for one in (late, stuck)}
    assert list(scores(out)) == ["small/late/seed-0/scores.json", "small/naive/seed-0/scores.json"]
    note = late.folder / "failure.json"
    assert json.loads(note.read_text())["error"] == late.error
    assert not (naive.folder / "failure.json").exists()


LITTLE_ROOM = """
import json, resource, sys
from pathlib import Path
import continual_mm as cm
from continual_mm.runs.parallel import Task, run_many
from continual_mm.runs.specification import specify

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))
    scenario, out, jobs, board = json.loads(sys.argv[1])
    small = cm.Scenario.model_validate_json(scenario)
    options = {"device": "cpu", "board": board}
    strategies = (
        cm.Strategy(name="ewc", plugins={"ewc": {"weight": 1.0, "batches": 1, "rows": 8}}),
        cm.Strategy(name="naive"),
    )
    tasks = [Task(specify(small, one), Path(out), options) for one in strategies]
    outcomes = run_many(tasks, jobs=jobs, threads=1)
    print(json.dumps([one.error for one in outcomes]))
"""


@pytest.fixture
def with_little_room(small, tmp_path):
    """(jobs, board) -> why runs of ewc and naive failed where a file may have 32 KiB."""

    def train(jobs, board):
        (tmp_path / "train.py").write_text(LITTLE_ROOM)
        given = small.model_dump_json(), str(tmp_path / "runs"), jobs, board
        command = [sys.executable, tmp_path / "train.py", json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return json.loads(done.stdout)

    return train


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_without_room_says_what_is_kept_and_stops_no_other(jobs, with_little_room, tmp_path):
    # Importances fill the checkpoint of the second stage, 37 KB; the others are of 26 KB at most.
    ewc, naive = with_little_room(jobs, board=False)
    folder = tmp_path / "runs" / "small" / "ewc" / "seed-0"
    assert ewc == (
        f"{folder}/checkpoints/stage-2/state.safetensors: cannot be written: File too large; "
        "the same command goes on from the end of stage 1, which is kept"
    )
    assert naive == ""
    (told,) = statuses([folder])
    assert (told.state, told.stage, told.error) == ("failed", 1, ewc)


def test_a_board_without_room_fails_its_run_in_one_line_as_any_other_file(with_little_room):
    for error in with_little_room(1, board=True):
        assert "/events/events.out.tfevents." in error
        assert ": cannot be written: File too large; " in error


def test_a_second_process_is_refused_and_leaves_no_note_on_the_run(small, tmp_path):
    (task,) = tasks(small, tmp_path / "runs", NAIVE)
    with RunFolder(task.folder).claimed(task.specification.identity):
        before = {path: path.read_bytes() for path in task.folder.iterdir()}
        (outcome,) = run_many([task])
        assert outcome.refused
        assert "is being written by another process" in outcome.error
        assert {path: path.read_bytes() for path in task.folder.iterdir()} == before
        (found,) = statuses([task.folder])
        assert (found.state, found.error) == ("running", "")
    assert not run_many([task])[0].error


def test_a_process_that_is_killed_fails_its_run_only(small, changed, tmp_path):
    def kill_all():
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    recorder = Recorder(at_first=kill_all)
    long, last = changed(small, steps=60), cm.Strategy(name="c")
    three = tasks(long, tmp_path / "runs", NAIVE, REPLAY, last)
    *killed, last = run_many(three, jobs=2, threads=1, reporter=recorder)
    for outcome in killed:
        assert outcome.error == "its process was killed by SIGKILL, perhaps for lack of memory"
    assert not last.error
    assert list(scores(tmp_path / "runs")) == ["small/c/seed-0/scores.json"]
    assert all(map(gone, recorder.processes))


def test_ctrl_c_is_handled_here_only_and_leaves_no_process(small, changed, tmp_path, capfd):
    def interrupt_the_whole_group():
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    recorder = Recorder(at_first=interrupt_the_whole_group)
    endless = tasks(changed(small, steps=1_000_000), tmp_path / "runs", NAIVE, REPLAY)
    with pytest.raises(KeyboardInterrupt):
        run_many(endless, jobs=2, threads=1, reporter=recorder)
    assert len(recorder.processes) == 2
    assert all(map(gone, recorder.processes))
    assert not recorder.failed
    assert "Traceback" not in capfd.readouterr().err
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_finished_runs_are_skipped_without_a_process(small, tmp_path):
    (task,) = tasks(small, tmp_path / "runs", NAIVE)
    task.folder.mkdir(parents=True)
    (task.folder / "failure.json").write_text("{}")
    run_many([task])
    assert not (task.folder / "failure.json").exists()
    before, recorder = scores(tmp_path), Recorder()
    for jobs in (1, 2):
        (outcome,) = run_many([task], jobs=jobs, reporter=recorder)
        assert outcome.skipped
    assert recorder.skipped == [str(task)] * 2
    assert (recorder.loaded, recorder.runs) == ([], {})
    assert scores(tmp_path) == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_cannot_be_used_is_refused_before_anything_is_trained(small, changed, tmp_path, jobs):
    out, recorder = tmp_path / "runs", Recorder()
    run_many(tasks(small, out, NAIVE))
    with pytest.raises(InputError) as caught:
        other = tasks(changed(small, steps=7), out, REPLAY, REPLAY, NAIVE)
        run_many(other, jobs=jobs, reporter=recorder)
    twice, other = map(str, caught.value.problems)
    assert "replay/seed-0: two of the runs would go into this folder" in twice
    assert "scenario.training.steps was 6, is 7" in other
    assert not recorder.loaded
    assert not (out / "small" / "replay").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_dataset_with_bad_values_refuses_all_its_runs(tmp_path, written, brief, jobs):
    values = np.ones((90, 3))
    values[4, 1] = np.nan
    small = brief(written(tmp_path / "bad.npz", video=values))
    with pytest.raises(InputError, match="video"):
        run_many(tasks(small, tmp_path / "runs", NAIVE, REPLAY), jobs=jobs)
    assert not multiprocessing.active_children()


def test_cores_are_divided_and_a_limit_is_kept(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = share_of_cores(1)
    assert 1 <= cores <= (os.cpu_count() or 1)
    assert share_of_cores(2) == max(1, cores // 2)
    assert share_of_cores(10_000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert share_of_cores(1) == 1


def test_many_runs_are_typed_with_a_number_of_jobs(pack, scenario_text, tmp_path, typed):
    file, out = tmp_path / "mine.toml", tmp_path / "runs"
    file.write_text(scenario_text)
    several = ["run", file, "--jobs", "2", "--threads", "1", "--out", out]
    both = [*several, "--strategy", "naive", "--strategy", "freeze"]
    freeze = out / "mine" / "freeze" / "seed-0"
    freeze.mkdir(parents=True)
    (freeze / "events").write_text("no folder can be here")
    shown = typed(*both)
    assert shown.code == 1
    assert f"/2] {freeze}: failed: " in shown.err
    assert f"continual-mm: 1 of 2 runs failed ({freeze}); the same command" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == f"compare with: continual-mm compare {out}\n"
    (freeze / "events").unlink()
    shown = typed(*both)
    assert shown.code == 0
    assert f"[1/2] {out / 'mine' / 'naive' / 'seed-0'}: finished earlier" in shown.err
    assert f"[2/2] {freeze} stage 2: R@1 " in shown.err
    for jobs in ("1", "2"):
        refused = typed(*several, "--jobs", jobs, "--device", "nonsense", "--seeds", "2")
        assert refused.code == 2
        assert "device 'nonsense'" in refused.err


def test_many_runs_are_started_without_torch():
    code = """
import sys
import continual_mm.cli.progress, continual_mm.runs.parallel
sys.exit(", ".join({"torch", "avalanche"} & sys.modules.keys()) or 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_former_name_of_the_reporter_works_and_warns():
    with pytest.warns(DeprecationWarning, match="reporter"):
        assert run_many([], audience=Reporter()) == []


def test_every_call_is_forwarded_and_steps_are_summed():
    calls = []
    forwarder = Forwarder(calls.append)
    methods = [name for name, _ in inspect.getmembers(RunReporter, inspect.isfunction)]
    assert set(methods) <= vars(Forwarder).keys()
    expected = [
        ("begins", ("runs/a", 2, 20)),
        ("resumes", (1, 5)),
        ("scored", (2, {"audio-video": 0.5})),
        ("ends", (1.5,)),
    ]
    for call in expected:
        getattr(forwarder, call[0])(*call[1])
        for _ in range(1000):
            forwarder.steps(1)
    forwarder.ends(2.0)
    steps = [arguments[0] for method, arguments in calls if method == "steps"]
    assert [call for call in calls if call[0] != "steps"][:-1] == expected
    assert sum(steps) == 4000
    assert len(steps) < 100


def test_data_that_change_while_a_run_waits_are_refused_and_not_recorded_as_before(
    small, pack, tmp_path
):
    waiting = tasks(small, tmp_path / "runs", NAIVE)
    with np.load(pack) as arrays:
        write_pack(pack, {**arrays, "video": arrays["video"] + 1})
    (outcome,) = run_many(waiting)
    assert outcome.refused
    assert "was changed after the run was specified" in outcome.error
    assert not (outcome.folder / "definition.json").exists()
