"""Two paths to the same classes, mixed by a given weight or by one that validation items choose."""

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Protocol, Scenario, SpaceSettings, Stage, Training
from continual_mm.evaluation.ensemble import WEIGHTS, chosen_weight, mixed
from continual_mm.evaluation.judges import Classes
from continual_mm.runs.run import train
from continual_mm.system.errors import InputError

CLASSES, ITEMS, VALIDATION, TEST = 4, 80, 40, 60
RNG = np.random.default_rng(5)
SPLIT = np.repeat([0, 1, 2, 2], [ITEMS, VALIDATION, TEST, CLASSES])
LABEL = np.concatenate([RNG.integers(0, CLASSES, len(SPLIT) - CLASSES), np.arange(CLASSES)])
IS_ITEM = np.arange(len(SPLIT)) < len(SPLIT) - CLASSES


def features(noise):
    """(items, 6) an image of the class, with noise."""
    return np.eye(CLASSES, 6)[LABEL] + noise * RNG.standard_normal((len(SPLIT), 6))


ARRAYS = {"image": features(0.4), "depth": features(1.0), "text": np.eye(CLASSES, 6)[LABEL]}


def dataset(arrays=None, **options):
    arrays = arrays or ARRAYS
    given = {"split": SPLIT, "label": LABEL, "standardise": False, **options}
    present = {name: IS_ITEM for name in arrays if name != "text"}
    return Dataset.from_arrays(arrays, present=present, **given)


def protocol(name="p", **options):
    given = {"query": ("text",), "gallery": ("depth",), "through": "image", **options}
    return Protocol(name=name, kind="classes", **given)


def scenario(*protocols, **options):
    return Scenario(
        name="small",
        standardise=False,
        space=SpaceSettings(dim=8, clusters=0, reconstruction_weight=0, feature_dropout=0),
        training=Training(steps=20, batch_size=16, learning_rate=1e-2),
        stages=(Stage(add=("image", "text")), Stage(add=("depth",), pairs=("depth-image",))),
        protocols=protocols,
        **options,
    )


def accuracy(space, weight, split, *, old="depth"):
    """Of the items of a split, worked out from embeddings that the space gives its users."""
    names = space.encode("text", ARRAYS["text"][~IS_ITEM])
    rows = (split == SPLIT) & IS_ITEM
    new = space.encode("depth", ARRAYS["depth"][rows]) @ names.T
    before = space.encode("image", ARRAYS[old][rows]) @ names.T
    found = ((1 - weight) * new + weight * before).argmax(1)
    return float((found.numpy() == LABEL[rows]).mean())


@pytest.fixture(scope="module")
def history():
    weights = {"old": 1.0, "new": 0.0, "equal": 0.5, "chosen": None}
    protocols = [protocol(name, through_weight=weight) for name, weight in weights.items()]
    plain = Protocol(name="plain", kind="classes", query=("text",), gallery=("depth",))
    return train(scenario(plain, *protocols), dataset(), device="cpu")


def test_each_mixture_has_the_accuracy_of_the_two_towers_similarities(history):
    found = {score.name: score for score in history.protocols}
    assert set(found) == {"plain", "old", "new", "equal", "chosen"}
    for name, weight in {"old": 1.0, "new": 0.0, "equal": 0.5}.items():
        expected = accuracy(history.space, weight, 2)
        assert found[name].measures["accuracy"] == pytest.approx(expected)
        assert found[name].old_path == weight
    assert found["new"].measures == found["plain"].measures
    assert found["plain"].old_path is None
    assert found["old"].measures != found["new"].measures


def test_the_weight_is_the_smallest_that_is_best_on_validation_items(history):
    (score,) = (each for each in history.protocols if each.name == "chosen")
    by_weight = [accuracy(history.space, weight, 1) for weight in WEIGHTS]
    assert score.old_path == WEIGHTS[int(np.argmax(by_weight))]
    assert score.measures["accuracy"] == pytest.approx(accuracy(history.space, score.old_path, 2))


def test_without_labelled_validation_items_the_new_path_is_alone():
    label = np.where(SPLIT == 1, -1, LABEL)
    found = train(scenario(protocol()), dataset(label=label), device="cpu").protocols[-1]
    assert found.old_path == 0.0


def test_test_items_have_no_say_in_the_weight():
    def choose(label):
        judge = Classes(protocol(), dataset(label=label), "p")
        texts = torch.from_numpy(ARRAYS["text"])

        def path(name):
            shown = torch.from_numpy(ARRAYS[name])
            return lambda queries, gallery: texts[queries] @ shown[gallery].T

        return chosen_weight(judge, path("depth"), path("image"))

    shuffled = np.where((SPLIT == 2) & IS_ITEM, (LABEL + 1) % CLASSES, LABEL)
    assert choose(LABEL) == choose(shuffled) > 0.0  # images are less noisy than depth here


def test_a_mixture_is_the_weighted_sum_and_paths_of_no_weight_are_not_asked():
    def unasked(queries, gallery):
        raise AssertionError

    one, two = (lambda q, g, v=value: torch.full((len(q), len(g)), v) for value in (1.0, 4.0))
    rows = torch.arange(2)
    assert mixed((one, two), (0.25, 0.75))(rows, rows[:1]).tolist() == [[3.25], [3.25]]
    assert mixed((one, unasked), (1.0, 0.0))(rows[:1], rows[:1]).tolist() == [[1.0]]


def test_other_features_may_go_through_the_old_tower():
    arrays = {**ARRAYS, "depth": RNG.standard_normal((len(SPLIT), 3)), "seen": ARRAYS["depth"]}
    given = protocol(through_features="seen", through_weight=1.0)
    found = train(scenario(given), dataset(arrays), device="cpu")
    names = found.space.encode("text", ARRAYS["text"][~IS_ITEM])
    rows = (SPLIT == 2) & IS_ITEM
    classes = (found.space.encode("image", arrays["seen"][rows]) @ names.T).argmax(1).numpy()
    expected = (classes == LABEL[rows]).mean()
    assert found.protocols[-1].measures["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"through": "smell"}, "through: no stage adds a modality 'smell'; there are depth, image"),
        ({"through_features": "smell"}, "through_features: no modality 'smell' in dataset"),
        ({"through_features": "wide"}, "through: the tower of image as vector of 6 features does"),
        ({"through": "text"}, "through: 'text' is not beside a gallery of one modality; give anot"),
        ({"through": "depth"}, "through: 'depth' is not beside a gallery of one modality"),
        ({"through": "", "through_weight": 0.5}, "through_weight: has no meaning without through"),
        ({"through_weight": 1.5}, "through_weight: 1.5 cannot be used; give at most 1"),
    ],
)
def test_a_path_that_cannot_be_is_refused_with_its_place(options, message):
    arrays = {**ARRAYS, "wide": np.ones((len(SPLIT), 9))}
    with pytest.raises(InputError, match=message):
        train(scenario(protocol(**options)), dataset(arrays), device="cpu")


def test_only_classes_have_two_paths():
    with pytest.raises(InputError, match="through: has no meaning for kind 'retrieval'"):
        Protocol(name="p", query=("text",), gallery=("depth",), through="image")


def test_features_standardised_otherwise_than_those_of_the_tower_are_refused():
    with pytest.raises(InputError, match="depth is not standardised as image is, whose tower"):
        train(scenario(protocol()), dataset(standardise=["image"]), device="cpu")
