"""Pickles as no program writes them: names, calls and states of any kind."""

import io
import pickle

import pytest
import torch

from continual_mm.preparation.formats.pickles import load_pickle
from continual_mm.system.errors import InputError


class Named:
    """A function or class of any name, whether or not it is installed."""

    def __init__(self, name):
        self.module, _, self.name = name.rpartition(".")


class Made:
    """What a pickle gets by a call, and what state it then sets."""

    def __init__(self, function, *arguments, state=None):
        self.function = Named(function) if isinstance(function, str) else function
        self.arguments, self.state = arguments, state


class Forger(pickle._Pickler):
    """Python's own pickler, which also writes names and calls that are not there."""

    def save(self, obj, save_persistent_id=True):
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

    def __init__(self):
        self.floats = self.dtype("f4", 3, "<", *self.numbers)
        self.objects = self.dtype("O8", 3, "|", None, None, None, 8, 8, 63)
        self.ndarray = Named("numpy.ndarray")

    def __call__(self, thing, protocol=2):
        stream = io.BytesIO()
        Forger(stream, protocol).dump(thing)
        return stream.getvalue()

    def pickled(self, thing):
        return thing if isinstance(thing, bytes) else self(thing)

    def dtype(self, code, *state):
        return Made("numpy.dtype", code, False, True, state=state or None)

    def array(self, shape, dtype, data):
        state = (1, shape, dtype, False, data)
        return Made(self.reconstruct, self.ndarray, (0,), b"b", state=state)

    def saved(self, thing, *, zipped):
        """What ``torch.save`` writes, today or before torch 1.6."""
        stream = io.BytesIO()
        torch.save(thing, stream, _use_new_zipfile_serialization=zipped)
        return stream.getvalue()

    def within(self, thing, *, zipped=False):
        """A file of torch inside of a pickle, as the storages of pickled tensors are."""
        return Made("torch.storage._load_from_bytes", self.saved(thing, zipped=zipped))

    def tensor(self, size, stride, offset=0):
        """A tensor on a storage of four values."""
        rebuild = "torch._utils._rebuild_tensor_v2"
        return Made(rebuild, self.within(self.storage(4)), offset, size, stride, False, {})

    def storage(self, size):
        values = torch.zeros(size)
        return torch.storage.TypedStorage(
            wrap_storage=values.untyped_storage(), dtype=values.dtype, _internal=True
        )


@pytest.fixture(scope="session")
def forge():
    return Forge()


@pytest.fixture
def opened(tmp_path):
    """(pickle) -> what is read from a file of it."""

    def read(data):
        path = tmp_path / "it.pkl"
        path.write_bytes(data)
        return load_pickle(path)

    return read


@pytest.fixture
def refusal(opened, tmp_path):
    """(pickle) -> why it is not read: one problem, with its file."""

    def message(data):
        with pytest.raises(InputError) as caught:
            opened(data)
        (problem,) = caught.value.problems
        assert problem.place == str(tmp_path / "it.pkl")
        return str(problem)

    return message
