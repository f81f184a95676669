"""Judges: which items ask and answer, and what is counted, with embeddings known by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation.composite import similarity
from continual_mm.evaluation.judges import Classes, Retrieval, Steps, VideoRetrieval
from continual_mm.evaluation.pairs import Gallery
from continual_mm.metrics.answers import SERIES, counted, summaries
from continual_mm.system.errors import InputError

TEXT_TO_VIDEO = Protocol(name="p", query=("text",), gallery=("video",))
RNG = np.random.default_rng(7)


def items(**columns):
    """Test items whose features are taken for embeddings."""
    given = {name: np.asarray(columns.pop(name)) for name in ("text", "video", "audio")
             if name in columns}  # fmt: skip
    rows = len(next(iter(given.values())))
    rest = {"split": np.full(rows, 2), "splits": ["test"], "standardise": False, **columns}
    return Dataset.from_arrays(given, **rest)


def compared(judge):
    """Dot products of the features of either side, several modalities added."""

    def side(names, rows):
        return sum(torch.from_numpy(judge.dataset.columns[n].values)[rows] for n in names)

    def similarity(queries, gallery):
        protocol = judge.protocol
        return side(protocol.query, queries) @ side(protocol.gallery, gallery).T

    return similarity


def measured(judge, *, reference=False, listed=False):
    answers = judge.answers(compared(judge), reference=reference, listed=listed)
    kind = counted(judge.protocol.kind, ["ties_listed_each"] if listed else [])
    rows = {series.name: series.rows for series in SERIES[kind]}
    assert {name: len(found.values) for name, found in answers.items()} == rows
    return summaries(kind, answers)


def test_the_published_list_of_ties_is_counted_only_by_the_mistake():
    """All as similar: the published script finds ten of ten for each of twelve queries."""
    one, number, none = np.ones(12), np.arange(12), np.zeros(12)
    text, video = np.stack([one, number, none], 1), np.stack([one, none, number], 1)
    alike = items(text=text, video=video)
    judge = Retrieval(TEXT_TO_VIDEO, alike, "p")
    assert measured(judge, reference=True, listed=True) == {
        "recall@1": 1.0, "recall@5": 5.0, "recall@10": 10.0, "median_rank": 6.5,
    }  # fmt: skip
    for reference in (False, True):
        assert measured(judge, reference=reference) == {
            "recall@1": 0.0, "recall@5": 0.0, "recall@10": 1.0, "median_rank": 6.5,
        }  # fmt: skip


@pytest.mark.parametrize("missing", [0, 3, 30])
def test_missing_items_are_missed_and_in_reference_mode_in_no_median(missing):
    text, video = RNG.standard_normal((20, 4)), RNG.standard_normal((20, 4))
    protocol = TEXT_TO_VIDEO.model_copy(update={"expected": 20 + missing if missing else 0})
    judge = Retrieval(protocol, items(text=text, video=video), "p")
    assert (judge.queries, judge.expected) == (20, 20 + missing)
    similarity = text.astype("f4") @ video.astype("f4").T
    ranks = np.array([(row > row[i]).sum() for i, row in enumerate(similarity)], dtype=float)
    robust, reference = measured(judge), measured(judge, reference=True)
    for k in (1, 5, 10):
        hits = (ranks < k).sum() / (20 + missing)
        assert robust[f"recall@{k}"] == reference[f"recall@{k}"] == pytest.approx(hits)
    assert reference["median_rank"] == np.median(ranks) + 1
    assert robust["median_rank"] == np.median([*ranks, *[np.inf] * missing]) + 1
    # Without ties the published mistake is none.
    assert measured(judge, reference=True, listed=True) == pytest.approx(reference)


def test_the_gallery_adds_its_modalities_and_only_whole_items_take_part():
    text, video, audio = (RNG.standard_normal((9, 4)) for _ in range(3))
    present = np.array([True] * 6 + [False] * 3)
    split = np.array([2, 2, 2, 2, 2, 1, 2, 2, 2])
    dataset = items(text=text, video=video, audio=audio, present={"audio": present}, split=split)
    both = Protocol(name="p", query=("text",), gallery=("video", "audio"))
    judge = Retrieval(both, dataset, "p")
    assert judge.rows.tolist() == [0, 1, 2, 3, 4]
    found = judge.answers(compared(judge), reference=False)["items"]
    similarity = text[:5] @ (video + audio)[:5].T
    assert found.units.tolist() == [0, 1, 2, 3, 4]
    assert found.values[0].tolist() == [(row > row[i]).sum() for i, row in enumerate(similarity)]


def test_clips_find_videos_in_all_published_ways():
    eye = np.eye(4)
    # Two clips of video 7, two of video 3. The second caption prefers the other clip of its video,
    # the third one a clip of the other video.
    text = np.array([eye[0], 0.5 * eye[1] + eye[0], eye[2] + 2 * eye[0], eye[3]])
    dataset = items(text=text, video=eye, group=[7, 7, 3, 3])
    kind = TEXT_TO_VIDEO.model_copy(update={"kind": "video_retrieval"})
    judge = VideoRetrieval(kind, dataset, "p")
    answers = judge.answers(compared(judge), reference=False)
    assert answers["clips"].values.tolist() == [[0, 1, 1, 0]]
    assert answers["captions"].values.tolist() == [[0, 0, 1, 0]]
    assert answers["videos"].units.tolist() == [3, 7]
    # Captions of video 3: own clips (1 + 1) / 2, those of video 7 (2 + 0) / 2: a tie.
    assert answers["videos"].values.tolist() == [[0.5, 0]]
    # Of both videos' two captions, video 3's vote once for each.
    assert answers["video_votes"].values[0].tolist() == [0.5, 1.0]
    assert answers["clip_votes"].values[0].tolist() == [0.5, 1.0]
    assert measured(judge)["video_recall@1"] == 0.75
    assert measured(judge)["all_captions_recall@5"] == 1.0
    assert measured(judge, listed=True) == measured(judge)


def test_classes_are_named_by_items_that_only_have_words():
    text = np.array([[2.0, 0], [0, 1], [0, 3], [9, 9], [9, 9], [9, 9]])
    video = np.array([[0.0, 0], [0, 0], [0, 0], [1, 0.5], [1, 1.5], [1, 0.9]])
    worded = np.array([True] * 3 + [False] * 3)
    dataset = items(
        text=text, video=video, label=[4, 8, 8, 4, 4, 8],
        present={"text": worded, "video": ~worded},
    )  # fmt: skip
    judge = Classes(TEXT_TO_VIDEO.model_copy(update={"kind": "classes"}), dataset, "p")
    # Names: (2, 0) and the mean (0, 2): the larger coordinate wins.
    found = judge.answers(compared(judge), reference=False)["items"]
    assert found.units.tolist() == [3, 4, 5]
    assert found.values.tolist() == [[1, 0, 0], [4, 4, 8]]
    assert measured(judge) == {"accuracy": pytest.approx(1 / 3), "mean_class_accuracy": 0.25}


def test_an_item_without_a_label_is_neither_asked_for_nor_the_name_of_a_class():
    text = np.array([[2.0, 0], [0, 1], [5, 5], [9, 9], [9, 9]])
    video = np.array([[0.0, 0], [0, 0], [0, 0], [1, 0.5], [1, 1.5]])
    worded = np.array([True] * 3 + [False] * 2)
    both = {"text": worded, "video": ~worded}
    dataset = items(text=text, video=video, label=[4, 8, -1, 4, -1], present=both)
    judge = Classes(TEXT_TO_VIDEO.model_copy(update={"kind": "classes"}), dataset, "p")
    assert judge.queries == 1
    assert measured(judge) == {"accuracy": 1.0, "mean_class_accuracy": 1.0}


ANNOTATIONS = """video,task,step,start,end
a,tea,1,0,1
a,tea,2,1.5,3
b,tea,2,0,2
c,rice,1,1,2
"""


IDS = ["tea/2", "tea/1", "rice/1", "a/0", "a/1", "a/2", "b/1", "b/0", "c/0", "c/1", "d/0"]


def steps(folder, annotations=ANNOTATIONS, **changes):
    """Videos a, b of task tea (two steps), c of rice (one), d of neither."""
    file = folder / "steps.csv"
    file.write_text(annotations, encoding="utf-8")
    worded = np.array([True] * 3 + [False] * 8)
    eye = np.eye(3)
    text = np.vstack([eye[1], eye[0], eye[2], np.zeros((8, 3))])
    seconds = [[0.9, 0, 0], [0, 0.3, 0], [0.8, 0.4, 0], [0.1, 0.9, 0], [0.2, 0.1, 0],
               [0, 0, 0.9], [0, 0, 0.1], [0, 0, 0]]  # fmt: skip
    video = np.vstack([np.zeros((3, 3)), seconds])
    dataset = items(
        text=text, video=video, ids=changes.pop("ids", IDS),
        present={"text": worded, "video": ~worded},
    )  # fmt: skip
    changes = {"kind": "steps", "annotations": str(file), **changes}
    return Steps(TEXT_TO_VIDEO.model_copy(update=changes), dataset, "p", annotations=file)


def test_steps_are_placed_in_order_and_counted_by_video_and_task(tmp_path):
    judge = steps(tmp_path)
    assert judge.queries == 4
    answers = judge.answers(compared(judge), reference=False)
    # a: step 1 at second 0, step 2 at second 2: both right. b: step 1 at 0, step 2 at 1: right.
    # c: step 1 at second 0, but it is shown in second 1.
    assert answers["videos"].values.tolist() == [[1, 1, 0], [1, 1, 0], [2, 1, 1]]
    # Rice's only step is shown in the second of its two seconds. Of tea's five, the first as ranked
    # for step 1 shows it, and the first four as ranked for step 2.
    assert answers["tasks"].values.tolist() == [[0.5, 1.0]]
    assert measured(judge) == {
        "recall": 0.5, "pooled_recall": 0.75, "average_precision": pytest.approx(0.75),
    }  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
def test_a_collapsed_model_ranks_seconds_no_better_than_chance(tmp_path, own):
    """Of every task's seconds as many show a step as chance says, whatever videos there are."""
    rng = np.random.default_rng(11)
    ids, lines, chances = [], ["video,task,step,start,end"], []
    for count in range(1, 9):
        ids += [f"task{count}/{step}" for step in range(1, count + 1)]
        lengths = [int(length) for length in rng.integers(1, 90, 5)]
        showing = np.zeros(count)
        for number, length in enumerate(lengths):
            ids += [f"task{count}_{number}/{second}" for second in range(length)]
            step, last = rng.integers(1, count + 1), rng.integers(1, length + 1)
            showing[step - 1] += last
            lines.append(f"task{count}_{number},task{count},{step},0,{last}")
        chances.append(showing[showing > 0].mean() / sum(lengths))
    (tmp_path / "steps.csv").write_text("\n".join(lines))
    worded = np.array(["_" not in name for name in ids])
    alike = {name: np.ones((len(ids), 1)) for name in ("text", "video")}
    dataset = items(ids=ids, present={"text": worded, "video": ~worded}, **alike)
    protocol = TEXT_TO_VIDEO.model_copy(update={"kind": "steps", "annotations": "steps.csv"})
    judge = Steps(protocol, dataset, "p", annotations=tmp_path / "steps.csv")
    rows = {"text": torch.arange(len(ids)), "video": torch.arange(len(ids))}
    once = torch.randn(2, 256, generator=torch.Generator().manual_seed(5))
    embeddings = {name: each.expand(len(ids), -1) for name, each in zip(rows, once, strict=True)}
    towers = {pair("text", "video"): embeddings}
    seen = Gallery(embeddings, rows, towers if own else {})
    compare = partial(similarity, seen, ("text",), ("video",))
    found = judge.answers(compare, reference=False)["tasks"].values[0]
    np.testing.assert_allclose(found, chances, rtol=1e-12)


