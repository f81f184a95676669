"""Text through a SentenceTransformer, as it gives it; nothing that a folder brings is run."""

import json
import shutil

import numpy as np
import pytest

from continual_mm.data.pack import read_pack
from continual_mm.preparation.extraction.towers import TOWERS, TowerChoice, build, probe
from continual_mm.system.errors import InputError

pytest.importorskip(
    "sentence_transformers",
    reason="sentence-transformers is not installed: pip install 'continual-mm[st]'",
)
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer


def tower(folder):
    return build(TowerChoice("sentence_transformer", {"network": str(folder)}), None, "cpu")


def test_text_is_the_mean_of_its_words_as_the_models_table_says(encoder, colours):
    (table,) = load_file(encoder / "model.safetensors").values()
    rows = {word: table[1 + n] for n, word in enumerate(colours)}
    made = tower(encoder)
    probe(made)
    assert made.features == 6
    found = made.encode("red gold")
    assert found.shape == (6,)
    assert np.allclose(found, (rows["red"] + rows["gold"]) / 2, atol=1e-6)


def test_models_of_other_weights_are_told_apart(encoder, tmp_path):
    other = SentenceTransformer(str(encoder), device="cpu")
    other[0].embedding.weight.data[1] += 1
    other.save(str(tmp_path / "other"))
    one, two = tower(encoder).settings, tower(tmp_path / "other").settings
    assert one["weights"] != two["weights"]
    assert tower(encoder).settings == one


def test_code_in_a_models_folder_is_not_run(encoder, tmp_path):
    folder, ran = shutil.copytree(encoder, tmp_path / "evil"), tmp_path / "ran"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path(r'{ran}').touch()\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "evil.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="is not available to sentence-transformers"):
        tower(folder)
    assert not ran.exists()


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such"}))
    with pytest.raises(InputError, match="download the model where there is a network"):
        tower(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "modules.json"])
def test_a_damaged_file_is_refused_in_a_line(encoder, tmp_path, name):
    folder = shutil.copytree(encoder, tmp_path / "damaged")
    (folder / name).write_text("{}")
    with pytest.raises(InputError, match="is not available to sentence-transformers") as error:
        tower(folder)
    assert "\n" not in str(error.value)


def test_sentences_alone_become_a_pack_by_two_commands(encoder, colours, tmp_path, typed):
    sentences = [f"{one} {two}" for one in colours for two in colours]
    lines = [f"{n},{text},{'train' if n % 3 else 'test'}" for n, text in enumerate(sentences)]
    (tmp_path / "said.csv").write_text("\n".join(["id,text,split", *lines]))
    out = tmp_path / "features"
    made = ("--make", f"text=sentence_transformer:{encoder}", "--workers", 0)
    ended = typed("data", "extract", tmp_path / "said.csv", "--to", out, *made)
    assert not ended.code, ended.err
    ended = typed("data", "convert", "clips", out, "--to", tmp_path / "said.npz")
    assert not ended.code, ended.err
    dataset = read_pack(tmp_path / "said.npz", standardise=False)
    expected = SentenceTransformer(str(encoder), device="cpu").encode(list(dataset.text))
    assert len(dataset) == len(sentences)
    # Extracted features are kept in 16 bits.
    assert np.allclose(dataset.columns["text"].values, expected, rtol=1e-3, atol=1e-3)


def test_the_extra_that_brings_it_is_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("continual_mm.system.imports.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'continual-mm\[st\]'"):
        build(TowerChoice("sentence_transformer"), None, "cpu")
    assert TOWERS["sentence_transformer"].reads
