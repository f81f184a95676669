"""A space whose modalities share a transformer, which embeds any of them together."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import (
    Encoder,
    GatedUnit,
    TemporalTrunk,
    masked_mean,
    valid_steps,
)
from continual_mm.space.space import NO_TOWERS, Embedded, Form, JointSpace, Tokens
from continual_mm.space.towers import Tower, encoder_of
from continual_mm.system.seeds import seed_for

EPSILON = 1e-6  # of the layer norms, as published
SHARED = "transformer/"  # where names of its weights begin among those of towers


class Attention(nn.Module):
    """Self-attention with several heads; tokens that are not valid are no keys."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.joined = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, values: Tensor, keys: Tensor) -> Tensor:
        """(n, time, width), (n, time) which may be attended to -> (n, time, width)."""
        count, time, width = values.shape
        parts = self.joined(values).view(count, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=keys[:, None, None, :])
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(count, time, width)))


class Block(nn.Module):
    """A transformer block that normalises first, with as many hidden units as numbers."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, values: Tensor, keys: Tensor) -> Tensor:
        """(n, time, width), (n, time) -> (n, time, width)."""
        values = values + self.attention(self.norm1(values), keys)
        return values + cast(Tensor, self.hidden(self.norm2(values)))


class Transformer(nn.Module):
    """Blocks without positions or types: what a token becomes depends on the set it is in."""

    def __init__(self, width: int, *, blocks: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads=heads) for _ in range(blocks))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """(n, time, width), (n, time) valid tokens -> (n, time, width); finite without any."""
        keys = valid | ~valid.any(1, keepdim=True)
        for block in self.blocks:
            values = block(values, keys)
        return values


class Steps(nn.Module):
    """Every time step as it is; a vector is one."""

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.features = modality.features
        self._axis = int(modality.kind.has_length)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) -> (n, time, features), (n, time) valid steps."""
        steps = values.flatten(2) if self._axis else values.flatten(1)[:, None]
        return steps, _valid(steps, lengths)


class Trunk(nn.Module):
    """Steps behind convolutions over time: what is read in order."""

    def __init__(
        self, modality: Modality, settings: SpaceSettings, *, width: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.trunk = TemporalTrunk(
            modality.features, width=width, depth=settings.depth, kernel=kernel, stride=stride
        )
        self.features = self.trunk.channels

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, ...) -> (n, time', channels), (n, time') valid steps."""
        if lengths is None:
            lengths = torch.full((values.shape[0],), values.shape[1], device=values.device)
        return cast(tuple[Tensor, Tensor], self.trunk(values.flatten(2), lengths))


class Whole(nn.Module):
    """The embedding that an encoder gives, as the only token of an item."""

    def __init__(self, encoder: Encoder, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.features = features

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) -> (n, 1, features), (n, 1)."""
        _, raw = self.encoder(values, lengths)
        return raw[:, None], _valid(raw[:, None], None)


