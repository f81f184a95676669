"""Small scorers of pairs, trained on the pairs themselves: a hyperbolic and a spherical one."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.losses.entailment import contrast_of, meru_loss
from continual_mm.losses.lorentz import exponential_map
from continual_mm.space.encoders import ENCODERS
from continual_mm.system.seeds import seed_for

LARGEST_SCALE = 100.0
_FIRST_SCALE = 1 / 0.07
_LARGEST_CURVATURE = 10.0  # and one over it is the smallest
_BETAS, _DECAY = (0.9, 0.98), 0.2
_WARM_UP = 0.1  # share of the steps

Side = tuple[Tensor, Tensor | None]
"""(n, ...) features of one modality and, for kinds with time, (n,) valid steps."""

Batch = tuple[Side, Side]
"""Both modalities of the same items: the general one, then the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSettings:
    """Sizes and training of a scorer."""

    steps: int = 500
    batch_size: int = 128
    dim: int = 16  # D of the space
    hidden: int = 64  # outputs of each tower's encoder
    learning_rate: float = 1e-3  # the highest, after a warm-up; then a cosine down to 0
    # Share of features that are hidden in training, so that wrong pairs are not learnt by heart.
    feature_dropout: float = 0.2
    seed: int = 0


class Tower(nn.Module):
    """An encoder by the kind of signal, then a map without bias, so that any length is possible."""

    def __init__(self, modality: Modality, settings: ScorerSettings) -> None:
        super().__init__()
        sizes = SpaceSettings(dim=settings.hidden)
        self.encoder = _without_norms(ENCODERS[modality.kind](modality, sizes))
        self.map = nn.Linear(settings.hidden, settings.dim, bias=False)

    def forward(self, side: Side) -> Tensor:
        """(n, ...) features -> (n, D) vectors."""
        vectors: Tensor = self.map(self.encoder(*side)[1])
        return vectors


def _without_norms(module: nn.Module) -> nn.Module:
    """The module, its layer norms replaced: they take away what tells vague items from others."""
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm):
            setattr(module, name, nn.Identity())
        else:
            _without_norms(child)
    return module


class Scorer(nn.Module):
    """Two towers and a scale, which a loss trains together."""

    def __init__(self, general: Modality, other: Modality, settings: ScorerSettings) -> None:
        super().__init__()
        self.towers = nn.ModuleList(Tower(each, settings) for each in (general, other))
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))

    @abstractmethod
    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Points of both modalities, (n, D) each."""

    @abstractmethod
    def loss(self, batch: Batch, right: Tensor | None = None) -> Tensor:
        """What is minimised; ``right``, (n, n), are answers that are right besides partners."""

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep scalars within their ranges, after each step."""
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def double_precision(self) -> Self:
        """A copy for scoring, in float64."""
        return deepcopy(self).double().eval()


class HyperbolicScorer(Scorer):
    """MERU: points of hyperbolic space, where what is general lies near the origin."""

    def __init__(self, general: Modality, other: Modality, settings: ScorerSettings) -> None:
        super().__init__(general, other, settings)
        self.log_curvature = nn.Parameter(torch.tensor(0.0))
        # Tangent vectors begin with a length of about 1, whatever D is.
        self.log_lengths = nn.Parameter(torch.full((2,), -0.5 * math.log(settings.dim)))

    @property
    def curvature(self) -> Tensor:
        """c, of a space of curvature -c; 1 at first."""
        return self.log_curvature.exp()

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Space components of both modalities' points, (n, D) each."""
        general, other = (
            exponential_map(log_length.exp() * tower(side), curvature=self.curvature)
            for log_length, tower, side in zip(self.log_lengths, self.towers, batch, strict=True)
        )
        return general, other

    def loss(self, batch: Batch, right: Tensor | None = None) -> Tensor:
        """Contrast by distance, and the entailment of the other modality by the general one."""
        general, other = self.embed(batch)
        scale = self.log_scale.exp()
        return meru_loss(general, other, scale=scale, curvature=self.curvature, right=right)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep scalars within their ranges, after each step."""
        super().clamp()
        bound = math.log(_LARGEST_CURVATURE)
        self.log_curvature.clamp_(-bound, bound)
        self.log_lengths.clamp_(max=0.0)


class CosineScorer(Scorer):
    """CLIP: unit vectors, compared by their cosine."""

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit vectors of both modalities, (n, D) each."""
        general, other = (
            normalize(tower(side), dim=1) for tower, side in zip(self.towers, batch, strict=True)
        )
        return general, other

    def loss(self, batch: Batch, right: Tensor | None = None) -> Tensor:
        """The mean of both directions' cross entropies of the right partner."""
        general, other = self.embed(batch)
        return contrast_of(self.log_scale.exp() * general @ other.T, right)


AnyScorer = TypeVar("AnyScorer", bound=Scorer)


def train(
    kind: type[AnyScorer],
    modalities: tuple[Modality, Modality],
    batches: Iterator[tuple[Batch, Tensor | None]],
    settings: ScorerSettings,
    *,
    device: torch.device,
    after_step: Callable[[], None],
) -> AnyScorer:
    """Train a scorer of a general modality and another, in float32.

    Args:
        kind: Which scorer.
        modalities: The general one, then the other.
        batches: As many as there are steps, on any device, each with what is right in it besides
            partners.
        settings: Sizes and steps.
        device: Where it is trained.
        after_step: Called after each step.

    Raises:
        FloatingPointError: If the loss is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(settings.seed, "scorer", kind.__name__) % 2**31)
        scorer = kind(*modalities, settings)
    scorer = scorer.to(device).train()
    optimiser = torch.optim.AdamW(_groups(scorer), lr=settings.learning_rate, betas=_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: _rate(n, settings.steps))
    for step, (batch, right) in zip(range(settings.steps), batches, strict=False):
        with torch.autocast(device.type, enabled=False):
            loss = scorer.loss(batch, right)
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"{kind.__name__}: the loss at step {step} is not finite")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        scorer.clamp()
        after_step()
    return scorer


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _groups(scorer: nn.Module) -> list[dict[str, object]]:
    """Weights of maps decay; gains, biases and scalars do not."""
    parameters = list(scorer.parameters())
    return [
        {"params": [each for each in parameters if each.dim() > 1], "weight_decay": _DECAY},
        {"params": [each for each in parameters if each.dim() <= 1], "weight_decay": 0.0},
    ]
