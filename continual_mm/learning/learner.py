"""The training step over the pairs of a stage; :mod:`stage_loop` makes them one after another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.core import BaseSGDPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from continual_mm.data.batch import Batch, join
from continual_mm.learning.guard import Guard
from continual_mm.learning.objective import (
    Part,
    Terms,
    clustering,
    contrast,
    reconstruction,
)
from continual_mm.learning.schedule import learning_rate
from continual_mm.learning.stage_loop import StageLoop
from continual_mm.learning.update import update
from continual_mm.learning.views import Views
from continual_mm.memory import Memory
from continual_mm.space.space import JointSpace

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner(StageLoop):
    """Trains a space stage by stage; plugins add what keeps old pairs aligned.

    Plugins are Avalanche plugins. In ``before_backward`` they call :meth:`add_term`; what they may
    read is listed below.

    Args:
        space: What is trained.
        seed: Fixes the order of the items.
        plugins: Ways of not forgetting, in the order of their callbacks.
        memory: The run's memory, if it has one.
        evaluator: What is measured and who is told, see :func:`evaluation.evaluator`; recalls that
            nobody hears of, if left out.
        device: Where to train.
        workers: Threads that fetch batches ahead; they change nothing but the time it takes.

    Attributes:
        space: The space.
        memory: The run's memory, or None.
        stage: 0-based stage of the training in progress or last finished.
        pairs: Stage -> pairs that its rows train, of every stage met so far.
        batch: Rows of the step: first the current ones, then the remembered ones.
        embedded: What the space made of them.
        current: The current rows in the batch.
        remembered: The remembered rows in the batch; empty where nothing was recalled.
        terms: The step's loss terms by name, weighted.
        training: Settings of the stage.
        step: 0-based optimiser step of the stage.
        pace: Canonical parameter name -> factor on its learning rate, 1 where not named. Plugins
            set it in ``before_train_dataset_adaptation``; what is set stays until set anew.
        clusters: Labels and centroids.
        split: What is being evaluated.
        inside_stage: Whether an evaluation interrupts a stage.
        after_step: Called when a step and the evaluation that may follow it are done, except after
            a stage's last step; for checkpoints.
        scaler: Scales the loss under float16.
    """

    loss: Tensor

    def __init__(
        self,
        *,
        space: JointSpace,
        seed: int,
        plugins: Sequence[BaseSGDPlugin[Any]] = (),
        memory: Memory | None = None,
        evaluator: EvaluationPlugin | None = None,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        self.memory = memory
        self.current = self.remembered = Part(0, 0)
        self.terms: Terms = {}
        self._guard = Guard()
        super().__init__(
            space=space,
            seed=seed,
            plugins=plugins,
            evaluator=evaluator,
            device=device,
            workers=workers,
        )

    @property
    def batch(self) -> Batch:
        """The rows of the step."""
        if not isinstance(self.mbatch, Batch):
            raise RuntimeError("there is a batch only while one is trained or evaluated")
        return self.mbatch

    @property
    def embedded(self) -> Views:
        """What the space made of the rows, by modality, and pairs' own towers."""
        output: Views = self.mb_output or Views({})
        return output

    @property
    def mb_x(self) -> Batch:
        """The batch, under the name that Avalanche's own metrics use."""
        return self.batch

    @property
    def mb_y(self) -> Tensor:
        """Dataset rows of the batch, where Avalanche's own metrics expect targets."""
        return self.batch.index

    @property
    def mb_task_id(self) -> Tensor:
        """Stage of each row, where Avalanche's own metrics expect task labels."""
        return self.batch.stage

    def _unpack_minibatch(self) -> None:
        batch = self.batch
        self.current = Part(0, len(batch))
        self.remembered = Part(len(batch), len(batch))
        self.mbatch = batch.to(self.device, non_blocking=True)

    def recall(self, remembered: Batch) -> None:
        """Let remembered rows join the batch, behind the current ones; before the forward pass."""
        batch = self.batch
        self.remembered = Part(len(batch), len(batch) + len(remembered))
        self.mbatch = join([batch, remembered.to(self.device, non_blocking=True)])

    def forward(self) -> Views:
        """Embed the batch in the stage's precision; embeddings come out in float32."""
        if self.is_training:
            self._before_embedding()
        with self.precision():
            embedded: Views = self.model(self.mbatch)
        return embedded

    def _before_embedding(self) -> None:
        """Tell the space and the clusters which step is made; all of it follows from the step."""
        self.space.dropout.at(self.stage, self.step)
        self.clusters.at(self.stage, self.step, self._steps_per_pass)
        every = self.training.evaluate_every
        if "stays_in_evaluation" in self.space.settings.bugs and 0 < every <= self.step:
            self.space.eval()

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Autocast as the stage asks for it."""
        dtype = PRECISIONS[self.training.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            yield

    def criterion(self) -> Tensor:
        """The objective on the current rows; nothing while evaluating."""
        self.terms = self.objective(self.current) if self.is_training else {}
        return self._total(self.terms)

    def objective(self, part: Part) -> Terms:
        """MCN's losses on a part of the batch: contrast, clustering, reconstruction."""
        pairs, batch, embedded = self.pairs, self.batch, self.embedded
        return {
            **contrast(self.space, batch, embedded, pairs, part),
            **clustering(self.space, self.clusters, batch, embedded, part),
            **reconstruction(self.space, batch, embedded, part),
        }

    def _total(self, terms: Terms) -> Tensor:
        nothing: Tensor = self._make_empty_loss()
        return torch.stack(list(terms.values())).sum() if terms else nothing

    def add_term(self, name: str, value: Tensor, *, weight: float | Tensor) -> None:
        """Add ``weight * value`` to the step's loss; for plugins, in ``before_backward``."""
        self.terms[name] = weight * value
        self.loss = self.loss + self.terms[name]

    def backward(self) -> None:
        """Backward pass; under float16 the loss is scaled up first."""
        if self.loss.requires_grad:
            torch.autograd.backward(self.scaler.scale(self.loss))

    def optimizer_step(self) -> None:
        """Clip, check that everything is finite, step."""
        from_zero = self.space.settings.reference
        rate = learning_rate(self.step, self.training, from_zero=from_zero)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        update(
            self.optimizer,
            self.scaler,
            clip_norm=self.training.clip_norm,
            look=self._watch,
            trains=self.loss.requires_grad,
        )

    def _watch(self, gradient: Terms) -> None:
        values = {f"norm/{name}": part.norm.mean() for name, part in self.embedded.items()}
        values |= self.terms | gradient
        self._guard.watch(self.stage, self.step, values, self.space)

    def check(self) -> None:
        """See whether all numbers until now were finite.

        Raises:
            NotFiniteError: If one was not.
        """
        self._guard.check(self.stage, self.space)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.check()
        super()._after_training_exp(**kwargs)
