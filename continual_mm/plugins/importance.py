"""What penalties on weights share: gradients of small batches, and a parabola."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import StepLoader
from continual_mm.space.naming import named_parameters, trainable
from continual_mm.space.space import Embedded, JointSpace

Measure = Callable[[Batch, Mapping[str, Embedded]], Tensor | None]
"""(a batch, what the space made of it) -> a scalar, or None where it has nothing to measure."""


def parabola(
    space: JointSpace, importance: Mapping[str, Tensor], centre: Mapping[str, Tensor]
) -> Tensor | None:
    """``sum_i importance_i (w_i - centre_i)^2`` over the weights w that are trained.

    Args:
        space: Has the weights.
        importance: Canonical parameter name -> importances; what is not named is free.
        centre: Canonical parameter name -> where the parabola is 0.

    Returns:
        A scalar, or None if no weight is trained that has an importance.
    """
    penalties = [
        (importance[name] * (value - centre[name]).square()).sum()
        for name, value in named_parameters(space)
        if name in importance and value.requires_grad
    ]
    return torch.stack(penalties).sum() if penalties else None


def gradients(
    learner: Learner, measure: Measure, *, batches: int, rows: int
) -> Iterator[tuple[dict[str, Tensor], int]]:
    """(gradient of the measure by parameter name, rows) for batches of the stage that ends.

    The weights are looked at as they will be used, in evaluation mode. It ends with the first batch
    that has nothing to measure: so have all others.

    Args:
        learner: At the end of a stage.
        measure: What is differentiated.
        batches: How many, drawn in an order that depends on the stage alone.
        rows: Rows of each, of each share of the stage's items.
    """
    experience = learner.stage_experience()
    loader = StepLoader(
        experience.items,
        tuple(rows for _ in experience.items.shares),
        steps=batches,
        seed=experience.stage,
    )
    parameters = trainable(learner.space)
    learner.space.eval()
    for block in loader:
        batch = block.to(learner.device)
        with learner.precision():
            embedded = learner.model(batch)
        value = measure(batch, embedded)
        if value is None:
            break
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        named = zip(parameters, found, strict=True)
        yield {name: each for name, each in named if each is not None}, len(batch)
    learner.space.train()
