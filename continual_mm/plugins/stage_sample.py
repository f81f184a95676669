"""Some of a finished stage's rows as the finished space sees them."""

from collections.abc import Iterator

import torch

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import StepLoader
from continual_mm.space.space import Embedded


@torch.no_grad()
def sampled(
    learner: Learner, *, rows: int, steps: int = 1
) -> Iterator[tuple[Batch, dict[str, Embedded]]]:
    """Embed blocks of the stage's training rows, with weights as in evaluation.

    Args:
        learner: At the end of a stage.
        rows: Rows of each block and share of the stage.
        steps: Blocks; items come again only when all have come.
    """
    experience = learner.stage_experience()
    wanted = tuple(rows for _ in experience.items.shares)
    learner.space.eval()
    for block in StepLoader(experience.items, wanted, steps=steps, seed=experience.stage):
        batch = block.to(learner.device)
        with learner.precision():
            yield batch, learner.space(batch.features, batch.lengths)
    learner.space.train()
