"""Training a space stage by stage on Avalanche: the stage, and its training step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from continual_mm.data.batch import Batch, Items, join
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import Training
from continual_mm.learning.avalanche import (
    BaseSGDPlugin,
    BaseSGDTemplate,
    BatchObservation,
    EvaluationPlugin,
    SGDUpdate,
)
from continual_mm.learning.clusters import Clusters, clusters_of
from continual_mm.learning.growth import GrowingSpace, Views
from continual_mm.learning.guard import Guard
from continual_mm.learning.loader import BlockLoader, StepLoader
from continual_mm.learning.memory import Memory
from continual_mm.learning.objective import Part, Terms, clustering, contrast, reconstruction
from continual_mm.learning.optimisation import adam, learning_rate, seed_torch, update
from continual_mm.learning.stream import Benchmark, StageExperience
from continual_mm.space.space import JointSpace
from continual_mm.system.seeds import seed_for

EVALUATION_ROWS = 1024

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Learner(BatchObservation, SGDUpdate, BaseSGDTemplate):
    """Trains a space stage by stage; plugins add what keeps old pairs aligned.

    Plugins are Avalanche plugins, called in the order given. In ``before_backward`` they call
    :meth:`add_term`; what they may read is listed below. ``seed`` fixes the order of the items;
    ``workers`` are threads that fetch batches ahead and change nothing but the time it takes.

    Attributes:
        stage: 0-based stage of the training in progress or last finished.
        pairs: Stage -> pairs that its rows train, of every stage met so far.
        current: The current rows in the batch.
        remembered: The remembered rows in the batch; empty where nothing was recalled.
        terms: The step's loss terms by name, weighted.
        training: Settings of the stage.
        lr_scale: Canonical parameter name -> factor on its learning rate, 1 where not named.
            Plugins set it in ``before_train_dataset_adaptation``; it stays until set anew.
        clusters: Labels and centroids.
        split: What is being evaluated.
        inside_stage: Whether an evaluation interrupts a stage.
        after_step: Called when a step and the evaluation that may follow it are done, except after
            a stage's last step; for checkpoints.
        scaler: Scales the loss under float16.
    """

    optimizer: Optimizer
    dataloader: Iterable[Batch]
    loss: Tensor

    def __init__(
        self,
        *,
        space: JointSpace,
        seed: int,
        evaluator: EvaluationPlugin,
        plugins: Sequence[BaseSGDPlugin[Any]] = (),
        memory: Memory | None = None,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        self.space = space.to(device)
        self.memory = memory
        self.stage = -1
        self.pairs: dict[int, tuple[Pair, ...]] = {}
        self.training = Training()
        self.lr_scale: dict[str, float] = {}
        self.clusters: Clusters = clusters_of(space, seed=seed_for(seed, "clusters"))
        self.split = ""
        self.inside_stage = False
        self.after_step: Callable[[], None] = lambda: None
        self.current = self.remembered = Part(0, 0)
        self.terms: Terms = {}
        self._guard = Guard()
        self._steps_per_pass = 1
        self._seed = seed
        self._workers = workers
        self._benchmark: Benchmark | None = None
        self._first_step = 0
        self._restore: Callable[[], None] | None = None
        super().__init__(
            model=GrowingSpace(space, self.pairs),
            optimizer=adam([space.log_scale], 0.0),
            plugins=list(plugins),
            evaluator=evaluator,
            device=device,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)

    @property
    def step(self) -> int:
        """0-based optimiser step of the stage."""
        return int(self.clock.train_exp_iterations)

    @property
    def own_towers(self) -> dict[Pair, dict[str, nn.Module]]:
        """Pair -> modality -> the tower that the pair sees it with, where it is not the space's.

        Plugins put them here in ``before_train_dataset_adaptation``. What they have beside the
        space is trained where it takes a gradient; checkpoints keep the optimiser's state of it,
        the plugin its values.
        """
        towers: dict[Pair, dict[str, nn.Module]] = self.model.own
        return towers

    @property
    def own_parameters(self) -> dict[str, Parameter]:
        """Name -> what else a plugin learns, such as the weight of a loss.

        Plugins put them here in ``before_train_dataset_adaptation``, as ``plugin/<plugin>/<name>``,
        and take them out at the stage's end; they keep the values, as of :attr:`own_towers`.
        """
        parameters: dict[str, Parameter] = self.model.extra
        return parameters

    @property
    def pace(self) -> dict[str, float]:
        """The former name of ``lr_scale``, which is returned."""
        warn("Learner.pace is now called Learner.lr_scale", DeprecationWarning, stacklevel=2)
        return self.lr_scale

    @pace.setter
    def pace(self, scales: dict[str, float]) -> None:
        warn("Learner.pace is now called Learner.lr_scale", DeprecationWarning, stacklevel=2)
        self.lr_scale = scales

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by canonical name: the space's, those of pairs' own towers, plugins'."""
        return dict(self.model.all_parameters())

    def learn(
        self,
        benchmark: Benchmark,
        stage: int,
        *,
        step: int = 0,
        restore: Callable[[], None] | None = None,
    ) -> None:
        """Train one stage from ``step`` on and evaluate; a NotFiniteError stops it.

        An interrupted stage is begun like any other; then ``restore`` sets the saved state, and the
        loop continues from there. torch's global RNG is reseeded at the beginning and at every step
        and restored at the end, so that modules which draw from it can be resumed as well.
        """
        self._benchmark, self._first_step, self._restore = benchmark, step, restore
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            seed_torch(seed_for(self._seed, "stage", stage), self.device)
            self.train(benchmark.train[stage], eval_streams=[])
            self.evaluate(benchmark)

    @property
    def validation_items(self) -> Items:
        """Items of the validation split; no plugin may train on them.

        Raises:
            RuntimeError: If no stage has been begun.
        """
        if self._benchmark is None:
            raise RuntimeError("no stage has been begun")
        items: Items = self._benchmark.validation[0].items
        return items

    def pass_over(self, benchmark: Benchmark, stages: int) -> None:
        """Take the first stages as trained already; for a run that is resumed."""
        for experience in benchmark.train[:stages]:
            self.stage = experience.stage
            self.pairs |= experience.pairs

    def evaluate(self, benchmark: Benchmark) -> None:
        """Score every pair on the held-out items; training is not disturbed."""
        for stream in benchmark.scored:
            self.split = stream.name
            self.eval(stream)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Grow the space, then gather what is trained."""
        experience = self.stage_experience()
        self.stage, self.training = experience.stage, experience.training
        self.clusters.established = frozenset(m.name for m in self.space.modalities)
        self.pairs |= experience.pairs
        self.model = self.model_adaptation()
        self.make_optimizer()
        half = self.training.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)

    def make_optimizer(self, **kwargs: Any) -> None:
        """Adam over everything that takes a gradient; what was there before keeps its moments.

        What takes no gradient now keeps them too, for it may be trained again. Avalanche's own
        would also add parameters left out on purpose, and forget restored moments.
        """
        kept = self.optimizer.state
        parameters = self.parameters()
        scales = {value: self.lr_scale.get(name, 1.0) for name, value in parameters.items()}
        trained = [value for value in parameters.values() if value.requires_grad]
        # torch refuses an empty optimiser; without a gradient the scale stays as it is.
        trained = trained or [self.space.log_scale]
        self.optimizer = adam(trained, self.training.learning_rate, scales)
        for parameter in parameters.values():
            if parameter in kept:
                self.optimizer.state[parameter] = kept[parameter]

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Blocks of rows in the seed's order; Avalanche's loader would ignore our collate."""
        experience = self.stage_experience()
        loader = StepLoader(
            experience.items,
            experience.rows_per_step,
            steps=experience.training.steps,
            first=self._first_step,
            seed=seed_for(self._seed, "order", experience.stage),
            pin=self.device.type == "cuda",
            workers=self._workers,
        )
        self.dataloader, self._steps_per_pass = loader, loader.steps_per_pass

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """All items in order; no random number is drawn, so evaluation never changes training."""
        self.dataloader = BlockLoader(self.stage_experience().items, rows=EVALUATION_ROWS)

    def stage_experience(self) -> StageExperience:
        """What is being learned or scored."""
        if not isinstance(self.experience, StageExperience):
            raise TypeError(f"a Learner learns from StageExperience, not from {self.experience!r}")
        return self.experience

    def _before_training_epoch(self, **kwargs: Any) -> None:
        super()._before_training_epoch(**kwargs)
        if self._restore is not None:
            self._restore()

    def _before_training_iteration(self, **kwargs: Any) -> None:
        seed_torch(seed_for(self._seed, "step", self.stage, self.step), self.device)
        super()._before_training_iteration(**kwargs)

    def training_epoch(self, **kwargs: Any) -> None:
        """The steps of the stage that are left; none where a plugin has ended it before."""
        if not any(getattr(plugin, "ended", False) for plugin in self.plugins):
            super().training_epoch(**kwargs)
        self._stop_training = False  # Avalanche would end the next stage as well

    def _after_training_iteration(self, **kwargs: Any) -> None:
        super()._after_training_iteration(**kwargs)
        if self.step == self.training.steps:
            return
        every = self.training.evaluate_every
        if every and self.step % every == 0 and self._benchmark is not None:
            self.inside_stage = True
            self.evaluate(self._benchmark)
            self.inside_stage = False
        self.after_step()

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
            self.space.dropout.set_step(self.stage, self.step)
            self.clusters.at(self.stage, self.step, self._steps_per_pass)
            every = self.training.evaluate_every
            if "stays_in_evaluation" in self.space.settings.bugs and 0 < every <= self.step:
                self.space.eval()
        with self.precision():
            embedded: Views = self.model(self.mbatch)
        return embedded

    def precision(self) -> torch.autocast:
        """Autocast as the stage asks for it."""
        dtype = PRECISIONS[self.training.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def criterion(self) -> Tensor:
        """The objective on the current rows; nothing while evaluating."""
        self.terms = self.objective(self.current) if self.is_training else {}
        nothing: Tensor = self._make_empty_loss()
        return torch.stack(list(self.terms.values())).sum() if self.terms else nothing

    def objective(self, part: Part) -> Terms:
        """The losses on a part of the batch: contrast, clustering, reconstruction."""
        pairs, batch, embedded = self.pairs, self.batch, self.embedded
        return {
            **contrast(self.space, batch, embedded, pairs, part),
            **clustering(self.space, self.clusters, batch, embedded, part),
            **reconstruction(self.space, batch, embedded, part),
        }

    def add_term(self, name: str, value: Tensor, *, weight: float | Tensor) -> None:
        """Add ``weight * value`` to the step's loss; for plugins, in ``before_backward``."""
        self.terms[name] = weight * value
        self.loss = self.loss + self.terms[name]

    def train_on(self, name: str, value: Tensor) -> None:
        """Make a term all of the step's loss, in the place of what is in it; as ``add_term``."""
        self.terms = {name: value}
        self.loss = value

    def drop_term(self, name: str) -> None:
        """Take a term out of the step's loss, if it is there; for plugins with another for it."""
        term = self.terms.pop(name, None)
        if term is not None:
            self.loss = self.loss - term

    def backward(self) -> None:
        """Backward pass; under float16 the loss is scaled up first."""
        if self.loss.requires_grad:
            torch.autograd.backward(self.scaler.scale(self.loss))

    def optimizer_step(self) -> None:
        """Clip, check that everything is finite, step."""
        from_zero = self.space.settings.reference
        rate = learning_rate(self.step, self.training, from_zero=from_zero)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
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
        self._guard.watch(self.stage, self.step, values, self.space, self.training)

    def check(self) -> None:
        """Raise a NotFiniteError if a number until now was not finite."""
        self._guard.check(self.stage, self.space, self.training)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.check()
        super()._after_training_exp(**kwargs)
