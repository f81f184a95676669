"""Towers against torchvision's and open_clip's own ways to the same features."""

import json
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from continual_mm.preparation.extraction.clip_towers import ImageTower, SentenceTower
from continual_mm.preparation.extraction.manifest import Clip, Manifest
from continual_mm.preparation.extraction.torchvision_towers import (
    FrameTower,
    MotionTower,
    load_network,
)
from continual_mm.preparation.extraction.towers import (
    TOWERS,
    FrameSampling,
    Recipe,
    TowerChoice,
    build,
    check_recipes,
    probe,
)
from continual_mm.preparation.extraction.word_towers import Vectors, corpus_vectors, needed
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError

WORDS = {"bin": 0, "blue": 1, "set": 2}
VALUES = np.array([[1, 1], [0, 0], [1, 1]], dtype=np.float32)
TABLE = Vectors("three words", WordVectors(WORDS, VALUES, "3"))


def images(count, height=40, width=48):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def small(weights="random", network="squeezenet1_1"):
    return FrameTower(network=network, weights=str(weights), side=64)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A small residual network whose statistics are not those of a fresh one, and its file."""
    torch.manual_seed(1)
    module = models.resnet18(num_classes=3)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(module.state_dict(), path)
    return module.eval(), path


def test_frames_have_the_features_that_torchvision_classifies(resnet):
    module, path = resnet
    tower = FrameTower(network="resnet18", weights=str(path), side=32)
    some = images(3, 32, 40)
    prepare = models.ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=32, resize_size=32)
    features = create_feature_extractor(module, {"flatten": "features"})
    with torch.no_grad():
        expected = features(prepare(torch.from_numpy(some).permute(0, 3, 1, 2)))["features"]
    assert tower.features == 512
    assert np.allclose(tower.encode(some), expected.numpy(), atol=1e-5)


def test_windows_have_the_features_that_torchvision_classifies(tmp_path):
    torch.manual_seed(1)
    module = models.video.mc3_18().eval()
    torch.save({"state_dict": module.state_dict()}, tmp_path / "mc3.pth")
    tower = MotionTower(network="mc3_18", weights=str(tmp_path / "mc3.pth"), window=4, side=32)
    some = images(6, 32, 40)
    preset = models.video.MC3_18_Weights.DEFAULT
    prepare = preset.transforms(crop_size=(32, 32), resize_size=(32, 40))
    # The last frame fills the second window up.
    windows = torch.from_numpy(np.stack([some[:4], some[[4, 5, 5, 5]]])).permute(0, 1, 4, 2, 3)
    features = create_feature_extractor(module, {"flatten": "features"})
    with torch.no_grad():
        expected = features(prepare(windows))["features"]
    found = tower.encode(some)
    assert found.shape == (2, tower.features)
    assert np.allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "name", "features"),
    [
        (models, "mobilenet_v3_small", 1024),
        (models, "resnet152", 2048),
        (models.video, "s3d", 1024),
    ],
)
def test_any_network_of_torchvision_gives_what_its_last_layer_takes(family, name, features):
    loaded, _ = load_network(family, name, "random", "cpu")
    assert loaded.network.features == features


def test_random_weights_are_named_so_and_the_same_whatever_the_process_and_its_threads():
    first, second = small(), small()
    assert "random weights" in first.description
    assert first.settings["weights"] == "random"
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        several = first.encode(images(2))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(several, second.encode(images(2)))


def test_weights_that_were_trained_in_parallel_fit(resnet, tmp_path):
    module, path = resnet
    parallel = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save({"state_dict": parallel}, tmp_path / "parallel.pth")
    one, other = (small(each, "resnet18") for each in (path, tmp_path / "parallel.pth"))
    assert np.array_equal(one.encode(images(1)), other.encode(images(1)))


def test_weights_of_another_network_are_refused_in_a_few_words(resnet):
    with pytest.raises(InputError, match="does not fit the network: Missing key") as error:
        small(resnet[1], "alexnet")
    assert str(error.value).endswith("and 117 more; name the network it was saved of")
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("open_clip_audio:HTSAT", "open_clip has no network for audio; clap_audio uses"),
        ("frame", "tower 'frame': there is none; did you mean 'frames'"),
        ("frames:resnet18b@random", "torchvision has none; did you mean 'resnet18'"),
        ("frames:resnet18@IMAGENET1K_V3", "no weights 'IMAGENET1K_V3'; did you mean"),
        ("frames:resnet18@gone.pth", r"gone\.pth: cannot be read as weights"),
        ("frames:squeezenet1_1@random,rates=2", "has no option 'rates'; did you mean 'rate'"),
        ("frames:squeezenet1_1@random,rate=0", "rate 0 is not above 0"),
        ("frames:squeezenet1_1@random,rate=nan", "rate nan is not above 0"),
        ("frames:squeezenet1_1@random,rate=1e308", "at most 1000 frames per second"),
        ("frames:squeezenet1_1@random,side=99999", "side 99999 is not from 1 to 4096"),
        ("text,max_words=9999999999", "max_words 9999999999 is not from 1 to 100000"),
        ("frames:squeezenet1_1@random,count=1.5", "count 1.5 is not from 1 to 1000000"),
        ("text,mode=loud", "no mode 'loud'"),
        ("audio,mode=loud", "no mode 'loud'"),
        ("open_clip_image:ViT-B-33@random", "open_clip has none; did you mean 'ViT-B-32'"),
        ("open_clip_text:ViT-B-32@laion", "no weights 'laion'"),
        ("frames:squeezenet1_1@random on cuda:7", "correct its options, or the device"),
    ],
)
def test_a_wrong_choice_is_refused_with_a_remedy(text, problem):
    choice, _, device = text.partition(" on ")
    with pytest.raises(InputError, match=problem):
        build(TowerChoice.parse(choice), TABLE, device or "cpu")


@pytest.mark.parametrize("tower", ["frames:squeezenet1_1@DEFAULT", "open_clip_image:RN50@openai"])
def test_a_download_that_fails_is_refused_in_one_line(tower, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot be downloaded: .*; download them where"):
        build(TowerChoice.parse(tower), TABLE, "cpu")


def test_sizes_that_a_network_cannot_take_are_found_before_the_work():
    tower = build(TowerChoice.parse("frames:alexnet@random,side=16"), TABLE, "cpu")
    with pytest.raises(RuntimeError):
        probe(tower)


def test_only_words_that_occur_are_taken_along():
    few = needed(TABLE, ["bin of red", "Set"])
    assert few.words.rows == {"bin": 0, "set": 1}
    assert np.array_equal(few.words.values, np.ones((2, 2)))
    assert few.words.fingerprint == "3"


def test_vectors_are_trained_on_training_captions_only_and_always_alike():
    clips = (Clip("a", "a", text="bin blue now"), Clip("b", "b", text="set red", split=2))
    manifest = Manifest(Path(), clips)
    first, second = corpus_vectors(manifest, features=4), corpus_vectors(manifest, features=4)
    assert first.words.rows.keys() == {"bin", "blue", "now"}
    assert np.array_equal(first.words.values, second.words.values)
    assert first.name == second.name != corpus_vectors(manifest, features=4, seed=1).name
    other = corpus_vectors(Manifest(Path(), (Clip("a", "a", text="bin red"),)), features=4)
    assert first.words.fingerprint == second.words.fingerprint != other.words.fingerprint
    assert not corpus_vectors(Manifest(Path(), clips[1:])).words.rows


TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The configuration of a CLIP with one layer each for images of 32 pixels and for text."""
    path = tmp_path_factory.mktemp("configs") / "tiny-of-the-tests.json"
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)
    return path


