"""Pickles as no program writes them: names, calls and states of any kind."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from continual_mm.preparation.formats.machine.unpickling import unpickled
from continual_mm.system.errors import InputError


class Named:
    """A function or class of any name, whether or not it is installed."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Made:
    """What a pickle gets by a call, and what state it then sets."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state


class Forger(pickle._Pickler):
    """Python's own pickler, which also writes names and calls that are not there."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Made) and id(obj) in self.memo:
            self.write(self.get(self.memo[id(obj)][0]))
        elif isinstance(obj, Made):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            self.memoize(obj)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


class Forge:
    """Makes pickles, and what stands in them."""

    Named = Named
    Made = Made
    numbers = (None, None, None, -1, -1, 0)
    """The state of a dtype behind its byte order."""

    def __init__(self) -> None:
        floats, objects = (3, "<", *self.numbers), (3, "|", None, None, None, 8, 8, 63)
        self.floats = Made(Named("numpy", "dtype"), "f4", False, True, state=floats)
        self.objects = Made(Named("numpy", "dtype"), "O8", False, True, state=objects)
        self.ndarray = Named("numpy", "ndarray")
        self.reconstruct = Named("numpy.core.multiarray", "_reconstruct")

    def __call__(self, thing: object, protocol: int = 2) -> bytes:
        stream = io.BytesIO()
        Forger(stream, protocol).dump(thing)
        return stream.getvalue()

    def array(self, shape: object, dtype: object, data: object) -> Made:
        state = (1, shape, dtype, False, data)
        return Made(self.reconstruct, self.ndarray, (0,), b"b", state=state)

    def saved(self, thing: object, *, zipped: bool) -> bytes:
        """What ``torch.save`` writes, today or before torch 1.6."""
        stream = io.BytesIO()
        torch.save(thing, stream, _use_new_zipfile_serialization=zipped)
        return stream.getvalue()

    def tensor(self, size: object, stride: object, offset: object = 0) -> Made:
        """A tensor on a storage of four values."""
        values = torch.zeros(4)
        storage = torch.storage.TypedStorage(
            wrap_storage=values.untyped_storage(), dtype=values.dtype, _internal=True
        )
        loaded = Made(Named("torch.storage", "_load_from_bytes"), self.saved(storage, zipped=False))
        rebuild = Named("torch._utils", "_rebuild_tensor_v2")
        return Made(rebuild, loaded, offset, size, stride, False, {})


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()


@pytest.fixture(scope="session")
def refusal() -> Callable[[bytes], str]:
    """Why a pickle is refused."""

    def told(data: bytes) -> str:
        with pytest.raises(InputError) as caught:
            unpickled(data, place="it")
        (problem,) = caught.value.problems
        assert problem.place == "it"
        return str(problem)

    return told
