"""Why pairs forget: what is planted is found, and nothing else."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import Scenario, Stage
from continual_mm.evaluation.diagnosis import Diagnosis, Diagnostician
from continual_mm.evaluation.pairs import Evaluation, Gallery, score_pair
from continual_mm.metrics.geometry import change_between, change_inside, linear_cka
from continual_mm.metrics.hubness import hubness, occurrences

ITEMS, DIM = 60, 8
OLD = Pair("audio", "video")
ROWS = torch.arange(100, 100 + ITEMS)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(seed):
    return torch.linalg.qr(normal(DIM, DIM, seed=seed)).Q


def partners(noise=0.3):
    """Two modalities whose items are near their partners."""
    audio = normal(ITEMS, DIM, seed=0)
    video = audio + noise * normal(ITEMS, DIM, seed=1)
    return {"audio": normalize(audio, dim=1), "video": normalize(video, dim=1)}


@pytest.fixture(scope="module")
def dataset():
    features = {
        name: np.ones((200, 2)) * np.arange(200)[:, None] for name in ("audio", "video", "text")
    }
    texts = [f"clip {n}" for n in range(200)]
    return Dataset.from_arrays(features, ids=[f"id{n}" for n in range(200)], text=texts)


@pytest.fixture
def compared(dataset):
    """(embeddings at a stage's end, and in the next one) -> the record."""
    stages = (Stage(add=("audio", "video")), Stage(add=("text",), pairs=("text-video",)))
    arrivals = plan(Scenario(name="s", stages=stages), dataset.card)

    def compare(before, after, **options):
        found = []
        observer = Diagnostician(found.append, arrivals=arrivals, dataset=dataset, **options)
        for stage, embeddings in enumerate((before, after)):
            rows = dict.fromkeys(embeddings, ROWS)
            pair = score_pair(OLD, embeddings, rows)
            moment = Evaluation(stage, 5 * stage, final=True, split="test", pairs=(pair,))
            observer(moment, Gallery(embeddings, rows))
        (record,) = found
        return record

    return compare


def test_a_rotation_that_both_share_changes_nothing_between_them_or_inside(compared):
    before, turn = partners(), rotation(2)
    record = compared(before, {name: rows @ turn for name, rows in before.items()})
    pair = record.pairs["audio-video"]
    assert pair.between == pytest.approx(0, abs=1e-6)
    assert (pair.broken, pair.mended, pair.queries) == (0, 0, ())
    assert pair.partners[0] == pytest.approx(pair.partners[1])
    for modality in record.modalities.values():
        assert modality.inside == pytest.approx(0, abs=1e-6)
        assert modality.cka == pytest.approx(1)


def test_a_rotation_of_one_modality_is_between_them_and_inside_neither(compared):
    before = partners()
    record = compared(before, {**before, "audio": before["audio"] @ rotation(2)})
    pair = record.pairs["audio-video"]
    assert pair.between > 0.8
    assert pair.recall[0] > 0.9
    assert pair.recall[1] < 0.2
    assert pair.broken > ITEMS
    for modality in record.modalities.values():
        assert modality.inside == pytest.approx(0, abs=1e-6)


def test_a_modality_that_was_rearranged_is_named(compared):
    before = partners()
    moved = normalize(before["audio"] + normal(ITEMS, DIM, seed=3) / 3, dim=1)
    record = compared(before, {**before, "audio": moved})
    assert record.modalities["audio"].inside > 0.3
    assert record.modalities["video"].inside == 0
    assert record.pairs["audio-video"].between > 0.3


def test_broken_queries_are_named_the_worst_first_with_what_they_find(compared):
    before = partners(noise=0.0)
    swapped = before["audio"].clone()
    swapped[[0, 1]] = swapped[[1, 0]]
    pair = compared(before, {**before, "audio": swapped}).pairs["audio-video"]
    assert (pair.broken, pair.mended) == (4, 0)
    assert {(one.query, one.item.id) for one in pair.queries} == {
        (name, f"id{row}") for name in OLD.directions[0] for row in (100, 101)
    }
    first = next(one for one in pair.queries if (one.query, one.item.row) == ("audio", 100))
    assert (first.finds[0].id, first.finds[0].text) == ("id101", "clip 101")
    ranks = [one.rank for one in pair.queries if one.query == "audio"]
    assert ranks == sorted(ranks, reverse=True)
    back = compared({**before, "audio": swapped}, before).pairs["audio-video"]
    assert (back.broken, back.mended) == (0, 4)
    assert {(one.rank, one.finds[0]) for one in back.queries} == {
        (1, one.item) for one in back.queries
    }
    assert min(one.before for one in back.queries) > 1


def test_records_come_back_as_they_were_written(compared):
    before = partners()
    record = compared(before, {**before, "audio": before["audio"] @ rotation(2)})
    assert record.pairs["audio-video"].queries
    assert Diagnosis.from_json(record.as_json()) == record


def test_it_goes_on_from_what_it_kept_to_the_same_numbers(compared, dataset):
    before = partners()
    after = {**before, "audio": before["audio"] @ rotation(2)}
    expected = compared(before, after, items=20)
    stages = (Stage(add=("audio", "video")), Stage(add=("text",), pairs=("text-video",)))
    arrivals = plan(Scenario(name="s", stages=stages), dataset.card)
    rows, found = dict.fromkeys(before, ROWS), []
    make = lambda: Diagnostician(found.append, arrivals=arrivals, dataset=dataset, items=20)  # noqa: E731
    first, second = make(), make()
    pair = score_pair(OLD, before, rows)
    first(Evaluation(0, 0, final=True, split="test", pairs=(pair,)), Gallery(before, rows))
    second.load_state(first.state())
    pair = score_pair(OLD, after, rows)
    second(Evaluation(1, 5, final=True, split="test", pairs=(pair,)), Gallery(after, rows))
    assert found == [expected]


def test_the_change_is_the_sine_of_the_angle_of_similarities_and_blind_to_scale_and_shift():
    first, second = normal(5, 3, seed=0), normal(7, 3, seed=1)
    similar = first @ second.T
    h5, h7 = (torch.eye(n) - 1 / n for n in (5, 7))
    other = normal(5, 3, seed=2)
    a, b = (h5 @ each @ h7 for each in (similar, other @ second.T))
    cosine = float((a * b).sum() / a.norm() / b.norm())
    expected = math.sqrt(1 - cosine**2) if cosine > 0 else 1.0
    assert change_between((first, second), (other, second)) == pytest.approx(expected, abs=1e-6)
    assert change_between((first, second), (3 * first + 1, second)) == pytest.approx(0, abs=1e-6)
    assert change_inside(first, first) == 0
    assert math.isnan(change_inside(first[:1], first[:1]))


def test_cka_is_that_of_its_definition_and_one_for_rotations():
    before, after = normal(30, 4, seed=0), normal(30, 6, seed=1)
    h = torch.eye(30) - 1 / 30
    k, other = (h @ rows @ rows.T @ h for rows in (before, after))
    expected = float((k * other).sum() / k.norm() / other.norm())
    assert linear_cka(before, after) == pytest.approx(expected, abs=1e-6)
    turn = torch.linalg.qr(normal(4, 4, seed=2)).Q
    assert linear_cka(before, 2 * before @ turn) == pytest.approx(1)


def test_a_hub_is_near_all_queries():
    queries = normalize(normal(40, 5, seed=0) + 2, dim=1)
    hub = torch.cat([queries.mean(0, keepdim=True) * 9, normal(20, 5, seed=1)])
    assert occurrences(queries, hub, k=1).tolist() == [40] + [0] * 20
    counts = np.array([40] + [0] * 20)
    spread = counts - counts.mean()
    expected = (spread**3).mean() / (spread**2).mean() ** 1.5
    assert hubness(queries, hub, k=1) == pytest.approx(expected)
    assert math.isnan(hubness(torch.eye(4), torch.eye(4), k=1))
