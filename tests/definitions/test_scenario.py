"""What scenarios and strategies may say."""

import math

import pytest
from pydantic import ValidationError

from continual_mm.definitions.scenario import (
    MemorySettings,
    Protocol,
    SpaceSettings,
    Stage,
    Training,
)
from continual_mm.system.errors import InputError

NO_NUMBERS = ["1", True, None, [1], math.nan, math.inf]
OUT_OF_RANGE = {
    SpaceSettings: {
        "dim": [1, 0, 65537, 2.0], "clusters": [-1, 0.5, 2**63], "cluster_weight": [-0.1, 1e10],
        "reconstruction_weight": [-0.1, 1e10], "reconstruction_width": [-1, 0.5, 10**30],
        "margin": [-0.1, 1e10], "scale": [0.9, 100.1], "queue_batches": [-1, 1.5, 2**63],
        "refresh_every": [0, 2**63], "width": [0, 2**63],
        "depth": [0, 9], "feature_dropout": [-0.1, 1.0], "mode": ["published", ""],
        "clips": [0, 1.5, 2**63], "cluster_mean": [0, "true"],
        "bugs": ["two_over_three", ["surprise"]],
        "kind": ["mcn2", ""], "token_width": [-1, 0.5, 2**63], "blocks": [-1, 65],
        "heads": [0, 1025], "smaller_side": [0, 33], "larger_side": [0, 33],
        "term_weights": [{"text-video": -1.0}, ["text-video"]],
    },
    Training: {
        "steps": [0, -1, 1.0, 10**30], "epochs": [-1, 1.5, 2**63], "batch_size": [1, 0, 2**63],
        "warmup_steps": [-1, 2**63], "learning_rate": [0, -1e-3, 1e308],
        "schedule": ["linear", ""], "precision": ["float64", 32],
        "evaluate_every": [-1, 2**63], "clip_norm": [-0.1, 1e308],
    },
    MemorySettings: {"items": [0, -1, 1.5, 2**63]},
}  # fmt: skip
WRONG = [
    (model, key, value)
    for model, table in OUT_OF_RANGE.items()
    for key, values in table.items()
    for value in [*values, *NO_NUMBERS]
    if (key, value) != ("cluster_mean", True)
]


@pytest.mark.parametrize(("model", "key", "value"), WRONG)
def test_what_is_out_of_range_or_of_another_type_is_refused(model, key, value):
    with pytest.raises(ValidationError) as caught:
        model.model_validate({key: value})
    assert [error["loc"][0] for error in caught.value.errors()] == [key]


def test_a_stage_may_have_no_step_where_its_towers_arrive_trained():
    assert Stage(add=("text",), steps=0).training(Training()).steps == 0
    with pytest.raises(InputError, match="Stage, steps: -1 cannot be used; give at least 0"):
        Stage(add=("text",), steps=-1)


@pytest.mark.parametrize("model", [SpaceSettings, Training])
def test_every_setting_was_tried_and_every_default_is_in_range(model):
    assert OUT_OF_RANGE[model].keys() == model.model_fields.keys()
    assert model.model_validate(model().model_dump()) == model()


def test_reference_mode_takes_published_values_where_none_is_given():
    published = SpaceSettings(mode="reference", dim=16)
    assert (published.dim, published.clusters, published.queue_batches) == (16, 256, 20)
    assert (published.reconstruction_weight, published.reconstruction_units) == (50.0, 1024)
    assert (published.width, published.depth, published.clips) == (128, 4, 32)
    assert SpaceSettings.model_validate(published.model_dump()) == published
    assert SpaceSettings(dim=16).reconstruction_units == 8
    training = Training.published(steps=3, batch_size=8)
    assert (training.steps, training.batch_size, training.warmup_steps) == (3, 8, 5000)
    assert (training.learning_rate, training.clip_norm) == (1e-4, 0.0)


@pytest.mark.parametrize(
    ("mode", "key", "value"),
    [
        ("reference", "scale", 8.0),
        ("robust", "cluster_mean", True),
        ("robust", "bugs", ("two_over_three",)),
    ],
)
def test_a_key_that_means_nothing_in_its_mode_is_refused(mode, key, value):
    other = {"reference": "robust", "robust": "reference"}[mode]
    assert getattr(SpaceSettings.model_validate({"mode": other, key: value}), key) == value
    with pytest.raises(ValidationError, match="meaning in reference mode") as caught:
        SpaceSettings.model_validate({"mode": mode, key: value})
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]


def test_a_stage_may_override_all_of_training_and_nothing_else():
    assert Stage.model_fields.keys() - Training.model_fields.keys() == {"add", "pairs", "dataset"}
    numbers = {"steps": 7, "batch_size": 3, "learning_rate": 0.5, "clip_norm": 1.5}
    others = {"warmup_steps": 2, "evaluate_every": 4, "precision": "bfloat16"}
    special = Training(schedule="constant", **numbers, **others)
    stage = Stage(add=("text",), **special.model_dump())
    assert stage.training(Training()) == special


PROTOCOL = {"name": "one", "query": ["text"], "gallery": ["video", "audio"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in ("", "a b", "a/b", "-a", 1, None)),
        *(("kind", value) for value in ("clips", "", 1)),
        *(("query", value) for value in ([], "text", ["text", "text"], [1], None)),
        *(("gallery", value) for value in ([], ["text"], ["video", "video"])),
        *(("expected", value) for value in (-1, 1.5, True, "1")),
        ("ordered", False),
        ("ordered", 1),
        ("annotations", "steps.csv"),
        ("dataset", 1),
    ],
)
def test_what_has_no_meaning_is_refused_at_its_key(key, value):
    assert Protocol.model_validate(PROTOCOL)
    with pytest.raises(ValidationError) as caught:
        Protocol.model_validate({**PROTOCOL, key: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {key}


@pytest.mark.parametrize(("kind", "key"), [("steps", "annotations"), ("classes", None)])
def test_keys_belong_to_kinds(kind, key):
    counted = {**PROTOCOL, "kind": kind, "expected": 9, "annotations": "a.csv" if key else ""}
    with pytest.raises(ValidationError, match="has no meaning for kind"):
        Protocol.model_validate(counted)
    assert Protocol.model_validate({**counted, "expected": 0}).kind == kind
    if key:
        with pytest.raises(ValidationError, match="needs annotations"):
            Protocol.model_validate({**PROTOCOL, "kind": kind})
        assert not Protocol.model_validate({**counted, "expected": 0, "ordered": False}).ordered