def test_without_order_a_step_may_be_found_in_any_of_its_seconds(tmp_path):
    judge = steps(tmp_path, ordered=False)
    answers = judge.answers(compared(judge), reference=False)
    # a: seconds 0 and 2 go to step 1, second 1 to step 2; it is shown from floor(1.5) on.
    assert answers["videos"].values[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"annotations": ANNOTATIONS + "z,tea,1,0,1\n"}, "no test item of video 'z'"),
        ({"annotations": ANNOTATIONS + "d,soup,1,0,1\n"}, "no test item of task 'soup'"),
        ({"annotations": ANNOTATIONS + "d,rice,2,0,1\n"}, "step 2 of task 'rice', which has 1"),
        ({"annotations": ANNOTATIONS + "c,rice,1,2,3\n"}, "video 'c' ends before 2.0 seconds"),
        ({"ids": [f"{row}" for row in range(11)]}, "one that is there: '0', '1', '2'"),
        (
            {"ids": ["a/01" if one == "a/2" else one for one in IDS]},
            "ids that are no <name>/<second>, or one that is there: 'a/01'",
        ),
        ({"ids": [f"x/{row}" for row in range(11)]}, "items of 'x' leave a step out"),
    ],
)
def test_steps_that_cannot_be_scored_are_refused(tmp_path, changes, expected):
    with pytest.raises(InputError) as caught:
        steps(tmp_path, **changes)
    assert expected in str(caught.value)


