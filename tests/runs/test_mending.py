"""Whatever of a run's folder is lost or changed is told in a line, and made again by the run."""

import json
import re
import shutil

import numpy as np
import pytest

from continual_mm.comparison.compare import compare
from continual_mm.data.dataset import Dataset
from continual_mm.runs.finished import is_whole
from continual_mm.runs.run import open_run, run
from continual_mm.runs.specification import Specification, opened
from continual_mm.runs.status import statuses
from continual_mm.system.errors import InputError

SEED = "small/replay/seed-0"


@pytest.fixture(scope="module")
def dataset(features):
    return Dataset.from_arrays(features(), split=np.repeat([0, 1, 2], 30))


@pytest.fixture(scope="module")
def original(scenario, dataset, replay, tmp_path_factory):
    """A folder of runs with a finished one."""
    out = tmp_path_factory.mktemp("runs")
    run(scenario, replay, dataset, out, device="cpu")
    return out


@pytest.fixture
def out(original, tmp_path):
    """A copy of it to damage."""
    shutil.copytree(original, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def again(scenario, dataset, replay, out):
    """Gives the run's command again."""
    return lambda **options: run(scenario, replay, dataset, out, device="cpu", **options)


def unchanged(path):
    """What a file says, but for times that passed."""
    return re.sub(rb'"(seconds|peak_memory_bytes|checksum)": [^,\n]*', b"", path.read_bytes())


def delete(path):
    path.unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


FILES = ("scores.json", "cost.json", "definition.json", "ranks/stage-1.npz", "ranks/stage-2.npz")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [delete, flip, empty])
def test_a_result_that_is_lost_is_told_and_made_again_bit_for_bit(
    out, original, again, file, damage
):
    path = out / SEED / file
    damage(path)
    if (damage, file) != (delete, "cost.json"):
        (told,) = statuses([out])
        assert (told.state, told.error.partition(": ")[0]) == ("damaged", str(path))
        with pytest.raises(InputError, match=re.escape(str(path))):
            compare([out])
    again()
    assert unchanged(path) == unchanged(original / SEED / file)
    assert statuses([out])[0].state == "finished"
    if file != "cost.json":  # which has another time
        assert compare([out]).reports == compare([original]).reports


def test_a_score_changed_by_hand_is_noticed_wherever_it_is_read(
    out, again, scenario, replay, dataset
):
    for file in ("scores.json", "checkpoints/stage-2/state.json"):
        path = out / SEED / file
        changed = re.sub(r'"recall@1": [\d.]+', '"recall@1": 0.999', path.read_text(), count=1)
        path.write_text(changed)
        assert json.loads(changed)
    with pytest.raises(InputError, match=r"scores\.json: is damaged: it was changed after"):
        compare([out])
    with pytest.raises(InputError, match=r"state\.json: is damaged: it was changed after"):
        again()
    assert statuses([out])[0].state == "damaged"
    (out / SEED / "cost.json").unlink()
    shutil.rmtree(out / SEED / "checkpoints" / "stage-2")
    again()
    assert "0.999" not in (out / SEED / "scores.json").read_text()


def test_what_the_refusal_of_a_damaged_checkpoint_advises_can_be_followed(out, original, again):
    checkpoint = out / SEED / "checkpoints" / "stage-2"
    flip(checkpoint / "space.safetensors")
    with pytest.raises(InputError) as caught:
        open_run(out / SEED)
    assert "remove this checkpoint's folder, and the run's cost.json" in str(caught.value)
    shutil.rmtree(checkpoint)
    (out / SEED / "cost.json").unlink()
    again()
    for name in ("space.safetensors", "state.safetensors"):
        path = f"{SEED}/checkpoints/stage-2/{name}"
        assert (out / path).read_bytes() == (original / path).read_bytes()


def test_a_run_without_its_definition_is_found_and_goes_on_only_as_what_it_was(
    out, scenario, replay, dataset, changed
):
    (out / SEED / "definition.json").unlink()
    assert statuses([out])[0].state == "damaged"
    with pytest.raises(InputError, match=r"steps was 9, is 5"):
        run(changed(scenario, steps=5), replay, dataset, out, device="cpu")
    assert not (out / SEED / "definition.json").exists()


def test_a_run_of_an_earlier_version_has_no_checksums_and_is_read_as_before(
    out, original, again, scenario, replay, dataset
):
    for path in out.rglob("*.json"):
        value = json.loads(path.read_text())
        value.pop("checksum", None)
        value.pop("ranks", None)
        value.get("notes", {}).pop("ranks", None)
        value.pop("definition", None)
        path.write_text(json.dumps(value))
    assert is_whole(out / SEED)
    assert compare([out]).reports == compare([original]).reports
    (out / SEED / "scores.json").unlink()
    flip(out / SEED / "ranks" / "stage-1.npz")
    again()
    assert compare([out]).reports == compare([original]).reports


def test_a_damaged_run_is_taken_up_by_the_command_that_skips_finished_ones(
    tmp_path, written, scenario_text, typed
):
    written(tmp_path / "mine.npz")
    (tmp_path / "mine.toml").write_text(scenario_text)
    command = ["run", tmp_path / "mine.toml", "--out", tmp_path / "runs", "--device", "cpu"]
    assert typed(*command).code == 0
    scores = tmp_path / "runs" / "mine" / "naive" / "seed-0" / "scores.json"
    before = scores.read_bytes()
    scores.unlink()
    shown = typed(*command)
    assert shown.code == 0
    assert f"{scores} was missing or damaged, and is made again" in shown.err
    assert scores.read_bytes() == before


def test_a_specification_says_what_a_checkpoint_holds(out, scenario, replay, dataset):
    state = json.loads((out / SEED / "checkpoints" / "stage-1" / "state.json").read_text())
    assert state["definition"] == Specification(opened(scenario, dataset.card), replay).identity
