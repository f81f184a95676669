"""Trials decided upon in rounds, done, and recorded in Optuna's journal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from continual_mm.runs.history import Score
from continual_mm.runs.listener import Audience, Listener, Moment
from continual_mm.runs.parallel import Outcome, Task, run_many
from continual_mm.runs.tuning.goal import Judge
from continual_mm.runs.tuning.plan import Leg, Plan
from continual_mm.runs.tuning.proposing import proposal
from continual_mm.runs.tuning.result import State, Trial, Tuned
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import differences, locked, read_json, write_json
from continual_mm.system.seeds import seed_for

STARTUP = 5
"""Finished trials that there must be before one is pruned; that many a median needs to mean
something."""

ROUNDING = 1e-9
"""Far below any difference of scores: trials that are equal must not prune one another."""


@dataclass(slots=True)
class Attempt:
    """A trial in progress.

    Attributes:
        trial: Optuna's.
        values: ``plugin.parameter`` -> what is tried.
        legs: The runs that it consists of.
        found: Moment -> value, for each leg that is done.
        reports: Position among all moments of all legs -> mean over legs until then.
        state: What became of it; None if it is not decided.
        note: Why, in a line.
    """

    trial: optuna.Trial
    values: dict[str, float]
    legs: tuple[Leg, ...]
    found: list[dict[Moment, float]] = field(default_factory=list)
    reports: dict[int, float] = field(default_factory=dict)
    state: TrialState | None = None
    note: str = ""

    @property
    def score(self) -> float:
        """The mean over all legs, once that all are done."""
        return fmean(self._ends())

    def by_scenario(self) -> dict[str, float]:
        """The mean over each scenario's legs, once that all are done."""
        values: dict[str, list[float]] = {}
        for leg, end in zip(self.legs, self._ends(), strict=True):
            values.setdefault(leg.scenario, []).append(end)
        return {scenario: fmean(ends) for scenario, ends in values.items()}

    def _ends(self) -> list[float]:
        done = zip(self.legs, self.found, strict=True)
        return [found[leg.moments[-1]] for leg, found in done]

    def _earlier(self, leg: Leg, moment: Moment) -> Iterator[float]:
        """What is averaged with a leg's value at a moment.

        That is what earlier seeds came to at the same moment, and earlier scenarios at their end.
        """
        for before, found in zip(self.legs, self.found, strict=False):
            yield found[moment if before.opened is leg.opened else before.moments[-1]]

    def least(self, earlier: Sequence[Mapping[int, float]]) -> dict[Moment, float]:
        """What the next leg must come to, so that the mean is not below the median.

        Compared are values at the same moment. Optuna's own pruner takes a trial's best value until
        then instead, and here that is often the one before anything was forgotten.

        Args:
            earlier: The reports of finished trials.
        """
        leg = self.legs[len(self.found)]
        least = {}
        for place, moment in enumerate(leg.moments, start=leg.begun):
            known = [reports[place] for reports in earlier if place in reports]
            if len(known) >= STARTUP:
                own = sum(self._earlier(leg, moment))
                least[moment] = (len(self.found) + 1) * median(known) - own - ROUNDING
        return least

    def take_down(self, outcome: Outcome) -> None:
        """Take down how the next leg ended; nothing, if it failed for no reason of the values."""
        leg = self.legs[len(self.found)]
        if outcome.halted:
            self._report(leg, {outcome.halted.moment: outcome.halted.value})
            self.state = TrialState.PRUNED
        elif outcome.diverged:
            self.state = TrialState.FAIL
        elif not outcome.error:
            found = leg.goal.values(_scores(outcome.folder))
            self._report(leg, found)
            self.found.append(found)
        if self.state is not None:
            several = any(other.opened is not leg.opened for other in self.legs)
            where = f"{leg.scenario}, seed" if several else "seed"
            self.note = f"{where} {leg.seed}: {outcome.error}"

    def _report(self, leg: Leg, found: Mapping[Moment, float]) -> None:
        for place, moment in enumerate(leg.moments, start=leg.begun):
            if moment in found:
                self.reports[place] = fmean([found[moment], *self._earlier(leg, moment)])