def test_frames_and_text_are_encoded_as_open_clip_does(tiny, tmp_path):
    torch.manual_seed(1)
    model, weights = open_clip.create_model(tiny.stem).eval(), tmp_path / "clip.pt"
    torch.save(model.state_dict(), weights)
    some = images(3, 32, 40)
    mean, std = (
        torch.tensor(getattr(open_clip, f"OPENAI_DATASET_{each}")).view(3, 1, 1)
        for each in ("MEAN", "STD")
    )
    cut = torch.from_numpy(some[:, :, 4:36]).permute(0, 3, 1, 2) / 255
    tokens = open_clip.get_tokenizer(tiny.stem)(["set red"])
    with torch.no_grad():
        expected = model.encode_image((cut - mean) / std, normalize=True)
        sentence = model.encode_text(tokens, normalize=True)
    image, text = (
        tower(network=tiny.stem, weights=str(weights)) for tower in (ImageTower, SentenceTower)
    )
    assert (image.sampling.side, image.features) == (32, 8)
    assert np.allclose(image.encode(some), expected, atol=1e-6)
    assert np.allclose(text.encode("set red"), sentence)
    assert image._model is text._model  # loaded once


def test_libraries_print_nothing_while_networks_are_made(tiny):
    making = (
        "import open_clip, sys\n"
        "from continual_mm.preparation.extraction.clip_towers import SentenceTower\n"
        "open_clip.add_model_config(sys.argv[1])\n"
        "SentenceTower(network=sys.argv[2], weights='random')\n"
    )
    given = sys.executable, "-c", making, tiny, tiny.stem
    assert subprocess.run(given, capture_output=True, check=True).stderr == b""


def test_recipes_are_checked_together_before_any_work():
    texts = "video=frames+motion", "a b=audio", "t=text", "t=text", "ids=audio", "a_kind=audio"
    with pytest.raises(InputError) as error:
        check_recipes(tuple(map(Recipe.parse, texts)))
    assert [problem.message for problem in error.value.problems] == [
        "has several towers, whose steps are at different times",
        "is no name for a modality",
        "is made more than once",
        "is what datasets call something else",
        "is what datasets call something else",
    ]
    with pytest.raises(InputError, match="there is none"):
        check_recipes(())


@pytest.mark.parametrize("text", ["video", "=", "video=", "video=frames+"])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(InputError, match="is no modality with its towers"):
        Recipe.parse(text)


@pytest.mark.parametrize("name", TOWERS)
def test_the_registry_knows_which_towers_read(name):
    tower = resolve_name(f"continual_mm.preparation.extraction.{TOWERS[name].path}")
    assert TOWERS[name].reads == (tower.signal == "text")


def test_a_clip_has_no_more_frames_than_can_be_held():
    assert len(FrameSampling(rate=1000.0).times(0.0, 10.0)) == 10_000
    with pytest.raises(ValueError, match=r"1e\+07 s have more than 1000000 frames"):
        FrameSampling().times(0.0, 1e7)
