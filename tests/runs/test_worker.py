"""What trains the runs: how it forwards progress, and how many threads it takes."""

import inspect

from continual_mm.runs.parallel import Call
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.worker import Forwarder


def test_every_call_is_forwarded() -> None:
    calls: list[Call] = []
    forwarder = Forwarder(calls.append)
    methods = [name for name, _ in inspect.getmembers(RunReporter, inspect.isfunction)]
    assert set(methods) <= vars(Forwarder).keys()
    forwarder.begins("runs/a", stages=2, steps=20)
    forwarder.resumes(1, step=5)
    forwarder.scored(2, {"audio-video": 0.5})
    forwarder.ends(1.5)
    assert calls == [
        Call("begins", ("runs/a", 2, 20)),
        Call("resumes", (1, 5)),
        Call("scored", (2, {"audio-video": 0.5})),
        Call("ends", (1.5,)),
    ]


def test_steps_are_summed_and_none_is_lost() -> None:
    calls: list[Call] = []
    forwarder = Forwarder(calls.append)
    for _ in range(1000):
        forwarder.steps(1)
    forwarder.ends(1.0)
    assert sum(call.arguments[0] for call in calls if call.method == "steps") == 1000
    assert len(calls) < 100
    assert calls[-1].method == "ends"
