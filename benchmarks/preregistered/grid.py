"""Trains the candidates of a plan, chooses weights on validation items, compares on test items."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from held import held_bytes
from packs import beside, prepared
from plans import Candidate, Plan

from continual_mm.cli.progress import RunProgress
from continual_mm.comparison.estimates import Draws, Estimate, Floats, measures
from continual_mm.data import registry as datasets
from continual_mm.definitions.arrivals import plan as arrivals_of
from continual_mm.definitions.catalog import open_definition
from continual_mm.definitions.scenario import Scenario
from continual_mm.runs.finished import FinishedRun, read_finished
from continual_mm.runs.history import Score
from continual_mm.runs.opening import Settings, open_scenario
from continual_mm.runs.parallel import Outcome, Task, run_many
from continual_mm.runs.specification import specify
from continual_mm.runs.tuning.goal import Goal
from continual_mm.system.files import read_json

SCENARIOS = Path(__file__).parent / "scenarios"
METRIC = "mean_reciprocal_rank"
"""The score that chooses weights, on validation items."""
SHOWN = ("harmonic_mean", "old_pairs", "new_pairs", "emergent_pairs")
"""Measures compared on test items; the first decides."""


class IncompleteError(RuntimeError):
    """A run did not come to its end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how runs are done.

    Attributes:
        out: Folder of runs and packs.
        data: Folder of given datasets, if there is one.
        seeds: Of the comparison; the first chooses weights, too.
        jobs: Runs at the same time, with one thread each.
        settings: Changes to the scenarios, for trials only.
    """

    out: Path
    data: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    jobs: int = 1
    settings: Settings = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """A candidate with its weight.

    Attributes:
        candidate: The candidate.
        scores: Weight -> what it came to on the validation items; those that diverged are left
            out.
        weight: The best of them; None for naive training.
    """

    candidate: Candidate
    scores: Mapping[float, float]
    weight: float | None

    @property
    def at_the_edge(self) -> bool:
        """Whether a weight outside the tried ones might be better."""
        tried = self.candidate.weights
        return self.weight is not None and self.weight in (tried[0], tried[-1])


@dataclass(frozen=True, slots=True)
class Line:
    """A candidate's test results.

    Attributes:
        chosen: The candidate and its weight.
        measured: Measure -> estimate.
        differences: Measure -> estimate of the difference to the rival; empty for the rival.
        held: Bytes of the past during the second stage.
        seconds: Of a run, mean over seeds.
    """

    chosen: Chosen
    measured: Mapping[str, Estimate | None]
    differences: Mapping[str, Estimate | None]
    held: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of a plan.

    Attributes:
        plan: The plan.
        rival: Name of the rival that the validation items chose.
        lines: In the order of the plan.
        seeds: Those compared.
    """

    plan: Plan
    rival: str
    lines: tuple[Line, ...]
    seeds: tuple[int, ...]

    @property
    def contender(self) -> Line:
        """The line that decides."""
        return next(line for line in self.lines if line.chosen.candidate.role == "contender")

    @property
    def verdict(self) -> str:
        """``wins``, ``loses`` or ``undecided``, by the rule of README.md."""
        return verdict(self.contender.differences[SHOWN[0]])


def verdict(difference: Estimate | None) -> str:
    """What an interval of contender minus rival says.

    >>> verdict(Estimate(0.02, 0.01, 0.03)), verdict(Estimate(0.02, -0.01, 0.05))
    ('wins', 'undecided')
    """
    if difference is None or difference.low <= 0 <= difference.high:
        return "undecided"
    return "wins" if difference.low > 0 else "loses"


def carry_out(plan: Plan, place: Place) -> Findings:
    """Do what is left of a plan's runs, and compare.

    Raises:
        IncompleteError: If a run failed; the same call goes on.
        InputError: If data or definitions cannot be used.
    """
    scenarios = {seed: scenario_of(plan, seed, place) for seed in place.seeds}
    train = trainer(scenarios, place)
    first = place.seeds[0]
    trials = [(c, w, first) for c in plan.candidates for w in c.weights]
    judge = judge_of(scenarios[first])
    scores: dict[str, dict[float, float]] = {c.name: {} for c in plan.candidates}
    for (candidate, weight, _), outcome in zip(trials, train(trials), strict=True):
        if not outcome.diverged:
            scores[candidate.name][weight] = judge(outcome.folder)
    chosen = [choose(candidate, scores[candidate.name]) for candidate in plan.candidates]
    wanted = [(c.candidate, c.weight, seed) for c in chosen for seed in place.seeds]
    outcomes = train(wanted)
    if diverged := [str(outcome.folder) for outcome in outcomes if outcome.diverged]:
        raise IncompleteError(f"no verdict, a number was not finite: {', '.join(diverged)}")
    runs = iter([read_finished(outcome.folder) for outcome in outcomes])
    finished = [[next(runs) for _ in place.seeds] for _ in chosen]
    return compared(plan, chosen, finished, scenarios[first], place.seeds)


