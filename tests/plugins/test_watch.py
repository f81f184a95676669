"""The early warning: what it measures, when it warns, and that a stage may end before its time."""

import json

import pytest

import continual_mm as cm


@pytest.fixture
def small(scenario, changed):
    """Three stages of twelve steps, in which old towers move a lot."""
    return changed(scenario, steps=12, batch_size=20, learning_rate=3e-2)


def run(small, dataset, out, **options):
    strategy = cm.Strategy(name="watched", plugins={"watch": options})
    history = cm.run(small, strategy, dataset, out, device="cpu", checkpoint_every=4)
    return history, out / "small" / "watched" / "seed-0"


def test_it_warns_once_in_a_stage_and_changes_no_number(small, dataset, tmp_path):
    history, folder = run(small, dataset, tmp_path, warn_at=1e-4, every=3)
    plain = cm.train(small, dataset, device="cpu")
    assert history.matrix() == pytest.approx(plain.matrix(), nan_ok=True)
    notes = [(one["stage"], one["note"]) for one in history.choices]
    assert [stage for stage, _ in notes] == [2, 3]
    assert notes[0][1].startswith("step 3: the plan of audio-video has drifted by")
    assert notes[0][1].endswith("at 0.0001 of which old recall falls")
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert [one["note"] for one in scores["choices"]] == [note for _, note in notes]


def test_a_stage_ends_where_the_drift_passes_and_the_next_one_is_trained(small, dataset, tmp_path):
    history, _ = run(small, dataset, tmp_path, warn_at=0.0, stop_at=1e-4, every=5)
    assert history.cost["steps"] == 12 + 5 + 5
    assert [one["stage"] for one in history.choices] == [2, 3]
    assert "the stage was ended there (stop_at 0.0001)" in history.choices[0]["note"]
    ends = {score.stage: score.step for score in history.scores if score.final}
    assert ends == {1: 12, 2: 17, 3: 22}
    assert len([one for one in history.geometry if one.final]) == 3


def test_a_run_killed_where_a_stage_was_ended_goes_on_to_the_same_bits(
    small, dataset, tmp_path, same, values
):
    options = {"warn_at": 0.0, "stop_at": 1e-4, "every": 4}
    whole, _ = run(small, dataset, tmp_path / "whole", **options)

    def kill(evaluation, gallery):
        if evaluation.final and evaluation.stage == 1:
            raise RuntimeError("killed")

    strategy = cm.Strategy(name="watched", plugins={"watch": options})
    out, every = tmp_path / "two", {"device": "cpu", "checkpoint_every": 4}
    with pytest.raises(RuntimeError, match="killed"):  # its last checkpoint is of the last step
        cm.run(small, strategy, dataset, out, observers=[kill], **every)
    again = cm.run(small, strategy, dataset, out, **every)
    assert same(values(whole), values(again))
    assert again.choices == whole.choices
    assert again.cost["steps"] == whole.cost["steps"]


def test_freezing_never_drifts(small, dataset):
    plugins = [cm.Freeze(), cm.Watch(warn_at=1e-3, stop_at=1e-3, every=2)]
    history = cm.train(small, dataset, plugins=plugins, device="cpu")
    assert history.cost["steps"] == 36
    assert history.choices == []
