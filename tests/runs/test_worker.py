"""What does the runs: how it passes on what it hears, and how many threads it takes."""

import inspect

import torch

from continual_mm.runs.listener import Listener
from continual_mm.runs.parallel import Told
from continual_mm.runs.worker import Teller, torch_threads


def test_everything_that_a_listener_can_hear_is_passed_on() -> None:
    told: list[Told] = []
    teller = Teller(told.append)
    events = [name for name, _ in inspect.getmembers(Listener, inspect.isfunction)]
    assert set(events) <= vars(Teller).keys()
    teller.begins("runs/a", stages=2, steps=20)
    teller.resumes(1, step=5)
    teller.scored(2, {"audio-video": 0.5})
    teller.ends(1.5)
    assert told == [
        Told("begins", ("runs/a",), {"stages": 2, "steps": 20}),
        Told("resumes", (1,), {"step": 5}),
        Told("scored", (2, {"audio-video": 0.5})),
        Told("ends", (1.5,)),
    ]


def test_steps_are_gathered_and_none_is_lost() -> None:
    told: list[Told] = []
    teller = Teller(told.append)
    for _ in range(1000):
        teller.steps(1)
    teller.ends(1.0)
    assert sum(message.given[0] for message in told if message.event == "steps") == 1000
    assert len(told) < 100
    assert told[-1].event == "ends"


def test_torch_has_as_many_threads_as_it_is_given_and_then_those_it_had() -> None:
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before
