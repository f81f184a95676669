"""Scenario + strategy + seed -> stages, scores, checkpoints; goes on where it stopped."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.reading import BOUNDS
from continual_mm.definitions.scenario import Scenario, Strategy
from continual_mm.evaluation.pairs import Observer
from continual_mm.evaluation.protocols import NOTHING, Scored, load_scored
from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.plugins.registry import build
from continual_mm.runs import checkpoint
from continual_mm.runs.board.board import Board, watchers
from continual_mm.runs.board.pages import settings
from continual_mm.runs.board.timetable import Timetable
from continual_mm.runs.folder import RunFolder, definition
from continual_mm.runs.history import History
from continual_mm.runs.listener import Listener
from continual_mm.runs.meters import Scales, Stopwatch, Ticker, cost
from continual_mm.runs.origin import planned
from continual_mm.runs.resuming import Logbook, Standing, standing
from continual_mm.runs.session import NO_MODULES, Protection, Session, open_session
from continual_mm.runs.start import adapt
from continual_mm.space.space import JointSpace
from continual_mm.space.towers import Tower, fingerprint
from continual_mm.system.errors import InputError, Problem

CHECKPOINT_EVERY = 500
"""Optimiser steps between checkpoints inside a stage, if nothing else is said."""


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is an accelerator if there is one.

    Raises:
        InputError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(Problem(f"device {name!r}", problem, "use auto or cpu")) from error
    return device


def train(  # noqa: PLR0913 - what is trained, and by name how
    scenario: Scenario,
    dataset: Dataset,
    *,
    plugins: Sequence[BaseSGDPlugin[Any]] = (),
    memory: int | None = None,
    joint: bool = False,
    cumulative: bool = False,
    towers: Mapping[str, nn.Module] = NO_MODULES,
    scored: Scored = NOTHING,
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
        cumulative: Each stage on everything seen until then, an upper bound with stages.
        towers: Modality -> a module to begin its tower with: anything that maps (n, ...) features
            to (n, size). It stays as it is; a copy is trained.
        scored: Name of a protocol -> the dataset whose test items it scores, where that is not to
            be loaded. Let it be standardised by ``dataset.statistics``.
        seed: Weights, order, shares and memory follow from it.
        device: ``auto``, ``cpu``, ``cuda`` and so on.

    Returns:
        The scores, and the trained space as ``history.space``.

    Raises:
        InputError: If the scenario does not fit the dataset, or a plugin would do nothing.
        NotFiniteError: If a number became NaN or infinite.
    """
    problems = list(_idle(plugins, memory=memory, joint=joint, cumulative=cumulative))
    if problems:
        raise InputError(problems)
    named = {f"{number}": plugin for number, plugin in enumerate(plugins)}
    protection = Protection(named, memory, joint, cumulative)
    chosen = choose_device(device)
    session = open_session(
        scenario, dataset, protection, seed=seed, device=chosen, towers=towers, scored=scored
    )
    for stage in range(session.stages):
        session.learn(stage)
    session.history.space.eval()
    return session.history


def _idle(
    plugins: Sequence[BaseSGDPlugin[Any]], *, memory: int | None, joint: bool, cumulative: bool
) -> Iterator[Problem]:
    """What is given as a plugin and would do nothing."""
    for plugin in plugins:
        place = f"plugins, {type(plugin).__name__}"
        if not isinstance(plugin, BaseSGDPlugin):
            remedy = "give objects, such as Replay(weight=1.0)"
            yield Problem("plugins", f"{plugin!r} is no plugin", remedy)
        elif memory is None and getattr(plugin, "needs_memory", False):
            yield Problem(place, "it needs past items, but there is no memory", "add memory=128")
    protecting = [plugin for plugin in plugins if not getattr(plugin, "for_bounds", False)]
    bounds = {"joint": joint, "cumulative": cumulative}
    if protecting or memory is not None:
        for bound in (name for name, wanted in bounds.items() if wanted):
            problem = f"{bound} training {BOUNDS[bound]} and has nothing to protect"
            yield Problem(bound, problem, f"leave out plugins and memory, or {bound}")


