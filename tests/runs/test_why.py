"""What is said of why a run forgot."""

import json

import pytest
import torch
from safetensors.torch import load_file

from continual_mm.definitions.scenario import Strategy
from continual_mm.runs import records
from continual_mm.runs.run import run
from continual_mm.runs.why import Reasons, cause, layer_changes, reasons_of
from continual_mm.system.errors import InputError


@pytest.fixture(scope="module")
def folders(scenario, dataset, changed, tmp_path_factory):
    """Naive and frozen runs of two stages."""
    out = tmp_path_factory.mktemp("why")
    sizes = {"dim": 8, "clusters": 3, "refresh_every": 4, "stages": scenario.stages[:2]}
    small = changed(scenario, **sizes, steps=9, batch_size=8)
    frozen = Strategy(name="freeze", plugins={"freeze": {}})
    for strategy in (Strategy(name="naive"), frozen, Strategy(name="joint", joint=True)):
        run(small, strategy, dataset, out, device="cpu")
    return {name: out / "small" / name / "seed-0" for name in ("naive", "freeze", "joint")}


def test_the_command_names_pairs_what_changed_and_layers(folders, typed):
    answer = typed("why", folders["naive"])
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("small/naive/seed-0: old pairs in stage 2 (+ ")
    assert "similarities changed: between" in answer.out
    assert "layers that moved most" in answer.out
    assert (
        "no layer of the encoders that were there has changed"
        in typed("why", folders["freeze"]).out
    )


def test_freezing_changes_nothing_between_inside_or_in_layers(folders):
    found = reasons_of(folders["freeze"])
    for pair in found.diagnosis.pairs.values():
        assert (pair.between, pair.broken, pair.mended) == (0, 0, 0)
    assert {one.change for one in found.layers} == {0.0}
    assert all(cause(name, found) == "nothing was forgotten" for name in found.diagnosis.pairs)


def test_layers_change_by_the_length_of_what_changed_over_their_own(folders):
    before, after = (folders["naive"] / "checkpoints" / f"stage-{n}" for n in (1, 2))
    (old, new) = (load_file(each / "space.safetensors") for each in (before, after))
    found = {(one.modality, one.layer): one.change for one in layer_changes(before, after)}
    (modality, layer), change = next(iter(found.items()))
    parts = [name for name in old if name.rpartition(".")[0] == f"encoders.{modality}.{layer}"]
    moved, length = (torch.cat([each[n].flatten() for n in parts]).double() for each in (new, old))
    assert change == pytest.approx(float((moved - length).norm() / length.norm()))
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert layer_changes(before, after.parent / "stage-9") == []


def test_the_json_has_every_figure_and_the_cause(folders, typed):
    value = json.loads(typed("why", folders["naive"], "--format", "json").out)
    assert list(value) == ["run", "stage", "split", "pairs", "modalities", "geometry", "layers"]
    scores = json.loads((folders["naive"] / "scores.json").read_text(encoding="utf-8"))
    (pair,) = value["pairs"]
    assert value["pairs"][pair].pop("cause")
    assert value["pairs"][pair] == scores["diagnosis"][-1]["pairs"][pair]


@pytest.mark.parametrize(
    ("name", "words", "problem"),
    [
        ("joint", (), "nothing is recorded of old pairs"),
        ("naive", ("--stage", "7"), "stage 7 has no record of why; stages that end with old"),
        ("..", (), "no run in this folder"),
    ],
)
def test_where_there_is_no_record_the_command_says_so(folders, typed, name, words, problem):
    answer = typed("why", folders.get(name, folders["naive"].parent), *words)
    assert answer.code == 2
    assert problem in answer.err


def planted(between, audio, video, recall=(0.5, 0.2)):
    """Reasons with such figures of one pair."""
    pair = records.PairDiagnosisRecord(
        between=between, partners=(0.9, 0.5), recall=recall, broken=3, mended=0, hubness={}
    )
    inside = {"audio": audio, "video": video}
    modalities = {n: records.ModalityDiagnosisRecord(inside=v, cka=0.5) for n, v in inside.items()}
    record = records.DiagnosisRecord(
        stage=2, step=1, final=True, pairs={"audio-video": pair}, modalities=modalities
    )
    return Reasons("run", 2, (), "test", record, None, {})


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((0.6, 0.0, 0.0), "audio and video turned away from one another, each as a whole"),
        ((0.6, 0.0, 0.5), "video was rearranged inside, audio was not"),
        ((0.6, 0.5, 0.5), "audio and video were both rearranged inside"),
        ((0.02, 0.0, 0.01), "similarities hardly changed"),
    ],
)
def test_the_cause_is_what_was_planted(figures, said):
    assert cause("audio-video", planted(*figures)).startswith(said)
    assert cause("audio-video", planted(*figures, recall=(0.2, 0.2))) == "nothing was forgotten"


def test_a_damaged_checkpoint_is_refused(folders, tmp_path):
    for name in ("stage-1", "stage-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "space.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        layer_changes(tmp_path / "stage-1", tmp_path / "stage-2")
