"""CrossTask from its released files, written here by numpy and the csv module alone, to a table."""

import csv
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_max_pool1d, normalize

from continual_mm.data import registry
from continual_mm.data.pack import write_pack

WORDS = ("add", "rice", "stir", "mixture", "pour", "water")
TASKS = {
    "113766": ("Make Kimchi Fried Rice", ["add rice", "stir mixture", "add"]),
    "23521": ("Make Jello Shots", ["pour water", "stir mixture"]),
    "99": ("Do Nothing", ["unheard of"]),
}
SECONDS = {"jEyaTUyJ_rs": 21, "-bbbbbbbbbb": 5, "ccccccccccc": 9}
LISTED = [
    ("113766", "jEyaTUyJ_rs"), ("23521", "-bbbbbbbbbb"), ("23521", "jEyaTUyJ_rs"),
    ("113766", "ccccccccccc"),
]  # fmt: skip
LINE = "https://www.youtube.com/watch?v=x"
SHOWN = {
    ("113766", "jEyaTUyJ_rs"): [(1, 0.0, 2.5), (3, 11.2, 13.0), (2, 19.9, 30.0)],
    ("23521", "-bbbbbbbbbb"): [(2, 1.5, 1.7)],
    ("23521", "jEyaTUyJ_rs"): [(1, 4.0, 5.0), (1, 8.25, 9.75), (2, 20.99, 21.0)],
    ("113766", "ccccccccccc"): [(1, 3, 4), (2, 5, 6)],
}
FOLDERS = {"jEyaTUyJ_rs": "", "-bbbbbbbbbb": "23521", "ccccccccccc": "113766/ccccccccccc"}
ARGUMENTS = (
    *("data", "convert", "crosstask", "annotations", "--tasks", "tasks_primary.txt"),
    *("--videos", "videos_val.csv", "--features", "features", "--vectors", "words.txt"),
)
VECTORS = np.random.default_rng(9).normal(size=(len(WORDS), 5)).round(3)


