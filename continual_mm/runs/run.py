"""Scenario + strategy + seed -> stages, scores, checkpoints; goes on where it stopped."""

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from avalanche.core import BaseSGDPlugin

from continual_mm.arrivals import plan
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, Strategy
from continual_mm.plugins.registry import build
from continual_mm.runs import checkpoint
from continual_mm.runs.folder import RunFolder, definition
from continual_mm.runs.history import History
from continual_mm.runs.hyperparameters import settings
from continual_mm.runs.progress import Listener, Ticker
from continual_mm.runs.session import Protection, Session, Watchers, open_session
from continual_mm.runs.timetable import Timetable
from continual_mm.runs.watch import Board, Curves
from continual_mm.space.space import JointSpace


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is an accelerator if there is one.

    Raises:
        RefusedError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise RefusedError(Complaint(f"device {name!r}", problem, "use auto or cpu")) from error
    return device


def train(
    scenario: Scenario,
    dataset: Dataset,
    *,
    plugins: Sequence[BaseSGDPlugin[Any]] = (),
    memory: int | None = None,
    joint: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> History:
    """Train a scenario from Python, keeping nothing on disk.

    Args:
        scenario: The definition.
        dataset: The items.
        plugins: What keeps old pairs aligned; none is naive training.
        memory: Items that the run may keep of past stages; replay and transport need some.
        joint: Everything at once, the upper bound.
        seed: Weights, order, shares and memory follow from it.
        device: ``auto``, ``cpu``, ``cuda`` and so on.

    Returns:
        The scores, and the trained space as ``history.space``.

    Raises:
        RefusedError: If the scenario does not fit the dataset.
        NotFiniteError: If a number became NaN or infinite.
    """
    named = {f"{number}": plugin for number, plugin in enumerate(plugins)}
    protection = Protection(named, memory, joint)
    session = open_session(scenario, dataset, protection, seed=seed, device=choose_device(device))
    for stage in range(session.stages):
        session.learn(stage)
    session.history.space.eval()
    return session.history


def run(
    scenario: Scenario,
    strategy: Strategy,
    dataset: Dataset,
    out: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    listener: Listener | None = None,
) -> History:
    """Train into a folder, from the last finished stage on if there is one.

    Args:
        scenario: The definition.
        strategy: What protects old pairs.
        dataset: The items.
        out: The run lies in ``out/<scenario>/<strategy>/seed-<seed>``.
        seed: Weights, order, shares and memory follow from it.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        listener: Who hears of the progress.

    Raises:
        RefusedError: If the scenario does not fit the dataset, or the folder holds another
            definition's run.
        NotFiniteError: If a number became NaN or infinite; finished stages are kept.
    """
    listener = listener or Listener()
    folder = run_folder(out, scenario, strategy, seed)
    identity = {"scenario": scenario.name, "strategy": strategy.name, "seed": seed}
    frozen = definition(scenario, strategy, dataset.card, seed)
    protection = Protection(
        build(strategy), strategy.memory.items if strategy.memory else None, strategy.joint
    )
    chosen = choose_device(device)
    folder.claim(frozen)
    timetable = Timetable.of(
        plan(scenario, dataset.card), joint=strategy.joint, common=scenario.training
    )
    steps_done = timetable.steps_until(folder.finished_stages())
    board = Board(folder.events, frozen, dataset, timetable, purge_step=steps_done + 1)
    watchers = Watchers([Curves()], [board], [board], [Ticker(listener)])
    session = open_session(
        scenario, dataset, protection, seed=seed, device=chosen, watchers=watchers
    )
    board.follow(session.history)
    begun = time.monotonic()
    done, spent = _resume(folder, session)
    names = session.benchmark.train
    remaining = sum(names[stage].training.steps for stage in range(done, session.stages))
    listener.begins(str(folder.path), session.stages, remaining)
    if done:
        listener.resumes(done)
    for stage in range(done, session.stages):
        session.learn(stage)
        number = session.learner.stage + 1
        folder.write_ranks(number, (e for e in session.evaluations if e.final))
        folder.write_scores(session.history, identity)
        board.stage_ends(session.history, session.learner.clock.train_iterations)
        seconds = spent + time.monotonic() - begun
        notes = {"seconds": seconds, "learned": stage + 1}
        checkpoint.save(folder.checkpoint(number), session.learner, session.plugins, notes)
        listener.scored(number, _recalls(session.history, number))
    if not folder.finished:
        board.run_ends(
            session.history,
            settings(scenario, strategy, protection.plugins, seed),
            session.learner.clock.train_iterations,
        )
        seconds = spent + time.monotonic() - begun
        folder.write_cost(_cost(session, seconds, chosen))
    listener.ends(spent + time.monotonic() - begun)
    session.history.space.eval()
    return session.history


def run_folder(out: Path, scenario: Scenario, strategy: Strategy, seed: int) -> RunFolder:
    """Where a run lies."""
    return RunFolder(out / scenario.name / strategy.name / f"seed-{seed}")


def open_run(folder: str | Path) -> JointSpace:
    """The space of a run as it was after its last finished stage.

    Args:
        folder: ``.../<scenario>/<strategy>/seed-<n>``.

    Returns:
        A space to embed features with: ``space.encode("text", features)``. Features are given as
        the dataset gave them to the run, standardised if the scenario says so.

    Raises:
        RefusedError: If there is no finished stage, or its checkpoint is damaged.
    """
    run = RunFolder(Path(folder))
    stages = run.finished_stages()
    if not stages:
        remedy = "give the folder of a seed, such as runs/av_vt/naive/seed-0"
        raise RefusedError(Complaint(str(folder), "no finished stage in this folder", remedy))
    return checkpoint.load_space(run.checkpoint(stages[-1]))


def _resume(folder: RunFolder, session: Session) -> tuple[int, float]:
    """Go to the last finished stage; gives the stages done and the seconds they took."""
    finished = folder.finished_stages()
    if not finished:
        return 0, 0.0
    last = finished[-1]
    notes = checkpoint.restore(folder.checkpoint(last), session.learner, session.plugins)
    session.history.scores.extend(s for s in folder.read_scores() if s.stage <= last)
    learned = int(notes["learned"])
    session.learner.pass_over(session.benchmark, learned)
    return learned, float(notes["seconds"])


def _recalls(history: History, stage: int) -> dict[str, float]:
    names = [str(pair) for pair in history.births]
    row = history.matrix()[stage - 1].tolist()
    return {name: value for name, value in zip(names, row, strict=True) if value == value}


def _cost(session: Session, seconds: float, device: torch.device) -> dict[str, float | int | str]:
    training = [experience.training for experience in session.benchmark.train]
    return {
        "seconds": seconds,
        "steps": sum(settings.steps for settings in training),
        "memory_items": session.remembered_items,
        "memory_bytes": session.memory_bytes,
        "recalled_rows": session.recalled_rows,
        "parameters": sum(p.numel() for p in session.history.space.parameters()),
        "peak_memory_bytes": _peak_memory(device),
        "device": str(device),
    }


def _peak_memory(device: torch.device) -> int:
    """Most bytes on the accelerator, else of this whole process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
