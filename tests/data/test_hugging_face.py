"""Hugging Face datasets and folders of Parquet files, made into stores."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Array2D, Features, Value
from datasets import Dataset as HubDataset

from continual_mm.data import hugging_face as hub
from continual_mm.data import registry
from continual_mm.data.hugging_face import Reference, cached_store
from continual_mm.system.errors import InputError


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTINUAL_MM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def frame(rows, start, **other):
    numbers = range(start, start + rows)
    each = {
        "ids": lambda k: f"clip {k}",
        "video": lambda k: [float(k), 2.5, -1.0],
        "audio": lambda k: None if k % 3 == 1 else [[k / 2, 1.0]] * (k % 4 + 1),
        "label": lambda k: k % 2,
        "text_raw": lambda k: f"wörd {k}",
        "seconds": lambda k: k / 7,
    }
    columns = {name: list(map(value, numbers)) for name, value in each.items()}
    return pd.DataFrame({**columns, "audio_kind": "spectrogram", **other})


def written(folder, **splits):
    folder.mkdir(parents=True)
    for name, table in splits.items():
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture
def parquet(tmp_path):
    whole = {"validation": frame(2, 8), "test": frame(3, 10)}
    parts = {f"train-0000{k}-of-00002": frame(6 - 4 * k, 6 * k) for k in (0, 1)}
    return written(tmp_path / "clips", **parts, **whole)


def test_a_folder_of_parquet_files_is_a_dataset(parquet):
    dataset = registry.load(str(parquet), standardise=False)
    assert dataset.card == registry.card("clips", folder=parquet.parent)
    assert dataset.card == registry.card(f"hf:{parquet}")
    assert (dataset.card.name, dataset.card.items) == ("clips", (8, 2, 3))
    assert dataset.card.names == ("video", "audio")
    assert dataset.card["audio"].kind == "spectrogram"
    whole = pd.concat([frame(8, 0), frame(2, 8), frame(3, 10)], ignore_index=True)
    assert dataset.ids[np.arange(13)].tolist() == whole["ids"].tolist()
    assert dataset.text[np.arange(13)].tolist() == whole["text_raw"].tolist()
    assert dataset.label.tolist() == whole["label"].tolist()
    video, _ = dataset.columns["video"].take(torch.arange(13))
    assert video.tolist() == whole["video"].tolist()
    audio = dataset.columns["audio"]
    assert audio.present.tolist() == whole["audio"].notna().tolist()
    values, lengths = audio.take(torch.tensor([3, 11]))
    assert lengths.tolist() == [4, 4]
    assert values[1].tolist() == [list(step) for step in whole["audio"][11]]


def test_a_store_is_made_once_and_again_when_a_file_changes(parquet, tmp_path):
    first = cached_store(str(parquet))
    written_at = (first / "store.json").stat().st_mtime_ns
    assert cached_store(f"hf:{parquet}") == first
    assert (first / "store.json").stat().st_mtime_ns == written_at
    frame(4, 10).to_parquet(parquet / "test.parquet")
    assert registry.card(str(parquet)).items == (8, 2, 4)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_hugging_face_saved_is_a_dataset(tmp_path):
    features = Features({"video": Array2D((None, 2), "float32"), "image_id": Value("int64")})
    videos = [np.full((k + 1, 2), k, dtype=np.float32) for k in range(3)]
    HubDataset.from_dict({"video": videos, "image_id": [1, 2, 3]}, features=features).to_parquet(
        tmp_path / "videos" / "train.parquet"
    )
    dataset = registry.load(f"hf:{tmp_path / 'videos'}", standardise=False, splits=["training"])
    assert dataset.ids[np.arange(3)].tolist() == ["train-0", "train-1", "train-2"]
    values, lengths = dataset.columns["video"].take(torch.tensor([2, 0]))
    assert lengths.tolist() == [3, 1]
    assert np.array_equal(values[0], videos[2])


def test_padded_columns_of_a_pack_are_understood(tmp_path):
    speech = {"speech": [[[1.0], [2.0], [0.0]]] * 3, "speech_length": [2, 1, 3]}
    table = {"ids": list("abc"), "split": [0, 1, 2], "speech_present": [True, True, False]} | speech
    dataset = registry.load(str(written(tmp_path / "padded", train=table)), standardise=False)
    assert dataset.columns["speech"].valid.tolist() == [2, 1, 0]
    assert dataset.card.items == (1, 1, 1)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"ids": ["a", "b"], "label": [1, 2]}, r"its columns are ids \(text\), label \(single num"),
        ({"x": [[1.0, 2.0], [1.0]]}, "item 'train-1', column 'x': has shape"),
        ({"x": [[1.0], [float("nan")]]}, "item 'train-1', column 'x': is not finite"),
        ({"x": [[1.0], [2.0]], "x_kind": ["smell"] * 2}, "'smell'; the kinds of signal are"),
        ({"x": [[1.0], [2.0]], "ids": ["a", "a"]}, "ids occur more than once: 'a'"),
        ({"x": [[1.0]], "split": ["some"]}, "odd', item 'train-0', column 'split': 'some'"),
        *(
            ({"x": [[[1.0]] * 3] * 2, "x_length": [3, steps]}, rf"'x_length': {steps} is not with")
            for steps in (-1, 0, 4)
        ),
    ],
)
def test_columns_that_do_not_make_a_dataset_are_refused(tmp_path, table, problem):
    with pytest.raises(InputError, match=problem):
        registry.load(str(written(tmp_path / "odd", train=table)))


def test_a_damaged_file_is_refused_and_nothing_else_is_printed(parquet, capfd):
    (parquet / "test.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(InputError, match="cannot be loaded"):
        registry.load(str(parquet))
    assert capfd.readouterr().err == ""


def test_without_a_network_a_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"something@main': cannot be loaded .*network"):
        registry.card("hf:someone/something@main")
    for odd in ("hf:something", "hf:", "hf:../up/there", "hf:a/b/c"):
        with pytest.raises(InputError, match="write hf:owner/name"):
            registry.card(odd, folder=tmp_path)


def test_files_that_could_run_something_are_not_opened(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "scripts.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(InputError, match="cannot be loaded"):
        registry.load(f"hf:{folder}")
    (folder / "train.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError):
        registry.load(f"hf:{folder}")
    (folder / "scripts.py").unlink()
    (folder / "train.pkl").unlink()
    (folder / "train.txt").write_text("words")
    with pytest.raises(InputError, match="consists of text files; convert it to Parquet"):
        registry.load(f"hf:{folder}")


def test_a_name_may_have_revision_and_configuration():
    reference = Reference.parse("hf:owner/name@v1.0#small")
    assert (reference.path, reference.revision, reference.config) == ("owner/name", "v1.0", "small")
    keys = {Reference.parse(f"hf:owner/name{end}").key for end in ("", "@a", "@b", "#a", "@a#a")}
    assert len(keys) == 5


def split_of(dataset):
    names = dataset.ids[np.arange(len(dataset))].tolist()
    return dict(zip(names, dataset.split.tolist(), strict=True))


def test_without_other_splits_items_are_held_out_by_name_which_is_logged(tmp_path, caplog):
    few = registry.load(str(written(tmp_path / "few", train=frame(200, 0))))
    more = registry.load(str(written(tmp_path / "more", train=frame(300, 0)[::-1])))
    assert split_of(few).items() <= split_of(more).items()
    shares = [split_of(few).values() for few in (few, more)]
    for split in (1, 2):
        assert all(0.04 < list(each).count(split) / len(each) < 0.2 for each in shares)
    expected = (
        "of the training split, 10% for validation and 10% for test were held out by hashes of"
    )
    assert [expected in dataset.notes[0] for dataset in (few, more)] == [True, True]
    assert f"dataset {str(tmp_path / 'few')!r}: {expected} the items' names" in caplog.text
    assert few.notes[1] == "columns that are no modality were left out: seconds (single numbers)"


def test_groups_are_held_out_whole(tmp_path):
    videos = [f"video {k // 5}" for k in range(200)]
    folder = written(tmp_path / "videos", train=frame(200, 0, group=videos))
    dataset = registry.load(str(folder), splits=())
    splits = [set(dataset.split[dataset.group == group]) for group in range(40)]
    assert {len(each) for each in splits} == {1}
    assert set.union(*splits) == {0, 1, 2}


def test_only_what_is_not_there_is_held_out(tmp_path):
    folder = written(tmp_path / "clips", train=frame(100, 0), test=frame(3, 100))
    dataset = registry.load(str(folder))
    training, validation, test = dataset.card.items
    assert (training + validation, test) == (100, 3)
    assert dataset.notes[0].startswith("of the training split, 10% for validation were")
    alone = written(tmp_path / "alone", test=frame(9, 0))
    assert registry.card(str(alone), splits=["test"]).items == (0, 0, 9)


def test_a_column_of_splits_decides_by_numbers_or_names(tmp_path):
    for name, split in ("named", ["train", "dev", "test"]), ("counted", [0, 1, 2]):
        folder = written(tmp_path / name, train=frame(3, 0, split=split))
        dataset = registry.load(str(folder))
        assert dataset.split.tolist() == [0, 1, 2]
        assert len(dataset.notes) == 1


def loaded(folder):
    return registry.load(str(folder), standardise=False, splits=())


def test_no_file_of_a_folder_is_left_unread_and_names_that_decide_are_told(tmp_path):
    files = {
        "clips_test_features": frame(3, 0),
        "clips_features": frame(4, 3),
        "train": frame(5, 7),
    }
    dataset = loaded(written(tmp_path / "video_test", **files))
    assert set(dataset.ids[dataset.split == 2]) == {"clip 0", "clip 1", "clip 2"}
    assert len(dataset) == 12
    assert dataset.notes[-2:] == (
        "taken for test by a word in the name: clips_test_features.parquet",
        "taken for training, since the name has no split in it: clips_features.parquet",
    )
    # Where every item says its split, names decide nothing.
    given = {name: table.assign(split="dev") for name, table in files.items()}
    dataset = loaded(written(tmp_path / "given", **given))
    assert dataset.split.tolist() == [1] * 12
    assert dataset.notes == (
        "columns that are no modality were left out: seconds (single numbers)",
    )


def test_files_that_are_not_read_are_named_with_the_reason(tmp_path):
    folder = written(tmp_path / "mixed", train=frame(9, 0), other=frame(1, 9))
    (folder / "[odd]").mkdir()
    (folder / "train.parquet").rename(folder / "[odd]" / "train [1].parquet")
    (folder / "list.csv").write_text("a,b\n1,2\n")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden").write_text("x")
    assert len(loaded(folder)) == 10
    assert loaded(folder).notes[2:] == (
        "taken for training by a word in the name: [odd]/train [1].parquet",
        "taken for training, since the name has no split in it: other.parquet",
        "not read, since the tables are Parquet files: list.csv",
        "not read, since they are no tables: notes.txt",
    )
    # A folder that describes itself is read as it says.
    lines = (
        "configs:",
        "- config_name: a",
        "  data_files:",
        "  - {split: train, path: other.parquet}",
    )
    (folder / "README.md").write_text("\n".join(("---", *lines, "---", "")))
    dataset = loaded(folder)
    assert dataset.ids[np.arange(len(dataset))].tolist() == ["clip 9"]
    unread = "no part of what the folder's README.md or the configuration lists"
    assert f"not read, since {unread}: [odd]/train [1].parquet" in dataset.notes


@pytest.mark.parametrize("first", [None, []])
def test_a_modality_that_first_items_lack_is_there(tmp_path, first, monkeypatch):
    splits = {"split": ["train", "test"] * 10}
    table = frame(20, 0, **splits, touch=[first] * 18 + [[1.0, 2.0]] * 2, never=[[0.5][:0]] * 20)
    for looked_at in (1000, 2):
        monkeypatch.setattr(hub, "_LOOKED_AT", looked_at)
        dataset = loaded(written(tmp_path / f"{looked_at}", train=table))
        assert dataset.card["touch"].shape == (2,)
        assert dataset.columns["touch"].present.tolist() == [False] * 18 + [True] * 2
        assert "never (empty in every row)" in dataset.notes[0]


def test_what_most_items_have_is_right_whatever_the_first_one_has(tmp_path):
    table = frame(9, 0, touch=[[1.0, 2.0]] + [[1.0, 2.0, 3.0]] * 8)
    with pytest.raises(
        InputError, match=r"'clip 0', column 'touch': has shape \(2,\); its .*\(3,\)"
    ):
        loaded(written(tmp_path / "odd", train=table))


def test_cells_that_some_items_lack_are_empty(tmp_path):
    names = [None, *(f"clip {k}" for k in range(1, 4))]
    cells = {"label": [None, 2, None, 0], "group": ["v", None, None, "v"]}
    table = frame(4, 0, ids=names, text_raw=[None, "one", None, " two "], **cells)
    more = {"ids": ["x"], "video": [[0.0, 1.0, 2.0]]}  # a file that lacks these columns
    dataset = loaded(written(tmp_path / "some", train=table, test=more))
    everything = dataset.ids[np.arange(5)].tolist()
    assert everything == ["train-0", *names[1:], "x"]
    assert dataset.label.tolist() == [-1, 2, -1, 0, -1]
    assert dataset.text[np.arange(5)].tolist() == ["", "one", "", " two ", ""]
    group = dataset.group.tolist()
    assert group[0] == group[3]
    assert len(set(group)) == 4


@pytest.mark.parametrize("as_list", [True, False])
def test_text_of_json_files_is_taken_as_it_stands(tmp_path, as_list):
    rows = [
        {"ids": f"2020-01-0{k + 1}", "text_raw": "2021-05-05 10:00:00", "group": f"0{k}"}
        | {"x": [1.5, k] if k else [1, 2], "y": [] if k else None}
        for k in range(3)
    ]
    (tmp_path / "json").mkdir()
    lines = json.dumps(rows, indent=1) if as_list else "\n".join(map(json.dumps, rows))
    (tmp_path / "json" / "train.json").write_text(lines)
    dataset = loaded(tmp_path / "json")
    assert dataset.ids[np.arange(3)].tolist() == ["2020-01-01", "2020-01-02", "2020-01-03"]
    assert set(dataset.text[np.arange(3)]) == {"2021-05-05 10:00:00"}
    values, _ = dataset.columns["x"].take(torch.arange(3))
    assert values.tolist() == [[1, 2], [1.5, 1], [1.5, 2]]
    assert "columns that are no modality were left out: y (empty in every row)" in dataset.notes
    (tmp_path / "json" / "train.json").write_text("{}\n[1]\n")
    with pytest.raises(InputError, match="line 2: is list, not an object"):
        loaded(tmp_path / "json")


def test_captions_under_another_name_are_found_and_told(tmp_path):
    table = frame(3, 0).rename(columns={"text_raw": "caption"}).assign(text=[[1.0, 2.0]] * 3)
    dataset = loaded(written(tmp_path / "captions", train=table))
    assert dataset.text[np.arange(3)].tolist() == ["wörd 0", "wörd 1", "wörd 2"]
    assert dataset.notes[1] == "caption is read as text_raw"
    assert dataset.card.names == ("video", "audio", "text")


def test_a_cached_store_of_which_files_were_lost_is_made_anew(parquet):
    store = cached_store(str(parquet))
    expected = registry.load(str(parquet)).card
    shard = store / "items" / "data-00000.arrow"
    for damage in (shard.unlink, lambda: shard.write_bytes(b"cut"), (store / "store.json").unlink):
        damage()
        assert registry.load(str(parquet)).card == expected


def test_a_store_that_was_copied_in_part_is_not_taken_for_something_else(parquet):
    store = cached_store(str(parquet))
    (store / "store.json").unlink()
    with pytest.raises(InputError, match=r"is a store without its store\.json; copy"):
        registry.load(str(store))


def test_a_folder_of_videos_needs_features_first(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"video")
    with pytest.raises(InputError, match=r"videofolder files; .*data extract .*videos --help"):
        registry.load(f"hf:{tmp_path / 'videos'}")


def test_files_of_other_types_are_refused(parquet):
    frame(3, 10, video=["words"] * 3).to_parquet(parquet / "test.parquet")
    problem = r"train-00000-of-00002\.parquet: does not fit test\.parquet: .*video has incompatible"
    with pytest.raises(InputError, match=problem):
        registry.load(str(parquet))


def test_a_folder_of_everything_is_not_read_to_its_end(parquet, monkeypatch):
    monkeypatch.setattr(hub, "_MOST_FILES", 3)
    with pytest.raises(InputError, match="has more than 3 files in it; name the folder"):
        registry.load(str(parquet))


def test_a_repository_of_arrays_is_refused_with_the_command_that_converts_it():
    with pytest.raises(InputError, match="continual-mm data convert hsa_languagebind"):
        registry.card("hf:Rowance/HSA-features")
