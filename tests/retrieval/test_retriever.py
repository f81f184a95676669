"""Items found by texts, features and items, and vectors of datasets."""

import json

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.data.registry import load
from continual_mm.retrieval.index import Index
from continual_mm.system.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Video and text of the generated clips, trained a little."""
    scenario = cm.Scenario(
        name="vt",
        dataset="narrated_shapes",
        space=cm.SpaceSettings(dim=16, clusters=0),
        training=cm.Training(steps=25, batch_size=64, learning_rate=5e-3),
        stages=(cm.Stage(add=("video", "text")),),
    )
    out = tmp_path_factory.mktemp("search")
    dataset = cm.load_dataset(scenario)
    cm.run(scenario, cm.Strategy(name="naive"), dataset, out, device="cpu", board=False)
    return out / "vt" / "naive" / "seed-0"


@pytest.fixture(scope="module")
def retriever(run):
    return cm.Retriever(run)


def test_captions_find_their_clips_as_often_as_the_scores_say(run, retriever):
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))["evaluations"]
    (recall,) = (
        one["recall@10"]
        for one in scores
        if one["final"] and one["split"] == "test" and one["direction"] == "text to video"
    )
    found = 0
    for row in retriever.rows:
        caption = str(retriever.dataset.text[np.array([row])][0])
        found += int(row) in [hit.row for hit in retriever.search(caption)]
    assert found / len(retriever.rows) == pytest.approx(recall, abs=0.005)
    assert recall > 0.05


def test_an_item_is_embedded_alike_by_its_id_and_by_its_raw_features(run, retriever):
    plain = load("narrated_shapes", standardise=False)
    row = int(retriever.rows[3])
    by_item = cm.Retriever(run, dataset=retriever.dataset, ask="video", find="text")
    hits = by_item.search_item(f"clip{row:05d}", k=4)
    column = plain.columns["video"]
    import torch

    values, lengths = column.take(torch.tensor([row]))
    again = by_item.search(values[0][: int(lengths[0])], k=4)
    assert [hit.id for hit in again] == [hit.id for hit in hits]
    assert [hit.score for hit in again] == pytest.approx([hit.score for hit in hits], abs=1e-4)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_faiss_and_numpy_give_the_same_answers():
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((50, 8)), rng.standard_normal((5, 8))
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :7]
    for faiss in (True, False):
        scores, places = Index(vectors, faiss=faiss).search(queries, 7)
        assert places.tolist() == expected.tolist()
        assert scores == pytest.approx(
            np.take_along_axis(queries @ vectors.T, expected, 1), abs=1e-5
        )
    assert Index(vectors, faiss=True).search(queries, 99)[1].shape == (5, 50)


def test_the_command_lists_hits_draws_a_sheet_and_names_words_it_does_not_know(
    run, typed, tmp_path
):
    picture = tmp_path / "sheet.png"
    answer = typed("search", run, "a crimson zebra", "-k", 3, "--picture", picture)
    assert answer.code == 0
    assert "no vector of zebra: left out of the query" in answer.err
    assert len(answer.out.splitlines()) == 4
    assert picture.read_bytes()[1:4] == b"PNG"
    hits = json.loads(typed("search", run, "crimson", "--format", "json").out)
    assert [hit["rank"] for hit in hits] == list(range(1, 11))
    assert set(hits[0]) == {"rank", "score", "row", "id", "text"}


def test_texts_without_a_known_word_and_items_that_there_are_not_are_refused(retriever):
    with pytest.raises(InputError, match="'zebra': has no known word"):
        retriever.search("zebra")
    with pytest.raises(InputError, match="there is no item 'nope'"):
        retriever.search_item("nope")
    with pytest.raises(InputError, match="features of 'text'"):
        retriever.search(np.zeros((3, 7)))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "nothing is asked"),
        (("red", "--item", "clip02300"), "QUERY and --item are given"),
        (("--item", "clip02300"), "it is not said of which modality; give --ask video"),
        (("red", "--find", "smell"), "'smell' is unknown; there are video, text"),
        (("--like", "{run}/scores.json", "--ask", "video"), "is no array of numbers"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(run, typed, words, problem):
    answer = typed("search", run, *(word.format(run=run) for word in words))
    assert answer.code == 2
    assert problem in answer.err


def test_vectors_of_a_dataset_are_those_of_encode_in_both_formats(run, typed, tmp_path):
    import pyarrow.parquet as pq

    for name in ("v.npz", "v.parquet"):
        answer = typed("embed", run, "narrated_shapes", "--to", tmp_path / name)
        assert "vectors, 2,600 of video, 2,600 of text" in answer.out
    found = np.load(tmp_path / "v.npz")
    assert set(found) == {f"{m}{e}" for m in ("video", "text") for e in ("", "_ids", "_split")}
    dataset = cm.load_dataset("narrated_shapes")
    import torch

    values, lengths = dataset.columns["text"].take(torch.arange(5))
    expected = cm.open_run(run).encode("text", values, lengths, standardised=True)
    assert found["text"][:5] == pytest.approx(expected.numpy(), abs=1e-5)
    assert found["text_ids"][4] == "clip00004"
    table = pq.read_table(tmp_path / "v.parquet")
    texts = table.filter(np.array(table["modality"].to_pylist()) == "text")
    assert np.array(texts["vector"].to_pylist()[:5]) == pytest.approx(found["text"][:5])
    assert texts["split"].to_pylist()[0] == "train"


@pytest.mark.parametrize(
    ("data", "to", "problem"),
    [
        ("digits", "a.npz", "none of video, text"),
        ("narrated_shapes", "a.csv", "'.csv' is no format here"),
    ],
)
def test_what_cannot_be_embedded_is_refused(run, typed, tmp_path, data, to, problem):
    answer = typed("embed", run, data, "--to", tmp_path / to)
    assert answer.code == 2
    assert problem in answer.err
    assert not (tmp_path / to).exists()
