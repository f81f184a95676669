"""Scenario + strategy + seed -> stages, scores, checkpoints; a stopped run is resumed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import nn

from continual_mm.data.corpora import together
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import DatasetCard, Kind, Pair
from continual_mm.definitions.reading import BOUNDS
from continual_mm.definitions.scenario import MemorySettings, Scenario, Strategy
from continual_mm.evaluation.pairs import Observer
from continual_mm.evaluation.protocols import NO_DATASETS, Scored, load_scored
from continual_mm.learning.avalanche import BaseLogger, BaseSGDPlugin
from continual_mm.plugins.registry import build
from continual_mm.runs import checkpoint, records
from continual_mm.runs.bar import RunBar
from continual_mm.runs.board.board import Board, watchers
from continual_mm.runs.board.schedule import StageSchedule
from continual_mm.runs.board.summaries import settings
from continual_mm.runs.finished import is_whole
from continual_mm.runs.folder import COST, RunFolder
from continual_mm.runs.history import History, near_chance
from continual_mm.runs.loggers import check_loggers, close_loggers, open_loggers
from continual_mm.runs.meters import Meter, cost
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.resuming import Checkpointer, Progress, progress_of
from continual_mm.runs.session import NO_MODULES, Session, open_session
from continual_mm.runs.specification import Specification, opened
from continual_mm.runs.start import add_adapters
from continual_mm.space.space import JointSpace
from continual_mm.space.towers import Tower, fingerprint
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import read_json, write_json
from continual_mm.system.reading import reads

CHECKPOINT_EVERY = 500
"""Optimiser steps between checkpoints inside a stage, if nothing else is said."""


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is an accelerator if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        message = str(error).splitlines()[0]
        raise InputError.at(f"device {name!r}", message, "use auto or cpu") from error
    return device


@checked_arguments
def train(  # noqa: PLR0913 - what is trained, and by name how
    scenario: Scenario,
    dataset: Dataset | Mapping[str, Dataset],
    *,
    plugins: Sequence[BaseSGDPlugin[Any]] = (),
    memory: int | None = None,
    joint: bool = False,
    cumulative: bool = False,
    strategy: Strategy | None = None,
    towers: Mapping[str, nn.Module] = NO_MODULES,
    scored: Scored = NO_DATASETS,
    seed: int = 0,
    device: str = "auto",
    loggers: Sequence[BaseLogger] = (),
    progress: bool = False,
) -> History:
    """Train a scenario from Python, keeping nothing on disk.

    Args:
        scenario: The definition.
        dataset: The items; of several datasets each by the name that stages call it.
        plugins: What keeps old pairs aligned; none is naive training.
        memory: Items that the run may keep of past stages; replay and transport need some.
        joint: Everything at once, the upper bound.
        cumulative: Each stage on everything seen until then, an upper bound with stages.
        strategy: In the place of these four, what :func:`load_strategy` gives.
        towers: Modality -> a module to begin its tower with: anything that maps (n, ...) features
            to (n, size). It stays as it is; a copy is trained.
        scored: Name of a protocol -> the dataset whose test items it scores, where that is not to
            be loaded. Let it be standardised by ``dataset.statistics``.
        seed: Weights, order, shares and memory follow from it.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        loggers: Avalanche's loggers, which get losses, norms and the recalls of directions.
        progress: Whether to show a bar, in a notebook as well.

    Returns:
        The scores, what they took, and the trained space as ``history.space``.

    Raises:
        InputError: If the scenario does not fit the dataset, or a plugin would do nothing.
        NotFiniteError: If a number became NaN or infinite.
    """
    if problems := list(_idle(plugins, memory=memory, joint=joint, cumulative=cumulative)):
        raise InputError(problems)
    named = {str(number): plugin for number, plugin in enumerate(plugins)}
    if strategy is None:
        memories = None if memory is None else MemorySettings(items=memory)
        strategy = Strategy(name="plugins", joint=joint, cumulative=cumulative, memory=memories)
    elif named or memory is not None or joint or cumulative:
        message = "it says already what plugins, memory, joint and cumulative say"
        raise InputError.at("train(strategy=...)", message, "give the one or the others")
    else:
        named = build(strategy)
    dataset = dataset if isinstance(dataset, Dataset) else together(dataset)
    scored = load_scored(scenario, dataset, scored)
    chosen = choose_device(device)
    specified = Specification(opened(scenario, dataset.card, _cards(scored)), strategy, seed)
    bar = RunBar(_schedule(specified).steps_until(len(specified.arrivals))) if progress else None
    with bar or nullcontext():
        reporter = bar or RunReporter()
        meter = Meter(reporter, chosen)
        session = open_session(
            specified,
            dataset,
            named,
            device=chosen,
            towers=towers,
            scored=scored,
            watchers=watchers(None, (), [meter], loggers),
        )
        for stage in range(session.stages):
            session.learn(stage)
            reporter.scored(stage + 1, _recalls(session))
    session.history.cost = cost(session, meter)
    session.history.space.eval()
    return session.history


def _schedule(specified: Specification) -> StageSchedule:
    """The steps of each stage."""
    return StageSchedule.of(
        specified.arrivals,
        joint=specified.strategy.joint,
        cumulative=specified.strategy.cumulative,
        common=specified.scenario.training,
    )


def _recalls(session: Session) -> dict[str, float]:
    """Pair -> R@1 after the stage, of those that were scored."""
    history = session.history
    row = zip(
        map(str, history.births), history.matrix()[session.learner.stage].tolist(), strict=True
    )
    return {pair: value for pair, value in row if value == value}


def _idle(
    plugins: Sequence[BaseSGDPlugin[Any]], *, memory: int | None, joint: bool, cumulative: bool
) -> Iterator[Problem]:
    """What is given as a plugin and would do nothing."""
    for plugin in plugins:
        place = f"plugins, {type(plugin).__name__}"
        if memory is None and getattr(plugin, "needs_memory", False):
            yield Problem(place, "it needs past items, but there is no memory", "add memory=128")
    protecting = [plugin for plugin in plugins if not getattr(plugin, "for_bounds", False)]
    bounds = {"joint": joint, "cumulative": cumulative}
    if protecting or memory is not None:
        for bound in (name for name, wanted in bounds.items() if wanted):
            message = f"{bound} training {BOUNDS[bound]} and has nothing to protect"
            yield Problem(bound, message, f"leave out plugins and memory, or {bound}")


@checked_arguments
def run(
    scenario: Scenario,
    strategy: Strategy,
    dataset: Dataset | Mapping[str, Dataset],
    out: Path,
    *,
    seed: int = 0,
    towers: Mapping[str, nn.Module] = NO_MODULES,
    scored: Scored = NO_DATASETS,
    **options: Any,
) -> History:
    """Train into a folder; a run that was stopped or killed there is resumed to the same bits.

    Args:
        scenario: The definition.
        strategy: What protects old pairs.
        dataset: The items; of several datasets each by the name that stages call it.
        out: The run lies in ``out/<scenario>/<strategy>/seed-<seed>``.
        seed: Weights, order, shares and memory follow from it.
        towers: Modality -> a module to begin its tower with, see :func:`train`. To resume a
            run, give modules of the same weights again.
        scored: Name of a protocol -> the dataset whose test items it scores, see :func:`train`.
        options: What changes no number: ``device``, ``checkpoint_every`` and so on, see
            :func:`run_specified`.

    Raises:
        InputError: If the scenario does not fit the dataset, the folder holds another
            definition's run, or another process is at work in it.
        NotFiniteError: If a number became NaN or infinite; the last checkpoint is kept.
    """
    if "listener" in options:
        warn("run(listener=...) is now run(reporter=...)", DeprecationWarning, stacklevel=2)
        options["reporter"] = options.pop("listener")
    dataset = dataset if isinstance(dataset, Dataset) else together(dataset)
    scored = load_scored(scenario, dataset, scored)
    specification = Specification(
        opened(scenario, dataset.card, _cards(scored)),
        strategy,
        seed,
        {name: fingerprint(module) for name, module in towers.items()},
    )
    return run_specified(specification, dataset, out, towers=towers, scored=scored, **options)


@checked_arguments
def run_specified(  # noqa: PLR0913 - what is trained, and by name all that changes no number
    specification: Specification,
    dataset: Dataset,
    out: Path,
    *,
    towers: Mapping[str, nn.Module] = NO_MODULES,
    scored: Scored = NO_DATASETS,
    device: str = "auto",
    checkpoint_every: int = CHECKPOINT_EVERY,
    workers: int = 0,
    board: bool = True,
    loggers: Sequence[str | BaseLogger] = ("csv",),
    reporter: RunReporter | None = None,
    observers: Sequence[Observer] = (),
) -> History:
    """Train what is specified into its folder below ``out``, or resume it; see :func:`run`.

    ``checkpoint_every`` counts optimiser steps inside a stage, 0 for stage ends only; ``workers``
    are threads that fetch batches ahead. ``loggers`` get all numbers of the board, by name
    (``csv``, ``wandb``, ``mlflow``) or as Avalanche's objects. Observers are called with each
    evaluation; an exception of theirs ends the run, which can be resumed.
    """
    _check_unchanged(specification, dataset, scored)
    check_loggers(loggers)
    reporter = reporter or RunReporter()
    folder = RunFolder(out / specification.path)
    plugins = build(specification.strategy)
    chosen = choose_device(device)
    with folder.claimed(specification.identity), ExitStack() as closing:
        progress = progress_of(folder)
        doubted = folder.finished and not is_whole(folder.path)
        if not folder.has(records.Cost, COST):
            (folder.path / COST).unlink(missing_ok=True)
        page = None
        if board:
            page, opened_loggers = _board(folder, specification, dataset, progress, loggers)
            closing.callback(close_loggers, opened_loggers)
        meter = Meter(reporter, chosen)

        new_session = partial(
            open_session,
            specification,
            dataset,
            device=chosen,
            towers=towers,
            scored=scored,
            workers=workers,
        )
        session = new_session(plugins, watchers=watchers(page, observers, [meter]))
        if page is not None:
            page.follow(session.history)
        checkpointer = Checkpointer(folder, session, specification, meter, every=checkpoint_every)
        _train_stages(session, checkpointer, progress, reporter, page, str(folder.path))
        for text in checkpointer.mend(
            lambda: new_session(build(specification.strategy)), doubted=doubted
        ):
            reporter.warns(text)
        history, costs = session.history, folder.path / COST
        if folder.finished:
            history.cost = read_json(costs)
        else:
            history.cost = cost(session, meter)
            if page is not None:
                strategy, seed = specification.strategy, specification.seed
                shown = settings(specification.scenario, strategy, seed=seed)
                page.run_ends(history, shown, session.learner.clock.train_iterations)
            write_json(costs, history.cost, sealed=True)
    reporter.ends(meter.seconds)
    history.space.eval()
    return history


def _board(
    folder: RunFolder,
    specification: Specification,
    dataset: Dataset,
    progress: Progress,
    wanted: Sequence[str | BaseLogger],
) -> tuple[Board, list[BaseLogger]]:
    """The run's TensorBoard and other loggers; what a killed process wrote later is hidden."""
    done = progress.made  # a stage may have ended before its steps were made
    shown = settings(specification.scenario, specification.strategy, seed=specification.seed)
    loggers = open_loggers(wanted, folder.path, str(specification), shown, done=done)
    board = Board(
        folder.events,
        specification.identity,
        dataset,
        _schedule(specification),
        split=specification.split,
        purge_step=done + 1,
        others=loggers,
    )
    return board, loggers


