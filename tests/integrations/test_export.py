"""From a run to a folder: what it finds by itself, what it is given, and what is refused."""

import shutil

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.data.narrated_shapes import generate
from continual_mm.system.errors import InputError

pytest.importorskip(
    "sentence_transformers",
    reason="sentence-transformers is not installed: pip install 'continual-mm[st]'",
)
from sentence_transformers import SentenceTransformer

TO = ("--to", "sentence-transformers")


@pytest.fixture(scope="module")
def narrated(tmp_path_factory):
    """A small pack of generated clips, whose texts are word vectors."""
    path = tmp_path_factory.mktemp("narrated") / "narrated.npz"
    np.savez(path, **generate.generate(seed=3, items=(60, 10, 20)))
    return path


def write_words(path, words):
    """A text file of word vectors, as word2vec writes them."""
    lines = [f"{word} {' '.join(map(repr, map(float, row)))}" for word, row in words.items()]
    path.write_text("\n".join([f"{len(words)} {len(next(iter(words.values())))}", *lines]) + "\n")


def test_a_run_is_exported_by_a_command_and_loads_as_it_says(finished, tmp_path, typed):
    ended = typed("export", finished, *TO, "--out", tmp_path / "model")
    assert not ended.code, ended.err
    printed = ended.out.replace("\n", "")
    assert "a model for video, audio, text" in printed
    assert "strings cannot be encoded" in printed
    model = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True)
    assert model.get_embedding_dimension() == cm.open_run(finished).size
    card = (tmp_path / "model" / "README.md").read_text()
    assert "open_sentence_transformer" in card and "| audio | spectrogram | (8, 4) |" in card


def test_what_a_run_was_consolidated_to_is_exported_as_a_run_is(finished, tmp_path):
    small = cm.consolidate(finished, 3, to=tmp_path / "small", device="cpu").folder
    assert cm.export_sentence_transformer(small, tmp_path / "model").size == 3
    model = cm.open_sentence_transformer(tmp_path / "model")
    video = {"video": np.ones(6, np.float32)}
    expected = cm.open_run(small).encode("video", video["video"]).numpy()
    assert np.allclose(model.encode(video), expected)


def test_the_default_folder_is_the_runs_own_and_is_not_written_twice(trained_on, pack, typed):
    run = trained_on(pack)
    assert not typed("export", run, *TO).code
    assert (run / "sentence-transformers" / "modules.json").is_file()
    again = typed("export", run, *TO)
    assert again.code == 2
    assert "is there already; remove it" in again.err.replace("\n", " ")
    assert not typed("status", run).code


def test_a_sentence_goes_through_the_encoder_that_the_texts_were_made_of(
    described, encoder, trained_on, tmp_path
):
    run = trained_on(described)
    cm.export_sentence_transformer(run, tmp_path / "model", encoder=str(encoder))
    model = cm.open_sentence_transformer(tmp_path / "model")
    dataset, space = cm.read_pack(described), cm.open_run(run)
    expected = space.encode("text", dataset.columns["text"].values, standardised=True)
    sentences = list(dataset.text)
    assert np.allclose(model.encode(sentences), expected, atol=1e-6)
    assert np.allclose(model.encode([{"text": sentences[3]}]), expected[3], atol=1e-6)
    prompted = model.encode(sentences[3].partition(" ")[2], prompt=sentences[3].split()[0] + " ")
    assert np.allclose(prompted, expected[3], atol=1e-6)


