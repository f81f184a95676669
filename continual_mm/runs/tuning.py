"""Searches the numbers of a strategy with Optuna, on validation items; goes on where it stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from continual_mm.arrivals import Arrival
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Scenario, Strategy
from continual_mm.dice import seed_for
from continual_mm.modality import DatasetCard
from continual_mm.runs.files import locked, read_json, write_json
from continual_mm.runs.folder import definition, differences
from continual_mm.runs.history import Score
from continual_mm.runs.judging import Goal, Judge, Moment, moments
from continual_mm.runs.listener import Audience, Listener
from continual_mm.runs.parallel import run_many
from continual_mm.runs.searching import Searched
from continual_mm.runs.tasks import Outcome, Task
from continual_mm.runs.tuned import State, Trial, Tuned, valued

STARTUP = 5
"""Finished trials that there must be before one is pruned; that many a median needs to mean
something."""

ROUNDING = 1e-9
"""Far below any difference of scores: trials that are equal must not prune one another."""

RECORDED: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "diverged",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A search.

    Attributes:
        scenario: The definition.
        card: What its dataset offers.
        arrivals: The definition worked out on the dataset.
        strategy: Where the search begins: the first trial.
        searched: What is searched.
        out: The search lies in ``out/<scenario>/<strategy>``.
        trials: How many are recorded at most, those of earlier calls among them.
        seeds: Runs of each trial, with seeds 0 to this minus 1.
        metric: What is averaged, see :data:`~continual_mm.rules.METRICS`.
        pruning: Whether a trial ends where it falls below the median of earlier ones.
        seed: Of the search itself.
        options: Keyword arguments of :func:`continual_mm.runs.run.run` that change no number.
    """

    scenario: Scenario
    card: DatasetCard
    arrivals: Sequence[Arrival]
    strategy: Strategy
    searched: tuple[Searched, ...]
    out: Path
    trials: int
    seeds: int = 1
    metric: str = "recall_at_1"
    pruning: bool = True
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the search lies; its runs are below ``trials``."""
        return self.out / self.scenario.name / self.strategy.name

    def task(self, name: str, values: Mapping[str, float], seed: int, judge: Judge) -> Task:
        """The run of a trial with one seed."""
        strategy = valued(self.strategy, values, name)
        options = {**self.options, "observers": (judge,)}
        return Task(self.scenario, strategy, self.folder / "trials", seed, options)

    def identity(self) -> dict[str, Any]:
        """All that the search's numbers follow from, save how many trials there are."""
        defined = definition(self.scenario, self.strategy, self.card, self.seed)
        ranges = {
            str(one): [one.start, one.range.low, one.range.high, one.range.log]
            for one in self.searched
        }
        own = {"seeds": self.seeds, "metric": self.metric, "pruning": self.pruning}
        return {**defined, "searched": ranges, **own}


def tune(
    plan: Plan,
    *,
    jobs: int = 1,
    threads: int | None = None,
    audience: Audience | None = None,
) -> tuple[Tuned, list[Outcome]]:
    """Try values until so many trials are recorded.

    Trials are decided upon in rounds of ``jobs``, in which none knows of the others' scores, and
    within a round seed by seed. So the search follows from its seed and the number of jobs, not
    from which run was faster. A trial of a killed search is taken up again, with its values, and
    its runs go on.

    Args:
        plan: The search.
        jobs: Trials at the same time, each in a process of its own if more than 1.
        threads: CPU threads of each run, see :func:`~continual_mm.runs.parallel.run_many`.
        audience: Who hears of the runs.

    Returns:
        The trials, and runs that failed for other reasons than their values, such as lack of
        memory. Their trials are not recorded, and nothing more is tried after them.

    Raises:
        RefusedError: If the scenario has nothing to be measured, the folder holds another search,
            or another process is at work in it; and whatever the runs are refused for.
    """
    _check(plan)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with locked(plan.folder / "tuning.lock"):
        _claim(plan)
        search = _Search(plan, jobs, threads, _Once(audience or Audience()))
        failed: list[Outcome] = []
        while not failed and (chosen := search.round()):
            failed = search.do(chosen)
            search.write()
        search.write()
        return search.tuned, failed


