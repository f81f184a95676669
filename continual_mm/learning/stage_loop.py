"""A stage from its beginning to its end, on Avalanche's loop and callbacks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from avalanche.core import BaseSGDPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base_sgd import BaseSGDTemplate
from avalanche.training.templates.observation_type.batch_observation import BatchObservation
from avalanche.training.templates.update_type.sgd_update import SGDUpdate
from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer

from continual_mm.data.batch import Batch
from continual_mm.definitions import Training
from continual_mm.dice import seed_for
from continual_mm.learning.clusters import Clusters
from continual_mm.learning.evaluation import evaluator as evaluator_of
from continual_mm.learning.growth import GrowingSpace
from continual_mm.learning.loader import BlockLoader, StepLoader
from continual_mm.learning.optimiser import adam
from continual_mm.learning.published_clusters import clusters_of
from continual_mm.learning.seeding import seed_torch
from continual_mm.learning.stream import Benchmark, StageExperience
from continual_mm.modality import Pair
from continual_mm.space.space import JointSpace

EVALUATION_ROWS = 1024


class StageLoop(BatchObservation, SGDUpdate, BaseSGDTemplate):
    """Leads a space through the stages; what a step does is said by the learner derived from it.

    Its arguments and attributes are described at :class:`~continual_mm.learning.learner.Learner`.
    """

    optimizer: Optimizer
    dataloader: Iterable[Batch]

    def __init__(
        self,
        *,
        space: JointSpace,
        seed: int,
        plugins: Sequence[BaseSGDPlugin[Any]],
        evaluator: EvaluationPlugin | None,
        device: torch.device | str,
        workers: int,
    ) -> None:
        self.space = space.to(device)
        self.stage = -1
        self.pairs: dict[int, tuple[Pair, ...]] = {}
        self.training = Training()
        self.pace: dict[str, float] = {}
        self.clusters: Clusters = clusters_of(space, seed=seed_for(seed, "clusters"))
        self.split = ""
        self.inside_stage = False
        self.after_step: Callable[[], None] = lambda: None
        self._steps_per_pass = 1
        self._seed = seed
        self._workers = workers
        self._benchmark: Benchmark | None = None
        self._first_step = 0
        self._jump: Callable[[], None] | None = None
        super().__init__(
            model=GrowingSpace(space, self.pairs),
            optimizer=adam([space.log_scale], 0.0),
            plugins=list(plugins),
            evaluator=evaluator or evaluator_of(),
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

        Plugins put them here in ``before_train_dataset_adaptation``. A pair is trained and scored
        through its own towers; what they have beside the space is trained where it takes a
        gradient. Checkpoints keep the moments of it; its values are the plugin's to keep.
        """
        towers: dict[Pair, dict[str, nn.Module]] = self.model.own
        return towers

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by canonical name: the space's, and those of pairs' own towers."""
        return dict(self.model.all_parameters())

    def learn(
        self,
        benchmark: Benchmark,
        stage: int,
        *,
        step: int = 0,
        jump: Callable[[], None] | None = None,
    ) -> None:
        """Train one stage and evaluate at its end.

        A stage that was interrupted is begun like any other, so that whatever happens at a
        beginning happens again; then ``jump`` puts everything where it was, and the loop goes on
        from there. torch's own dice are thrown anew at the beginning and at every step, and given
        back at the end, so that a module which rolls them (dropout, say) can be resumed as well.

        Args:
            benchmark: The streams.
            stage: Position in the training stream.
            step: Steps of the stage that are done already.
            jump: Called when the stage has begun.

        Raises:
            NotFiniteError: If a number became NaN or infinite.
        """
        self._benchmark, self._first_step, self._jump = benchmark, step, jump
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            seed_torch(seed_for(self._seed, "stage", stage), self.device)
            self.train(benchmark.train[stage], eval_streams=[])
            self.evaluate(benchmark)

    def pass_over(self, benchmark: Benchmark, stages: int) -> None:
        """Take the first stages as learned already; for a run that goes on."""
        for experience in benchmark.train[:stages]:
            self.stage = experience.stage
            self.pairs |= experience.pairs

    def evaluate(self, benchmark: Benchmark) -> None:
        """Score every pair on the validation and the test items; training is not disturbed."""
        for stream in (benchmark.validation, benchmark.test):
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
        paces = {value: self.pace.get(name, 1.0) for name, value in parameters.items()}
        trained = [value for value in parameters.values() if value.requires_grad]
        # torch refuses an empty optimiser; without a gradient the scale stays as it is.
        trained = trained or [self.space.log_scale]
        self.optimizer = adam(trained, self.training.learning_rate, paces)
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
        """All items in order; no dice are rolled, so evaluating never changes training."""
        self.dataloader = BlockLoader(self.stage_experience().items, rows=EVALUATION_ROWS)

    def stage_experience(self) -> StageExperience:
        """What is being learned or scored."""
        if not isinstance(self.experience, StageExperience):
            raise TypeError(f"a Learner learns from StageExperience, not from {self.experience!r}")
        return self.experience

    def _before_training_epoch(self, **kwargs: Any) -> None:
        super()._before_training_epoch(**kwargs)
        if self._jump is not None:
            self._jump()

    def _before_training_iteration(self, **kwargs: Any) -> None:
        seed_torch(seed_for(self._seed, "step", self.stage, self.step), self.device)
        super()._before_training_iteration(**kwargs)

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
