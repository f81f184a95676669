"""An exported space in sentence-transformers: the same vectors, and no code from the folder."""

import json
import shutil

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.system.errors import InputError

pytest.importorskip(
    "sentence_transformers",
    reason="sentence-transformers is not installed: pip install 'continual-mm[st]'",
)
from sentence_transformers import SentenceTransformer

from continual_mm.integrations.sentence_transformers import Space

NAMES = ("video", "audio", "text")


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """The exported run."""
    path = tmp_path_factory.mktemp("exported") / "model"
    cm.export_sentence_transformer(finished, path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def model(folder):
    """The folder as sentence-transformers itself loads it."""
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


def items(dataset, name):
    """The features of a dataset's items, of those with time the valid steps only."""
    column = dataset.columns[name]
    lengths = [None] * len(dataset) if column.lengths is None else column.lengths
    return [{name: row[:steps]} for row, steps in zip(column.values, lengths, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_it_encodes_to_the_bytes_that_the_run_encodes_to(model, finished, pack, name):
    dataset, space = cm.read_pack(pack, standardise=False), cm.open_run(finished)
    column = dataset.columns[name]
    expected = space.encode(name, column.values, column.lengths).numpy()
    with torch.inference_mode():
        found = model(model.preprocess(items(dataset, name)))["sentence_embedding"].numpy()
    assert found.shape == (90, space.size)
    assert space.size > 8
    assert found.tobytes() == expected.tobytes()
    # encode() sorts a batch by length, and sums of other rows' places have other last bits.
    assert np.allclose(model.encode(items(dataset, name)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_features_as_an_extractor_gives_them_are_standardised(model, pack, name):
    raw, standardised = cm.read_pack(pack, standardise=False), cm.read_pack(pack)
    expected = model.encode(items(standardised, name), standardised=True)
    assert np.array_equal(model.encode(items(raw, name)), expected)
    assert not np.allclose(model.encode(items(raw, name), standardised=True), expected)
    for given, former in ((raw, True), (standardised, False)):
        with pytest.warns(DeprecationWarning, match="standardised=True for others"):
            found = model.encode(items(given, name), standardise=former)
        assert np.array_equal(found, expected)


def test_similarity_is_the_inner_product(model, pack):
    video, text = (model.encode(items(cm.read_pack(pack), name)) for name in ("video", "text"))
    assert np.allclose(model.similarity(video, text), video @ text.T, atol=1e-6)
    assert model.get_embedding_dimension() == video.shape[1]


def test_for_one_index_each_modality_has_its_factor(model, finished, pack):
    factors = cm.open_run(finished).factors
    assert factors and set(factors.values()) != {1.0}
    for name in NAMES:
        one = items(cm.read_pack(pack), name)[:5]
        expected = model.encode(one) * factors.get(name, 1.0)
        assert np.allclose(model.encode(one, one_index=True), expected, atol=1e-6)


def test_one_item_gives_one_vector_and_lists_of_numbers_will_do(model):
    vector = model.encode({"video": np.arange(6.0)})
    assert vector.shape == (model.get_embedding_dimension(),)
    assert np.array_equal(model.encode([{"video": [0, 1, 2, 3, 4, 5]}])[0], vector)


def test_how_long_other_items_of_a_batch_are_changes_nothing(model, pack):
    sounds = items(cm.read_pack(pack), "audio")
    alone = np.stack([model.encode(one) for one in sounds])
    assert np.allclose(model.encode(sounds, batch_size=7), alone, atol=1e-6)


def test_what_it_saves_again_is_the_same_model(model, pack, tmp_path):
    model.save(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    sounds = items(cm.read_pack(pack, standardise=False), "audio")
    expected = model.encode(sounds)
    assert np.array_equal(again.encode(sounds), expected)


def test_gradients_reach_the_towers_so_that_it_can_be_trained_on(model, pack):
    batch = model.preprocess(items(cm.read_pack(pack), "text")[:4])
    model(batch)["sentence_embedding"].sum().backward()
    gradients = [value.grad for value in model[0].space.tower("text").parameters()]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    model.zero_grad()


def test_a_folder_holds_numbers_and_words_and_nothing_that_runs(folder):
    endings = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert endings <= {".json", ".safetensors", ".md"}
    (module,) = json.loads((folder / "modules.json").read_text())
    assert module["type"] == f"{Space.__module__}.{Space.__name__}"


EVIL = "import pathlib\npathlib.Path(r'{}').touch()\nclass Space: pass\n"


def test_code_in_the_folder_is_not_run_though_it_is_called_as_ours(copied, tmp_path):
    ran = tmp_path / "ran"
    package = copied / "continual_mm" / "integrations"
    package.mkdir(parents=True)
    for path in (
        *(copied / f"{name}.py" for name in ("continual_mm", "integrations", "Space")),
        *(copied / "sentence_transformers.py", package / "sentence_transformers.py"),
        *(package / "__init__.py", package.parent / "__init__.py"),
    ):
        path.write_text(EVIL.format(ran))
    model = SentenceTransformer(str(copied), trust_remote_code=True, device="cpu")
    assert type(model[0]) is Space
    assert not ran.exists()


def test_opened_by_this_package_no_class_of_the_folder_is_asked_for(copied, tmp_path, pack):
    ran = tmp_path / "ran"
    (copied / "evil.py").write_text(EVIL.format(ran))
    modules = json.loads((copied / "modules.json").read_text())
    modules[0]["type"] = "evil.Space"
    (copied / "modules.json").write_text(json.dumps(modules))
    model = cm.open_sentence_transformer(copied)
    assert type(model[0]) is Space
    assert model.similarity_fn_name == "dot"
    assert len(model.encode(items(cm.read_pack(pack), "text")[:3])) == 3
    assert not ran.exists()


def test_it_is_not_loaded_unless_the_user_trusts_the_class(folder):
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(folder))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (np.zeros(6), "a ndarray is no item; give {modality: array}, one of video, audio, text"),
        ({"smell": np.zeros(6)}, "a dict of 'smell' is no item"),
        (
            {"video": np.zeros(5)},
            r"shape \(5,\) does not fit; give {'video': array of shape \(6,\)",
        ),
        ({"audio": np.zeros((0, 4))}, r"give {'audio': array of shape \(steps, 4\)}"),
        ({"video": "clip.mp4"}, "'clip.mp4' is a string; give features"),
        ({"video": object()}, "a object is no array of real numbers"),
        ({"video": np.ones(6) * 1j}, "a ndarray is no array of real numbers"),
        ({"video": [np.nan] * 6}, "an item has a NaN"),
        ("a red ball", "does not know how strings became features; give features"),
    ],
)
def test_what_is_no_item_is_refused_with_what_one_is(model, given, problem):
    with pytest.raises(InputError, match=problem):
        model.encode([given])


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_layout_in_memory_are_items(model):
    values = np.arange(6, dtype=np.float32)
    fixed = values.copy()
    fixed.flags.writeable = False
    expected = model.encode([{"video": values}])
    for same in (values.tolist(), fixed, values.astype(">f4"), values[::-1].copy()[::-1]):
        assert np.array_equal(model.encode([{"video": same}]), expected)


def test_two_modalities_in_a_batch_are_refused(model):
    with pytest.raises(ValueError, match="Encode each modality separately"):
        model.encode([{"video": np.zeros(6)}, {"audio": np.zeros((3, 4))}])
    with pytest.raises(InputError, match="a batch has audio and video"):
        model[0].preprocess([{"video": np.zeros(6)}, {"audio": np.zeros((3, 4))}])


@pytest.mark.parametrize("name", ["space.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        cm.open_sentence_transformer(copied)


def test_damaged_weights_and_other_formats_are_refused(copied):
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(InputError, match="does not fit its description"):
        cm.open_sentence_transformer(copied)
    (copied / "space.json").write_text('{"format": 0}')
    with pytest.raises(InputError, match="is not of format 2"):
        cm.open_sentence_transformer(copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("space", {"settings": {}}),
        ("statistics", {"video": {"mean": [0.0], "rate": [1.0]}}),
        ("statistics", []),
        ("statistics", {"video": {"mean": [0.0] * 6, "rate": [None] * 6}}),
        ("space", None),
        ("space", lambda space: space["modalities"][0].update(shape=[10**13])),
        ("space", lambda space: space["subspaces"][0].update(rank=-3)),
        ("space", lambda space: space.update(factors={"video": "x"})),
    ],
)
def test_a_description_that_was_changed_is_refused_in_a_line(copied, key, value):
    described = json.loads((copied / "space.json").read_text())
    if callable(value):
        value(described[key])
    else:
        described[key] = value
    (copied / "space.json").write_text(json.dumps(described))
    with pytest.raises(
        InputError, match=r"space.json: is damaged \(.*export the run again"
    ) as error:
        cm.open_sentence_transformer(copied)
    assert "\n" not in str(error.value)


def test_a_folder_without_the_encoder_that_it_names_is_refused(copied):
    described = json.loads((copied / "space.json").read_text())
    (copied / "space.json").write_text(json.dumps({**described, "strings": "encoder"}))
    with pytest.raises(InputError, match="has no text/; export the run again"):
        cm.open_sentence_transformer(copied)
