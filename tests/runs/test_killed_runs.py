"""A run that is killed at any moment goes on to the same bits as one that was not."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

STAGES = [{"add": ["video", "audio"]}, {"add": ["text"], "pairs": ["video-text"]}]
SCENARIO = {
    "name": "small",
    "dataset": "arrays",
    "space": {"dim": 8, "clusters": 3, "refresh_every": 4},
    "training": {"steps": 14, "batch_size": 8, "learning_rate": 1e-2, "evaluate_every": 4},
    "stages": STAGES,
}
EVERYTHING = {
    "name": "everything",
    "memory": {"items": 12},
    "plugins": {
        "replay": {"rows": 8},
        "ewc": {"batches": 2, "rows": 8},
        "transport": {"rows": 12, "budget": 0.05, "right_only": 1},
        "distill": {"rows": 8, "current": 1.0},
        "slow": {"ratio": 0.5},
        "warmup": {"share": 0.4},
        "interpolate": {"towards_old": 0.3},
    },
}
JOINT = {"name": "joint", "joint": True}
CUMULATIVE = {"name": "cumulative", "cumulative": True}


class Runs:
    """Runs in processes of their own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed_runs.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert json.loads(self.process.stdout.readline()) == "ready"

    def __call__(self, out, strategy, **end):
        task = {"scenario": SCENARIO, "strategy": strategy, **end, "out": str(out)}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def to_the_end(self, out, strategy, **options):
        """Go on as a user would; gives where the run went on from."""
        ended = self(out, strategy, **options)
        assert ended["code"] == 0
        return ended["resumed"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)


@pytest.fixture(scope="module")
def runs():
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    """What runs leave that were not stopped."""
    out = tmp_path_factory.mktemp("undisturbed")
    for strategy in (EVERYTHING, JOINT, CUMULATIVE):
        runs.to_the_end(out, strategy)
    return out


@pytest.fixture
def finish(runs, undisturbed, results):
    """(out, strategy, options) -> where its run resumed; it must end like one never stopped."""

    def finished(out, strategy, **options):
        resumed = runs.to_the_end(out, strategy, **options)
        run = Path("small", strategy["name"])
        assert results(out / run) == results(undisturbed / run)
        assert not [*out.rglob(".writing-*"), *out.rglob("*-step-*")]
        return resumed

    return finished


@pytest.mark.parametrize("strategy", [EVERYTHING, JOINT, CUMULATIVE], ids=lambda s: s["name"])
def test_a_run_killed_while_it_trains_goes_on_to_the_same_bits(runs, finish, tmp_path, strategy):
    rng = Random(1)
    for _ in range(4):
        ended = runs(tmp_path, strategy, step=rng.randint(2, 7), delay=rng.choice([0, 0.002]))
        assert ended["killed"]
    resumed = finish(tmp_path, strategy)
    assert resumed[1] > 0, "the run did not go on inside a stage: nothing was tested"


def test_a_run_killed_while_it_is_scored_goes_on_to_the_same_bits(runs, finish, tmp_path):
    rng = Random(2)
    for step in (4, 5, 8, 6, 11):  # from 0, 3, 6, 12 of stage 1 and 3 of stage 2 to evaluations
        assert runs(tmp_path, EVERYTHING, step=step, delay=rng.uniform(0.001, 0.006))["killed"]
    finish(tmp_path, EVERYTHING)


def test_a_run_killed_while_it_writes_goes_on_to_the_same_bits(runs, finish, tmp_path):
    rng = Random(3)
    ended = [runs(tmp_path, EVERYTHING, file_event=rng.randint(5, 70)) for _ in range(6)]
    assert sum(one["killed"] for one in ended) >= 3
    finish(tmp_path, EVERYTHING)


def test_threads_that_fetch_ahead_change_no_bit(finish, tmp_path):
    finish(tmp_path, EVERYTHING, workers=3)


def test_a_damaged_checkpoint_inside_a_stage_is_passed_over(runs, finish, tmp_path):
    assert runs(tmp_path, JOINT, step=20)["killed"]
    (inside,) = tmp_path.rglob("*-step-*")
    (inside / "state.safetensors").write_bytes(b"\0" * 100)
    assert finish(tmp_path, JOINT) == [0, 0]


def test_a_run_that_starts_from_another_with_its_own_towers_is_resumed(runs, results, tmp_path):
    first = {**SCENARIO, "name": "first", "stages": STAGES[:1]}
    runs.to_the_end(tmp_path / "first", {"name": "naive"}, scenario=first, own=["video"])
    start = str(tmp_path / "first" / "first" / "naive" / "seed-0")
    second = {**SCENARIO, "name": "second", "start": start, "stages": STAGES[1:]}
    options = {"scenario": second, "own": ["video", "text"]}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs.to_the_end(whole, EVERYTHING, **options)
    for step in (5, 4, 5):  # from the beginning, and from 3 and 6 of the stage that follows
        assert runs(killed, EVERYTHING, step=step, **options)["killed"]
    assert runs.to_the_end(killed, EVERYTHING, **options) == [1, 9]
    assert results(killed) == results(whole)