def _train_stages(
    session: Session,
    checkpointer: Checkpointer,
    progress: Progress,
    reporter: RunReporter,
    page: Board | None,
    name: str,
) -> None:
    """Train the stages that are left."""
    done, restore = checkpointer.resume(progress)
    streams = session.benchmark.train
    left = sum(streams[stage].training.steps for stage in range(done, session.stages))
    reporter.begins(name, session.stages, left - progress.step)
    if progress.stage or progress.step:
        reporter.resumes(progress.stage, progress.step)
    step = progress.step
    for stage in range(done, session.stages):
        session.learn(stage, step=step, restore=restore)
        step, restore = 0, None
        checkpointer.stage_ends()
        if page is not None:
            page.stage_ends(session.history, session.learner.clock.train_iterations)
        number = session.learner.stage
        reporter.scored(number + 1, _recalls(session))
        trained = {pair for pairs in streams[stage].pairs.values() for pair in pairs}
        for text in _warnings(session, trained, number + 1):
            reporter.warns(text)


def _warnings(session: Session, trained: Iterable[Pair], stage: int) -> Iterator[str]:
    """A line for each pair that was trained and is near chance, with what may help."""
    kinds = {modality.name: modality.kind for modality in session.history.space.modalities}
    pairs = {str(pair): pair for pair in sorted(trained)}
    for name, place in near_chance(session.history.scores, pairs, stage).items():
        unordered = [
            modality
            for modality in (pairs[name].first, pairs[name].second)
            if kinds[modality] is Kind.TOKENS and modality not in session.history.space.towers
        ]
        reasons = [
            "train longer (training.steps)",
            "check that both modalities of an item belong together",
            *(
                f"if the rows of {modality} have an order, keep it: [tower.{modality}] "
                'kind = "flat", or kind "frames" in the dataset'
                for modality in unordered
            ),
        ]
        yield (
            f"stage {stage}: {name} is near chance on validation items: its median right answer "
            f"stands at {100 * place:.0f} % of the list, chance at 50 %; {'; '.join(reasons)}"
        )