def test_a_sentence_goes_through_the_word_vectors_that_the_texts_were_made_of(
    narrated, trained_on, tmp_path
):
    arrays = np.load(narrated)
    training = arrays["text_raw"][:60].tolist()
    write_words(tmp_path / "words.txt", generate.word_vectors(training, seed=3))
    run = trained_on(narrated)
    cm.export_sentence_transformer(run, tmp_path / "model", vectors=tmp_path / "words.txt")
    model = cm.open_sentence_transformer(tmp_path / "model")
    dataset, space = cm.read_pack(narrated), cm.open_run(run)
    text = dataset.columns["text"]
    expected = space.encode("text", text.values, text.lengths, standardised=True)
    assert np.allclose(model.encode(list(dataset.text)), expected, atol=1e-5)
    with pytest.raises(InputError, match="'qqq': has no known word"):
        model.encode(["qqq"])
    with pytest.raises(InputError) as long:
        model.encode(["qqq\n" * 1000])
    assert len(str(long.value)) < 400
    assert "\n" not in str(long.value)
    # Its table of words is mapped from the folder that it is saved to.
    model.save(str(tmp_path / "model"))
    again = cm.open_sentence_transformer(tmp_path / "model")
    assert np.array_equal(again.encode(list(dataset.text)), model.encode(list(dataset.text)))
    np.save(tmp_path / "model" / "words.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="is damaged"):
        cm.open_sentence_transformer(tmp_path / "model")


def test_capitals_are_words_of_their_own_in_a_run_in_reference_mode(narrated, tmp_path):
    arrays = dict(np.load(narrated))
    words = generate.word_vectors(arrays["text_raw"][:60].tolist(), seed=3)
    write_words(tmp_path / "words.txt", words)
    known = next(word for word in words if word.upper() not in words)
    kept = {key: value for key, value in arrays.items() if not key.startswith(("audio", "video"))}
    clips = np.random.default_rng(0).standard_normal((len(arrays["split"]), 6))
    np.savez(tmp_path / "texts.npz", **kept, video=clips.astype(np.float32))
    scenario = cm.Scenario(
        name="published",
        dataset=str(tmp_path / "texts.npz"),
        space=cm.SpaceSettings(dim=8, clusters=0, mode="reference"),
        training=cm.Training(steps=1, batch_size=8),
        stages=(cm.Stage(add=("video", "text")),),
    )
    dataset = cm.read_pack(tmp_path / "texts.npz")
    cm.run(scenario, cm.Strategy(name="naive"), dataset, tmp_path, board=False)
    run, vectors = tmp_path / "published" / "naive" / "seed-0", tmp_path / "words.txt"
    cm.export_sentence_transformer(run, tmp_path / "model", vectors=vectors)
    model = cm.open_sentence_transformer(tmp_path / "model")
    text = dataset.columns["text"]
    expected = cm.open_run(run).encode("text", text.values, text.lengths, standardised=True)
    assert np.allclose(model.encode(list(dataset.text)), expected, atol=1e-5)
    assert model.encode([known]).shape == (1, 8)
    with pytest.raises(InputError, match="has no known word"):
        model.encode([known.upper()])


def test_the_words_of_the_built_in_clips_are_those_that_their_texts_consist_of(
    narrated, monkeypatch
):
    monkeypatch.setattr(generate, "pack_path", lambda *, seed: narrated)
    words = generate.words(seed=3)
    arrays = np.load(narrated)
    made, lengths = generate.embedded(arrays["text_raw"].tolist(), words)
    assert np.array_equal(made, arrays["text"])
    assert np.array_equal(lengths, arrays["text_length"])


def test_a_run_of_an_earlier_version_is_told_by_its_dataset_what_it_was_standardised_by(
    pack, trained_on, tmp_path, as_before
):
    moved = shutil.copy(pack, tmp_path / "here.npz")
    run = trained_on(moved)
    there = shutil.move(moved, tmp_path / "there.npz")
    cm.export_sentence_transformer(run, tmp_path / "new")  # the run keeps it itself
    expected = cm.open_sentence_transformer(tmp_path / "new").encode({"video": np.ones(6)})
    as_before(run)
    found = cm.export_sentence_transformer(run, tmp_path / "model")
    assert any("no file" in note and "--dataset" in note for note in found.notes)
    model = cm.open_sentence_transformer(tmp_path / "model")
    assert model.encode([{"video": np.zeros(6)}], standardised=True).shape == (1, found.size)
    with pytest.raises(InputError, match="an earlier version did not keep what it was"):
        model.encode([{"video": np.zeros(6)}])
    cm.export_sentence_transformer(run, tmp_path / "second", dataset=str(there))
    second = cm.open_sentence_transformer(tmp_path / "second")
    assert np.array_equal(second.encode({"video": np.ones(6)}), expected)


def test_another_dataset_than_the_runs_is_refused(finished, narrated, tmp_path):
    with pytest.raises(InputError, match="is not what the run was trained on"):
        cm.export_sentence_transformer(finished, tmp_path / "model", dataset=str(narrated))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("text", ["[]", "{}"])
def test_a_run_that_does_not_say_what_was_run_is_refused(finished, tmp_path, text):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "definition.json").write_text(text)
    with pytest.raises(InputError, match=r"definition\.json: does not say what was run"):
        cm.export_sentence_transformer(run, tmp_path / "model")


