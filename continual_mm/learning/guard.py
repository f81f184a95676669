"""Never NaN: a run stops at the first number that is not finite and says where it arose."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from continual_mm.definitions.scenario import Training
from continual_mm.space.naming import modality_of, named_parameters
from continual_mm.space.space import JointSpace

DEVICE_CHECK_EVERY = 20


class NotFiniteError(FloatingPointError):
    """A loss term, a gradient or an embedding became NaN or infinite.

    ``stage`` and ``step`` (of the stage) are 0-based, ``term`` is the first quantity that was not
    finite, ``modalities`` are those it came from, as far as known; ``training`` and ``space`` are
    those that it arose in.
    """

    def __init__(
        self,
        stage: int,
        step: int,
        term: str,
        modalities: tuple[str, ...],
        *,
        training: Training,
        space: JointSpace,
    ) -> None:
        self.stage, self.step, self.term, self.modalities = stage, step, term, modalities
        named = ", ".join(modalities) or "unknown"
        super().__init__(
            f"stage {stage + 1}, step {step + 1}: {term} is not finite (modality: {named}); "
            "the checkpoints of finished stages are kept. What may help: "
            f"{', or '.join(_advice(training, space, modalities))}"
        )


def _advice(training: Training, space: JointSpace, modalities: tuple[str, ...]) -> Iterator[str]:
    """What was not done yet."""
    if training.precision == "float16":
        yield 'a number format of larger numbers, training.precision = "bfloat16" or "float32"'
    names = modalities or tuple(modality.name for modality in space.modalities)
    if plain := [name for name in names if space.statistics.get(name) is None]:
        yield f"features of one scale, standardise = true ({', '.join(plain)} is taken as it is)"
    yield f"a training.learning_rate below {training.learning_rate:g}"


class Guard:
    """Watches the numbers of each step, before the weights change.

    On an accelerator that would wait for the device, so values are kept there and checked every
    ``DEVICE_CHECK_EVERY`` steps; the first bad step is still the one that is named.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, tuple[str, ...], Tensor]] = []

    def watch(
        self,
        stage: int,
        step: int,
        values: dict[str, Tensor],
        space: JointSpace,
        training: Training,
    ) -> None:
        """Note a step's values, the likeliest cause first, and :meth:`check` when it is time."""
        stacked = torch.stack([value.detach().float().reshape(()) for value in values.values()])
        self._held.append((step, tuple(values), stacked))
        if stacked.device.type == "cpu" or len(self._held) >= DEVICE_CHECK_EVERY:
            self.check(stage, space, training)

    def check(self, stage: int, space: JointSpace, training: Training) -> None:
        """Check everything noted since the last time; a NotFiniteError names the first number."""
        held, self._held = self._held, []
        for step, names, stacked in held:
            finite = stacked.isfinite().tolist()
            if not all(finite):
                term = names[finite.index(False)]
                source = _source(term, space)
                raise NotFiniteError(stage, step, term, source, training=training, space=space)


def _source(term: str, model: nn.Module) -> tuple[str, ...]:
    """The modalities in a term's name, else those whose gradients are not finite."""
    kind, _, rest = term.rpartition("/")
    if kind:
        return tuple(rest.split("-"))
    bad = {
        modality_of(name)
        for name, parameter in named_parameters(model)
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    }
    return tuple(sorted(name for name in bad if name is not None))
