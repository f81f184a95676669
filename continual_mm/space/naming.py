"""One name per parameter, whatever wraps the module that holds it."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import Parameter

TRANSFORMER = "transformer"
"""Where a space keeps what its modalities share."""

_WRAPPERS = frozenset(
    {"_orig_mod", "module", "base", "base_layer", "base_model", "_fsdp_wrapped_module"}
)


def canonical(name: str) -> str:
    """A parameter's name without the parts that wrappers insert.

    Compilation, data parallelism and adapters rename parameters; a penalty that is keyed by raw
    names would take them for new ones and silently stop protecting them.

    >>> canonical("_orig_mod.encoders.text.base_layer.weight")
    'encoders.text.weight'
    """
    parts = name.split(".")
    if "parametrizations" in parts and parts[-1] == "original":
        parts = [part for part in parts[:-1] if part != "parametrizations"]
    return ".".join(part for part in parts if part not in _WRAPPERS)


def named_parameters(module: nn.Module) -> Iterator[tuple[str, Parameter]]:
    """Parameters by canonical name."""
    for name, parameter in module.named_parameters():
        yield canonical(name), parameter


def module_key(modality: str) -> str:
    """The name of a modality's modules in a ``ModuleDict``; ``keys`` would hide a method."""
    return f"{modality}_" if hasattr(nn.ModuleDict, modality) else modality


def original(key: str) -> str:
    """The modality of a module key."""
    return key[:-1] if hasattr(nn.ModuleDict, key[:-1]) else key


def modality_of(name: str) -> str | None:
    """The modality that a parameter belongs to, or None if all share it.

    >>> modality_of("encoders.text.words.weight")
    'text'
    """
    parts = canonical(name).split(".")
    for place in ("encoders", "reconstructions", "parts"):
        if place in parts[:-1]:
            return original(parts[parts.index(place) + 1])
    return None


def owner_of(name: str) -> str | None:
    """The modality that a parameter belongs to, or what several are embedded by; else None.

    >>> owner_of("transformer.blocks.0.norm1.weight")
    'transformer'
    """
    shared = canonical(name).startswith(f"{TRANSFORMER}.")
    return TRANSFORMER if shared else modality_of(name)


def trainable(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that a gradient reaches, by canonical name."""
    return {name: value for name, value in named_parameters(module) if value.requires_grad}
