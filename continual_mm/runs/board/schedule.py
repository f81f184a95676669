"""The steps of each stage of a run, and the curve that says which one is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.scenario import Training
from continual_mm.evaluation.pairs import Evaluation


@dataclass(frozen=True, slots=True)
class StageSchedule:
    """The stages that a run trains: one, if training is joint.

    ``arrivals`` are the scenario's stages; ``trainings`` and ``starts`` have the settings of each
    0-based stage that is trained, and the optimiser steps before it.
    """

    arrivals: tuple[Arrival, ...]
    trainings: Mapping[int, Training]
    starts: Mapping[int, int]
    cumulative: bool = False

    @classmethod
    def of(
        cls, arrivals: Sequence[Arrival], *, joint: bool, cumulative: bool = False, common: Training
    ) -> "StageSchedule":
        """Work the steps out; ``common`` are the scenario's settings, for joint training."""
        steps = [arrival.training.steps for arrival in arrivals]
        if joint:
            last = len(arrivals) - 1
            training = common.model_copy(update={"steps": sum(steps)})
            return cls(tuple(arrivals), {last: training}, {last: 0})
        trainings = {stage: arrival.training for stage, arrival in enumerate(arrivals)}
        starts = {stage: sum(steps[:stage]) for stage in range(len(steps))}
        return cls(tuple(arrivals), trainings, starts, cumulative)

    def steps_until(self, stage: int) -> int:
        """Optimiser steps until the end of a stage, counted from 1; none until that of stage 0."""
        return self.starts[stage - 1] + self.trainings[stage - 1].steps if stage else 0

    def stages_at(self, evaluation: Evaluation) -> dict[int, int]:
        """Optimiser step -> the stage trained then, from 1: two points where one begins.

        No point depends on earlier ones and steps ascend, so a resumed run draws the same curve.
        """
        stage, step = evaluation.stage, evaluation.step
        start, training = self.starts[stage], self.trainings[stage]
        first = min(training.evaluate_every or training.steps, training.steps)
        begins = {start + 1 if start else 0: stage + 1} if step - start == first else {}
        return {**begins, step: stage + 1}


def schedule_table(schedule: StageSchedule) -> str:
    """The stages as a Markdown table: when, what arrives, what is trained."""
    lines = ["| stage | from step | steps | arrives | trained pairs |", "|--:|--:|--:|:--|:--|"]
    joint = len(schedule.starts) < len(schedule.arrivals)
    for arrival in schedule.arrivals:
        stage = len(schedule.arrivals) - 1 if joint else arrival.stage
        steps = "together" if joint else str(schedule.trainings[stage].steps)
        added = ", ".join(modality.name for modality in arrival.added) or "nothing"
        trained = ", ".join(map(str, arrival.trained)) or "none yet"
        start = schedule.starts[stage]
        lines.append(f"| {arrival.stage + 1} | {start} | {steps} | {added} | {trained} |")
    if joint:
        total = sum(training.steps for training in schedule.trainings.values())
        lines += ["", f"All stages are trained at once, in {total} steps."]
    if schedule.cumulative:
        lines += ["", "Each stage also trains the items and pairs of all stages before it."]
    return "\n".join(lines)
