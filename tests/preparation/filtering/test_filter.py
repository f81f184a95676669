"""Packs and stores without their worst pairs."""

import json

import numpy as np
import pytest
import torch

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.data.pack import read_pack, write_pack
from continual_mm.data.store.reader import read_store, verify_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality, pair
from continual_mm.preparation.filtering.filter import PairFilter, filter_pairs
from continual_mm.preparation.filtering.scorers import ScorerSettings
from continual_mm.system.errors import InputError

QUICK = ScorerSettings(steps=40, batch_size=64, dim=8, hidden=16)
TRAINING, WRONG, WITHOUT = 200, 60, 10


def columns(seed=0):
    """230 items; of 200 training items the last 60 pairs are wrong, and 10 others lack the text."""
    rng = np.random.default_rng(seed)
    count = TRAINING + 30
    latent = rng.standard_normal((count, 5))
    told = latent.copy()
    told[TRAINING - WRONG : TRAINING] = rng.standard_normal((WRONG, 5))
    present = np.ones(count, dtype=bool)
    present[:WITHOUT] = False
    return {
        "ids": np.array([f"item {row}" for row in range(count)]),
        "split": np.repeat([0, 1, 2], [TRAINING, 10, 20]),
        "image": (latent @ rng.standard_normal((5, 12))).astype(np.float16),
        "text": (told @ rng.standard_normal((5, 8))).astype(np.float32),
        "text_present": present,
        "sound": rng.standard_normal((count, 6, 3)).astype(np.float32),
        "sound_kind": np.array("spectrogram"),
        "sound_length": 1 + np.arange(count) % 6,
        "label": np.arange(count) % 7,
        "group": np.arange(count) // 4,
        "text_raw": np.array([f"says {row}" for row in range(count)]),
        "picture": rng.integers(255, size=(count, 2, 2, 3), dtype=np.uint8),
        "mine": np.arange(3),
    }


def asked(**how):
    return PairFilter(**{"pair": pair("image", "text"), "scorer": QUICK, "keep": 0.5} | how)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "all.npz"
    write_pack(path, columns())
    return path


@pytest.fixture(scope="module")
def filtered(pack, tmp_path_factory):
    path = tmp_path_factory.mktemp("filtered") / "kept.npz"
    return path, filter_pairs(str(pack), path, asked())


def arrays(path):
    with Archive(path, Findings(str(path))) as archive:
        return {name: archive.read(name) for name in archive.headers}


def test_what_is_left_is_as_it_was_and_the_rest_is_never_filtered(filtered):
    path, found = filtered
    assert (found.pairs, found.kept, found.without_pair, found.others) == (190, 95, 10, 30)
    before, after = columns(), arrays(path)
    rows = np.flatnonzero(np.isin(before["ids"], after["ids"]))
    assert len(rows) == 95 + 10 + 30
    assert set(range(10)) | set(range(200, 230)) <= set(rows)
    for name, values in before.items():
        kept = values[rows] if values.shape[:1] == (230,) else values
        assert after[name].dtype == values.dtype
        assert np.array_equal(after[name], kept), name
    assert read_pack(path).card.items == (105, 10, 20)


def test_wrong_pairs_are_what_is_left_out(filtered):
    kept = arrays(filtered[1].terms)["kept"]
    wrong = arrays(filtered[1].terms)["row"] >= TRAINING - WRONG
    assert kept[wrong].mean() < 0.25 < 0.6 < kept[~wrong].mean()


def test_every_term_is_written_beside_the_data_and_makes_the_score(filtered):
    path, found = filtered
    assert found.terms == path.with_name("kept.filter.npz")
    terms = arrays(found.terms)
    assert terms["ids"].tolist() == [f"item {row}" for row in range(10, 200)]
    parts = ("eps_image", "eps_text", "distance", "cosine")
    assert all(terms[name].dtype == np.float64 for name in parts)
    eps_image, eps_text, distance, cosine = (terms[name] for name in parts)
    np.testing.assert_allclose(terms["score"], eps_image + eps_text - distance + cosine, rtol=1e-12)
    assert np.abs(cosine).max() <= 1 + 1e-12
    assert distance.min() > 0
    assert terms["score"][terms["kept"]].min() >= terms["score"][~terms["kept"]].max()
    settings = json.loads(str(terms["settings"]))
    assert settings["general"] == "text"
    assert settings["scorer"]["steps"] == 40


