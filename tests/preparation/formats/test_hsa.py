"""Hub-Spectral Activation's archives, as their documentation describes them, made here."""

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.data.registry import load
from continual_mm.definitions import catalog
from continual_mm.definitions.modality import Kind, Modality, Pair
from continual_mm.preparation.formats import hsa
from continual_mm.preparation.formats.hub import fetched
from continual_mm.runs.opening import open_scenario
from continual_mm.system.errors import InputError

LANGUAGEBIND = (
    *("image-video", "image-thermal", "image-depth", "image-audio", "video-thermal"),
    *("video-depth", "video-audio", "thermal-depth", "thermal-audio", "depth-audio"),
)
ROWS = {"a_train": 12, "h_a_train": 12, "b_train": 11, "h_b_train": 11, "a_test": 9, "b_test": 9}


def arrays(seed=0, size=6, **changed):
    rng = np.random.default_rng(seed)
    made = {key: rng.normal(size=(rows, size)).astype(np.float32) for key, rows in ROWS.items()}
    return {key: value for key, value in (made | changed).items() if value is not None}


def write(folder, name, backbone="languagebind", **changed):
    path = folder / "retrieval" / backbone / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays(seed=len(name), **changed))
    return path


@pytest.fixture
def folder(tmp_path):
    """All ten relations of LanguageBind, and an archive of the other task."""
    for name in LANGUAGEBIND:
        write(tmp_path / "published", name)
    other = tmp_path / "published" / "classification" / "languagebind"
    other.mkdir(parents=True)
    np.savez(other / "image-depth.npz", prototypes=np.ones((2, 6)))
    return tmp_path / "published"


def test_every_row_is_an_item_of_the_two_modalities_that_it_pairs(folder):
    (relation,) = hsa.relations(folder, "languagebind", ["image-audio"])
    assert hsa.layout([relation]) == tuple(
        Modality(name, Kind.VECTOR, (6,)) for name in ("text", "image", "audio")
    )
    found = list(hsa.records([relation], validation=0.2, test=0.2))
    expected = np.load(relation.path)
    for one, other, key, beside in (
        ("image", "text", "a_train", "h_a_train"),
        ("audio", "text", "b_train", "h_b_train"),
        ("image", "audio", "a_test", "b_test"),
    ):
        items = [item for item in found if {one, other} <= item.keys()]
        assert np.array_equal([item[one] for item in items], expected[key])
        assert np.array_equal([item[other] for item in items], expected[beside])
        splits = {item["split"] for item in items}
        assert splits == ({0, 1, 2} if other == "text" else {1, 2})
    assert len({item["ids"] for item in found}) == len(found) == 32
    assert len({item["label"] for item in found}) == 32


def test_test_items_of_one_group_have_one_label(tmp_path):
    write(tmp_path, "depth-audio", positive_labels=np.repeat(["a", "b", "c"], 3))
    found = list(hsa.records(hsa.relations(tmp_path, "languagebind"), validation=0.1, test=0.1))
    tested = [item["label"] for item in found if "text" not in item]
    assert [len(set(tested[n : n + 3])) for n in (0, 3, 6)] == [1, 1, 1]
    assert len(set(tested)) == 3
    assert len({item["label"] for item in found}) == 23 + 3


def test_the_hub_of_imagebind_is_the_image(tmp_path):
    write(tmp_path, "audio_depth__batvision", backbone="imagebind")
    write(tmp_path, "image-video")
    (relation,) = hsa.relations(tmp_path, "imagebind")
    assert (relation.first, relation.second, relation.hub) == ("audio", "depth", "image")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"a_test": None}, "column 'a_test': is missing"),
        ({"b_train": np.ones((11, 2, 3))}, r"column 'b_train': has shape \(11, 2, 3\)"),
        ({"h_a_train": np.ones((3, 6))}, "'a_train': has 12 rows, 'h_a_train' has 3"),
        ({"positive_labels": np.arange(4)}, r"'positive_labels': has shape \(4,\)"),
        ({"a_train": np.array([[{}] * 6] * 12)}, "holds pickled Python objects"),
    ],
)
def test_an_archive_of_another_form_is_refused(tmp_path, changed, problem):
    write(tmp_path, "image-video", **changed)
    these = hsa.relations(tmp_path, "languagebind")
    with pytest.raises(InputError, match=problem):
        list(hsa.records(these, validation=0.1, test=0.1))