def test_features_that_the_run_did_not_standardise_stay_as_they_are(pack, trained_on, tmp_path):
    run = trained_on(pack, standardise=("audio",))
    cm.export_sentence_transformer(run, tmp_path / "model")
    model = cm.open_sentence_transformer(tmp_path / "model")
    one = {"video": np.arange(6, dtype=np.float32)}
    assert np.array_equal(model.encode(one, standardised=True), model.encode(one))


def test_a_pairs_own_adapters_are_in_the_model_of_that_pair(pack, trained_on, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed: pip install 'continual-mm[lora]'")
    run = trained_on(pack, {"pair_lora": {"rank": 2}})
    shared = cm.export_sentence_transformer(run, tmp_path / "shared")
    assert any("--pair" in note for note in shared.notes)
    own = cm.export_sentence_transformer(run, tmp_path / "own", pair="video-text")
    assert not any("--pair" in note for note in own.notes)
    clips = cm.read_pack(pack).columns["video"].values[:5]
    found = [
        cm.open_sentence_transformer(tmp_path / name).encode([{"video": clip} for clip in clips])
        for name in ("shared", "own")
    ]
    expected = [cm.open_run(run, pair=pair).encode("video", clips) for pair in ("", "text-video")]
    assert np.allclose(found, np.stack(expected), atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-4)


def test_a_space_with_a_module_of_the_users_is_refused(pack, tmp_path):
    scenario = cm.Scenario(
        name="own",
        dataset=str(pack),
        space=cm.SpaceSettings(dim=8, clusters=0),
        training=cm.Training(steps=1, batch_size=8),
        stages=(cm.Stage(add=("video", "text")),),
    )
    towers = {"video": torch.nn.Linear(6, 8)}
    cm.run(scenario, cm.Strategy(name="naive"), cm.read_pack(pack), tmp_path, towers=towers)
    with pytest.raises(InputError, match=r"torch.nn.modules.linear.Linear.* is not installed"):
        cm.export_sentence_transformer(tmp_path / "own" / "naive" / "seed-0", tmp_path / "model")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--encoder", "{encoder}", "--vectors", "x.txt"), "does not go with --vectors"),
        (("--vectors", "x.txt"), "for a space with text of kind tokens; its text is vector"),
        (("--encoder", "./nowhere/at/all"), "is not available to sentence-transformers"),
        (("--force",), "--force is for exports to compare"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    finished, encoder, tmp_path, typed, words, problem
):
    given = [word.format(encoder=encoder) for word in words]
    ended = typed("export", finished, *TO, "--out", tmp_path / "model", *given)
    assert ended.code == 2
    assert problem in ended.err.replace("\n", " ")
    assert not (tmp_path / "model").exists()


def test_an_encoder_of_another_size_is_refused(narrated, encoder, trained_on, tmp_path):
    small = tmp_path / "words.txt"
    write_words(small, {"red": [1.0, 2.0]})
    with pytest.raises(InputError, match="gives 2 numbers, the run's text has 32"):
        cm.export_sentence_transformer(trained_on(narrated), tmp_path / "m", vectors=small)


def test_options_of_a_model_are_refused_where_runs_are_exported_for_compare(
    finished, tmp_path, typed
):
    ended = typed("export", finished, "--to", tmp_path / "small", "--out", tmp_path / "model")
    assert ended.code == 2
    assert "--out: is for a model" in ended.err.replace("\n", " ")