def test_the_same_seed_gives_the_same_file_and_another_does_not(pack, filtered, tmp_path):
    for seed, same in ((0, True), (1, False)):
        how = asked(scorer=ScorerSettings(steps=40, batch_size=64, dim=8, hidden=16, seed=seed))
        filter_pairs(str(pack), tmp_path / f"{seed}.npz", how)
        score, other = (
            arrays(each)["score"] for each in (tmp_path / f"{seed}.filter.npz", filtered[1].terms)
        )
        assert np.array_equal(score, other) == same


def test_another_share_of_the_same_terms_needs_no_training(pack, filtered, tmp_path):
    steps = []
    for by in ("hype", "cosine", "union", "intersection", "cascade"):
        how = asked(keep=0.2, by=by, without_pair="drop")
        path = tmp_path / f"{by}.npz"
        found = filter_pairs(
            str(pack), path, how, terms=filtered[1].terms, after_step=lambda: steps.append(1)
        )
        assert found.kept == 38
        assert read_pack(path).card.items == (38, 10, 20)
    assert not steps
    narrow, wide = (
        arrays(each)["kept"] for each in (tmp_path / "hype.filter.npz", filtered[1].terms)
    )
    assert not (narrow & ~wide).any()


def test_a_threshold_keeps_what_reaches_it(pack, filtered, tmp_path):
    terms = arrays(filtered[1].terms)
    for by, column in (("hype", "score"), ("cosine", "cosine")):
        threshold = float(np.sort(terms[column])[-17])
        how = asked(keep=None, threshold=threshold, by=by)
        found = filter_pairs(str(pack), tmp_path / f"{by}.npz", how, terms=filtered[1].terms)
        assert found.kept == 17


def test_cosine_alone_trains_one_scorer_and_needs_no_generic_modality(pack, tmp_path):
    steps = []
    how = asked(pair=pair("image", "sound"), by="cosine")
    filter_pairs(str(pack), tmp_path / "kept.npz", how, after_step=lambda: steps.append(1))
    assert len(steps) == 40
    assert arrays(tmp_path / "kept.filter.npz").keys() == {
        "ids",
        "row",
        "cosine",
        "kept",
        "settings",
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    given = columns()
    path = tmp_path_factory.mktemp("stores") / "all"
    layout = (
        Modality("image", Kind.VECTOR, (12,)),
        Modality("text", Kind.VECTOR, (8,)),
        Modality("sound", Kind.SPECTROGRAM, (0, 3)),
    )
    records = (
        {
            "ids": given["ids"][row],
            "split": given["split"][row],
            "label": given["label"][row],
            "group": f"speaker {given['group'][row]}",
            "text_raw": given["text_raw"][row],
            "image": given["image"][row],
            "text": given["text"][row] if given["text_present"][row] else None,
            "sound": given["sound"][row, : given["sound_length"][row]],
        }
        for row in range(230)
    )
    write_store(records, path, layout=layout, dtype="float32")
    return path


def test_a_store_is_filtered_into_a_store_by_the_same_scores(pack, filtered, store, tmp_path):
    found = filter_pairs(str(store), tmp_path / "kept", asked())
    assert found.terms == tmp_path / "kept.filter.npz"
    assert (found.pairs, found.kept, found.without_pair, found.others) == (190, 95, 10, 30)
    of_store, of_pack = arrays(found.terms), arrays(filtered[1].terms)
    np.testing.assert_allclose(of_store["score"], of_pack["score"], rtol=0, atol=1e-4)
    verify_store(tmp_path / "kept")
    dataset = read_store(tmp_path / "kept")
    assert dataset.card.items == (105, 10, 20)
    assert "image-text: 95 of 190 kept by hype" in dataset.notes[-1]
    mine = torch.arange(105)
    values = read_store(tmp_path / "kept", standardise=False).columns["image"].take(mine)[0]
    np.testing.assert_allclose(
        dataset.statistics["image"].mean, values.double().mean(0), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"pair": pair("image", "txt")}, "no modality 'txt'; did you mean 'text'"),
        ({"pair": pair("image", "sound")}, "none of the two is text.* --generic image, or"),
        ({"generic": "sound"}, "'sound' is not in the pair"),
        ({"keep": 0.001}, "pair image-text: of 190 pairs a share of 0.001 keeps none"),
        ({"keep": 2.0}, "a share of 2 cannot be kept"),
        ({"keep": None}, "not clear what to keep; give a share to keep, or a threshold"),
        ({"threshold": 1.0}, "not clear what to keep"),
        ({"keep": None, "threshold": 1.0, "by": "union"}, "'union' goes by places"),
        ({"keep": None, "threshold": 99.0}, "a threshold of 99 keeps no pair; the scores are"),
    ],
)
def test_what_cannot_be_filtered_is_refused_with_a_remedy(pack, filtered, tmp_path, how, problem):
    terms = filtered[1].terms if how.get("threshold") == 99 else None
    with pytest.raises(InputError, match=problem):
        filter_pairs(str(pack), tmp_path / "kept.npz", asked(**how), terms=terms)
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_there_or_of_another_kind_is_refused_before_training(
    pack, store, tmp_path
):
    (tmp_path / "there.npz").touch()
    (tmp_path / "file").touch()
    for source, target, problem in (
        (pack, "there.npz", "is there already"),
        (pack, "file/kept.npz", "file: is no folder"),
        (pack, "kept", "is a pack, and is filtered into one; name it .*kept.npz"),
        (store, "kept.npz", "is a store, and is filtered into one; name it .*kept$"),
    ):
        with pytest.raises(InputError, match=problem):
            filter_pairs(str(source), tmp_path / target, asked(scorer=None))


