"""Modules of version 0.1 under the names that they had then, for one version more."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from warnings import warn

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "continual_mm.complaint": "continual_mm.system.errors",
        "continual_mm.data.class_names": "continual_mm.preparation.formats.clip_pickles",
        "continual_mm.extraction": "continual_mm.preparation.extraction",
    }
)
"""Old module -> where its names are now."""

NAMES: Mapping[str, str] = MappingProxyType({"Complaint": "Problem", "RefusedError": "InputError"})
"""Old names in them -> new ones."""


class RenamedModules(Loader):
    """Finds and loads them. Last in ``sys.meta_path``: no other import takes longer for it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module of which names are looked up in the new one."""
        return ModuleSpec(name, RenamedModules(), is_package=True) if _renamed(name) else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and look names up."""
        new = _renamed(module.__name__)
        warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        found = import_module(new)
        vars(module)["__getattr__"] = lambda name: getattr(found, NAMES.get(name, name))


def _renamed(name: str) -> str:
    """The new name of a module, or of one below it; empty if it has no other."""
    for old, new in MODULES.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return ""
