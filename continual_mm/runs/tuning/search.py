"""Trials decided upon in batches, run, and recorded in Optuna's journal."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isclose
from statistics import fmean, median

import optuna
from optuna.trial import FrozenTrial, TrialState

from continual_mm.runs.folder import holds
from continual_mm.runs.history import Score
from continual_mm.runs.parallel import Outcome, Task, run_many
from continual_mm.runs.reporter import Moment, Reporter
from continual_mm.runs.tuning.journal import REMEDY, open_study
from continual_mm.runs.tuning.plan import Plan, TrialRun
from continual_mm.runs.tuning.proposing import proposal
from continual_mm.runs.tuning.result import State, Trial, Tuned
from continual_mm.system.errors import InputError
from continual_mm.system.files import locked, read_json, write_json
from continual_mm.system.seeds import seed_for

STARTUP = 5
"""Finished trials that there must be before one is pruned; a median of fewer means little."""

ROUNDING = 1e-9
"""Far below any difference of scores: trials that are equal must not prune one another."""

RECORDED: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "diverged",
}

Values = Mapping[Moment, float]  # moment of a run -> value of the goal


def running_means(runs: Sequence[TrialRun], found: Sequence[Values]) -> dict[int, float]:
    """Position among all moments of all runs of a trial -> mean over the runs until then.

    Of earlier seeds the same moment counts, of earlier scenarios their end.
    """
    means: dict[int, float] = {}
    for place, (run, values) in enumerate(zip(runs, found, strict=False)):
        for position, moment in enumerate(run.moments, start=run.offset):
            if moment in values:
                earlier = _earlier(runs[:place], found, run, moment)
                means[position] = fmean([values[moment], *earlier])
    return means


def required(
    runs: Sequence[TrialRun], found: Sequence[Values], finished: Iterable[Mapping[int, float]]
) -> dict[Moment, float]:
    """Least values of a trial's next run that keep the mean at the median of finished trials.

    Optuna's own pruner takes a trial's best value until then, often that before any forgetting.
    """
    run = runs[len(found)]
    least = {}
    means = list(finished)
    for position, moment in enumerate(run.moments, start=run.offset):
        known = [each[position] for each in means if position in each]
        if len(known) >= STARTUP:
            own = sum(_earlier(runs, found, run, moment))
            least[moment] = (len(found) + 1) * median(known) - own - ROUNDING
    return least


def _earlier(
    runs: Sequence[TrialRun], found: Sequence[Values], run: TrialRun, moment: Moment
) -> list[float]:
    """What is averaged with a run's value at a moment."""
    return [
        values[moment if before.opened is run.opened else before.end]
        for before, values in zip(runs, found, strict=False)
    ]


def means_by_scenario(runs: Sequence[TrialRun], found: Sequence[Values]) -> dict[str, float]:
    """The mean over each scenario's runs at their end."""
    ends: dict[str, list[float]] = {}
    for run, values in zip(runs, found, strict=True):
        ends.setdefault(run.scenario, []).append(values[run.end])
    return {scenario: fmean(each) for scenario, each in ends.items()}


