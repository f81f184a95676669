"""Weights from files that run nothing."""

import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from continual_mm.data.weights import read_weights
from continual_mm.system.errors import InputError

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.steps": torch.tensor(3)}


def assert_read(path):
    found = read_weights(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


def test_a_safetensors_file_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert_read(tmp_path / "w.safetensors")


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_a_torch_file_is_read_whatever_wraps_the_state_dict(tmp_path, key):
    contents = TENSORS if key is None else {"epoch": 3, key: TENSORS, "optimizer": {"lr": 1.0}}
    torch.save(contents, tmp_path / "w.pth")
    assert_read(tmp_path / "w.pth")


class Surprise:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a.weight": Surprise()}, "w.pth")
    (tmp_path / "p.pth").write_bytes(pickle.dumps({"a.weight": Surprise()}))
    for name in ("w.pth", "p.pth"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read as weights"):
            read_weights(Path(name))
    assert not Path("touched").exists()


@pytest.mark.filterwarnings("error")
def test_a_refusal_gives_no_advice_to_run_what_is_in_a_file(tmp_path):
    torch.save({"a.weight": Surprise()}, tmp_path / "code.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    (tmp_path / "notes.pth").write_text("hello\n")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=r"no file that torch\.save wrote; give a") as error:
            read_weights(path)
        assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_what_is_no_file_of_weights_is_refused(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(InputError, match="cannot be read as weights"):
        read_weights(path)
    rng = random.Random(0)
    for rubbish in (b"", b"rubbish" * 50, *(rng.randbytes(60) for _ in range(300))):
        path.write_bytes(rubbish)
        with pytest.raises(InputError, match="cannot be read as weights"):
            read_weights(path)


@pytest.mark.parametrize("contents", [[torch.ones(2)], {"a": torch.ones(2), "b": 3}])
def test_what_holds_no_state_dict_is_refused(tmp_path, contents):
    torch.save(contents, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")


def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"mask": torch.tensor([0.0, -torch.inf]), "steps": torch.tensor(3)}, path)
    assert len(read_weights(path)) == 2
    save_file({"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])}, path)
    with pytest.raises(InputError, match=r"w\.safetensors: holds NaN in 'b'; save"):
        read_weights(path)
