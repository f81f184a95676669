"""Not a test: a process that trains tiny runs in forks of itself, which end as they are asked to.

Importing Avalanche takes most of a run's time here, so it is done once, then forked. Commands are
JSON lines on standard input, and what became of each fork is a JSON line on standard output.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import torch

import continual_mm as cm
from continual_mm.definitions.scenario import Strategy
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.run import run


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Own(torch.nn.Module):
    """A tower that draws random numbers, with statistics that are no parameters."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.drop = torch.nn.Dropout(0.3)

    def forward(self, x):
        return self.drop(self.norm(self.layer(x)))


class Dying(RunReporter):
    """Dies some seconds after a step of this process; notes where the run began to go on."""

    def __init__(self, step=None, delay=0.0):
        self.left, self.delay, self.resumed = step, delay, [0, 0]

    def resumes(self, stage, step):
        self.resumed = [stage, step]

    def steps(self, count):
        if self.left is None:
            return
        self.left -= count
        if self.left == 0:
            if self.delay:
                threading.Timer(self.delay, die).start()
            else:
                die()


def die_at_file_event(number, folder):
    """Die when the folder is about to be changed for the n-th time."""
    left = [number]

    def hook(event, arguments):
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if not str(arguments[0]).startswith(folder):
            return
        if event == "open" and "events" in str(arguments[0]):
            return
        left[0] -= 1
        if left[0] == 0:
            die()

    sys.addaudithook(hook)


def main():
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((120, 5))
    arrays = {n: shared @ rng.standard_normal((5, 6)) for n in ("video", "audio", "text")}
    dataset = cm.Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 40))
    torch.manual_seed(0)
    own = Own()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        scenario = cm.Scenario.model_validate_json(json.dumps(task["scenario"]))
        strategy = Strategy.model_validate_json(json.dumps(task["strategy"]))
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            reporter = Dying(task.get("step"), task.get("delay", 0.0))
            if "file_event" in task:
                die_at_file_event(task["file_event"], task["out"])
            code = 1
            try:
                run(
                    scenario, strategy, dataset, Path(task["out"]), device="cpu",
                    checkpoint_every=3, workers=task.get("workers", 0), reporter=reporter,
                    towers=dict.fromkeys(task.get("own", ()), own),
                )  # fmt: skip
                code = 0
            finally:
                os.write(writing, json.dumps(reporter.resumed).encode())
                sys.stderr.flush()
                os._exit(code)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        written = os.read(reading, 100).decode()
        os.close(reading)
        answer = {
            "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "code": os.waitstatus_to_exitcode(status),
            "resumed": json.loads(written) if written else None,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