def run(  # noqa: PLR0913 - what is trained, and by name everything that changes no number
    scenario: Scenario,
    strategy: Strategy,
    dataset: Dataset,
    out: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    towers: Mapping[str, nn.Module] = NO_MODULES,
    scored: Scored = NOTHING,
    checkpoint_every: int = CHECKPOINT_EVERY,
    workers: int = 0,
    board: bool = True,
    listener: Listener | None = None,
    observers: Sequence[Observer] = (),
) -> History:
    """Train into a folder; if a run was stopped or killed there, go on to the same bits.

    Args:
        scenario: The definition.
        strategy: What protects old pairs.
        dataset: The items.
        out: The run lies in ``out/<scenario>/<strategy>/seed-<seed>``.
        seed: Weights, order, shares and memory follow from it.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        towers: Modality -> a module to begin its tower with, see :func:`train`. To go on with a
            run, give modules of the same weights again.
        scored: Name of a protocol -> the dataset whose test items it scores, see :func:`train`.
        checkpoint_every: Optimiser steps between checkpoints inside a stage; 0 writes them at stage
            ends only. No number depends on it.
        workers: Threads that fetch batches ahead. No number depends on it.
        board: Whether TensorBoard's files are written. No number depends on it.
        listener: Who hears of the progress.
        observers: Told of each evaluation. An exception of theirs ends the run, which may go on.

    Raises:
        InputError: If the scenario does not fit the dataset, the folder holds another
            definition's run, or another process is at work in it.
        NotFiniteError: If a number became NaN or infinite; the last checkpoint is kept.
    """
    listener = listener or Listener()
    folder = run_folder(out, scenario, strategy, seed)
    own = {name: fingerprint(module) for name, module in towers.items()}
    scored = load_scored(scenario, dataset, scored)
    cards = {name: items.card for name, items in scored.items()}
    frozen = definition(scenario, strategy, dataset.card, seed, own, cards)
    protection = Protection(
        build(strategy),
        strategy.memory.items if strategy.memory else None,
        joint=strategy.joint,
        cumulative=strategy.cumulative,
    )
    chosen = choose_device(device)
    with folder.claimed(frozen):
        folder.clear_unfinished()
        at = standing(folder)
        timetable = Timetable.of(
            planned(scenario, dataset.card),
            joint=strategy.joint,
            cumulative=strategy.cumulative,
            common=scenario.training,
        )
        told = timetable.steps_until(at.stage) + at.step
        page = None
        if board:
            page = Board(folder.events, frozen, dataset, timetable, purge_step=told + 1)
        stopwatch, scales = Stopwatch(), Scales()
        session = open_session(
            scenario,
            dataset,
            protection,
            seed=seed,
            device=chosen,
            watchers=watchers(page, observers, [Ticker(listener), stopwatch, scales]),
            workers=workers,
            towers=towers,
            scored=scored,
        )
        if page is not None:
            page.follow(session.history)
        identity = {"scenario": scenario.name, "strategy": strategy.name, "seed": seed}
        logbook = Logbook(folder, session, every=checkpoint_every, identity=identity)
        _go_on(session, logbook, at, listener, page, str(folder.path))
        if not folder.finished:
            if page is not None:
                chosen_by = settings(scenario, strategy, protection.plugins, seed)
                page.run_ends(session.history, chosen_by, session.learner.clock.train_iterations)
            measured = cost(session, logbook.seconds, chosen, stopwatch=stopwatch, scales=scales)
            folder.write_cost(measured)
    listener.ends(logbook.seconds)
    session.history.space.eval()
    return session.history


def _go_on(
    session: Session,
    logbook: Logbook,
    at: Standing,
    listener: Listener,
    page: Board | None,
    name: str,
) -> None:
    """Train the stages that are left."""
    done, jump = logbook.resume(at)
    trained = session.benchmark.train
    left = sum(trained[stage].training.steps for stage in range(done, session.stages))
    listener.begins(name, session.stages, left - at.step)
    if at.stage or at.step:
        listener.resumes(at.stage, at.step)
    step = at.step
    for stage in range(done, session.stages):
        session.learn(stage, step=step, jump=jump)
        step, jump = 0, None
        logbook.stage_ends()
        if page is not None:
            page.stage_ends(session.history, session.learner.clock.train_iterations)
        number = session.learner.stage + 1
        listener.scored(number, _recalls(session.history, number))


def run_folder(out: Path, scenario: Scenario, strategy: Strategy, seed: int) -> RunFolder:
    """Where a run lies."""
    return RunFolder(out / scenario.name / strategy.name / f"seed-{seed}")


def open_run(
    folder: str | Path, *, towers: Mapping[str, nn.Module] = NO_MODULES, pair: str = ""
) -> JointSpace:
    """The space of a run as it was after its last finished stage.

    Args:
        folder: ``.../<scenario>/<strategy>/seed-<n>``.
        towers: The modules that were given to the run, to be filled with their trained weights.
        pair: A pair to see the space as, such as ``"video-text"``: the adapters that a strategy may
            have given it (``pair_lora``) are added to the weights. Embeddings of a space opened so
            are for this pair only. If left out, the space that all pairs share.

    Returns:
        A space to embed features with: ``space.encode("text", features)``. Features are given as
        the dataset gave them to the run, standardised if the scenario says so.

    Raises:
        InputError: If there is no finished stage, its checkpoint is damaged, the pair is none of
            the space's, or its adapters need a package that is not installed.
    """
    run = RunFolder(Path(folder))
    stages = run.finished_stages()
    if not stages:
        remedy = "give the folder of a seed, such as runs/av_vt/naive/seed-0"
        raise InputError(Problem(str(folder), "no finished stage in this folder", remedy))
    own = {name: Tower.of(module) for name, module in towers.items()}
    last = run.checkpoint(stages[-1])
    space = checkpoint.load_space(last, own)
    if pair:
        adapt(space, last, pair)
    return space


def _recalls(history: History, stage: int) -> dict[str, float]:
    names = [str(pair) for pair in history.births]
    row = history.matrix()[stage - 1].tolist()
    return {name: value for name, value in zip(names, row, strict=True) if value == value}
