"""What all plugins share: the learner's callbacks, a state that can be saved, a stage's items."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import StepLoader


class Plugin(BaseSGDPlugin[Any]):
    """A plugin of the learner.

    A subclass overrides one or two of Avalanche's callbacks, calls ``learner.add_term`` in
    ``before_backward``, and names in ``saved`` what it remembers, or returns it from ``state``.
    """

    needs_memory: bool = False
    """Whether a strategy that names the plugin must have a ``[memory]`` table."""

    for_bounds: bool = False
    """Whether it changes how pairs are trained rather than how old ones are protected; joint and
    cumulative training, which protect nothing, accept such plugins too."""

    own_towers: bool = False
    """Whether it gives pairs towers of their own, so that an item has no single embedding."""

    on_device: bool = True
    """Whether the state is kept on the device where the space is trained."""

    saved: tuple[str, ...] = ()
    """Kinds of tensors in the state: of ``old``, a dictionary ``self._old``, by ``old/<key>``."""

    memory_rows: int = 0
    """Rows of the memory that the plugin needs in each batch; the largest number of all plugins
    counts."""

    extra_steps: int = 0
    """Optimiser steps that the plugin has made so far, in addition to the learner's."""

    @property
    def choices(self) -> Sequence[Mapping[str, Any]]:
        """What was decided at the end of the stage, and the figures behind it, as JSON values."""
        return ()

    @property
    def curves(self) -> Mapping[str, Tensor]:
        """Numbers of the last step for TensorBoard, by tag; loss terms are there already."""
        return {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called before a stage, when the modalities it adds are not in the space yet."""

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called before a stage, when the space has grown."""

    def before_forward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called when the step's batch is loaded, before it is embedded."""

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called when the step's loss is computed: the place for ``learner.add_term``."""

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called when a stage is finished, before it is scored."""

    def state(self) -> dict[str, Tensor]:
        """Everything the plugin remembers: what ``saved`` names, unless it is overridden."""
        parts = {kind: getattr(self, f"_{kind}") for kind in self.saved}
        return {f"{kind}/{name}": v for kind, of in parts.items() for name, v in of.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        for kind in self.saved:
            kept: dict[str, Tensor] = getattr(self, f"_{kind}")
            kept.clear()
            kept.update(extracted(kind, state))


def contents(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name as a state keeps them: ``kind/name``."""
    return {f"{kind}/{name}": value for name, value in tensors.items()}


def extracted(kind: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that :func:`contents` put into a state; others are left out."""
    start = f"{kind}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}


def stage_batches(
    learner: Learner, *, rows: int, batches: int = 1, seed: int | None = None
) -> Iterator[Batch]:
    """Batches of the training items of the stage that ends, with the space in evaluation mode.

    A batch has ``rows`` of each share of the items, which repeat only when all have been seen.
    Without a ``seed`` the order depends on the stage alone.
    """
    experience = learner.stage_experience()
    loader = StepLoader(
        experience.items,
        (rows,) * len(experience.items.shares),
        steps=batches,
        seed=experience.stage if seed is None else seed,
    )
    learner.space.eval()
    try:
        for block in loader:
            yield block.to(learner.device)
    finally:
        learner.space.train()
