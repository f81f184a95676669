"""Two runs that share a modality become one run folder like any other."""

import json

import numpy as np
import pytest
import torch

from continual_mm.comparison.compare import compare
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Strategy, Training
from continual_mm.runs.consolidation import consolidate
from continual_mm.runs.merge import merge
from continual_mm.runs.run import open_run, run
from continual_mm.runs.status import statuses
from continual_mm.system.errors import InputError

NAIVE = Strategy(name="naive")


def scenario(name, *added, pairs=None, **space):
    sizes = {"dim": 16, "clusters": 4, "feature_dropout": 0.0} | space
    return Scenario(
        name=name,
        space=SpaceSettings(**sizes),
        training=Training(steps=30, batch_size=20, learning_rate=1e-2),
        stages=(Stage(add=added, pairs=pairs),),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained(folder, dataset):
    """(scenario; strategy, dataset) -> the folder of its run."""

    def train(which, strategy=NAIVE, data=dataset, **options):
        run(which, strategy, data, folder, device="cpu", board=False, **options)
        return folder / which.name / strategy.name / "seed-0"

    return train


@pytest.fixture(scope="module")
def first(trained):
    return trained(scenario("vt", "video", "text"))


@pytest.fixture(scope="module")
def second(trained):
    return trained(scenario("at", "audio", "text"))


@pytest.fixture(scope="module")
def merged(first, second, folder, dataset):
    return merge(first, second, folder / "merged", datasets=[dataset], device="cpu")


def recalls(folder, stage):
    """Pair and direction -> R@1 on test items."""
    scores = json.loads((folder / "scores.json").read_text())["evaluations"]
    return {
        (one["pair"], one["direction"]): one["recall@1"]
        for one in scores
        if one["split"] == "test" and one["stage"] == stage
    }


def test_trained_pairs_are_old_and_the_one_that_never_met_is_emergent(merged):
    assert merged.roles == {"audio-text": "old", "text-video": "old", "audio-video": "emergent"}
    assert merged.alignment.items == 80
    assert merged.alignment.modalities == ("text",)
    assert merged.alignment.after < merged.alignment.before


def test_before_the_merge_each_pair_scores_as_in_its_own_run(first, second, merged):
    apart = recalls(merged.folder, 2)
    for source in (first, second):
        for key, value in recalls(source, 1).items():
            assert apart[key] == value


def test_the_pair_of_the_first_run_scores_as_before_where_its_tower_is_kept(first, merged):
    for key, value in recalls(first, 1).items():
        assert recalls(merged.folder, 3)[key] == value


def test_embeddings_of_the_first_run_keep_every_bit(first, merged, dataset):
    old, new = open_run(first), open_run(merged.folder)
    for name in ("video", "text"):
        values = dataset.columns[name].values
        assert torch.equal(old.encode(name, values), new.encode(name, values))


def test_pairs_that_never_met_are_found_better_than_by_chance(merged):
    apart, after = merged.recalls["audio-video"]
    assert after > 3 / 20 > apart or after > apart + 0.1


def test_a_run_merged_with_itself_embeds_as_before(first, folder, dataset):
    for align, shared in (("procrustes", "keep-both"), ("transport", "average")):
        to = folder / f"self-{shared}"
        merge(first, first, to, align=align, shared=shared, datasets=[dataset], device="cpu")
        values = dataset.columns["text"].values
        torch.testing.assert_close(
            open_run(to).encode("text", values), open_run(first).encode("text", values)
        )


def test_the_roles_swap_with_the_order(first, second, merged, folder, dataset):
    """Similarities of the pair that never met: turned one way or back, they are the same."""
    other = merge(second, first, folder / "swapped", datasets=[dataset], device="cpu")
    assert other.name == "at+vt/merge_procrustes_keep_a/seed-0"
    similar = []
    for each in (merged.folder, other.folder):
        space = open_run(each)
        video, audio = (
            space.encode(n, dataset.columns[n].values, standardised=True)
            for n in ("video", "audio")
        )
        similar.append(video @ audio.T)
    torch.testing.assert_close(*similar, atol=1e-4, rtol=1e-4)


def test_it_is_a_run_like_any_other(merged, folder, dataset, trained):
    (status,) = statuses([merged.folder])
    assert status.state == "finished"
    assert status.stage == status.stages == 3
    assert "aligned by procrustes" in status.choices[0].note
    (report,) = compare([merged.folder]).reports.values()
    assert report.rows[0].strategy == "merge_procrustes_keep_a"
    further = Scenario(
        name="further",
        start=str(merged.folder),
        space=SpaceSettings(**open_run(merged.folder).settings.model_dump()),
        training=Training(steps=5, batch_size=20),
        stages=(Stage(add=("depth",)), Stage(pairs=("audio-video",))),
    )
    space = open_run(trained(further))
    assert space.describe()["merged"] == {"audio": 1}
    assert {modality.name for modality in space.modalities} == {"video", "audio", "text", "depth"}
    less = consolidate(merged.folder, 8, dataset=dataset, to=folder / "less", device="cpu")
    assert open_run(less.folder).size == 8
    with pytest.raises(InputError, match="its vectors were reduced"):
        merge(less.folder, merged.folder, folder / "none", datasets=[dataset], device="cpu")


def test_runs_on_two_datasets_that_show_one_modality_alike(first, folder, dataset, trained):
    """No item has video and audio, so this pair is not scored."""
    columns = {name: dataset.columns[name].values for name in ("audio", "text")}
    plain = Dataset.from_arrays(columns, split=dataset.split, standardise=dataset.statistics)
    at = trained(scenario("elsewhere", "audio", "text"), data=plain)
    found = merge(first, at, folder / "two", datasets=[dataset, plain], device="cpu")
    assert found.recalls.keys() == {"audio-text", "audio-video", "text-video"}
    lone = Dataset.from_arrays(
        {name: dataset.columns[name].values for name in ("video", "text")},
        split=dataset.split,
        standardise=dataset.statistics,
    )
    vt = trained(scenario("alone", "video", "text"), data=lone)
    found = merge(vt, at, folder / "apart", datasets=[lone, plain], device="cpu")
    assert found.recalls.keys() == {"audio-text", "text-video"}
    assert found.alignment.items == 160


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (scenario("va", "video", "audio", dim=8), "space.dim is 8, but 16 in the first run"),
        (scenario("da", "depth", "audio"), r"shares no modality .*\(?video, text against depth"),
        (
            scenario("published", "text", "audio", mode="reference"),
            "space.mode is 'reference', but 'robust' in the first run",
        ),
        (scenario("wide", "text", "audio", reconstruction_width=5), "reconstruction_width is 5"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(other, problem, first, folder, dataset, trained):
    with pytest.raises(InputError, match=problem):
        merge(first, trained(other), folder / "none", datasets=[dataset], device="cpu")
    assert not (folder / "none").exists()


def test_other_statistics_or_another_form_of_the_shared_modality_are_refused(
    first, folder, dataset, trained
):
    columns = {name: dataset.columns[name].values for name in ("audio", "text")}
    moved = {**columns, "text": columns["text"] * 3 + 1}
    short = {**columns, "text": columns["text"][:, :4]}
    for name, arrays, problem in (
        ("moved", moved, "text was standardised by other statistics"),
        ("short", short, r"text is vector \(4,\), but vector \(5,\) before"),
    ):
        data = Dataset.from_arrays(arrays, split=dataset.split)
        at = trained(scenario(name, "audio", "text"), data=data)
        with pytest.raises(InputError, match=problem):
            merge(first, at, folder / "none", datasets=[dataset, data], device="cpu")


def test_spaces_without_one_vector_or_that_grew_are_refused(first, folder, dataset, trained):
    two = scenario("grown", "audio", "text")
    two = two.model_copy(update={"stages": (*two.stages, Stage(add=("depth",)))})
    grown = trained(two, Strategy(name="expand", plugins={"expand": {}}))
    with pytest.raises(InputError, match="second run's space has grown; give it as the first"):
        merge(first, grown, folder / "none", datasets=[dataset], device="cpu")
    with pytest.raises(InputError, match="a grown space reads its own encoders"):
        merge(grown, first, folder / "none", shared="keep-both", datasets=[dataset], device="cpu")
    merge(grown, first, folder / "onto-grown", datasets=[dataset], device="cpu")
    adapted = trained(two, Strategy(name="pair_lora", plugins={"pair_lora": {}}))
    with pytest.raises(InputError, match="a vector for each pair"):
        merge(adapted, first, folder / "none", datasets=[dataset], device="cpu")


def test_unknown_words_are_refused_from_python_too(first, folder):
    with pytest.raises(InputError, match=r"merge\(align=.*'up' is none of 'procrustes', 'tr"):
        merge(first, first, folder / "none", align="up")
    with pytest.raises(InputError, match=r"merge\(shared=.*'all' is none of"):
        merge(first, first, folder / "none", shared="all")


def test_what_is_no_run_is_refused_in_a_line(first, folder, dataset, typed):
    for wrong in (folder / "missing", folder):
        done = typed("merge", first, wrong, "--to", folder / "none")
        assert done.code == 2
        assert "no finished run in this folder; give the folder of a finished seed" in done.err
    done = typed("merge", first, first, "--to", folder / "none", "--shared", "average")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    done = typed("merge", first, first, "--to", first, "--dataset", "nowhere.npz")
    assert done.code == 2


def test_the_command_says_what_became_of_the_pairs(first, folder, typed, written, features):
    pack = written(folder / "pack.npz")
    runs = []
    for name, other in (("pv", "video"), ("pa", "audio")):
        which = scenario(name, other, "text").model_copy(update={"dataset": str(pack)})
        from continual_mm.data.registry import load

        run(which, NAIVE, load(str(pack)), folder, device="cpu", board=False)
        runs.append(folder / name / "naive" / "seed-0")
    done = typed("merge", *runs, "--to", folder / "typed", "--shared", "keep-both")
    assert done.code == 0
    assert "aligned by procrustes on 30 embeddings of text" in done.out
    assert "emergent" in done.out
    done = typed(
        "merge", *runs, "--to", folder / "as-json", "--align", "transport", "--format", "json"
    )
    found = json.loads(done.out)
    assert found["pairs"]["audio-video"]["role"] == "emergent"
    assert found["alignment"]["align"] == "transport"
    done = typed("merge", *runs, "--to", folder / "typed")
    assert done.code == 2
    assert np.isfinite(found["alignment"]["after"])
