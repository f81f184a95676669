"""Pickles as no program writes them: names, calls and states of any kind."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from continual_mm.preparation.formats.pickles import load_pickle
from continual_mm.system.errors import InputError


class Named:
    """A function or class of any name, whether or not it is installed."""

    def __init__(self, name: str) -> None:
        self.module, _, self.name = name.rpartition(".")


class Made:
    """What a pickle gets by a call, and what state it then sets."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.function = Named(function) if isinstance(function, str) else function
        self.arguments, self.state = arguments, state


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
    reconstruct = "numpy.core.multiarray._reconstruct"
    numbers = (None, None, None, -1, -1, 0)
    """The state of a dtype behind its byte order."""

    def __init__(self) -> None:
        self.floats = self.dtype("f4", 3, "<", *self.numbers)
        self.objects = self.dtype("O8", 3, "|", None, None, None, 8, 8, 63)
        self.ndarray = Named("numpy.ndarray")

    def __call__(self, thing: object, protocol: int = 2) -> bytes:
        stream = io.BytesIO()
        Forger(stream, protocol).dump(thing)
        return stream.getvalue()

    def pickled(self, thing: Any) -> bytes:
        return thing if isinstance(thing, bytes) else self(thing)

    def dtype(self, code: str, *state: object) -> Made:
        return Made("numpy.dtype", code, False, True, state=state or None)

    def array(self, shape: object, dtype: object, data: object) -> Made:
        state = (1, shape, dtype, False, data)
        return Made(self.reconstruct, self.ndarray, (0,), b"b", state=state)

    def saved(self, thing: object, *, zipped: bool) -> bytes:
        """What ``torch.save`` writes, today or before torch 1.6."""
        stream = io.BytesIO()
        torch.save(thing, stream, _use_new_zipfile_serialization=zipped)
        return stream.getvalue()

    def within(self, thing: object, *, zipped: bool = False) -> Made:
        """A file of torch inside of a pickle, as the storages of pickled tensors are."""
        return Made("torch.storage._load_from_bytes", self.saved(thing, zipped=zipped))

    def tensor(self, size: object, stride: object, offset: object = 0) -> Made:
        """A tensor on a storage of four values."""
        rebuild = "torch._utils._rebuild_tensor_v2"
        return Made(rebuild, self.within(self.storage(4)), offset, size, stride, False, {})

    def storage(self, size: int) -> Any:
        values = torch.zeros(size)
        return torch.storage.TypedStorage(
            wrap_storage=values.untyped_storage(), dtype=values.dtype, _internal=True
        )


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], Any]:
    """(pickle) -> what is read from a file of it."""

    def read(data: bytes) -> Any:
        path = tmp_path / "it.pkl"
        path.write_bytes(data)
        return load_pickle(path)

    return read


@pytest.fixture
def refusal(opened: Callable[[bytes], Any], tmp_path: Path) -> Callable[[bytes], str]:
    """(pickle) -> why it is not read: one problem, with its file."""

    def message(data: bytes) -> str:
        with pytest.raises(InputError) as caught:
            opened(data)
        (problem,) = caught.value.problems
        assert problem.place == str(tmp_path / "it.pkl")
        return str(problem)

    return message
