"""How a space grows under Avalanche."""

from avalanche.models import DynamicModule

from continual_mm.data.batch import Batch
from continual_mm.learning.stream import StageExperience
from continual_mm.space.space import Embedded, JointSpace


class GrowingSpace(DynamicModule):
    """Lets Avalanche grow a space: before a stage is trained, never while one is evaluated."""

    def __init__(self, space: JointSpace) -> None:
        super().__init__()
        self.space = space

    def adaptation(self, experience: StageExperience) -> None:
        """Welcome what arrives with a stage."""
        if self.training:
            for modality in experience.added:
                self.space.welcome(modality)

    def forward(self, batch: Batch) -> dict[str, Embedded]:
        """Embed a batch."""
        embedded: dict[str, Embedded] = self.space(batch.features, batch.lengths)
        return embedded
