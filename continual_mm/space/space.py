"""The joint embedding space: an encoder per modality, a shared sphere, centroids on it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self, cast
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import ENCODERS, Encoder, FeatureDropout, VectorEncoder
from continual_mm.space.mcn import PublishedFrames, PublishedSpectrogram, PublishedTokens
from continual_mm.space.merged import Merged
from continual_mm.space.naming import module_key
from continual_mm.space.registry import build
from continual_mm.space.resizing import resize
from continual_mm.space.statistics import Statistics
from continual_mm.space.subspaces import Part, PartKind, Subspace, embedding_map
from continual_mm.space.towers import Tower, encoder_of, fill
from continual_mm.system.errors import InputError
from continual_mm.system.notebook import html_table
from continual_mm.system.seeds import seed_for

LARGEST_SCALE = 100.0
NO_TOWERS: Mapping[str, Tower] = MappingProxyType({})
NO_LENGTHS: Mapping[str, Any] = MappingProxyType({})


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
class Tokens:
    """Tokens of the rows that have one modality."""

    values: Tensor  # (n, time, width)
    valid: Tensor  # (n, time) which of them count; one of each row at least


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of the rows that have one modality."""

    # (n, D) float32: what similarities are taken of; unit vectors, in reference mode the raw
    # embedding.
    embedding: Tensor
    direction: Tensor  # (n, D) float32: the embedding at length one
    pooled: Tensor  # (n, pooled) target of the reconstruction head
    norm: Tensor  # (n,) length of the raw embedding before it was normalised
    # Number of a subspace -> (n, heads, size) unit vectors, where the modality has a part in
    # it.
    units: Mapping[int, Tensor] = field(default_factory=dict)
    tokens: Tokens | None = None  # what other modalities meet, in a space that fuses them


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
        factors: Modality -> what its vectors are to be multiplied by where items of several
            modalities share an index, if that is not 1: similarities of all pairs then have one
            scale.
        subspaces: Coordinates that later stages appended, see :meth:`append_subspace`.
        projection: (numbers, fewer) what vectors are multiplied by, see :meth:`reduce`; or None.
        statistics: Modality -> by what :meth:`encode` standardises its features, None where they
            are taken as they are; missing where that is not known, of runs of earlier versions.
        resized: Whether layers may have other widths than they are built with, see :meth:`resize`.
    """

    centroids: Tensor
    projection: Tensor | None

    kind: ClassVar[str] = "mcn"
    """The ``[space] kind`` that it is of."""

    fuses: ClassVar[bool] = False
    """Whether modalities meet before they are embedded together; else their vectors are averaged
    and they share no weights."""

    def __init__(
        self,
        settings: SpaceSettings,
        *,
        seed: int = 0,
        towers: Mapping[str, Tower] = NO_TOWERS,
    ) -> None:
        super().__init__()
        if settings.kind != self.kind:
            raise ValueError(f"settings of kind {settings.kind!r} are not those of this space")
        self.settings = settings
        self.seed = seed
        self.towers = dict(towers)
        self.form = self._form(settings)
        self.dropout = FeatureDropout(settings.feature_dropout, seed=seed)
        self._modalities: dict[str, Modality] = {}
        self.encoders = nn.ModuleDict()
        self.reconstructions = nn.ModuleDict()
        scale = torch.tensor(float(settings.scale))
        self.log_scale = nn.Parameter(scale.log(), requires_grad=self.form.normalised)
        self.register_buffer("centroids", torch.zeros(settings.clusters, settings.dim))
        self.subspaces = nn.ModuleList()
        self.register_buffer("projection", None)
        self.factors: dict[str, float] = {}
        self.statistics: dict[str, Statistics | None] = {}
        self.resized = False

    def _form(self, settings: SpaceSettings) -> Form:
        return FORMS[settings.mode]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that were added, in that order."""
        return tuple(self._modalities.values())

    def _repr_html_(self) -> str:
        rows = [
            (
                one.name,
                str(one.kind),
                " x ".join(map(str, one.shape)),
                type(self.encoders[module_key(one.name)]).__name__,
                f"{sum(p.numel() for p in self.encoders[module_key(one.name)].parameters()):,}",
            )
            for one in self.modalities
        ]
        headings = ("modality", "kind", "shape", "encoder", "weights")
        return html_table(f"{type(self).__name__}: vectors of {self.size} numbers", headings, rows)

    @property
    def logit_scale(self) -> Tensor:
        """The factor of similarities, in [1, 100]."""
        return self.log_scale.float().exp().clamp(1.0, LARGEST_SCALE)

    @property
    def grown(self) -> tuple[Subspace, ...]:
        """The subspaces, as what they are."""
        return cast(tuple[Subspace, ...], tuple(self.subspaces))

    @property
    def size(self) -> int:
        """Numbers of a vector: D, and what each subspace adds; fewer where it was reduced."""
        if self.projection is not None:
            return self.projection.shape[1]
        return self.settings.dim + sum(each.width for each in self.grown)

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
        if known is None and self.projection is not None:
            raise ValueError(f"{modality} cannot be added: the space's vectors were reduced")
        if known is not None:
            if (known.kind, known.features) != (modality.kind, modality.features):
                raise ValueError(f"{modality} cannot be added: the space already has {known}")
            return
        encoder, head = self.new_encoder(
            modality, seed=seed_for(self.seed, "weights", modality.name)
        )
        self.encoders[module_key(modality.name)] = encoder
        self.reconstructions[module_key(modality.name)] = head
        self._modalities[modality.name] = modality
        self.statistics.setdefault(modality.name, None)
        self._complete_subspaces()
        self.train(self.training)

    def _encoder(self, modality: Modality, settings: SpaceSettings | None = None) -> Encoder:
        """A new encoder for a modality; ``settings`` are the space's, if left out."""
        tower, settings = self.towers.get(modality.name), settings or self.settings
        if tower is None:
            return default_encoder(modality, settings)
        encoder = encoder_of(tower.build(modality, settings), modality, settings)
        return encoder if tower.trained else encoder.requires_grad_(False)

    def new_encoder(self, modality: Modality, *, seed: int) -> tuple[Encoder, nn.Module]:
        """An encoder and a reconstruction head for a modality, with initial weights of a seed."""
        device = self.log_scale.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**31)
            encoder = self._encoder(modality)
            head = self.form.head(
                self.settings.dim, self.settings.reconstruction_units, encoder.pooled
            )
        tower = self.towers.get(modality.name)
        if tower is not None and tower.weights is not None:
            fill(encoder, head, tower.weights, tower.source)
        return encoder.to(device).train(self.training), head.to(device).train(self.training)

    def tower_state(self) -> dict[str, Tensor]:
        """Weights and buffers of all that embeds single modalities, not copied."""
        found: dict[str, Tensor] = self.encoders.state_dict()
        return found

    def load_tower_state(self, state: Mapping[str, Tensor]) -> None:
        """Take tensors of :meth:`tower_state` as they are, not copied."""
        self.encoders.load_state_dict(dict(state), assign=True)

    def head(self, name: str) -> nn.Module:
        """The reconstruction head of a modality."""
        return self.reconstructions[module_key(name)]

    def replace_encoder(self, name: str, encoder: Encoder, head: nn.Module) -> None:
        """Give a modality another encoder and another reconstruction head."""
        self.tower(name)
        self.encoders[module_key(name)] = encoder
        self.reconstructions[module_key(name)] = head
        self.train(self.training)

    def append_subspace(
        self,
        size: int,
        members: Iterable[str],
        *,
        heads: int = 1,
        rank: int = 8,
        mapped: bool = False,
        noise: float = 0.0,
    ) -> Subspace:
        """Append coordinates: similarities get a further term, vectors keep all that they have.

        A modality that the space has is mapped by its encoder with low-rank adapters of its own;
        one that is added later by one more encoder, or, where its tower is not trained, has given
        weights or has a size of its own, by a head on the tower. ``mapped``: all that the space has
        are mapped by one map of their embeddings instead, so that modalities which never meet the
        added ones share coordinates with them, and what is added later by a head.

        Args:
            size: Numbers of each head.
            members: Modalities that have coordinates in it, those among them that are added next.
            heads: Unit vectors of each part.
            rank: Of the adapters.
            mapped: Whether embeddings are mapped rather than features.
            noise: Length of the noise that embeddings get before they are mapped in training.

        Returns:
            The subspace; everything in it takes a gradient.

        Raises:
            ValueError: In reference mode, whose vectors have no length to weigh them by, or if the
                space's vectors were reduced.
        """
        if not self.form.normalised:
            raise ValueError("a space in reference mode cannot grow: its embeddings are no units")
        if self.projection is not None:
            raise ValueError("a space whose vectors were reduced cannot grow")
        subspace = Subspace(size, heads=heads, rank=rank, noise=noise)
        with torch.no_grad():
            subspace.log_scale.copy_(self.log_scale)
        for name in members:
            if name in self:
                subspace.join(name, "mapped" if mapped else "adapted")
            else:
                subspace.join(name, "head" if mapped else self._arriving(name))
        self.subspaces.append(subspace.to(self.log_scale.device))
        self._complete_subspaces()
        return subspace

    def reduce(self, projection: Tensor) -> None:
        """Multiply vectors by a matrix from now on; the space can no longer grow then.

        Args:
            projection: (:attr:`size`, fewer), the same for all modalities.

        Raises:
            ValueError: If it does not fit, or vectors were reduced before.
        """
        shape = tuple(projection.shape)
        if self.projection is not None:
            raise ValueError(f"vectors were reduced before, to {self.size} numbers")
        if len(shape) != 2 or shape[0] != self.size or not 0 < shape[1] <= self.size:
            raise ValueError(f"{shape} does not reduce vectors of {self.size} numbers")
        self.projection = projection.detach().clone().to(self.log_scale)

    def resize(self, shapes: Mapping[str, Sequence[int]], *, dim: int | None = None) -> None:
        """Give layers other widths; what changes is zero until it is filled.

        Args:
            shapes: Name of a parameter or buffer -> its shape, see
                :func:`~continual_mm.space.resizing.resize`.
            dim: The dimension of the embedding from now on; as it is, if left out.

        Raises:
            AttributeError: If there is no such tensor.
            ValueError: If a tensor cannot have this shape.
        """
        resize(self, shapes)
        self.resized = True
        if dim is not None:
            self.settings = self.settings.model_copy(update={"dim": dim})

    def _arriving(self, name: str) -> PartKind:
        tower = self.towers.get(name)
        return "own" if tower is None or (tower.trained and tower.weights is None) else "head"

    def _complete_subspaces(self) -> None:
        """Give members of subspaces that the space has by now their parts."""
        for number, subspace in enumerate(self.grown):
            for name, kind in tuple(subspace.kinds.items()):
                if name not in self or name in subspace:
                    continue
                of = "map" if kind == "mapped" else name
                seed = seed_for(self.seed, "subspace", number, of)
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed % 2**31)
                    part = self._part(subspace, name, seed)
                part = part.to(self.log_scale.device).train(self.training)
                if kind == "mapped":
                    subspace.map = part
                else:
                    subspace.parts[module_key(name)] = part

    def _part(self, subspace: Subspace, name: str, seed: int) -> nn.Module:
        """A new part of a modality; where its tower cannot be built anew, a head becomes of it."""
        width, kind = subspace.heads * subspace.size, subspace.kinds[name]
        encoder = self.tower(name)
        if kind == "mapped":
            return embedding_map(self.settings.dim, width)
        if kind == "own":
            settings = self.settings.model_copy(update={"dim": width})
            further = self._encoder(self._modalities[name], settings)
            if _gives(further, self._modalities[name], width):
                encoder = further
            else:
                kind = subspace.kinds[name] = "head"
        return Part(kind, encoder, width=width, rank=subspace.rank, seed=seed)

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
                found = self.embed(name, tower, values, lengths.get(name), hiding=hiding)
                if self.subspaces:
                    units = self._units(name, values, lengths.get(name), found)
                    found = replace(found, units=units)
                embedded[name] = found
        return embedded

    def _units(
        self, name: str, values: Tensor, lengths: Tensor | None, embedded: Embedded
    ) -> dict[int, Tensor]:
        """Number of a subspace -> (n, heads, size), of those in which the modality has a part."""
        found = {}
        for number, subspace in enumerate(self.grown):
            if name not in subspace:
                continue
            part, seen = subspace.part(name), values
            if not isinstance(part, Part):
                noise = subspace.noise if part.training else 0.0
                noisy = self._noisy(name, embedded.embedding, noise)
                found[number] = subspace.units(part(noisy))
                continue
            if part.training:
                time = self._modalities[name].kind.has_length
                seen = self.dropout(name, values, time=time)
            # What the map is learned with must not change first coordinates.
            pooled = embedded.pooled if subspace.map is None else embedded.pooled.detach()
            found[number] = subspace.units(part(self.tower(name), seen, lengths, pooled))
        return found

    def _noisy(self, name: str, embedding: Tensor, noise: float) -> Tensor:
        """Embeddings with Gaussian noise of a length, as the map of a subspace learns them."""
        if not noise:
            return embedding
        generator = self.dropout.generator(embedding.device, "noise", name)
        drawn = torch.randn(embedding.shape, generator=generator, device=embedding.device)
        return normalize(embedding + noise / embedding.shape[1] ** 0.5 * drawn, dim=1)

    def fused(
        self, names: Iterable[str], embedded: Mapping[str, Embedded], places: Mapping[str, Tensor]
    ) -> Tensor:
        """(n, D) embeddings of several modalities together: the mean of theirs.

        Args:
            names: The modalities; those that no item has may be among them.
            embedded: What :meth:`forward` made of the items.
            places: Modality -> (n,) where each item stands in its embeddings, -1 where it lacks
                the modality, which is left out then; zeros where it lacks all.
        """
        return _mean({n: embedded[n].embedding for n in names if n in embedded}, places)

    def combined(
        self, names: Iterable[str], embedded: Mapping[str, Embedded], places: Mapping[str, Tensor]
    ) -> Tensor:
        """(n, :attr:`size`) vectors of several modalities together, as :meth:`fused` takes them.

        Behind the embedding is the mean of the coordinates in each subspace.
        """
        names, found = tuple(names), self.fused(names, embedded, places)
        if self.subspaces:
            every = len(self.subspaces)
            appended = {
                name: self.vectors(name, embedded[name], until=every)[:, self.settings.dim :]
                for name in names
                if name in embedded
            }
            found = torch.cat([found, _mean(appended, places)], dim=1)
        return self._reduced(found)

    def _reduced(self, vectors: Tensor) -> Tensor:
        return vectors if self.projection is None else vectors @ self.projection

    def vectors(self, name: str, embedded: Embedded, *, until: int | None = None) -> Tensor:
        """(n, :attr:`size`) what items are compared by: embeddings, and their subspaces behind.

        Args:
            name: The modality.
            embedded: What :meth:`forward` made of the items.
            until: Only so many subspaces, and not reduced; all, if left out.
        """
        subspaces, found = self.grown[:until], embedded.embedding
        if subspaces:
            appended = (
                subspace.coordinates(name, embedded.units.get(number), embedded.embedding)
                for number, subspace in enumerate(subspaces)
            )
            found = torch.cat([found, *appended], dim=1)
        return found if until is not None else self._reduced(found)

    def embed(
        self, name: str, tower: nn.Module, values: Tensor, lengths: Tensor | None, *, hiding: bool
    ) -> Embedded:
        """Embed the rows of one modality of the space, with its own tower or another.

        ``hiding`` says whether feature dropout is applied; else as :meth:`forward`.
        """
        if hiding:
            values = self.dropout(name, values, time=self._modalities[name].kind.has_length)
        return self._found(*tower(values, lengths))

    def _found(self, pooled: Tensor, raw: Tensor) -> Embedded:
        """What an encoder gives: (n, pooled), (n, D)."""
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

    def prepare(self, name: str, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Standardise features as those that the space was trained on were.

        Args:
            name: The modality.
            values: (n, ...) features as an extractor gives them.
            lengths: (n,) valid time steps, behind which zeros are put; all, if left out.

        Raises:
            InputError: If it is not known by what they were standardised.
        """
        if name not in self.statistics:
            problem = "a run of an earlier version did not keep what it was standardised by"
            remedy = "standardise it as the dataset was, and give standardised=True"
            raise InputError.at(f"modality {name!r}", problem, remedy)
        by, features = self.statistics[name], self._modalities[name].features
        if by is None:
            return values
        steps = values.detach().cpu().double().reshape(len(values), -1, features)
        scaled = (steps - torch.from_numpy(by.mean)) * torch.from_numpy(by.rate)
        if lengths is not None:
            scaled[torch.arange(scaled.shape[1]) >= lengths.cpu()[:, None]] = 0.0
        return scaled.reshape(values.shape).to(values)

    @torch.no_grad()
    def encode(
        self, name: str, features: Any, lengths: Any = None, *, standardised: bool = False
    ) -> Tensor:
        """Embed features without gradient, in evaluation mode.

        Args:
            name: The modality.
            features: (n, ...) values, or one item without the first axis; anything that torch
                turns into a tensor. As an extractor gives them: they are standardised as those of
                the dataset were that the space was trained on.
            lengths: (n,) valid time steps; all, if left out.
            standardised: Whether they are standardised already, as a dataset's ``columns`` are.

        Returns:
            (n, :attr:`size`) float32, (size,) for one item; similarity is the inner product. Unit
            vectors, in reference mode raw embeddings; where the space has grown, unit vectors with
            further coordinates behind them; where vectors were reduced, of any length.

        Raises:
            KeyError: If there is no such modality.
            InputError: If the features are no numbers, or of another shape than the modality's, or
                it is not known by what they are to be standardised.
        """
        values, steps, single = self._read(name, features, lengths, standardised=standardised)
        vectors = self._embedded(name, values, steps)
        return vectors[0] if single else vectors

    @torch.no_grad()
    def encode_together(
        self,
        features: Mapping[str, Any],
        lengths: Mapping[str, Any] = NO_LENGTHS,
        *,
        standardised: bool = False,
    ) -> Tensor:
        """Embed items of several modalities, each item as a whole; otherwise as :meth:`encode`.

        Args:
            features: Modality -> (n, ...) values of the same n items, or of one. Items that lack
                a modality are embedded by the modalities that they have: give them apart.
            lengths: Modality -> (n,) valid time steps; all, where left out.
            standardised: Whether they are standardised already.

        Returns:
            (n, :attr:`size`) float32, (size,) for one item: the mean of the modalities' vectors, or
            what the space fuses of them.
        """
        if not features:
            raise InputError.at("features", "of no modality", "give those of one or more")
        read = {
            name: self._read(name, values, lengths.get(name), standardised=standardised)
            for name, values in features.items()
        }
        counts = {name: len(values) for name, (values, *_) in read.items()}
        if len({*counts.values()}) > 1:
            said = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise InputError.at("features", f"there are {said}", "give the same items of each")
        (_, _, single), *_ = read.values()
        with self._evaluating(read):
            found = self(*self._on_device(read))
            every = torch.arange(next(iter(counts.values())))
            vectors = self.combined(list(read), found, dict.fromkeys(read, every))
        return vectors[0] if single else vectors

    def _read(
        self, name: str, features: Any, lengths: Any, *, standardised: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """Values and valid steps as :meth:`forward` takes them, and whether it is one item."""
        self.tower(name)
        modality = self._modalities[name]
        values = _numbers(features, f"features of {name!r}", modality, dtype=torch.float32)
        single = values.dim() == len(modality.shape)
        values = values[None] if single else values
        free = 2 if modality.kind.has_length else 1
        if values.shape[free:] != torch.Size(modality.shape[free - 1 :]):
            problem = f"are of shape {tuple(values.shape)}"
            raise InputError.at(f"features of {name!r}", problem, _one_item(modality))
        steps = None
        if modality.kind.has_length:
            every = [values.shape[1]] * len(values)
            given = every if lengths is None else lengths
            steps = _numbers(given, f"lengths of {name!r}", modality).reshape(-1)
            if len(steps) != len(values):
                problem = f"are {len(steps)}, but there are {len(values)} items"
                raise InputError.at(f"lengths of {name!r}", problem, "give one for each")
        if not standardised:
            values = self.prepare(name, values, steps)
        return values, steps, single

    def _embedded(self, name: str, values: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, :attr:`size`) of standardised features, in evaluation mode."""
        with self._evaluating([name]):
            found = self(*self._on_device({name: (values, lengths, False)}))[name]
        return self.vectors(name, found)

    def _on_device(
        self, read: Mapping[str, tuple[Tensor, Tensor | None, bool]]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features and lengths by modality, where the space is."""
        device = self.log_scale.device
        features = {name: values.to(device) for name, (values, _, _) in read.items()}
        return features, {
            n: steps.to(device) for n, (_, steps, _) in read.items() if steps is not None
        }

    @contextmanager
    def _evaluating(self, names: Iterable[str]) -> Iterator[None]:
        """Evaluation mode of all that embeds some modalities.

        Module by module: during training some may be kept in evaluation mode.
        """
        modules = [
            module
            for name in names
            for module in (
                self.tower(name),
                *(each.part(name) for each in self.grown if name in each),
            )
        ]
        training = [each for one in modules for each in one.modules() if each.training]
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

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
            **({"merged": merged} if (merged := self._merged()) else {}),
            "statistics": {
                name: by and by.as_json() for name, by in self.statistics.items() if name in self
            },
            **({"factors": dict(self.factors)} if self.factors else {}),
            **({"subspaces": [each.describe() for each in self.grown]} if self.grown else {}),
            **({"shapes": self._shapes()} if self.resized else {}),
            **({} if self.projection is None else {"reduced": self.size}),
        }

    def _shapes(self) -> dict[str, list[int]]:
        """Name -> shape of all that is built of widths."""
        parts = ("encoders", "reconstructions", "subspaces")
        return {
            name: list(value.shape)
            for name, value in self.state_dict().items()
            if name.startswith(parts) and value.dim()
        }

    def _merged(self) -> dict[str, int]:
        """Modality -> its encoders, where these were trained in several spaces."""
        towers = {name: self.tower(name) for name in self._modalities}
        return {
            name: len(tower.encoders) for name, tower in towers.items() if isinstance(tower, Merged)
        }

    def restore(self, description: Mapping[str, Any]) -> None:
        """Add the modalities and subspaces of a space that :meth:`describe` described."""
        before = dict(self.statistics)
        for modality in description["modalities"]:
            kind, shape = Kind(modality["kind"]), tuple(modality["shape"])
            self.add_modality(Modality(modality["name"], kind, shape))
        # Runs of earlier versions describe none.
        described = _statistics(description.get("statistics", {}), self._modalities)
        self.statistics = {**described, **before}
        known = self._merged()
        for name, count in description.get("merged", {}).items():
            if known.get(name) != count:
                self._restore_merged(name, count)
        grown = [Subspace.of(each) for each in description.get("subspaces", ())]
        # A space that goes on from a grown one has those already, as they were then.
        for mine, each in zip(self.grown, grown, strict=False):
            mine.kinds, mine.layout = each.kinds, each.layout
        for each in grown[len(self.subspaces) :]:
            self.subspaces.append(each.to(self.log_scale.device))
        factors = description.get("factors", {})
        self.factors = {name: float(factor) for name, factor in factors.items()}
        self._complete_subspaces()
        if shapes := description.get("shapes"):
            self.resize(shapes)
        if size := description.get("reduced"):
            self.reduce(torch.zeros(self.size, size))

    def _restore_merged(self, name: str, count: int) -> None:
        modality = self._modalities[name]
        new = [self.new_encoder(modality, seed=self.seed + number) for number in range(count)]
        merged = Merged.blank(
            [encoder for encoder, _ in new],
            self.settings.dim,
            normalised=self.form.normalised,
        )
        self.replace_encoder(name, merged.to(self.log_scale.device), new[0][1])

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
        space.restore(description)
        return space


def _mean(parts: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> Tensor:
    """(n, numbers) the mean over the modalities that each item has, by where it stands in them."""
    total: Tensor | float = 0.0
    count: Tensor | float = 0.0
    for name, part in parts.items():
        where = places[name].to(part.device)
        there = (where >= 0).to(part.dtype)[:, None]
        total, count = total + part[where.clamp(min=0)] * there, count + there
    return torch.as_tensor(total) / torch.as_tensor(count).clamp(min=1.0)


@torch.no_grad()
def _gives(encoder: Encoder, modality: Modality, size: int) -> bool:
    """Whether an encoder can be trained and gives embeddings of a size, found on two items."""
    if not any(value.requires_grad for value in encoder.parameters()):
        return False
    steps = torch.full((2,), modality.shape[0]) if modality.kind.has_length else None
    training = encoder.training
    _, raw = encoder.eval()(torch.zeros(2, *modality.shape), steps)
    encoder.train(training)
    return bool(raw.shape[1] == size)


def _one_item(modality: Modality) -> str:
    return f"one item is {modality.shape} ({modality.kind})"


def _numbers(value: Any, place: str, modality: Modality, **options: Any) -> Tensor:
    """A tensor of what a user gives."""
    try:
        return torch.as_tensor(value, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"cannot be read as numbers: {type(value).__name__}"
        raise InputError.at(place, problem, f"give an array; {_one_item(modality)}") from error


def _statistics(
    described: Mapping[str, Any], modalities: Mapping[str, Modality]
) -> dict[str, Statistics | None]:
    return {
        name: by and Statistics.from_json(by, modalities[name].features)
        for name, by in described.items()
        if name in modalities
    }


def default_encoder(modality: Modality, settings: SpaceSettings) -> Encoder:
    """The encoder of a modality for which no tower is named."""
    return FORMS[settings.mode].encoders[modality.kind](modality, settings)


def registered(kind: str, *, trained: bool = True) -> Tower:
    """The tower of a registered name (else an InputError); without a name, the default one."""
    return Tower(kind, build(kind) if kind else default_encoder, trained)