def test_features_that_are_not_finite_are_refused_with_the_items_names(tmp_path, store):
    given = columns()
    given["image"][[20, 30], 3] = np.nan
    write_pack(tmp_path / "all.npz", given)
    with pytest.raises(InputError, match=r"not finite.* 2 rows: 20 \('item 20'\), 30"):
        filter_pairs(str(tmp_path / "all.npz"), tmp_path / "kept.npz", asked())


def test_pairs_that_no_item_has_and_modalities_that_none_would_have_are_refused(tmp_path):
    given = columns()
    given["sound_present"] = ~given["text_present"]
    write_pack(tmp_path / "all.npz", given)
    with pytest.raises(InputError, match="pair sound-text: 0 training items have both"):
        how = asked(pair=pair("sound", "text"))
        filter_pairs(str(tmp_path / "all.npz"), tmp_path / "kept.npz", how)
    with pytest.raises(InputError, match="no training item that is left has 'sound'; keep more"):
        how = asked(without_pair="drop")
        filter_pairs(str(tmp_path / "all.npz"), tmp_path / "kept.npz", how)


def test_terms_of_other_data_or_no_terms_at_all_are_refused(pack, filtered, tmp_path):
    terms = filtered[1].terms
    write_pack(tmp_path / "other.npz", columns(seed=1))
    damaged = arrays(terms)
    damaged["score"][3] = np.nan
    write_pack(tmp_path / "damaged.npz", damaged)
    (tmp_path / "text.npz").write_text("no archive")
    for source, how, file, problem in (
        (tmp_path / "other.npz", {}, terms, "has the fingerprint"),
        (pack, {"generic": "image"}, terms, "has the general 'text', not 'image'"),
        (pack, {}, pack, "holds no terms of a filter"),
        (pack, {}, tmp_path / "text.npz", "is no .npz file"),
        (pack, {}, tmp_path / "damaged.npz", "column 'score' is not 190 finite numbers"),
    ):
        with pytest.raises(InputError, match=problem):
            filter_pairs(str(source), tmp_path / "kept.npz", asked(**how), terms=file)
