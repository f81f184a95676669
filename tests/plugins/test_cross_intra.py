"""Cross and intra: what is trained in a stage, against losses worked out beside the plugin."""

import math
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import (
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    TowerSettings,
    Training,
)
from continual_mm.plugins.cross_intra import LOG_SIGMA, CrossIntra
from continual_mm.plugins.freeze import Freeze
from continual_mm.runs.checkpoint import load_space
from continual_mm.runs.run import run

TERMS = {"cross/depth-image", "intra/depth-image"}


@pytest.fixture(scope="module")
def pictures():
    """Forty items of three views: a bright spot, its place in the text."""
    rng = np.random.default_rng(0)
    image = 0.1 * rng.random((60, 3, 8, 8))
    place = rng.integers(1, 7, (60, 2))
    for item, (row, column) in enumerate(place):
        image[item, :, row, column] = 1.0 + item % 3
    depth = 1 - image
    text = np.concatenate([np.eye(8)[place[:, 0]], np.eye(8)[place[:, 1]]], axis=1)
    return Dataset.from_arrays(
        {"image": image, "depth": depth, "text": text},
        split=np.repeat([0, 1, 2], [40, 10, 10]),
        kinds={"image": "frames", "depth": "frames"},
        standardise=False,
    )


@pytest.fixture(scope="module")
def scenario():
    tower = TowerSettings(kind="pictures")
    return Scenario(
        name="pictures",
        standardise=False,
        space=SpaceSettings(dim=8, clusters=0, reconstruction_weight=0, feature_dropout=0, width=4),
        training=Training(steps=6, batch_size=10, learning_rate=1e-2),
        towers={"image": tower, "depth": tower},
        stages=(Stage(add=("image", "text")), Stage(add=("depth",), pairs=("depth-image",))),
    )


@pytest.fixture(scope="module")
def dataset(pictures):
    return pictures


def ntx(first, second, temperature):
    """By rows: log of the sum over all others, less the partner."""
    views = normalize(torch.cat([first, second]).double(), dim=1)
    total = 0.0
    for i in range(len(views)):
        others = [j for j in range(len(views)) if j != i]
        partner = others.index((i + len(first)) % len(views))
        logits = (views[others] @ views[i]) / temperature
        total += cross_entropy(logits[None], torch.tensor([partner])).item()
    return total / len(views)


def test_the_terms_are_both_losses_on_one_view_of_each_item(trained, looking, pictures):
    plugin, seen = CrossIntra(temperature=0.2, jitter=0.0), []

    def look(learner):
        batch, space = learner.batch, learner.space
        seen.append(learner.terms)
        image, depth = (pictures.columns[name].values[batch.index] for name in ("image", "depth"))
        one = batch.features["image"].numpy()  # a view of each item
        views = (image == one).all((2, 3)).argmax(1)
        shown = torch.from_numpy(depth[np.arange(len(batch)), views])[:, None]
        assert torch.equal(batch.features["depth"], shown)  # of the same view
        assert len(set(views.tolist())) > 1
        with torch.no_grad():
            _, first = space.tower("depth")(shown, None)
            _, target = space.tower("image")(batch.features["image"], None)
        # Without a jitter both views are the same.
        cross, intra = ntx(first, target, 0.2), ntx(first, first, 0.2)
        sigma = learner.own_parameters[LOG_SIGMA].exp().item()
        expected = intra / sigma**2 + math.log(1 + sigma)
        assert learner.terms["cross/depth-image"].item() == pytest.approx(cross, rel=1e-4)
        assert learner.terms["intra/depth-image"].item() == pytest.approx(expected, rel=1e-4)
        assert learner.loss.item() == pytest.approx(cross + expected, rel=1e-4)

    trained(Freeze(), plugin, looking(1, look), items=None)
    assert len(seen) == 6
    assert set(seen[0]) == TERMS  # which stand for the contrast


def test_with_a_jitter_the_views_differ_and_the_deviation_is_learned(trained, looking):
    sigmas, plugin = [], CrossIntra(jitter=0.3)

    def look(learner):
        sigmas.append(learner.own_parameters[LOG_SIGMA].exp().item())
        assert plugin.curves["cross_intra/sigma"].item() == sigmas[-1]
        assert not torch.equal(learner.batch.features["depth"], plugin._second["depth"])

    learner = trained(Freeze(), plugin, looking(1, look), items=None)
    assert sigmas[0] == 1.0
    assert len(set(sigmas)) == len(sigmas)
    assert not learner.own_parameters
    assert plugin.state() == {}
    assert plugin.curves == {}


def test_without_the_second_loss_nothing_but_the_space_is_learned(trained, looking):
    seen = []

    def look(learner):
        seen.append((set(learner.terms), dict(learner.own_parameters)))

    trained(Freeze(), CrossIntra(intra=0), looking(1, look), items=None)
    assert seen == [({"cross/depth-image"}, {})] * 6


def test_beside_freeze_old_towers_have_the_same_hash_and_old_pairs_the_same_scores(
    scenario, pictures, tmp_path
):
    strategy = Strategy(name="both", plugins={"freeze": {}, "cross_intra": {}})
    history = run(scenario, strategy, pictures, tmp_path, device="cpu")
    saved = tmp_path / "pictures" / "both" / "seed-0" / "checkpoints"
    before, after = (load_space(saved / f"stage-{stage}").state_dict() for stage in (1, 2))
    assert digest(before) == digest({name: after[name] for name in before})
    assert {name for name in after if name not in before} == {
        name for name in after if ".depth." in name
    }
    of_stage = [
        [replace(s, stage=0, step=0) for s in history.scores if s.stage == n and "text" in s.pair]
        for n in (1, 2)
    ]
    known = {score.pair for score in of_stage[0]}
    assert of_stage[0] == [score for score in of_stage[1] if score.pair in known]
    assert known == {"image-text"}


def digest(tensors):
    """A hash of all parameters and buffers."""
    found = sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def test_an_interrupted_stage_goes_on_to_the_same_bits_with_its_deviation(ends, same):
    whole, *resumed = ends(lambda: [Freeze(), CrossIntra(jitter=0.2)], at=3, items=None)
    for each in resumed:
        assert same(whole, each)


def test_of_features_that_are_no_pictures_others_are_hidden_in_the_second_view(looking, begun):
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((60, 4))
    names = {"image": 6, "depth": 5, "text": 5}
    arrays = {name: shared @ rng.standard_normal((4, size)) for name, size in names.items()}
    vectors = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [40, 10, 10]))
    seen = []

    def look(learner):
        first = learner.embedded["depth"].direction
        again = learner.space.tower("depth")
        assert again.training
        seen.append((set(learner.terms), first.shape))

    learner, streams = begun(
        CrossIntra(), looking(1, look), dataset=vectors, items=None, towers={}, feature_dropout=0.3
    )
    for stage in range(2):
        learner.learn(streams, stage)
    assert seen == [(TERMS, torch.Size([10, 8]))] * 6
