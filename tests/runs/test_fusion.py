"""Runs in a space whose modalities share a transformer, from the files to the vectors."""

import json

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.comparison.protocols import compare_protocol
from continual_mm.definitions.catalog import find
from continual_mm.integrations.sentence_transformers import Space
from continual_mm.runs.opening import open_scenario
from continual_mm.runs.run import open_run, run

SPACE = """
[space]
kind = "fusion"
dim = 8
token_width = 8
term_weights = {"text-audio+video" = 0.5}
"""
REST = """
[training]
steps = 6
batch_size = 16

[[stage]]
add = ["video", "text"]

[[stage]]
add = ["audio"]

[[protocol]]
name = "both"
query = ["text"]
gallery = ["video", "audio"]
partial = true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, written):
    """A folder with a pack in which every fifth item has no sound, and a scenario of it."""
    folder = tmp_path_factory.mktemp("fusion")
    written(folder / "pack.npz", audio_present=np.arange(90) % 5 > 0)
    (folder / "mine.toml").write_text(f'dataset = "pack.npz"\n{SPACE}{REST}')
    return folder


def trained(folder, typed, *words, out="runs"):
    found = typed("run", folder / "mine.toml", "--out", folder / out, "--device", "cpu", *words)
    assert found.code == 0, found.err
    return folder / out / "mine"


def test_a_run_is_trained_scored_compared_and_opened(folder, typed):
    done = trained(folder, typed, "--strategy", "naive", "--strategy", "freeze")
    scores = json.loads((done / "naive" / "seed-0" / "scores.json").read_text())
    assert {one["pair"] for one in scores["evaluations"]} == {
        "audio-text",
        "audio-video",
        "text-video",
    }
    (both,) = {one["name"] for one in scores["protocols"]}
    assert both == "both"
    assert [one["queries"] for one in scores["protocols"]] == [30]
    compared = compare_protocol([folder / "runs"], "both")
    assert {row.strategy for row in compared.reports[0].rows} == {"naive", "freeze"}
    assert "fusion" in (done / "naive" / "seed-0" / "definition.json").read_text()
    assert typed("compare", folder / "runs").code == 0
    assert typed("status", folder / "runs").code == 0
    assert typed("validate", folder / "mine.toml").code == 0


def scores_of(folder, pair):
    return [
        one
        for one in json.loads((folder / "scores.json").read_text())["evaluations"]
        if one["pair"] == pair and one["split"] == "test"
    ]


def test_with_freeze_an_old_pair_has_the_same_scores_to_the_last_digit(folder, typed):
    done = trained(folder, typed, "--strategy", "freeze", out="frozen")
    first, second = (
        [one for one in scores_of(done / "freeze" / "seed-0", "text-video") if one["stage"] == s]
        for s in (1, 2)
    )
    plain = [{k: v for k, v in one.items() if k not in ("stage", "step")} for one in first]
    assert plain == [{k: v for k, v in o.items() if k not in ("stage", "step")} for o in second]


def test_a_stopped_run_goes_on_to_the_same_bits(folder, typed, stop_at):

    opened = open_scenario(find("scenarios", str(folder / "mine.toml")))
    dataset = cm.read_pack(folder / "pack.npz")
    options = {"device": "cpu", "checkpoint_every": 2, "board": False}
    naive = cm.Strategy(name="naive")
    whole = run(opened.scenario, naive, dataset, folder / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        run(opened.scenario, naive, dataset, folder / "part", reporter=stop_at(9), **options)
    again = run(opened.scenario, naive, dataset, folder / "part", **options)
    one, two = whole.space.state_dict(), again.space.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert whole.protocols == again.protocols


def test_an_opened_run_embeds_items_as_they_were_scored(folder, typed):
    done = trained(folder, typed, "--strategy", "naive")
    space = open_run(done / "naive" / "seed-0")
    features = np.load(folder / "pack.npz")
    some = {name: features[name][61:65] for name in ("video", "audio")}
    together = space.encode_together(some)
    assert together.shape == (4, 8)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    alone = space.encode("video", some["video"])
    torch.testing.assert_close(space.encode_together({"video": some["video"]}), alone)


def test_another_kind_cannot_go_on_from_it_and_it_cannot_be_merged_or_compressed(folder, typed):
    done = trained(folder, typed, "--strategy", "naive") / "naive" / "seed-0"
    usual = folder / "usual.toml"
    usual.write_text(
        f'dataset = "pack.npz"\nstart = "{done}"\n[space]\ndim = 8\n[[stage]]\nadd = ["audio"]\n'
    )
    refused = typed("validate", usual)
    assert "kind: is 'mcn', but the run that it starts from has 'fusion'" in refused.err
    pack = ("--dataset", folder / "pack.npz")
    merged = typed("merge", done, done, "--to", folder / "merged", *pack)
    assert merged.code != 0
    assert "share a transformer" in merged.err
    compressed = typed("compress", done, "--to", folder / "smaller", "--keep", "0.5")
    assert "share a transformer" in compressed.err


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("space.clusters=8", "8 has no meaning for kind 'fusion'"),
        ('space.term_weights={"text-smell"=1.0}', "'text-smell' is no term of this scenario"),
        ("space.heads=3", "8 numbers of a token cannot be divided among 3 heads"),
    ],
)
def test_what_a_fusion_space_cannot_be_is_refused_with_place_and_remedy(
    folder, typed, setting, problem
):
    found = typed("run", folder / "mine.toml", "--set", setting, "--out", folder / "none")
    assert found.code != 0
    assert problem in found.err.replace("\n", " ")
    assert "mine.toml" in found.err


def test_an_exported_space_embeds_texts_alike(folder, typed):
    done = trained(folder, typed, "--strategy", "naive") / "naive" / "seed-0"
    space = open_run(done)
    kept = Space(space)
    kept.save(str(folder / "exported"))
    again = Space.load(str(folder / "exported"))
    values = np.load(folder / "pack.npz")["text"][:3]
    torch.testing.assert_close(again.space.encode("text", values), space.encode("text", values))
