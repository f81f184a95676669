"""CLAP against transformers' own way to the same features, with a model of two small layers."""

import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

from continual_mm.preparation.extraction.clap_towers import AudioTower, SentenceTower
from continual_mm.preparation.extraction.clip_files import contents, records
from continual_mm.preparation.extraction.job import Outcome, extract
from continual_mm.preparation.extraction.manifest import Clip, Manifest
from continual_mm.preparation.extraction.towers import Recipe, probe
from continual_mm.system.errors import InputError

WORDS = {word: n for n, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", "bin", "blue", "set"))}
RATE = 48_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two seconds' windows, with all that belongs to it."""
    path = tmp_path_factory.mktemp("clap") / "small"
    text = {
        "vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 8, "pad_token_id": 1,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 12,
    }  # fmt: skip
    audio = {
        "num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 4, "hidden_size": 16,
        "patch_stride": [4, 4], "patch_embeds_hidden_size": 8, "depths": [1, 1],
        "num_attention_heads": [2, 2], "num_hidden_layers": 2,
    }  # fmt: skip
    torch.manual_seed(1)
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=6)
    ClapModel(config).eval().save_pretrained(path)
    prepare = ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation="rand_trunc")
    prepare.save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(path)
    return path


def noise(seconds):
    count = round(seconds * RATE)
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


def test_audio_is_encoded_as_transformers_do_a_window_at_a_time(folder):
    tower = AudioTower(network=str(folder))
    probe(tower)
    wave = noise(4.5)
    model, prepare = (each.from_pretrained(folder) for each in (ClapModel, ClapFeatureExtractor))
    windows = [wave[: 2 * RATE], wave[2 * RATE : 4 * RATE], wave[4 * RATE :]]
    with torch.no_grad():
        given = [prepare(each, sampling_rate=RATE, return_tensors="pt") for each in windows]
        expected = [model.eval().get_audio_features(**each) for each in given]
    found = tower.encode(wave)
    assert (tower.sample_rate, tower.features, found.shape) == (RATE, 6, (3, 6))
    assert np.allclose(found, torch.cat([each.pooler_output for each in expected]), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


def test_text_is_encoded_as_transformers_do_and_cut_where_it_is_too_long(folder):
    tower = SentenceTower(network=str(folder))
    model = ClapModel.from_pretrained(folder).eval()
    ids = torch.tensor([[WORDS["set"], WORDS["blue"]]])
    with torch.no_grad():
        expected = model.get_text_features(input_ids=ids).pooler_output[0]
    assert np.allclose(tower.encode("set blue"), expected, atol=1e-5)
    long = tower.encode("set " * 10)
    assert np.array_equal(tower.encode("set " * 50), long)


def test_weights_that_are_pickled_are_not_loaded(folder, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(ClapModel.from_pretrained(folder).state_dict(), pickled / "pytorch_model.bin")
    assert ClapModel.from_pretrained(pickled) is not None  # transformers would
    with pytest.raises(InputError, match="its ClapModel is not available"):
        AudioTower(network=str(pickled))


def test_random_weights_are_named_so_and_others_told_apart(folder, tmp_path):
    one, other = (AudioTower(network=str(folder), weights="random") for _ in "ab")
    assert "random weights" in one.description
    assert np.array_equal(one.encode(noise(0.5)), other.encode(noise(0.5)))
    trained = AudioTower(network=str(folder))
    assert one.settings["weights"] != trained.settings["weights"]
    with pytest.raises(InputError, match="no weights 'best'"):
        AudioTower(network=str(folder), weights="best")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match=r"is not available: .*; download the model where"):
        AudioTower(network=str(tmp_path))


def test_audio_of_two_rates_is_extracted_in_one_job(folder, tmp_path, media_file):
    media_file(tmp_path / "a.wav", audio=noise(3.0)[None], sample_rate=RATE)
    manifest = Manifest(tmp_path, (Clip("a", "a.wav", text="set blue"),))
    made = [f"sound=clap_audio:{folder}", f"said=clap_text:{folder}", "audio=audio"]
    recipes = [Recipe.parse(text) for text in made]
    assert extract(manifest, recipes, tmp_path / "out", workers=0) == Outcome(1, 0)
    (found,) = records(tmp_path / "out")
    assert found["sound"].shape == (2, 6)
    assert found["said"].shape == (6,)
    assert found["audio"].shape == (301, 40)
    expected = AudioTower(network=str(folder)).encode(noise(3.0))
    assert np.allclose(found["sound"], expected, atol=1e-3)
    assert "small" in contents(tmp_path / "out")["sound"].description
