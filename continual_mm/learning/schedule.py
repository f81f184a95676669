"""The learning rate as a function of the step, so that every stage begins it anew."""

from math import cos, pi

from continual_mm.definitions import Training


def learning_rate(step: int, training: Training, *, from_zero: bool = False) -> float:
    """The rate of a stage's 0-based optimiser step.

    Linear warm-up to the peak over ``warmup_steps`` steps, then the schedule over what remains; a
    cosine ends just above zero at the last step. Where the warm-up starts from zero, as MCN's does,
    the first step changes nothing.

    >>> learning_rate(0, Training(steps=10, learning_rate=1.0, warmup_steps=4))
    0.25
    """
    peak = training.learning_rate
    if step < training.warmup_steps:
        return peak * (step + (not from_zero)) / training.warmup_steps
    if training.schedule == "constant":
        return peak
    remaining = max(training.steps - training.warmup_steps, 1)
    return peak * 0.5 * (1 + cos(pi * (step - training.warmup_steps) / remaining))
