"""Several datasets as one: the same items as if somebody had put them into one file by hand."""

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.data import corpora, registry
from continual_mm.data.corpora import together
from continual_mm.data.dataset import Split
from continual_mm.data.pack import read_pack, write_pack
from continual_mm.data.schema import NOT_GIVEN
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.runs.folder import RunFolder
from continual_mm.system.errors import InputError

SPLIT = np.repeat([0, 1, 2], [12, 4, 5])
ROWS = len(SPLIT)


@pytest.fixture(scope="module")
def arrays():
    """Of 21 clips with sound, and of 21 others with captions: longer, and of the same names."""
    rng = np.random.default_rng(7)
    ids = np.array([f"clip {n}" for n in range(ROWS)])
    common = {"ids": ids, "split": SPLIT, "label": np.arange(ROWS) % 3}
    video = {"video_kind": np.array("frames")}
    first = {"video": rng.normal(5, 2, (ROWS, 4, 3)), "video_length": rng.integers(1, 5, ROWS)}
    second = {"video": rng.normal(9, 1, (ROWS, 6, 3)), "video_length": rng.integers(1, 7, ROWS)}
    texts = {"text": rng.normal(size=(ROWS, 5)), "text_raw": np.array(["höre"] * ROWS)}
    groups = np.arange(ROWS) // 2
    return (
        {**common, **first, **video, "audio": rng.normal(size=(ROWS, 2)), "group": groups},
        {**common, **second, **video, **texts},
    )


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    """``a/clips.npz`` and ``b/clips.npz``, and the second as the store ``b/store``."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, one in zip("ab", arrays, strict=True):
        (folder / name).mkdir()
        write_pack(folder / name / "clips.npz", one)
    layout = (Modality("video", Kind.FRAMES, (0, 3)), Modality("text", Kind.VECTOR, (5,)))
    records = (
        {
            **{key: arrays[1][key][n] for key in ("split", "label", "text", "text_raw", "ids")},
            "video": arrays[1]["video"][n, : arrays[1]["video_length"][n]],
        }
        for n in range(ROWS)
    )
    plain = ({**one, "ids": str(one["ids"]), "text_raw": "höre"} for one in records)
    write_store(plain, folder / "b" / "store", layout=layout, dtype="float32")
    return folder


PACKS, MIXED = ("a/clips.npz", "b/clips.npz"), ("a/clips.npz", "b/store")


@pytest.mark.parametrize("names", [PACKS, MIXED])
def test_items_of_both_are_there_in_order_and_told_apart(folder, arrays, names):
    both = corpora.load(names, folder=folder, standardise=False)
    assert both.card == corpora.card(names, folder=folder)
    assert (both.card.items, len(both)) == ((24, 8, 10), 42)
    assert [one.shape for one in both.card.modalities] == [(6, 3), (2,), (5,)]
    assert both.card.having("audio", "text") == (0, 0, 0)
    assert both.card.having("text", "video") == (12, 4, 5)
    ids = both.ids[np.arange(42)]
    assert len(set(ids.tolist())) == 42
    assert {each.partition("/")[2] for each in ids.tolist()} == set(arrays[0]["ids"].tolist())
    rows = torch.tensor([20, 21, 3, 41])  # of both, in no order
    values, lengths = both.columns["video"].take(rows)
    for place, (which, row) in enumerate([(0, 20), (1, 0), (0, 3), (1, 20)]):
        steps = int(arrays[which]["video_length"][row])
        assert int(lengths[place]) == steps
        expected = arrays[which]["video"][row, :steps].astype(np.float32)
        assert np.array_equal(values[place, :steps].numpy(), expected)
        assert not values[place, steps:].any()
    assert both.columns["audio"].present.tolist() == [True] * 21 + [False] * 21
    assert both.columns["text"].valid.tolist() == [0] * 21 + [1] * 21
    assert both.text[np.array([0, 30])].tolist() == ["", "höre"]
    assert both.label.tolist() == [*(np.arange(21) % 3)] * 2
    # Groups of the first stay together; an item of the second has none, and is one by itself.
    numbers = both.group
    assert len(np.unique(numbers)) == 11 + 21
    assert all((numbers[0] == numbers[1], numbers[0] != numbers[2], NOT_GIVEN not in numbers))


def test_a_shared_modality_is_standardised_by_the_first_dataset_that_has_training_items(
    folder, arrays
):
    both = corpora.load(PACKS, folder=folder)
    training = SPLIT == 0
    valid = np.arange(4) < arrays[0]["video_length"][:, None]
    seen = arrays[0]["video"].astype(np.float32)[training][valid[training]].astype(np.float64)
    assert np.allclose(both.statistics["video"].mean, seen.mean(axis=0))
    assert np.allclose(both.statistics["video"].rate, 1 / seen.std(axis=0))
    taken, _ = both.columns["video"].take(torch.tensor([21]))
    expected = (arrays[1]["video"][0, 0] - seen.mean(axis=0)) / seen.std(axis=0)
    assert np.allclose(taken[0, 0].numpy(), expected, atol=1e-4)
    assert set(both.statistics) == {"video", "audio", "text"}
    some = corpora.load(PACKS, folder=folder, standardise=["text"])
    assert set(some.statistics) == {"text"}


def test_rows_of_a_split_can_be_those_of_one_dataset(folder):
    both = corpora.load(PACKS, folder=folder)
    assert both.rows_of(Split.TRAIN, "b/clips.npz").tolist() == list(range(21, 33))
    assert both.rows_of(Split.TEST).tolist() == [*range(16, 21), *range(37, 42)]


def test_what_does_not_go_together_is_refused(folder, tmp_path):
    first = read_pack(folder / "a/clips.npz")
    second = read_pack(folder / "b/clips.npz")
    with pytest.raises(InputError, match="'b': video is standardised otherwise than in 'a'; read"):
        together({"a": first, "b": second})
    by = {**first.statistics, "text": True}
    assert len(together({"a": first, "b": read_pack(folder / "b/clips.npz", standardise=by)})) == 42
    write_pack(
        tmp_path / "c.npz", {"video": np.ones((3, 7)), "ids": list("xyz"), "split": [0, 1, 2]}
    )
    with pytest.raises(
        InputError, match=r"video is vector of shape \(7,\).* it is frames of shape"
    ):
        corpora.card((str(folder / "a/clips.npz"), str(tmp_path / "c.npz")))


def test_a_run_on_two_datasets_is_that_on_one_of_the_same_items(folder, arrays, tmp_path):
    first, second = arrays
    audio = np.concatenate([first["audio"], np.zeros((ROWS, 2))])
    text = np.concatenate([np.zeros((ROWS, 5)), second["text"]])
    padded = np.pad(first["video"], ((0, 0), (0, 2), (0, 0)))
    here = np.repeat([True, False], ROWS)
    one = cm.Dataset.from_arrays(
        {"video": np.concatenate([padded, second["video"]]), "audio": audio, "text": text},
        split=np.tile(SPLIT, 2),
        kinds={"video": "frames"},
        lengths={"video": np.concatenate([first["video_length"], second["video_length"]])},
        present={"audio": here, "text": ~here},
        standardise=False,
    )
    two = {
        "a": read_pack(folder / "a/clips.npz", standardise=False),
        "b": read_pack(folder / "b/clips.npz", standardise=False),
    }

    def scenario(first="", second="", **settings):
        stages = (
            cm.Stage(add=("video", "audio"), dataset=first),
            cm.Stage(add=("text",), pairs=("text-video",), dataset=second),
        )
        space = cm.SpaceSettings(dim=8, clusters=3)
        training = cm.Training(steps=4, batch_size=6)
        return cm.Scenario(name="two", space=space, training=training, stages=stages, **settings)

    memory = cm.MemorySettings(items=8)
    replay = cm.Strategy(name="replay", memory=memory, plugins={"replay": {"rows": 4}})
    for out, made, data in (
        (tmp_path / "one", scenario(items="paired"), one),
        (tmp_path / "two", scenario("a", "b"), two),
    ):
        cm.run(made, replay, data, out, device="cpu", board=False)
    for name in ("checkpoints/stage-2/space.safetensors", "ranks/stage-2.npz"):
        paths = [tmp_path / each / "two" / "replay" / "seed-0" / name for each in ("one", "two")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    # A run on one of them, or on datasets of other names, is refused.
    with pytest.raises(InputError, match="stages name a, b, but given is clips"):
        cm.train(scenario("a", "b"), two["a"], device="cpu")
    with pytest.raises(InputError, match=r"stage\]\] 2, dataset: no dataset is named"):
        cm.train(scenario("a"), two["a"], device="cpu")


def test_commands_train_on_two_datasets_by_path_and_find_them_again(
    folder, tmp_path, typed, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    definition = tmp_path / "two.toml"
    definition.write_text(
        f"""
space = {{ dim = 8, clusters = 0 }}
training = {{ steps = 3, batch_size = 4 }}
[[stage]]
add = ["video", "audio"]
dataset = "{folder}/a/clips.npz"
[[stage]]
add = ["text"]
pairs = ["text-video"]
dataset = "{folder}/b/store"
"""
    )
    ended = typed("run", definition, "--strategy", "recommended", "--no-board")
    assert not ended.code, ended.err
    run = RunFolder(tmp_path / "runs" / "two" / "recommended" / "seed-0")
    assert run.finished
    ended = typed("consolidate", run.path, "--dim", "4")
    assert not ended.code, ended.err
    places = [word for name in MIXED for word in ("--dataset", folder / name)]
    ended = typed("consolidate", run.path, "--dim", "5", *places)
    assert not ended.code, ended.err
    wrong = typed("consolidate", run.path, "--dim", "6", "--dataset", folder / "a/clips.npz")
    assert (wrong.code, "is not what the run was trained on" in wrong.err) == (2, True)
    assert registry.card(str(folder / "b/store")).items == (12, 4, 5)
