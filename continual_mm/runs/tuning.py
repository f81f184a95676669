"""Searches the numbers of a strategy with Optuna, on validation items; goes on where it stopped."""

import optuna

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.runs.files import locked, write_json
from continual_mm.runs.folder import differences
from continual_mm.runs.listener import Audience, Listener
from continual_mm.runs.rounds import Rounds
from continual_mm.runs.tasks import Outcome
from continual_mm.runs.tuned import Tuned
from continual_mm.runs.tuning_plan import Plan

__all__ = ["Plan", "tune"]


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
        RefusedError: If a scenario has nothing to be measured, the folder holds another search,
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
