"""The joint embedding space: an encoder per modality, a shared sphere, centroids on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Self, cast
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import ENCODERS, Encoder, FeatureDropout, VectorEncoder
from continual_mm.space.mcn import PublishedFrames, PublishedSpectrogram, PublishedTokens
from continual_mm.space.naming import module_key
from continual_mm.space.registry import build
from continual_mm.space.towers import Tower, encoder_of, fill
from continual_mm.system.seeds import seed_for

LARGEST_SCALE = 100.0
NO_TOWERS: Mapping[str, Tower] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Form:
    """Everything in which the robust and the published space differ.

    ``encoders`` maps a kind of signal to what builds its encoder, ``head`` builds a reconstruction
    head from (D, hidden units, pooled size). ``normalised``: similarities are taken of unit vectors
    and multiplied by a learned scale; otherwise of raw embeddings, as they are.
    """

    encoders: Mapping[Kind, Callable[[Modality, SpaceSettings], Encoder]]
    head: Callable[[int, int, int], nn.Module]
    normalised: bool


def robust_head(dim: int, hidden: int, pooled: int) -> nn.Sequential:
    """The reconstruction head, whose output may have any sign."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, pooled))


def published_head(dim: int, hidden: int, pooled: int) -> nn.Sequential:
    """The same, with an output that is not negative."""
    return robust_head(dim, hidden, pooled).append(nn.ReLU())


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "robust": Form(ENCODERS, robust_head, normalised=True),
        "reference": Form(
            {
                Kind.VECTOR: partial(VectorEncoder, norm=False),
                Kind.TOKENS: PublishedTokens,
                Kind.SPECTROGRAM: PublishedSpectrogram,
                Kind.FRAMES: PublishedFrames,
            },
            published_head,
            normalised=False,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of the rows that have one modality.

    Attributes:
        embedding: (n, D) float32: what similarities are taken of; unit vectors, in reference mode
            the raw embedding.
        direction: (n, D) float32: the embedding at length one.
        pooled: (n, pooled) target of the reconstruction head.
        norm: (n,) length of the raw embedding before it was normalised.
    """

    embedding: Tensor
    direction: Tensor
    pooled: Tensor
    norm: Tensor


class JointSpace(nn.Module):
    """MCN's space: one encoder and one reconstruction head per modality.

    ``settings.mode`` chooses between its robust and its published form, see :data:`FORMS`. A
    modality's initial weights depend on ``seed`` and its name only, not on when it is added, so
    strategies and orders are compared from the same start.

    Args:
        settings: Sizes.
        seed: Of the initial weights.
        towers: Modality -> how its encoder is built, where it is not the default one.

    Attributes:
        dropout: Hides input features from towers in training mode.
        centroids: (K, D) unit vectors, in reference mode plain means; zeros before the first
            k-means fit.
        log_scale: Logarithm of the scale that similarities are multiplied by; in reference mode
            zero, and never trained.
    """

    centroids: Tensor

    def __init__(
        self,
        settings: SpaceSettings,
        *,
        seed: int = 0,
        towers: Mapping[str, Tower] = NO_TOWERS,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.towers = dict(towers)
        self.form = FORMS[settings.mode]
        self.dropout = FeatureDropout(settings.feature_dropout, seed=seed)
        self._modalities: dict[str, Modality] = {}
        self.encoders = nn.ModuleDict()
        self.reconstructions = nn.ModuleDict()
        scale = torch.tensor(float(settings.scale))
        self.log_scale = nn.Parameter(scale.log(), requires_grad=self.form.normalised)
        self.register_buffer("centroids", torch.zeros(settings.clusters, settings.dim))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that were added, in that order."""
        return tuple(self._modalities.values())

    @property
    def logit_scale(self) -> Tensor:
        """The factor of similarities, in [1, 100]."""
        return self.log_scale.float().exp().clamp(1.0, LARGEST_SCALE)

    def __contains__(self, name: object) -> bool:
        return name in self._modalities

    def welcome(self, modality: Modality) -> None:
        """Deprecated: the former name of :meth:`add_modality`."""
        warn("JointSpace.welcome is now add_modality", DeprecationWarning, stacklevel=2)
        self.add_modality(modality)

    def add_modality(self, modality: Modality) -> None:
        """Add an encoder and a reconstruction head; does nothing for a modality that is known.

        Raises:
            ValueError: If the name is known with another kind or shape, or a user's tower does not
                take the modality's items.
            InputError: If a tower's weights do not fit it.
        """
        known = self._modalities.get(modality.name)
        if known is not None:
            if (known.kind, known.features) != (modality.kind, modality.features):
                raise ValueError(f"{modality} cannot be added: the space already has {known}")
            return
        device = self.log_scale.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "weights", modality.name) % 2**31)
            encoder = self._encoder(modality)
            units = self.settings.reconstruction_units
            head = self.form.head(self.settings.dim, units, encoder.pooled)
        tower = self.towers.get(modality.name)
        if tower is not None and tower.weights is not None:
            fill(encoder, head, tower.weights, tower.source)
        self.encoders[module_key(modality.name)] = encoder.to(device).train(self.training)
        self.reconstructions[module_key(modality.name)] = head.to(device).train(self.training)
        self._modalities[modality.name] = modality
        self.train(self.training)

    def _encoder(self, modality: Modality) -> Encoder:
        tower = self.towers.get(modality.name)
        if tower is None:
            return default_encoder(modality, self.settings)
        encoder = encoder_of(tower.build(modality, self.settings), modality, self.settings)
        return encoder if tower.trained else encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Go into training mode, or out of it; towers that are not trained stay out of it."""
        super().train(mode)
        for name, tower in self.towers.items():
            if name in self._modalities and not tower.trained:
                self.tower(name).eval()
        return self

    def tower(self, name: str) -> Encoder:
        """The encoder of a modality; a KeyError says which there are."""
        if name not in self._modalities:
            names = ", ".join(self._modalities) or "none"
            raise KeyError(f"no modality {name!r} in this space; it has {names}")
        return cast(Encoder, self.encoders[module_key(name)])

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> dict[str, Embedded]:
        """Embed the rows of every modality of the space; unknown ones are ignored.

        ``features`` are (n_m, ...) values by modality, ``lengths`` (n_m,) valid time steps where
        the kind of signal has time.
        """
        embedded = {}
        for name, values in features.items():
            if name in self._modalities:
                tower = self.tower(name)
                hiding = tower.training
                embedded[name] = self.embed(name, tower, values, lengths.get(name), hiding=hiding)
        return embedded

    def embed(
        self, name: str, tower: nn.Module, values: Tensor, lengths: Tensor | None, *, hiding: bool
    ) -> Embedded:
        """Embed the rows of one modality of the space, with its own tower or another.

        ``hiding`` says whether feature dropout is applied; else as :meth:`forward`.
        """
        if hiding:
            values = self.dropout(name, values, time=self._modalities[name].kind.has_length)
        pooled, raw = tower(values, lengths)
        raw = raw.float()
        norm = raw.norm(dim=1)
        direction = normalize(raw, dim=1)
        embedding = direction if self.form.normalised else raw
        return Embedded(embedding, direction, pooled.float(), norm)

    def reconstruct(self, name: str, embedding: Tensor) -> Tensor:
        """(n, D) embeddings -> (n, pooled) reconstruction of what the encoder pooled."""
        if self.form.normalised:
            embedding = embedding * self.settings.dim**0.5
        prediction: Tensor = self.reconstructions[module_key(name)](embedding)
        return prediction

    @torch.no_grad()
    def encode(self, name: str, features: Any, lengths: Any = None) -> Tensor:
        """Embed features without gradient, in evaluation mode.

        Args:
            name: The modality.
            features: (n, ...) values, or one item without the first axis; anything that torch
                turns into a tensor. Given as the dataset gives them, standardised if it did.
            lengths: (n,) valid time steps; all, if left out.

        Returns:
            (n, D) float32 unit vectors, in reference mode raw embeddings; (D,) for one item.

        Raises:
            KeyError: If there is no such modality.
            ValueError: If the features' shape is not the modality's.
        """
        encoder = self.tower(name)
        modality = self._modalities[name]
        values = torch.as_tensor(features, dtype=torch.float32, device=self.log_scale.device)
        single = values.dim() == len(modality.shape)
        values = values[None] if single else values
        free = 2 if modality.kind.has_length else 1
        if values.shape[free:] != torch.Size(modality.shape[free - 1 :]):
            raise ValueError(
                f"{name!r} features of shape {tuple(values.shape)} do not fit; "
                f"one item is {modality.shape} ({modality.kind})"
            )
        steps = None
        if modality.kind.has_length:
            steps = torch.as_tensor(
                [values.shape[1]] * values.shape[0] if lengths is None else lengths,
                device=values.device,
            ).reshape(-1)
        # Module by module: during training some may be kept in evaluation mode.
        training = [module for module in encoder.modules() if module.training]
        encoder.eval()
        try:
            _, raw = encoder(values, steps)
        finally:
            for module in training:
                module.training = True
        embedding = normalize(raw.float(), dim=1) if self.form.normalised else raw.float()
        return embedding[0] if single else embedding

    def describe(self) -> dict[str, Any]:
        """All that :meth:`rebuild` needs besides the weights, as JSON values."""
        return {
            "settings": self.settings.model_dump(),
            "seed": self.seed,
            "modalities": [
                {"name": m.name, "kind": str(m.kind), "shape": list(m.shape)}
                for m in self.modalities
            ],
            "towers": {
                name: {"kind": tower.kind, "trained": tower.trained}
                for name, tower in self.towers.items()
                if name in self
            },
        }

    @classmethod
    def rebuild(
        cls, description: Mapping[str, Any], towers: Mapping[str, Tower] = NO_TOWERS
    ) -> Self:
        """A space as :meth:`describe` described it, with initial weights.

        ``towers`` are those that are objects from Python; an InputError if a tower is neither given
        nor registered.
        """
        built = {
            name: towers.get(name) or registered(each["kind"], trained=each["trained"])
            for name, each in description["towers"].items()
        }
        settings = SpaceSettings(**description["settings"])
        space = cls(settings, seed=description["seed"], towers=built)
        for modality in description["modalities"]:
            kind, shape = Kind(modality["kind"]), tuple(modality["shape"])
            space.add_modality(Modality(modality["name"], kind, shape))
        return space


def default_encoder(modality: Modality, settings: SpaceSettings) -> Encoder:
    """The encoder of a modality for which no tower is named."""
    return FORMS[settings.mode].encoders[modality.kind](modality, settings)


def registered(kind: str, *, trained: bool = True) -> Tower:
    """The tower of a registered name (else an InputError); without a name, the default one."""
    return Tower(kind, build(kind) if kind else default_encoder, trained)