class Search:
    """A search's journal, and the batches of trials, as many as jobs, that fill it."""

    def __init__(self, plan: Plan, jobs: int, threads: int | None, reporter: Reporter) -> None:
        self._plan = plan
        self._jobs = jobs
        self._threads = threads
        self._reporter = reporter
        self._runs = plan.trial_runs()
        self._study = open_study(plan.folder / "journal.log")
        self._check()

    def _check(self) -> None:
        """Refuse a journal with another value of a trial than the scores of its runs give."""
        for trial in self._trials(TrialState.COMPLETE):
            with suppress(OSError, InputError):  # runs may have been removed since
                found = self._found(trial, len(self._runs))
                if not isclose(trial.value or 0.0, self._score_at_end(found), abs_tol=ROUNDING):
                    break
        else:
            return
        problem = f"trial {trial.number} has another value than its runs"
        raise InputError.at(self._plan.folder / "journal.log", problem, REMEDY)

    def _score_at_end(self, found: Sequence[Values]) -> float:
        return fmean(values[run.end] for run, values in zip(self._runs, found, strict=True))

    def next_batch(self) -> list[optuna.Trial]:
        """Trials to run: those that a killed process left, or else as many as jobs."""
        begun = self._trials(TrialState.RUNNING)
        if not begun:
            self._fill()
        batch = [optuna.Trial(self._study, frozen._trial_id) for frozen in begun]
        batch += [self._study.ask() for _ in self._trials(TrialState.WAITING)]
        for trial in batch:
            for one in self._plan.searched:
                low, high, log = one.range.low, one.range.high, one.range.log
                if one.whole:
                    trial.suggest_int(str(one), int(low), int(high), log=log)
                else:
                    trial.suggest_float(str(one), low, high, log=log)
        return batch

    def _fill(self) -> None:
        """Decide upon the trials of a batch; each is recorded whole, so none is half known."""
        while len(self._trials(TrialState.WAITING)) < self._jobs:
            number = len(self._study.get_trials(deepcopy=False))
            if number >= self._plan.trials:
                break
            ended = [(trial.params, _score(trial)) for trial in self._trials(*RECORDED)]
            under_way = [
                trial.user_attrs.get("values", trial.params)
                for trial in self._trials(TrialState.WAITING)
            ]
            # A generator shared by all trials would start over whenever a search is resumed.
            own = seed_for(self._plan.seed, "trial", number) % 2**32
            values = proposal(self._plan.searched, ended, under_way, seed=own)
            self._study.enqueue_trial(values, user_attrs={"values": values})

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        known = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in known if trial.number < self._plan.trials]

    def run(self, batch: Sequence[optuna.Trial]) -> list[Outcome]:
        """Run a batch, record trials that end; returns runs that failed, whose trials stay open."""
        failed: list[Outcome] = []
        left = list(batch)
        for place, run in enumerate(self._runs):
            tasks = [self._task(trial, place) for trial in left]
            outcomes = run_many(
                tasks, jobs=self._jobs, threads=self._threads, reporter=self._reporter
            )
            going_on = []
            for trial, outcome in zip(left, outcomes, strict=True):
                if not outcome.error:
                    going_on.append(trial)
                elif outcome.halted or outcome.diverged:
                    self._record_early_end(trial, run, outcome)
                else:
                    failed.append(outcome)
            left = going_on
        for trial in left:
            self._record(trial, TrialState.COMPLETE, self._found(trial, len(self._runs)))
        return failed

    def _task(self, trial: optuna.Trial, place: int) -> Task:
        least = {}
        if self._plan.pruning:
            finished = [each.intermediate_values for each in self._trials(TrialState.COMPLETE)]
            least = required(self._runs, self._found(trial, place), finished)
        return self._plan.task(self._name(trial.number), trial.params, self._runs[place], least)

    def _name(self, number: int) -> str:
        return f"{self._plan.strategy.name}-{number:03d}"

    def _found(self, trial: optuna.Trial | FrozenTrial, count: int) -> list[Values]:
        """What was found of a trial's first runs, which are finished."""
        name = self._name(trial.number)
        found: list[Values] = []
        for run in self._runs[:count]:
            folder = self._plan.task(name, trial.params, run).folder
            known = read_json(folder / "scores.json")["evaluations"]
            found.append(run.goal.values(map(Score.from_json, known)))
        return found

    def _record_early_end(self, trial: optuna.Trial, run: TrialRun, outcome: Outcome) -> None:
        found = self._found(trial, self._runs.index(run))
        if outcome.halted:
            found.append({outcome.halted.moment: outcome.halted.value})
        several = len(self._plan.scenarios) > 1
        note = f"{run.scenario}, seed {run.seed}" if several else f"seed {run.seed}"
        state = TrialState.PRUNED if outcome.halted else TrialState.FAIL
        self._record(trial, state, found, f"{note}: {outcome.error}")

    def _record(
        self, trial: optuna.Trial, state: TrialState, found: Sequence[Values], note: str = ""
    ) -> None:
        """Tell Optuna everything of a trial at its end: it is either recorded or run again."""
        known = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for position, mean in running_means(self._runs, found).items():
            if position not in known:
                trial.report(mean, position)
        trial.set_user_attr("note", note)
        score = None
        if state is TrialState.COMPLETE:
            trial.set_user_attr("by_scenario", means_by_scenario(self._runs, found))
            score = self._score_at_end(found)
        self._study.tell(trial, score, state=state)

    @property
    def tuned(self) -> Tuned:
        """The trials recorded until now."""
        trials = (
            Trial(
                number=trial.number,
                state=RECORDED[trial.state],
                value=_score(trial),
                values=dict(trial.params),
                name=self._name(trial.number),
                note=trial.user_attrs.get("note", ""),
                by_scenario=trial.user_attrs.get("by_scenario", {}),
            )
            for trial in self._trials(*RECORDED)
        )
        return Tuned(self._plan, tuple(trials))


def _score(trial: FrozenTrial) -> float | None:
    """The value of a finished trial; Optuna gives a pruned one its last report as value."""
    return trial.value if trial.state is TrialState.COMPLETE else None


def tune(
    plan: Plan, *, jobs: int = 1, threads: int | None = None, reporter: Reporter | None = None
) -> tuple[Tuned, list[Outcome]]:
    """Try values until so many trials are recorded; returns them, and runs that failed.

    Trials are decided upon in batches of ``jobs``, without the scores of others in the batch, so
    that the search follows from its seed and the number of jobs, not from which run was faster. A
    trial of a killed search is resumed with its values, and so are its runs. Runs that failed for
    other reasons than their values, such as lack of memory, end the search; their trials are not
    recorded.
    """
    plan.check()
    # It warns of its own speed, which a search of hours does not notice.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with locked(plan.folder / "tuning.lock"):
        search_file, identity = plan.folder / "search.json", plan.identity()
        if not holds(search_file, identity):
            write_json(search_file, identity, sealed=True)
        search = Search(plan, jobs, threads, reporter or Reporter())
        failed: list[Outcome] = []
        while not failed and (batch := search.next_batch()):
            failed = search.run(batch)
            write_json(plan.folder / "tuning.json", search.tuned.as_json())
        write_json(plan.folder / "tuning.json", search.tuned.as_json())
        return search.tuned, failed