def _check_unchanged(specification: Specification, dataset: Dataset, scored: Scored) -> None:
    """Refuse data that are no longer those of the specification, which the run's folder records."""
    opened = specification.opened
    protocols = [(opened.scored[name], each.card) for name, each in scored.items()]
    for expected, found in ((opened.card, dataset.card), *protocols):
        if expected.fingerprint != found.fingerprint:
            message = "was changed after the run was specified"
            raise InputError.at(f"dataset '{found.name}'", message, "run the command again")


def _cards(scored: Scored) -> dict[str, DatasetCard]:
    return {name: dataset.card for name, dataset in scored.items()}


@reads
@checked_arguments
def open_run(
    folder: str | Path, *, towers: Mapping[str, nn.Module] = NO_MODULES, pair: str = ""
) -> JointSpace:
    """The space of a run as it was after its last finished stage.

    Args:
        folder: ``.../<scenario>/<strategy>/seed-<n>``.
        towers: The modules that were given to the run, to be filled with their trained weights.
        pair: A pair to see the space as, such as ``"video-text"``: the adapters that a strategy may
            have given it, as ``pair_lora`` does, are added to the weights. Embeddings of a space
            opened so are for this pair only. If left out, the space that all pairs share.

    Returns:
        A space to embed features with: ``space.encode("text", features)``. Features are given as
        an extractor gives them, and standardised as those of the run's dataset were. A run of an
        earlier version did not keep by what: give it standardised ones, ``standardised=True``.

    Raises:
        InputError: If there is no finished stage, its checkpoint is damaged, the pair is none of
            the space's, or its adapters need a package that is not installed.
    """
    run = RunFolder(Path(folder))
    stages = run.finished_stages()
    if not stages:
        remedy = "give the folder of a seed, such as runs/av_vt/naive/seed-0"
        raise InputError.at(folder, "no finished stage in this folder", remedy)
    last = run.checkpoint(stages[-1])
    space = checkpoint.load_space(last, {name: Tower.of(module) for name, module in towers.items()})
    if pair:
        add_adapters(space, last, pair)
    _note_unstandardised(space, run)
    return space


def _note_unstandardised(space: JointSpace, run: RunFolder) -> None:
    """Of a run of an earlier version, its definition says which features were left as they are."""
    unknown = [one.name for one in space.modalities if one.name not in space.statistics]
    if unknown:
        with suppress(InputError):
            said = run.definition["scenario"].get("standardise", True)
            left = [name for name in unknown if said is not True and name not in (said or ())]
            space.statistics |= dict.fromkeys(left)