def _scores(folder: Path) -> list[Score]:
    """Every evaluation of a finished run."""
    known = read_json(folder / "scores.json")["evaluations"]
    return [Score.from_json(record) for record in known]


RECORDED: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "diverged",
}


class Rounds:
    """A search's journal, and the rounds that fill it.

    Args:
        plan: The search.
        jobs: Trials of a round.
        threads: CPU threads of each run.
        audience: Who hears of the runs.
    """

    def __init__(self, plan: Plan, jobs: int, threads: int | None, audience: Audience) -> None:
        self._plan = plan
        self._jobs = jobs
        self._threads = threads
        self._audience = audience
        self._legs = plan.legs()
        journal = JournalStorage(JournalFileBackend(str(plan.folder / "journal.log")))
        # Nothing is left to this sampler: what is tried is decided before Optuna is asked.
        self._study = optuna.create_study(
            storage=journal,
            sampler=RandomSampler(),
            study_name="tuning",
            direction="maximize",
            load_if_exists=True,
        )

    def next(self) -> list[Attempt]:
        """Trials to do: those that a killed process left, or else as many as jobs."""
        begun = self._trials(TrialState.RUNNING)
        if not begun:
            self._fill()
        trials = [optuna.trial.Trial(self._study, frozen._trial_id) for frozen in begun]
        trials += [self._study.ask() for _ in self._trials(TrialState.WAITING)]
        return [Attempt(trial, self._values(trial), self._legs) for trial in trials]

    def _fill(self) -> None:
        """Decide upon the trials of a round; each is written down whole, so none is half known."""
        while len(self._trials(TrialState.WAITING)) < self._jobs:
            number = len(self._study.get_trials(deepcopy=False))
            if number >= self._plan.trials:
                break
            ended = [(trial.params, _score(trial)) for trial in self._recorded()]
            under_way = [
                trial.user_attrs.get("values", trial.params)
                for trial in self._trials(TrialState.WAITING)
            ]
            # Dice of one seed for all trials would begin anew whenever a search goes on.
            own = seed_for(self._plan.seed, "trial", number) % 2**32
            values = proposal(self._plan.searched, ended, under_way, seed=own)
            self._study.enqueue_trial(values, user_attrs={"values": values})

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        known = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in known if trial.number < self._plan.trials]

    def _recorded(self) -> list[FrozenTrial]:
        return self._trials(*RECORDED)

    def _values(self, trial: optuna.Trial) -> dict[str, float]:
        values: dict[str, float] = {}
        for one in self._plan.searched:
            low, high, log = one.range.low, one.range.high, one.range.log
            if one.whole:
                values[str(one)] = trial.suggest_int(str(one), int(low), int(high), log=log)
            else:
                values[str(one)] = trial.suggest_float(str(one), low, high, log=log)
        return values

    def do(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Do the runs of a round and record what came of it.

        Returns:
            Runs that failed for other reasons than their values; their trials stay open.
        """
        failed: list[Outcome] = []
        left = list(attempts)
        for place in range(len(self._legs)):
            tasks = [self._task(attempt, place) for attempt in left]
            outcomes = run_many(
                tasks, jobs=self._jobs, threads=self._threads, audience=self._audience
            )
            for attempt, outcome in zip(left, outcomes, strict=True):
                attempt.take_down(outcome)
            bad = [o for o in outcomes if o.error and not (o.halted or o.diverged)]
            failed += bad
            # What failed stays open and is done again, with all of its runs.
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

    def _task(self, attempt: Attempt, place: int) -> Task:
        least = {}
        if self._plan.pruning:
            finished = self._trials(TrialState.COMPLETE)
            least = attempt.least([trial.intermediate_values for trial in finished])
        leg = self._legs[place]
        name = self._name(attempt.trial.number)
        return self._plan.task(name, attempt.values, leg, Judge(leg.goal, least))

    def _name(self, number: int) -> str:
        return f"{self._plan.strategy.name}-{number:03d}"

    def _record(self, attempt: Attempt) -> None:
        """Tell Optuna, all at once: a trial is either recorded or done again."""
        if attempt.state is None:
            return
        known = self._study.get_trials(deepcopy=False)[attempt.trial.number].intermediate_values
        for step, value in sorted(attempt.reports.items()):
            if step not in known:
                attempt.trial.report(value, step)
        attempt.trial.set_user_attr("note", attempt.note)
        complete = attempt.state is TrialState.COMPLETE
        if complete:
            attempt.trial.set_user_attr("by_scenario", attempt.by_scenario())
        score = attempt.score if complete else None
        self._study.tell(attempt.trial, score, state=attempt.state)

    @property
    def tuned(self) -> Tuned:
        """The trials recorded until now."""
        return Tuned(
            scenarios=self._plan.names,
            strategy=self._plan.strategy,
            metric=self._plan.metric,
            seeds=self._plan.seeds,
            trials=tuple(
                Trial(
                    number=trial.number,
                    state=RECORDED[trial.state],
                    value=_score(trial),
                    values=dict(trial.params),
                    name=self._name(trial.number),
                    note=trial.user_attrs.get("note", ""),
                    by_scenario=trial.user_attrs.get("by_scenario", {}),
                )
                for trial in self._recorded()
            ),
            folder=self._plan.folder,
        )

    def write(self) -> None:
        """Write ``tuning.json``."""
        write_json(self._plan.folder / "tuning.json", self.tuned.as_json())


def _score(trial: FrozenTrial) -> float | None:
    """The value of a finished trial; Optuna gives a pruned one its last report as value."""
    return trial.value if trial.state is TrialState.COMPLETE else None


def tune(
    plan: Plan,
    *,
    jobs: int = 1,
    threads: int | None = None,
    audience: Audience | None = None,
) -> tuple[Tuned, list[Outcome]]:
    """Try values until so many trials are recorded.

    Trials are decided upon in rounds of ``jobs``, in which none knows of the others' scores, and
    within a round scenario by scenario and seed by seed. So the search follows from its seed and
    the number of jobs, not from which run was faster. A trial of a killed search is taken up again,
    with its values, and its runs go on.

    Args:
        plan: The search.
        jobs: Trials at the same time, each in a process of its own if more than 1.
        threads: CPU threads of each run, see :func:`~continual_mm.runs.parallel.run_many`.
        audience: Who hears of the runs.

    Returns:
        The trials, and runs that failed for other reasons than their values, such as lack of
        memory. Their trials are not recorded, and nothing more is tried after them.

    Raises:
        InputError: If a scenario has nothing to be measured, the folder holds another search,
            or another process is at work in it; and whatever the runs are refused for.
    """
    plan.check()
    # It warns of its own speed, which a search of hours does not notice.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with locked(plan.folder / "tuning.lock"):
        _claim(plan)
        rounds = Rounds(plan, jobs, threads, _Once(audience or Audience()))
        failed: list[Outcome] = []
        while not failed and (chosen := rounds.next()):
            failed = rounds.do(chosen)
            rounds.write()
        rounds.write()
        return rounds.tuned, failed


def _claim(plan: Plan) -> None:
    """Have the folder for this search alone."""
    file = plan.folder / "search.json"
    if not file.exists():
        write_json(file, plan.identity())
    faults = differences(file, plan.identity())
    if faults:
        problem = f"holds another search: {'; '.join(faults[:5])}"
        remedy = "choose another --out, or remove the folder"
        raise InputError(Problem(str(plan.folder), problem, remedy))


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