def scenario_of(plan: Plan, seed: int, place: Place) -> Scenario:
    """The plan's scenario on the data of a seed."""
    entry = open_definition("scenarios", SCENARIOS / f"{plan.name}.toml")
    if plan.recipe is not None:
        entry = prepared(entry, plan.recipe, seed=seed, folder=place.out.resolve() / "packs")
    elif plan.given and place.data is not None:
        entry = beside(entry, place.data.resolve() / entry.document["dataset"])
    return open_scenario(entry, place.settings).scenario


def trainer(
    scenarios: Mapping[int, Scenario], place: Place
) -> Callable[[Sequence[tuple[Candidate, float | None, int]]], list[Outcome]]:
    """What trains (candidate, weight, seed), as far as that has not been done.

    It raises IncompleteError if a run failed for another reason than its numbers.
    """

    def train(wanted: Sequence[tuple[Candidate, float | None, int]]) -> list[Outcome]:
        tasks = [
            Task(
                specify(scenarios[seed], candidate.strategy(weight), seed=seed),
                place.out,
                {"device": "cpu"},
            )
            for candidate, weight, seed in wanted
        ]
        with RunProgress(len(tasks)) as progress:
            outcomes = run_many(tasks, jobs=place.jobs, threads=1, reporter=progress)
        failed = [f"{o.folder}: {o.error}" for o in outcomes if o.error and not o.diverged]
        if failed:
            raise IncompleteError("; ".join(failed))
        return outcomes

    return train


def judge_of(scenario: Scenario) -> Callable[[Path], float]:
    """What reads a run's score on the validation items: the harmonic mean of old and new pairs."""
    card = datasets.card(scenario.dataset, folder=Path(scenario.folder))
    goal = Goal.of(arrivals_of(scenario, card), METRIC)

    def judge(folder: Path) -> float:
        records = read_json(folder / "scores.json")["evaluations"]
        values = goal.values(Score.from_json(record) for record in records)
        return values[max(values)]

    return judge


def choose(candidate: Candidate, scores: Mapping[float, float]) -> Chosen:
    """The weight of the best score, the smallest of equal ones.

    Raises:
        IncompleteError: If every weight diverged.
    """
    if not candidate.weights:
        return Chosen(candidate, {}, None)
    if not scores:
        raise IncompleteError(f"no weight of {candidate.name} ended in finite numbers")
    return Chosen(candidate, scores, max(sorted(scores), key=scores.__getitem__))


def rival_of(chosen: Iterable[Chosen]) -> str:
    """The rival with the best score on the validation items."""
    rivals = [each for each in chosen if each.candidate.role == "rival"]
    return max(rivals, key=lambda each: max(each.scores.values())).candidate.name


def compared(
    plan: Plan,
    chosen: Sequence[Chosen],
    finished: Sequence[Sequence[FinishedRun]],
    scenario: Scenario,
    seeds: tuple[int, ...],
) -> Findings:
    """All candidates on the same resampled test queries and seeds."""
    rival = rival_of(chosen)
    draws = Draws([run for runs in finished for run in runs])
    found: dict[str, dict[str, Floats]] = {}
    for each, runs in zip(chosen, finished, strict=True):
        found[each.candidate.name] = measures(draws.scores(runs), runs[0].pairs)
    lines = []
    for each, runs in zip(chosen, finished, strict=True):
        own, other = found[each.candidate.name], found[rival]
        same = each.candidate.name == rival
        lines.append(
            Line(
                chosen=each,
                measured={name: Estimate.of(own[name]) for name in SHOWN},
                differences={n: None if same else Estimate.of(own[n] - other[n]) for n in SHOWN},
                held=held_bytes(scenario, each.candidate.strategy(each.weight)),
                seconds=sum(run.seconds for run in runs) / len(runs),
            )
        )
    return Findings(plan, rival, tuple(lines), seeds)