def features_of(name):
    """2D at 1 row a second, 3D at 1.5, and a spectrogram of 100 frames a second."""
    rng, seconds = np.random.default_rng([*name.encode()]), SECONDS[name]
    first, second = rng.normal(size=(seconds, 6)), rng.normal(size=(seconds * 3 // 2, 4))
    return first, second, rng.uniform(-80, 0, size=(3, seconds * 100 + 1)).astype(np.float16)


@pytest.fixture(autouse=True)
def released(said):
    """The released files, in the working folder."""
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, VECTORS, strict=True)]
    Path("words.txt").write_text("\n".join(lines) + "\n")
    for name, folder in FOLDERS.items():
        first, second, spectrogram = features_of(name)
        place = Path("features") / folder
        place.mkdir(parents=True, exist_ok=True)
        np.savez(place / f"{name}_2d.npz", features=first.astype(np.float32))
        np.savez(place / f"{name}_3d.npz", features=second.astype(np.float32))
        np.savez(place / f"{name}_spec.npz", spectrogram)
    tasks = [
        f"{name}\n{title}\nhttps://www.wikihow.com/x\n{len(steps)}\n{','.join(steps)}\n\n"
        for name, (title, steps) in TASKS.items()
    ]
    Path("tasks_primary.txt").write_text("".join(tasks))
    Path("videos_val.csv").write_text("".join(f"{task},{video},{LINE}\n" for task, video in LISTED))
    Path("annotations").mkdir()
    for (task, video), found in SHOWN.items():
        with Path(f"annotations/{task}_{video}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(found)


@pytest.fixture
def convert(said):
    return lambda *options, to="store": said(*ARGUMENTS, "--to", to, *options)


def taken(dataset, modality, row):
    """What an item has, without padding."""
    values, lengths = dataset.columns[modality].take(torch.tensor([row]))
    item = values[0].numpy()
    return item if lengths is None else item[: int(lengths[0])]


def pooled(rows, seconds):
    """(seconds, features) as torch pools adaptively, each of length 1."""
    given = torch.from_numpy(rows.astype(np.float32)).T[None]
    return normalize(adaptive_max_pool1d(given, seconds)[0].T, dim=1).numpy()


def audio_around(spectrogram, second):
    """Eight seconds around the middle of a second, moved inside."""
    length = spectrogram.shape[1]
    if length < 800:
        return spectrogram.T
    begin = round(100 * min(max(second + 0.5 - 4, 0), length / 100 - 8))
    return spectrogram[:, begin : begin + 800].T


@pytest.mark.parametrize("mode", ["robust", "reference"])
def test_every_second_and_every_step_is_an_item_as_published(convert, mode):
    for file in ("tasks_primary.txt", "videos_val.csv"):  # as other systems write them
        text = Path(file).read_text().replace("\n", "\r\n").strip()
        Path(file).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert convert("--dtype", "float32", *(["--reference"] * (mode == "reference"))).code == 0
    dataset = registry.load("store", standardise=False, splits=["test"])
    names = dataset.ids[np.arange(len(dataset))].tolist()
    seconds = [f"{task}_{video}/{k}" for task, video in LISTED for k in range(SECONDS[video])]
    steps = [f"{task}/{k}" for task in ("113766", "23521")
             for k in range(1, len(TASKS[task][1]) + 1)]  # fmt: skip
    assert sorted(names) == sorted([*seconds, *steps])
    # A video that shows two tasks is stored once.
    form = json.loads(Path("store/store.json").read_text())
    assert sum(shard["rows"] for shard in form["tables"]["recordings"]) == len(SECONDS)
    assert set(dataset.split.tolist()) == {2}
    assert dataset.card["audio"].shape == (1024, 3)
    assert dataset.text is not None
    for row, name in enumerate(names):
        whose, _, number = name.rpartition("/")
        present = {key: bool(dataset.columns[key].present[row]) for key in dataset.card.names}
        if name in steps:
            assert present == {"video": False, "audio": False, "text": True}
            step = TASKS[whose][1][int(number) - 1]
            assert dataset.text[np.array([row])].tolist() == [step]
            words = VECTORS[[WORDS.index(word) for word in step.split()]].astype(np.float32)
            # One row of zeros does for the published twenty words: a maximum is taken over all.
            filled = [*words, *([np.zeros(5)] if mode == "reference" else [])]
            np.testing.assert_allclose(taken(dataset, "text", row), filled, atol=1e-6)
            continue
        assert present == {"video": True, "audio": True, "text": False}
        video = whose.partition("_")[2]
        first, second, spectrogram = features_of(video)
        both = [pooled(rows, SECONDS[video])[int(number)] for rows in (first, second)]
        np.testing.assert_allclose(taken(dataset, "video", row), np.concatenate(both), atol=1e-6)
        np.testing.assert_array_equal(
            taken(dataset, "audio", row), audio_around(spectrogram, int(number))
        )


def test_intervals_are_cut_where_the_features_end_and_listed_where_they_are_behind(convert):
    Path("annotations/23521_-bbbbbbbbbb.csv").write_text("2,1.5,7.25\n\n1,5.0,6.0\n")
    answer = convert()
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    problem = "line 3: starts at 5.0 seconds, but the features end after 5"
    assert f"annotations/23521_-bbbbbbbbbb.csv, {problem}" in answer.err
    assert not list(Path().glob("store*"))
    answer = convert("--skip")
    assert (answer.code, "left out: 1 in all" in answer.err) == (0, True)
    assert problem.partition(": ")[2] in Path("store.left-out.csv").read_text()
    with Path("store.steps.csv").open(newline="") as stream:
        first, *rows = csv.reader(stream)
    assert first == ["video", "task", "step", "start", "end"]
    assert [row for row in rows if row[1:3] == ["23521", "2"]][-1][3:] == ["1.5", "5.0"]
    assert len(rows) == sum(map(len, SHOWN.values()))


def test_a_video_without_audio_keeps_its_seconds(convert):
    """Published silence is 0 dB, the loudest there is; in robust mode it is as quiet as can be."""
    for name, frames in (("-bbbbbbbbbb", 501), ("ccccccccccc", 0)):
        place = Path("features") / FOLDERS[name] / f"{name}_spec.npz"
        np.savez(place, np.zeros((3, frames), np.float16))
    for options, level in (((), -80), (("--reference",), 0)):
        target = f"store{len(options)}"
        assert convert(*options, to=target).code == 0
        dataset = registry.load(target, standardise=False, splits=["test"])
        names = dataset.ids[np.arange(len(dataset))].tolist()
        for name, frames in (("23521_-bbbbbbbbbb/4", 501), ("113766_ccccccccccc/0", 1)):
            found = taken(dataset, "audio", names.index(name))
            assert len(found) == (frames if options else 1)
            assert set(found.flatten().tolist()) == {level}


def test_a_steps_file_that_is_there_is_not_overwritten(convert):
    Path("store.steps.csv").write_text("mine")
    answer = convert()
    problem = "store.steps.csv: is there already; remove it, or choose another name"
    assert (answer.code, answer.err) == (2, f"continual-mm: {problem}\n")
    assert Path("store.steps.csv").read_text() == "mine"
    assert not Path("store").exists()
    assert "CrossTask becomes a store" in convert(to="store.npz").err


LEFT_OUT = [
    ("99,ccccccccccc", "no word of it is known"),
    ("7,ccccccccccc", "video 'ccccccccccc' of task '7': the task is not known"),
    ("113766,ccccccccccc", "is in the list more than once"),
    ("23521,ccccccccccc", "23521_ccccccccccc.csv: no such file"),
    ("23521,ddd", "features/ddd_2d.npz"),
    ("23521,../../x", "does not name a file below it"),
    ("23521,odd", "recording 'odd'"),
    ("4,1,2", "line 3: step 4 of task '113766', which has 3"),
    ("2,2,2", "line 3: from 2.0 to 2.0 is no interval"),
    ("two,1,2", "line 3: is 'two,1,2'; write step,start,end"),
]


@pytest.mark.parametrize(("line", "problem"), LEFT_OUT)
def test_a_broken_video_or_interval_ends_the_job_or_is_left_out(convert, line, problem):
    if "line" in problem:
        path, line = Path("annotations/113766_ccccccccccc.csv"), f"{line}\n"
    else:
        path, line = Path("videos_val.csv"), f"{line},{LINE}\n"
    path.write_text(path.read_text() + line)
    for name in ("ddd", "odd"):
        Path(f"annotations/23521_{name}.csv").write_text("1,1,2\n")
    np.savez("features/odd_2d.npz", features=np.ones((9, 5)))
    np.savez("features/odd_3d.npz", features=np.ones((9, 4)))
    np.savez("features/odd_spec.npz", np.ones((3, 900)))
    answer = convert()
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert problem in answer.err
    assert not list(Path().glob("store*"))
    answer = convert("--skip")
    assert answer.code == 0
    assert problem in answer.err
    seconds = sum(SECONDS[video] for _, video in LISTED)
    assert registry.card("store", splits=["test"]).items == (0, 0, seconds + 5)
    lines = Path("store.steps.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(map(len, SHOWN.values()))


TASK_FILE, VIDEO_FILE = "tasks_primary.txt", "videos_val.csv"


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        (TASK_FILE, lambda text: text.replace("\n3\n", "\n4\n"),
         ", line 1: task '113766' says that it has 4 steps, but names 3; a task is five lines"),
        (TASK_FILE, lambda text: text.replace("rice,stir", "rice,,stir"),
         ", line 1: task '113766' says that it has 3 steps, but names 3"),
        (TASK_FILE, lambda text: text.replace("\n2\n", "\n"),
         ", line 7: task '23521' says 'pour water,stir mixture' instead of how many"),
        (TASK_FILE, lambda text: text.replace("23521", "113766"),
         ", line 7: task '113766' is there already"),
        (TASK_FILE, lambda text: text[:40], ", line 1: the file ends inside a task"),
        (TASK_FILE, lambda _: "\n\n", ": has no task"),
        (VIDEO_FILE, lambda text: f"{text}113766\n", ", line 5: is '113766'; write task,video"),
        (VIDEO_FILE, lambda _: "", ": lists no video"),
        (VIDEO_FILE, lambda _: '"', ": cannot be read: unexpected end of data"),
    ],
)  # fmt: skip
def test_lists_that_are_unsound_are_refused_with_the_line(convert, file, change, problem):
    Path(file).write_text(change(Path(file).read_text()))
    for options in ((), ("--skip",)):
        answer = convert(*options)
        assert answer.code == 2
        assert f"{file}{problem}" in answer.err
        assert not Path("store").exists()


