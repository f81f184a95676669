"""Continual multimodal learning: new modalities join a joint space, old pairs stay aligned."""

import sys
from typing import Any

from lazy_loader import attach_stub

from continual_mm.system.renamed import RenamedModules

__version__ = "0.1.0"

# The names are in __init__.pyi; none of their modules is imported before it is asked for.
_lazy, __dir__, __all__ = attach_stub(__name__, __file__)

sys.meta_path.append(RenamedModules())


def __getattr__(name: str) -> Any:
    from continual_mm.system.imports import optional_import  # noqa: PLC0415

    with optional_import(f"continual_mm.{name}"):
        return _lazy(name)