APART = {"present": {"text": np.arange(3) < 2, "video": np.arange(3) == 2}}
"""Two names and one item."""


@pytest.mark.parametrize(
    ("kind", "changes", "given", "expected"),
    [
        (VideoRetrieval, {"kind": "video_retrieval"}, {}, "which video a clip is"),
        (Classes, {"kind": "classes"}, {}, "no test item is a name"),
        (Classes, {"kind": "classes"}, APART, "has no labels"),
        (Classes, {"kind": "classes"}, {**APART, "label": [1, 2, 3]}, "no name of class 3"),
        (Retrieval, {"expected": 2}, {}, "expected = 2, but 3 test items"),
        (Retrieval, {}, APART, "no test item has text, video"),
    ],
)
def test_items_that_a_kind_needs_are_asked_for(kind, changes, given, expected):
    dataset = items(text=np.ones((3, 2)), video=np.ones((3, 2)), **given)
    with pytest.raises(InputError, match=expected):
        kind(TEXT_TO_VIDEO.model_copy(update=changes), dataset, "p")


PARTIAL = Protocol(name="p", query=("text",), gallery=("video", "audio"), partial=True)


def with_missing():
    """Of five test items the second lacks sound, the third video, the fourth both, the fifth text.

    Vectors are of two numbers, such that by video alone the first caption finds the second item.
    """
    text = np.array([[1.0, 0.2], [0.2, 1.0], [-1.0, 0.3], [1.0, 0.0], [0.0, 1.0]])
    video = np.array([[0.5, 0.5], [0.6, 0.8], [9.0, 9.0], [9.0, 9.0], [0.0, 1.0]])
    audio = np.array([[1.0, -0.6], [9.0, 9.0], [-1.0, 0.0], [9.0, 9.0], [0.0, 1.0]])
    present = {
        "text": np.array([True, True, True, True, False]),
        "video": np.array([True, True, False, False, True]),
        "audio": np.array([True, False, True, False, True]),
    }
    return items(text=text, video=video, audio=audio, present=present)


