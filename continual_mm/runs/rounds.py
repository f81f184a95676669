"""Trials decided upon in rounds, done, and recorded in Optuna's journal."""

from collections.abc import Mapping, Sequence

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from continual_mm.dice import seed_for
from continual_mm.runs.attempts import Attempt
from continual_mm.runs.files import write_json
from continual_mm.runs.judging import Judge
from continual_mm.runs.listener import Audience
from continual_mm.runs.parallel import run_many
from continual_mm.runs.proposing import proposal
from continual_mm.runs.tasks import Outcome, Task
from continual_mm.runs.tuned import State, Trial, Tuned
from continual_mm.runs.tuning_plan import Plan

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
            dice = seed_for(self._plan.seed, "trial", number) % 2**32
            values = proposal(self._plan.searched, ended, under_way, seed=dice)
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
