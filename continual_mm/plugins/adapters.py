"""Low-rank adapters of towers, and plugins that give pairs towers of their own by them."""

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import Parameter

from continual_mm.definitions.modality import Pair
from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin
from continual_mm.space.naming import named_parameters
from continual_mm.system.seeds import seed_for

ADAPTER = "pair"  # what peft calls the only adapter of a tower
FIRST = ".lora_A."  # what stands behind a layer's name in that of the adapter's first factor

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers that get one. Of just these types: what derives from them, such as the projection inside
``nn.MultiheadAttention``, may be read by others without being called."""


def adaptable(tower: nn.Module) -> list[str]:
    """Names of the layers that adapters are made for; convolutions in groups are left out."""
    return [
        name
        for name, module in tower.named_modules()
        if type(module) in KINDS and getattr(module, "groups", 1) == 1
    ]


def adapted(tower: nn.Module, *, rank: int, scale: float, seed: int) -> nn.Module | None:
    r"""A tower with adapters of its own on the weights of another; None if no layer takes one.

    A layer :math:`W x + b` becomes :math:`W x + b + s B A x` (Hu et al. 2021, arXiv 2106.09685,
    where s is written :math:`\alpha / r`), with :math:`A` of rank r drawn at random and
    :math:`B = 0`, so that at first the two towers give the same bits. The rank is at most the one
    that W can have. W and b are the same parameters, not copies, and take no gradient from now on.
    The new tower is in evaluation mode.
    """
    shared = {id(tensor): tensor for tensor in chain(tower.parameters(), tower.buffers())}
    second = deepcopy(tower, shared)
    ranks = {}
    for name in adaptable(second):
        weight = second.get_submodule(name).get_parameter("weight")
        ranks[name] = min(rank, weight[0].numel(), len(weight))
    return second if _attached(second, ranks, scale=scale, seed=seed) else None


def merge(tower: nn.Module, adapters: dict[str, torch.Tensor], *, scale: float) -> None:
    """Add adapters, by name and of a scale, to a tower's weights, which one pair then sees."""
    ranks = {
        name.split(FIRST)[0]: value.shape[0] for name, value in adapters.items() if FIRST in name
    }
    model = _attached(tower, ranks, scale=scale, seed=0)
    if model is None:
        return
    parameters = dict(named_parameters(tower))
    with torch.no_grad():
        for name, value in adapters.items():
            parameters[name].copy_(value)
    model.merge_and_unload()


def _attached(
    tower: nn.Module, ranks: Mapping[str, int], *, scale: float, seed: int
) -> LoraModel | None:
    if not ranks:
        return None
    names = {name: re.escape(name) for name in ranks}
    settings = LoraConfig(
        target_modules="|".join(names.values()),
        # peft compares with the end of a layer's name unless the pattern has a beginning.
        rank_pattern={f"^{names[name]}": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{names[name]}": scale * rank for name, rank in ranks.items()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**31)
        model = LoraModel(tower, settings, ADAPTER)
    for module in tower.modules():
        if isinstance(module, LoraLayer):
            # torch's fast path of transformers reads weights past a layer unless it has a hook.
            module.register_forward_pre_hook(_notice)
    tower.eval()
    return model


def _notice(_module: nn.Module, _inputs: object) -> None:
    """Change nothing."""


OWN = "own/"
"""Where the names of what pairs have of their own begin, see :meth:`Learner.parameters`."""

SCALE = "scale"  # name of the adapters' scale in the state, for code that opens a run


class PairAdapters(Plugin):
    """What plugins share that give pairs adapters: making them, their state, their optimiser.

    Each pair has a model of its own (:func:`adapted`) of each of its towers, which shares the
    weights of the space's tower and has one adapter. So no adapter is ever switched off by
    another, and one backward pass reaches those of all pairs.

    Args:
        rank: Rank of an adapter; in a layer with fewer inputs or outputs, their number.
        alpha: Scale of the adapters, relative to their rank.
        rate: Adapters' learning rate in terms of the stage's.
    """

    own_towers = True

    def __init__(self, *, rank: int, alpha: float, rate: float) -> None:
        super().__init__()
        self.rank, self.alpha, self.rate = rank, alpha, rate
        self.scale = alpha / max(rank, 1)
        self._adapters: dict[str, Parameter] = {}
        self._read: dict[str, Tensor] = {}

    def before_eval(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Score a run that was opened at a stage's end as it was scored then."""
        if self._read:
            self.make_again(strategy)

    def make_again(self, learner: Learner) -> None:
        """The adapters of finished stages that an earlier process trained."""
        owners = {tuple(name.split("/")[1:3]) for name in self._read}
        for pair in sorted({pair for pairs in learner.pairs.values() for pair in pairs}):
            names = [name for name in (pair.first, pair.second) if (str(pair), name) in owners]
            self.adapt(learner, pair, names)
        self._adapters = _adapters(learner)
        values, self._read = self._read, {}
        self.load_state(values)

    def adapt(self, learner: Learner, pair: Pair, names: Iterable[str]) -> None:
        """Give a pair towers of its own for those modalities that have arrived."""
        space = learner.space
        for name in names:
            if name in space:
                seed = seed_for(space.seed, "pair_lora", str(pair), name)
                tower = adapted(space.tower(name), rank=self.rank, scale=self.scale, seed=seed)
                if tower is not None:
                    learner.own_towers.setdefault(pair, {})[name] = tower

    def found(self, learner: Learner) -> None:
        """Take in all adapters that there are, and give new ones their learning rate."""
        earlier = self._adapters.keys()
        self._adapters = _adapters(learner)
        learner.lr_scale |= dict.fromkeys(self._adapters.keys() - earlier, self.rate)

    def hold(self, learner: Learner, *, frozen: bool) -> None:
        """Drop what the optimiser knows of adapters, and with ``frozen`` let them learn no more."""
        for adapter in self._adapters.values():
            if frozen:
                adapter.requires_grad_(False)
            adapter.grad = None
            learner.optimizer.state.pop(adapter, None)

    def state(self) -> dict[str, Tensor]:
        """The adapters of all pairs until now, by name, and their scale."""
        values = {**self._read, **{name: value.detach() for name, value in self._adapters.items()}}
        return {**values, SCALE: torch.tensor(self.scale)} if values else {}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`; adapters without a tower yet are restored with the next stage."""
        for name, value in state.items():
            if name in self._adapters:
                self._adapters[name].copy_(value)
            elif name != SCALE:
                self._read[name] = value


def _adapters(learner: Learner) -> dict[str, Parameter]:
    return {name: value for name, value in learner.parameters().items() if name.startswith(OWN)}