def seen_of(dataset):
    rows = {name: np.flatnonzero(each.present) for name, each in dataset.columns.items()}
    return Gallery(
        {n: torch.from_numpy(dataset.columns[n].values[some]) for n, some in rows.items()},
        {n: torch.from_numpy(some) for n, some in rows.items()},
    )


def test_items_that_lack_a_part_answer_with_what_they_have():
    judge = Retrieval(PARTIAL, with_missing(), "p")
    assert judge.rows.tolist() == [0, 1, 2]
    assert judge.queries == judge.expected == 3
    compare = partial(similarity, seen_of(judge.dataset), ("text",), ("video", "audio"), mean=True)
    # The first item is (0.75, -0.05), the mean; the others what they have alone.
    found = compare(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    expected = [[0.74, 0.76, -1.0], [0.1, 0.92, -0.2], [-0.765, -0.36, 1.0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    answers = judge.answers(compare, reference=False)["items"]
    assert answers.values.tolist() == [[1.0, 0.0, 0.0]]


def test_only_items_with_every_part_ask_and_answer_where_nothing_may_be_missing():
    whole = PARTIAL.model_copy(update={"partial": False})
    assert Retrieval(whole, with_missing(), "p").rows.tolist() == [0]


def test_a_side_that_no_item_has_a_part_of_is_refused():
    text, lacking = RNG.standard_normal((3, 4)), np.zeros(3, dtype=bool)
    present = {"video": lacking, "audio": lacking}
    some = items(text=text, video=text, audio=text, present=present)
    with pytest.raises(InputError, match="no test item has text and video or audio"):
        Retrieval(PARTIAL, some, "p")


def test_partial_is_for_retrieval_alone():
    with pytest.raises(InputError, match="partial: has no meaning for kind 'classes'"):
        Protocol(name="p", kind="classes", query=("text",), gallery=("video",), partial=True)