def _check(plan: Plan) -> None:
    goal = Goal.of(plan.arrivals, plan.metric)
    place = f"scenario '{plan.scenario.name}'"
    complaints = []
    if not (goal.old[-1] and goal.new[-1]):
        lacking = "old" if not goal.old[-1] else "new"
        problem = f"the last stage has no {lacking} pairs, so there is nothing to weigh"
        complaints.append(Complaint(place, problem, "tune on one in which a modality arrives"))
    if plan.card.items[1] < 1:
        problem = f"dataset '{plan.card.name}' has no validation items"
        complaints.append(Complaint(place, problem, "tuning looks at no others: split some off"))
    if complaints:
        raise RefusedError(complaints)


def _claim(plan: Plan) -> None:
    """Have the folder for this search alone."""
    file = plan.folder / "search.json"
    if not file.exists():
        write_json(file, plan.identity())
    faults = differences(file, plan.identity())
    if faults:
        problem = f"holds another search: {'; '.join(faults[:5])}"
        remedy = "choose another --out, or remove the folder"
        raise RefusedError(Complaint(str(plan.folder), problem, remedy))


class _Once(Audience):
    """An audience that is told only once that torch is loaded."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._told = False

    def prepares(self, processes: int) -> None:
        if not self._told:
            self._audience.prepares(processes)
        self._told = True

    def listener(self, run: str) -> Listener:
        return self._audience.listener(run)

    def skips(self, run: str) -> None:
        self._audience.skips(run)

    def halts(self, run: str, reason: str) -> None:
        self._audience.halts(run, reason)

    def fails(self, run: str, error: str) -> None:
        self._audience.fails(run, error)


@dataclass(slots=True)
class _Attempt:
    """A trial in progress.

    Attributes:
        trial: Optuna's.
        values: ``plugin.parameter`` -> what is tried.
        found: Seed by seed, moment -> value.
        reports: Position among all moments of all seeds -> mean over seeds until then.
        state: What became of it; None if it is not decided.
        note: Why, in a line.
    """

    trial: optuna.Trial
    values: dict[str, float]
    found: list[dict[Moment, float]] = field(default_factory=list)
    reports: dict[int, float] = field(default_factory=dict)
    state: TrialState | None = None
    note: str = ""

    def mean(self, moment: Moment, value: float) -> float:
        """The mean of a value and those of earlier seeds at the same moment."""
        return fmean([value, *(earlier[moment] for earlier in self.found)])


class _Search:
    """The study and its rounds."""

    def __init__(self, plan: Plan, jobs: int, threads: int | None, audience: Audience) -> None:
        self._plan = plan
        self._jobs = jobs
        self._threads = threads
        self._audience = audience
        self._goal = Goal.of(plan.arrivals, plan.metric)
        self._moments = moments(plan.arrivals)
        journal = JournalStorage(JournalFileBackend(str(plan.folder / "journal.log")))
        self._study = optuna.create_study(
            storage=journal, study_name="tuning", direction="maximize", load_if_exists=True
        )
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial({str(one): one.start for one in plan.searched})

    def round(self) -> list[_Attempt]:
        """Trials to do next: those that a killed process left, or else as many as jobs."""
        open_ = self._trials(TrialState.RUNNING)
        # What was asked for is made out again: a process may be killed between two parameters.
        chosen = [optuna.trial.Trial(self._study, frozen._trial_id) for frozen in open_]
        waiting = len(self._trials(TrialState.WAITING))
        while not open_ and len(chosen) < self._jobs:
            number = len(self._study.get_trials(deepcopy=False)) - waiting
            if number >= self._plan.trials:
                break
            # A sampler of one seed would begin its random values anew whenever a search goes on.
            dice = seed_for(self._plan.seed, "trial", number) % 2**32
            self._study.sampler = TPESampler(seed=dice, constant_liar=True)
            chosen.append(self._study.ask())
            waiting = 0
        return [_Attempt(trial, self._values(trial)) for trial in chosen]

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        known = self._study.get_trials(deepcopy=False, states=(state,))
        return [trial for trial in known if trial.number < self._plan.trials]

    def _values(self, trial: optuna.Trial) -> dict[str, float]:
        values: dict[str, float] = {}
        for one in self._plan.searched:
            low, high, log = one.range.low, one.range.high, one.range.log
            if one.whole:
                values[str(one)] = trial.suggest_int(str(one), int(low), int(high), log=log)
            else:
                values[str(one)] = trial.suggest_float(str(one), low, high, log=log)
        return values

    def do(self, attempts: Sequence[_Attempt]) -> list[Outcome]:
        """Do the runs of a round and record what came of it.

        Returns:
            Runs that failed for other reasons than their values; their trials stay open.
        """
        failed: list[Outcome] = []
        left = list(attempts)
        for seed in range(self._plan.seeds):
            tasks = [self._task(attempt, seed) for attempt in left]
            outcomes = run_many(
                tasks, jobs=self._jobs, threads=self._threads, audience=self._audience
            )
            for attempt, outcome in zip(left, outcomes, strict=True):
                self._take_down(attempt, seed, outcome)
            bad = [o for o in outcomes if o.error and not (o.halted or o.diverged)]
            failed += bad
            # What failed stays open and is done again, with all of its seeds.
            left = [
                attempt
                for attempt, outcome in zip(left, outcomes, strict=True)
                if attempt.state is None and outcome not in bad
            ]
        for attempt in left:
            attempt.state = TrialState.COMPLETE
        for attempt in attempts:
            self._record(attempt)
        return failed

    def _task(self, attempt: _Attempt, seed: int) -> Task:
        judge = Judge(self._goal, self._least(attempt) if self._plan.pruning else {})
        return self._plan.task(self._name(attempt.trial.number), attempt.values, seed, judge)

    def _name(self, number: int) -> str:
        return f"{self._plan.strategy.name}-{number:03d}"

    def _least(self, attempt: _Attempt) -> dict[Moment, float]:
        """What the trial's next seed must come to, so that the mean is not below the median.

        Compared are values at the same moment. Optuna's own pruner takes a trial's best value until
        then instead, and here that is often the one before anything was forgotten.
        """
        earlier = self._trials(TrialState.COMPLETE)
        count = len(attempt.found)
        least = {}
        for place, moment in enumerate(self._moments):
            step = count * len(self._moments) + place
            known = [t.intermediate_values[step] for t in earlier if step in t.intermediate_values]
            if len(known) >= STARTUP:
                own = sum(found[moment] for found in attempt.found)
                least[moment] = (count + 1) * median(known) - own - ROUNDING
        return least

    def _take_down(self, attempt: _Attempt, seed: int, outcome: Outcome) -> None:
        begun = seed * len(self._moments)
        if outcome.halted:
            step = begun + self._moments.index(outcome.halted.moment)
            mean = attempt.mean(outcome.halted.moment, outcome.halted.value)
            attempt.reports[step] = mean
            attempt.state, attempt.note = TrialState.PRUNED, f"seed {seed}: {outcome.error}"
        elif outcome.diverged:
            attempt.state, attempt.note = TrialState.FAIL, f"seed {seed}: {outcome.error}"
        elif not outcome.error:
            found = self._goal.values(_scores(outcome.folder))
            for place, moment in enumerate(self._moments):
                if moment in found:
                    attempt.reports[begun + place] = attempt.mean(moment, found[moment])
            attempt.found.append(found)

    def _record(self, attempt: _Attempt) -> None:
        """Tell Optuna, all at once: a trial is either recorded or done again."""
        if attempt.state is None:
            return
        known = self._study.get_trials(deepcopy=False)[attempt.trial.number].intermediate_values
        for step, value in sorted(attempt.reports.items()):
            if step not in known:
                attempt.trial.report(value, step)
        attempt.trial.set_user_attr("note", attempt.note)
        last = self._plan.seeds * len(self._moments) - 1
        score = attempt.reports[last] if attempt.state is TrialState.COMPLETE else None
        self._study.tell(attempt.trial, score, state=attempt.state)

    @property
    def tuned(self) -> Tuned:
        """The trials recorded until now."""
        recorded = [trial for state in RECORDED for trial in self._trials(state)]
        return Tuned(
            scenario=self._plan.scenario.name,
            strategy=self._plan.strategy,
            metric=self._plan.metric,
            seeds=self._plan.seeds,
            trials=tuple(
                Trial(
                    number=trial.number,
                    state=RECORDED[trial.state],
                    value=trial.value if trial.state is TrialState.COMPLETE else None,
                    values=dict(trial.params),
                    name=self._name(trial.number),
                    note=trial.user_attrs.get("note", ""),
                )
                for trial in sorted(recorded, key=lambda trial: trial.number)
            ),
            folder=self._plan.folder,
        )

    def write(self) -> None:
        """Write ``tuning.json``."""
        write_json(self._plan.folder / "tuning.json", self.tuned.as_json())


def _scores(folder: Path) -> list[Score]:
    """Every evaluation of a finished run."""
    known = read_json(folder / "scores.json")["evaluations"]
    return [Score.from_json(record) for record in known]
