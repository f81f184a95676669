"""An exported space behind mteb's interface: on batches as it makes them, and in it."""

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.system.errors import InputError

pytest.importorskip(
    "sentence_transformers",
    reason="sentence-transformers is not installed: pip install 'continual-mm[st]'",
)
from torch.utils.data import DataLoader

from continual_mm.integrations.mteb import Encoder


@pytest.fixture(scope="module")
def folder(described, encoder, trained_on, tmp_path_factory):
    """An exported run whose texts an encoder made."""
    path = tmp_path_factory.mktemp("exported") / "model"
    cm.export_sentence_transformer(trained_on(described), path, encoder=str(encoder))
    return path


def loud(sound):
    """A reader: of a wave of mteb's to a spectrogram of three steps."""
    return {"audio": np.resize(sound["array"], (3, 4))}


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


WAVES = [{"array": np.arange(12.0) * n, "sampling_rate": 16_000} for n in (1, 2, 3)]


def test_texts_are_encoded_batch_by_batch(folder):
    texts = ["red gold", "blue", "white black"]
    batches = DataLoader([{"text": text, "id": "x"} for text in texts], batch_size=2)
    found = Encoder(folder).encode(batches, batch_size=8)
    assert np.allclose(found, cm.open_sentence_transformer(folder).encode(texts), atol=1e-6)


def test_media_go_through_readers_and_several_of_an_item_are_added(folder):
    encoder = Encoder(folder, readers={"audio": loud})
    assert encoder.modalities == ["text", "audio"]
    rows = [{"text": "red", "audio": wave} for wave in WAVES]
    both = encoder.encode(DataLoader(rows, batch_size=2, collate_fn=columns))
    model = cm.open_sentence_transformer(folder)
    sounds = model.encode([loud(wave) for wave in WAVES])
    assert np.allclose(both, sounds + model.encode("red"), atol=1e-6)
    alone = [{"audio": wave} for wave in WAVES]
    assert np.allclose(encoder.encode([columns(alone)]), sounds, atol=1e-6)


def test_of_no_items_there_are_no_vectors_of_the_size_of_the_space(folder):
    encoder = Encoder(folder)
    size = encoder.encode([{"text": ["red"]}]).shape[1]
    for nothing in ([], DataLoader([]), [{"text": []}], [{"text": []}, {"text": []}]):
        found = encoder.encode(nothing)
        assert (found.shape, found.dtype) == ((0, size), np.float32)
    assert encoder.encode([{"text": ["red"]}, {"text": []}]).shape == (1, size)
    assert encoder.similarity(encoder.encode([]), encoder.encode([])).shape == (0, 0)


def test_a_batch_that_it_cannot_read_is_refused(folder):
    with pytest.raises(InputError, match="a batch has audio; give readers"):
        Encoder(folder).encode([{"audio": WAVES}])


def test_similarities_are_inner_products(folder):
    encoder = Encoder(folder)
    vectors = encoder.encode([{"text": ["red", "blue gold"]}])
    assert np.allclose(encoder.similarity(vectors, vectors), vectors @ vectors.T, atol=1e-6)
    turned = vectors[::-1].copy()
    pairs = encoder.similarity_pairwise(vectors, turned)
    assert np.allclose(pairs, (vectors * turned).sum(1), atol=1e-6)


def test_it_is_an_encoder_to_mteb_and_a_task_of_its_is_scored(folder, tmp_path):
    mteb = pytest.importorskip("mteb", reason="mteb is not installed")
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.mocks.mock_tasks.retrieval import general_args
    from mteb.models.models_protocols import EncoderProtocol

    texts = ["red", "blue", "green", "gold"]

    class Colours(AbsTaskRetrieval):
        """Each sentence asks for itself among four."""

        metadata = mteb.TaskMetadata(
            **general_args, type="Retrieval", name="Colours", main_score="ndcg_at_10"
        )

        def load_data(self, *args, **kwargs):
            rows = [{"id": f"{n}", "text": text} for n, text in enumerate(texts)]
            relevant = {f"{n}": {f"{n}": 1} for n in range(len(texts))}
            split = RetrievalSplitData(
                queries=Dataset.from_list(rows),
                corpus=Dataset.from_list(rows),
                relevant_docs=relevant,
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    encoder = Encoder(folder)
    assert isinstance(encoder, EncoderProtocol)
    found = mteb.evaluate(encoder, Colours(), cache=None, show_progress_bar=False)
    (result,) = found.task_results
    vectors = encoder.encode([{"text": texts}])
    best = (vectors @ vectors.T).argmax(1) == np.arange(4)
    assert result.scores["test"][0]["accuracy"] == pytest.approx(best.mean())
    assert found.model_name == "continual_mm/model"