def _valid(steps: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
    return valid_steps(lengths, steps.shape[1])


def _spectrogram(modality: Modality, settings: SpaceSettings) -> nn.Module:
    return Trunk(modality, settings, width=settings.width, kernel=9, stride=2)


def _frames(modality: Modality, settings: SpaceSettings) -> nn.Module:
    return Trunk(modality, settings, width=2 * settings.width, kernel=3, stride=1)


READERS: Mapping[str, Callable[[Modality, SpaceSettings], nn.Module]] = MappingProxyType(
    {
        Kind.VECTOR: Steps,
        Kind.TOKENS: Steps,
        Kind.SPECTROGRAM: _spectrogram,
        Kind.FRAMES: _frames,
    }
)
"""Kind of signal, or name of a tower -> what makes features of tokens; others make one token."""


class Tokeniser(Encoder):
    """What a modality has of its own: features to tokens, and what they become to an embedding.

    Called, it is the encoder of a space without a transformer.
    """

    def __init__(self, reader: nn.Module, settings: SpaceSettings) -> None:
        super().__init__()
        width = self.pooled = settings.token_size
        self.reader = reader
        self.unit = GatedUnit(cast(int, reader.features), width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.mask = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        self.out = GatedUnit(width, settings.dim)

    def tokens(self, values: Tensor, lengths: Tensor | None) -> Tokens:
        """Tokens of (n, ...) features; the learned ``mask`` is that of a row without any."""
        steps, valid = self.reader(values, lengths)
        tokens = self.norm(self.unit(steps))
        empty = ~valid.any(1)
        first = torch.zeros_like(valid)
        first[:, 0] = empty
        return Tokens(
            torch.where(first[:, :, None], self.mask.to(tokens.dtype), tokens), valid | first
        )

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) -> (n, width), (n, D)."""
        tokens = self.tokens(values, lengths)
        pooled = masked_mean(tokens.values, tokens.valid)
        return pooled, self.out(pooled)


class Fused(Encoder):
    """The encoder of one modality alone: its own tokeniser, and the shared transformer."""

    def __init__(self, own: Tokeniser, transformer: Transformer) -> None:
        super().__init__()
        self.own = own
        self.transformer = transformer
        self.pooled = own.pooled
        self.training = own.training

    def embedding(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """(n, width) the mean of what tokens become, (n, D) raw embeddings."""
        mixed = self.transformer(tokens.values, tokens.valid)
        pooled = masked_mean(mixed, tokens.valid)
        return pooled, self.own.out(pooled)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) -> (n, width), (n, D)."""
        return self.embedding(self.own.tokens(values, lengths))


def _no_head(dim: int, hidden: int, pooled: int) -> nn.Module:
    return nn.Identity()


class FusionSpace(JointSpace):
    r"""The space of Everything at Once (Shvetsova et al. 2022, arXiv 2112.04446).

    Each modality makes tokens of its features. One transformer, the same for all, reads the tokens
    of any modalities of an item together, and each modality embeds the mean of what its own tokens
    became. Together modalities S of an item have the embedding

    .. math::
        e_S = \sum_{m \in S} \frac{P_m(\bar h_m)}{\lVert P_m(\bar h_m) \rVert}
        \quad \text{at length one,} \qquad
        h = \text{Transformer}([x_m]_{m \in S})

    Nothing says where a token stands, so that neither padding nor the order of tokens matters; what
    is to be read in order is read so by its tokeniser. A modality that an item lacks has no tokens.

    There are no centroids and no reconstruction heads. Subspaces that are appended are of single
    modalities: the vector of several has the mean of their coordinates there.
    """

    kind: ClassVar[str] = "fusion"
    fuses: ClassVar[bool] = True

    def __init__(
        self,
        settings: SpaceSettings,
        *,
        seed: int = 0,
        towers: Mapping[str, Tower] = NO_TOWERS,
    ) -> None:
        super().__init__(settings, seed=seed, towers=towers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "weights", "transformer") % 2**31)
            self.transformer = Transformer(
                settings.token_size, blocks=settings.blocks, heads=settings.heads
            )

    def _form(self, settings: SpaceSettings) -> Form:
        return Form({}, _no_head, normalised=True)

    def _encoder(self, modality: Modality, settings: SpaceSettings | None = None) -> Encoder:
        """A new tokeniser; one that is not trained is that of which the modality's is made."""
        tower, settings = self.towers.get(modality.name), settings or self.settings
        named = (tower.kind if tower else "") or str(modality.kind)
        if named in READERS:
            found = Tokeniser(READERS[named](modality, settings), settings)
            return found if tower is None or tower.trained else found.requires_grad_(False)
        if tower is None:
            raise KeyError(named)
        encoder = encoder_of(tower.build(modality, settings), modality, settings)
        size = _size(encoder, modality)
        return Tokeniser(Whole(encoder.requires_grad_(tower.trained), size), settings)

    def tower(self, name: str) -> Encoder:
        """The encoder of a modality alone, made of modules of the space."""
        return Fused(cast(Tokeniser, super().tower(name)), self.transformer)

    def tower_state(self) -> dict[str, Tensor]:
        """Weights of the tokenisers and of the transformer, not copied."""
        shared = self.transformer.state_dict()
        return super().tower_state() | {f"{SHARED}{key}": each for key, each in shared.items()}

    def load_tower_state(self, state: Mapping[str, Tensor]) -> None:
        """Take tensors of :meth:`tower_state` as they are, not copied."""
        own = {key: each for key, each in state.items() if not key.startswith(SHARED)}
        super().load_tower_state(own)
        shared = {key.removeprefix(SHARED): state[key] for key in state.keys() - own.keys()}
        self.transformer.load_state_dict(shared, assign=True)

    def embed(
        self, name: str, tower: nn.Module, values: Tensor, lengths: Tensor | None, *, hiding: bool
    ) -> Embedded:
        """Embed the rows of one modality alone, and keep its tokens."""
        if hiding:
            values = self.dropout(name, values, time=self._modalities[name].kind.has_length)
        fused = cast(Fused, tower)
        tokens = fused.own.tokens(values, lengths)
        return replace(self._found(*fused.embedding(tokens)), tokens=tokens)

    def fused(
        self, names: Iterable[str], embedded: Mapping[str, Embedded], places: Mapping[str, Tensor]
    ) -> Tensor:
        """(n, D) unit vectors of several modalities that met; zeros for items that lack all."""
        names = [name for name in names if name in embedded]
        parts: list[Tokens] = []
        presence: list[Tensor] = []
        for name in names:
            tokens = cast(Tokens, embedded[name].tokens)
            where = places[name].to(tokens.values.device)
            there, chosen = where >= 0, where.clamp(min=0)
            valid = tokens.valid[chosen] & there[:, None]
            parts.append(Tokens(tokens.values[chosen], valid))
            presence.append(there)
        mixed = self.transformer(
            torch.cat([each.values for each in parts], dim=1),
            torch.cat([each.valid for each in parts], dim=1),
        )
        total = torch.zeros(len(mixed), self.settings.dim, device=mixed.device)
        sizes = [each.valid.shape[1] for each in parts]
        own = zip(names, mixed.split(sizes, dim=1), parts, presence, strict=True)
        for name, became, tokens, there in own:
            tokeniser = cast(Fused, self.tower(name)).own
            raw = tokeniser.out(masked_mean(became, tokens.valid))
            total = total + normalize(raw.float(), dim=1) * there[:, None]
        return normalize(total, dim=1)


@torch.no_grad()
def _size(encoder: Encoder, modality: Modality) -> int:
    """Numbers of the embedding that an encoder gives, found on two items."""
    steps = torch.full((2,), modality.shape[0]) if modality.kind.has_length else None
    training = encoder.training
    _, raw = encoder.eval()(torch.zeros(2, *modality.shape), steps)
    encoder.train(training)
    return int(raw.shape[1])