def test_a_folder_without_archives_and_unknown_relations_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds no retrieval/imagebind/<relation>\.npz"):
        hsa.relations(folder, "imagebind")
    with pytest.raises(InputError, match="did you mean 'image-video'"):
        hsa.relations(folder, "languagebind", ["image-vidio"])


def test_a_relation_that_is_there_twice_or_with_the_hub_is_refused(tmp_path):
    write(tmp_path / "one", "image-video")
    write(tmp_path, "text-video")
    with pytest.raises(InputError, match=r"text-video.*besides the hub, text"):
        hsa.relations(tmp_path, "languagebind")
    chosen = hsa.relations(tmp_path, "languagebind", ["image-video", "image-video"])
    assert [one.name for one in chosen] == ["image-video"]
    write(tmp_path / "two", "image-video")
    with pytest.raises(InputError, match=r"two.*image-video\.npz: is there twice, as .*one"):
        hsa.relations(tmp_path, "languagebind")


def test_archives_that_match_nothing_are_named_with_the_reason(folder, typed, tmp_path):
    assert [*hsa.unread(folder, "languagebind")] == []
    write(folder, "Image_Video")
    write(folder, "image-video-audio")
    write(folder, "image-text", backbone="imagebind")
    np.savez(folder / "loose.npz", **arrays())
    two = "left unread: retrieval/languagebind/Image_Video.npz, retrieval/languagebind/image-video-"
    ended = typed("data", "convert", "hsa_languagebind", folder, "--to", tmp_path / "out")
    assert not ended.code, ended.err
    assert ended.err.splitlines() == [
        "left unread: loose.npz: is in no folder languagebind",
        f"{two}audio.npz: is not called as two modalities, such as image-video or"
        " image-video__name",
    ]


def test_modalities_that_come_after_many_rows_are_converted_too(tmp_path, typed):
    many = {key: np.ones((1100, 6), np.float32) for key in ROWS if "train" in key}
    write(tmp_path / "in", "depth-audio", **many)
    write(tmp_path / "in", "image-video")
    words = ("data", "convert", "hsa_languagebind", tmp_path / "in", "--to", tmp_path / "out")
    ended = typed(*words)
    assert not ended.code, ended.err
    dataset = load(str(tmp_path / "out"), standardise=False)
    assert {name: int(column.present.sum()) for name, column in dataset.columns.items()} == {
        "text": 2 * 1100 + 12 + 11,
        "depth": 1100 + 9,
        "audio": 1100 + 9,
        "image": 12 + 9,
        "video": 11 + 9,
    }


def test_without_a_network_a_line_says_what_to_do(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be downloaded: .*hf download own/name") as error:
        fetched("hf:own/name", ["*.npz"])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="names no dataset"):
        fetched("hf:nothing", ["*.npz"])
    with pytest.raises(InputError, match="is no folder"):
        fetched("nowhere", ["*.npz"])


def test_the_shipped_scenario_of_pairs_trains_and_scores_those_never_trained(
    folder, tmp_path, monkeypatch, typed, changed
):
    monkeypatch.setenv("CONTINUAL_MM_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    first = typed("run", "hsa_pairs")
    assert first.code == 2
    assert "continual-mm data convert hsa_languagebind" in first.err.replace("\n", " ")
    ended = typed("data", "convert", "hsa_languagebind", folder)
    assert not ended.code, ended.err
    dataset = load("hsa_languagebind", standardise=False)
    present = {name: column.present for name, column in dataset.columns.items()}
    for name in ("image", "video", "depth", "audio", "thermal"):
        trained = (dataset.split == 0) & present[name]
        assert trained.any()
        assert (present["text"] | ~trained).all()
    shipped = open_scenario(catalog.find("scenarios", "hsa_pairs")).scenario
    small = changed(shipped, dim=6, steps=2, batch_size=8)
    history = cm.train(small, dataset, plugins=[cm.Freeze()], device="cpu")
    assert len(history.roles.emergent) == 10
    assert set(map(str, history.roles.emergent)) == {str(Pair.parse(each)) for each in LANGUAGEBIND}
    found = {str(score.pair) for score in history.scores if score.split == "test"}
    assert set(map(str, history.roles.emergent)) <= found
