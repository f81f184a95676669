"""A run whose space has fewer units is a run like any other."""

import json

import pytest
import torch

from continual_mm.comparison.compare import compare
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Kind
from continual_mm.definitions.scenario import (
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    TowerSettings,
    Training,
)
from continual_mm.runs.compress import compress
from continual_mm.runs.consolidation import consolidate
from continual_mm.runs.merge import merge
from continual_mm.runs.run import open_run, run
from continual_mm.runs.status import statuses
from continual_mm.system.errors import InputError

NAIVE, GROWING = Strategy(name="naive"), Strategy(name="expand", plugins={"expand": {}})


def scenario(name="two", **changes):
    given = {
        "name": name,
        "space": SpaceSettings(dim=16, clusters=4, width=8, depth=1, feature_dropout=0.0),
        "training": Training(steps=30, batch_size=20, learning_rate=1e-2),
        "stages": (Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    }
    return Scenario(**given | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(dataset):
    """Video has a time axis, and so towers with hidden units; audio and text are vectors."""
    columns = {name: dataset.columns[name].values for name in ("video", "audio", "text")}
    columns["video"] = columns["video"].reshape(-1, 4, 2)
    kinds = {"video": Kind.FRAMES}
    return Dataset.from_arrays(columns, split=dataset.split, kinds=kinds)


@pytest.fixture(scope="module")
def trained(folder, data):
    """(strategy, scenario) -> the folder of its run."""

    def train(strategy=NAIVE, which=None, **options):
        which = which or scenario()
        run(which, strategy, data, folder, device="cpu", board=False, **options)
        return folder / which.name / strategy.name / "seed-0"

    return train


@pytest.fixture(scope="module")
def naive(trained):
    return trained()


@pytest.fixture(scope="module")
def half(naive, folder, data):
    return compress(naive, folder / "half", keep=0.5, dataset=data, device="cpu")


def scores(folder):
    return json.loads((folder / "scores.json").read_text())


@pytest.mark.parametrize("strategy", [NAIVE, GROWING], ids=["naive", "grown"])
def test_where_all_units_are_kept_it_scores_as_before(strategy, trained, folder, data):
    """Recalls, indexes of all modalities and of earlier vectors, and drift."""
    source, to = trained(strategy), folder / f"whole-{strategy.name}"
    found = compress(source, to, keep=1.0, units="all", dataset=data, device="cpu")
    before, after = scores(source), scores(to)
    for key in ("evaluations", "indexes", "pairs", "stages"):
        assert after[key] == before[key]
    assert len(after["geometry"]) == len(before["geometry"])
    for one, other in zip(after["geometry"], before["geometry"], strict=True):
        assert one["plan_drift"] == pytest.approx(other["plan_drift"], abs=1e-6)
        assert one["moved"] == pytest.approx(other["moved"], abs=1e-6)
    assert all(one == other for one, other in found.recalls.values())
    old, new = (open_run(each).state_dict() for each in (source, to))
    assert all(torch.equal(new[name], value) for name, value in old.items())


def test_what_is_written_is_a_run_like_any_other(half, naive, folder, trained, data):
    (status,) = statuses([half.folder])
    assert (status.state, status.stage, status.stages) == ("finished", 2, 2)
    assert "interpolative of 32 units to 16" in status.choices[0].note
    (report,) = compare([naive, half.folder]).reports.values()
    assert {row.strategy for row in report.rows} == {"naive", "naive_interpolative_50"}
    further = scenario("further", start=str(half.folder), stages=(Stage(pairs=("audio-text",)),))
    went_on = open_run(trained(which=further))
    assert went_on.tower("video").trunk.stem.weight.shape == (8, 2)
    less = consolidate(half.folder, 8, dataset=data, to=folder / "less", device="cpu")
    assert open_run(less.folder).size == 8
    with pytest.raises(InputError, match="its vectors were reduced; give the run that it was made"):
        compress(less.folder, folder / "none", dataset=data)
    merged = merge(naive, half.folder, folder / "merged", datasets=[data], device="cpu")
    assert open_run(merged.folder).tower("video").trunk.stem.weight.shape == (16, 2)
    onto = merge(half.folder, naive, folder / "onto", datasets=[data], device="cpu")
    assert open_run(onto.folder).tower("video").trunk.stem.weight.shape == (8, 2)
    for pair in ((naive, half.folder), (half.folder, naive)):
        with pytest.raises(InputError, match="fewer units than there are to average"):
            how = {"shared": "average", "align": "transport", "datasets": [data]}
            merge(*pair, folder / "none", **how)
    again = compress(half.folder, folder / "quarter", keep=0.5, dataset=data, device="cpu")
    assert again.name == "two/naive_interpolative_50_interpolative_50/seed-0"
    assert open_run(again.folder).tower("video").trunk.stem.weight.shape == (4, 2)


def test_the_run_itself_stays_as_it_is(half, naive):
    assert open_run(naive).tower("video").trunk.stem.weight.shape == (16, 2)
    assert half.roles == {"audio-video": "old", "text-video": "new", "audio-text": "emergent"}
    before = [one for one in scores(naive)["evaluations"] if one["stage"] == 1]
    assert [one for one in scores(half.folder)["evaluations"] if one["stage"] == 1] == before
    ranks = "ranks/stage-1.npz"
    assert (half.folder / ranks).read_bytes() == (naive / ranks).read_bytes()


def test_recalls_are_those_of_the_space_that_is_opened(half, data):
    space, rows = open_run(half.folder), slice(100, 120)
    video, text = (
        space.encode(name, data.columns[name].values[rows], standardised=True)
        for name in ("video", "text")
    )
    right = (video @ text.T).argmax(1) == torch.arange(20)
    back = (text @ video.T).argmax(1) == torch.arange(20)
    recall = (right.float().mean() + back.float().mean()) / 2
    assert half.recalls["text-video"][1] == pytest.approx(float(recall))


def test_a_grown_space_has_smaller_vectors_of_all_modalities(trained, folder, data):
    found = compress(
        trained(GROWING), folder / "grown", units="embedding", dataset=data, device="cpu"
    )
    space = open_run(found.folder)
    assert space.settings.dim == 8
    appended = sum(each.width for each in space.grown)
    for name in ("video", "audio", "text"):
        encoded = space.encode(name, data.columns[name].values[:3], standardised=True)
        assert encoded.shape == (3, 8 + appended)
    assert found.name == "two/expand_interpolative_50_embedding/seed-0"


def test_a_tower_of_ones_own_needs_its_module_and_stays(trained, folder, data):
    own = {"audio": torch.nn.Sequential(torch.nn.Linear(7, 9), torch.nn.ReLU())}
    source = trained(which=scenario("own"), towers=own)
    found = compress(source, folder / "own-half", dataset=data, towers=own, device="cpu")
    assert "hidden units of audio stay" in found.space.notes[0]
    with pytest.raises(InputError, match="Sequential': is not installed"):
        compress(source, folder / "none", dataset=data)


def test_what_cannot_be_compressed_is_refused_in_a_line(naive, trained, folder, data, typed):
    identity = scenario(
        "as-it-is",
        space=SpaceSettings(dim=7, clusters=4),
        towers={"audio": TowerSettings(kind="identity", trained=False)},
        standardise=("video", "text"),
    )
    given = Dataset.from_arrays(
        {name: data.columns[name].values for name in ("video", "audio", "text")},
        split=data.split,
        kinds={"video": Kind.FRAMES},
        standardise=("video", "text"),
    )
    run(identity, NAIVE, given, folder, device="cpu", board=False)
    to = folder / "none"
    with pytest.raises(InputError, match="audio gives embeddings of its own size; give --units hi"):
        compress(folder / "as-it-is/naive/seed-0", to, units="all", dataset=given)
    adapted = trained(Strategy(name="pair_lora", plugins={"pair_lora": {}}))
    with pytest.raises(InputError, match="an item has a vector for each pair"):
        compress(adapted, to, dataset=data)
    with pytest.raises(InputError, match="is not what the run was trained on"):
        other = Dataset.from_arrays({"video": data.columns["video"].values}, split=data.split)
        compress(naive, to, dataset=other)
    for keep in (0, -1, 1.5, float("nan")):
        with pytest.raises(InputError, match=rf"keep: {keep} is no share of units"):
            compress(naive, to, keep=keep, dataset=data)
    with pytest.raises(InputError, match=r"compress\(method=.*'best' is none of 'interpolative'"):
        compress(naive, to, method="best")
    assert not to.exists()
    for words in (["--keep", "0"], ["--keep", "nan"], ["--method", "best"], ["--units", "none"]):
        assert typed("compress", naive, "--to", to, *words).code == 2
    done = typed("compress", folder, "--to", to)
    assert done.code == 2
    assert "no finished run in this folder; give the folder of a finished seed" in done.err
    assert typed("compress", naive, "--to", naive, "--dataset", "nowhere.npz").code == 2


def test_vectors_alone_have_no_hidden_units(folder, written, typed):
    from continual_mm.data.registry import load

    pack = written(folder / "pack.npz")
    which = scenario("vectors", dataset=str(pack))
    run(which, NAIVE, load(str(pack)), folder, device="cpu", board=False)
    source = folder / "vectors" / "naive" / "seed-0"
    done = typed("compress", source, "--to", folder / "none")
    assert done.code == 2
    assert "has no hidden units; give --units embedding" in done.err
    done = typed("compress", source, "--to", folder / "typed", "--units", "embedding")
    assert done.code == 0
    assert "vectors/naive_interpolative_50_embedding/seed-0" in done.out
    assert "weights of encoders and subspaces left" in done.out
    to = folder / "as-json"
    done = typed("compress", source, "--to", to, "--units", "all", "--format", "json")
    found = json.loads(done.out)
    assert found["pairs"]["audio-text"]["role"] == "emergent"
    assert found["groups"] == {"embedding": [16, 8]}
    assert typed("compress", source, "--to", to, "--units", "all").code == 2