SCENARIO = """
dataset = "trained.npz"
[space]
dim = 8
clusters = 2
width = 4
[training]
steps = 2
batch_size = 8
[[stage]]
add = ["video", "audio"]
[[stage]]
add = ["text"]
"""


def test_from_released_files_to_a_table(said):
    rng = np.random.default_rng(0)
    shapes = {"video": (10,), "audio": (90, 3), "text": (4, 5)}
    pack = {name: rng.normal(size=(30, *shape)) for name, shape in shapes.items()}
    pack |= {"ids": np.arange(30).astype(str), "split": np.arange(30) % 3}
    pack |= {"audio_kind": np.array("spectrogram")}
    write_pack(Path("trained.npz"), pack)
    scores = []
    for options in ((), ("--to", "elsewhere")):
        answer = said(*ARGUMENTS, *options)
        assert answer.code == 0
        table = answer.out[answer.out.index("[[protocol]]") :]
        (protocol,) = tomllib.loads(table)["protocol"]
        assert ("annotations" in protocol) == bool(options)
        Path("mine.toml").write_text(SCENARIO + table)
        out = f"runs{len(options)}"
        answer = said("validate", "mine.toml")
        assert answer.code == 0
        asked = ("--strategy", "naive", "--device", "cpu", "--no-board", "--out", out)
        assert said("run", "mine.toml", *asked).code == 0
        answer = said("compare", out, "--protocol", "crosstask")
        assert re.search("crosstask: steps found in videos, 4 queries", answer.out)
        found = Path(out) / "mine" / "naive" / "seed-0" / "scores.json"
        scores.append(json.loads(found.read_text())["protocols"])
        answer = said("compare", out, "--protocol", "crosstask", "--by-task")
        for task, _ in SHOWN:
            assert re.search(rf"\n{task} +\d", answer.out)
    assert scores[0] == scores[1]
    (score,) = scores[0]
    assert list(score["tasks"]) == ["113766", "23521"]
    for name in ("recall", "average_precision"):
        by_task = [one[name] for one in score["tasks"].values()]
        assert np.mean(by_task) == pytest.approx(score["measures"][name])
    assert "goes with --protocol" in said("compare", "runs0", "--by-task").err
    assert [(one["stage"], one["queries"]) for one in scores[0]] == [(2, 8)]
