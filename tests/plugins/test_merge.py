"""Merge: a stage trained apart joins the space that was set aside."""

import pytest
import torch

from continual_mm.definitions.scenario import Stage
from continual_mm.merging.spaces import merge_into
from continual_mm.plugins.expand import Expand
from continual_mm.plugins.merge import Merge
from continual_mm.plugins.replay import Replay
from continual_mm.space.merged import Merged
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError


@pytest.fixture
def two_pairs(scenario):
    """Video with audio, then text with video, then nothing: both pairs once more."""
    first, second, _ = scenario.stages
    both = Stage(pairs=("audio-video", "video-text"))
    return scenario.model_copy(update={"stages": (first, second, both)})


def encoded(learner, dataset, name):
    return learner.space.encode(name, dataset.columns[name].values[80:])


def test_what_was_there_keeps_every_bit_where_the_first_tower_is_kept(trained, values, contained):
    before = values(trained(stages=1))
    for align in ("procrustes", "transport", "none"):
        assert contained(before, values(trained(Merge(align=align))))


def test_the_stage_knows_nothing_of_the_space_before(scenario, dataset, trained):
    """Trained on other items and for longer, the first stage changes nothing of what arrives.

    The map that follows is found by the first space, so it is left out.
    """
    first, *rest = scenario.stages
    longer = scenario.model_copy(update={"stages": (first.model_copy(update={"steps": 30}), *rest)})
    texts = [
        encoded(trained(Merge(align="none"), scenario=one), dataset, "text")
        for one in (scenario, longer)
    ]
    assert torch.equal(*texts)
    turned = [
        encoded(trained(Merge(), scenario=one), dataset, "text") for one in (scenario, longer)
    ]
    assert not torch.allclose(*turned, atol=1e-3)


def test_a_rotation_keeps_similarities_within_what_arrived(dataset, trained):
    plain, turned = (
        encoded(trained(Merge(align=align)), dataset, "text") for align in ("none", "procrustes")
    )
    torch.testing.assert_close(plain @ plain.T, turned @ turned.T)
    assert not torch.allclose(plain, turned, atol=1e-2)


def test_heads_of_what_arrived_give_what_they_gave(dataset, trained):
    heads = []
    for align in ("none", "procrustes", "transport"):
        space = trained(Merge(align=align)).space
        heads.append(
            space.reconstruct("text", space.encode("text", dataset.columns["text"].values[80:]))
        )
    for other in heads[1:]:
        torch.testing.assert_close(other, heads[0], rtol=1e-4, atol=1e-5)


def test_both_towers_stay_where_both_are_kept(scenario, dataset, trained, values):
    one = trained(Merge())
    both = trained(Merge(shared="keep-both"))
    video = both.space.tower("video")
    assert isinstance(video, Merged)
    assert len(video.encoders) == 2
    torch.testing.assert_close(video.maps[0], torch.eye(16))
    kept = dict(one.space.tower("video").state_dict())
    inner = video.encoders[0].state_dict()
    assert all(torch.equal(inner[name], value) for name, value in kept.items())
    assert both.space.describe()["merged"] == {"video": 2, "text": 1}


def test_a_merged_space_is_rebuilt_from_its_description(trained, dataset):
    learner = trained(Merge(shared="keep-both"), stages=3)
    again = JointSpace.rebuild(learner.space.describe())
    again.load_state_dict(learner.space.state_dict())
    for name in ("video", "audio", "text", "depth"):
        expected = encoded(learner, dataset, name)
        assert torch.equal(again.encode(name, dataset.columns[name].values[80:]), expected)


def test_a_stage_that_adds_nothing_trains_the_merged_space(two_pairs, trained, values):
    merge = Merge(shared="keep-both")
    before = values(trained(Merge(shared="keep-both"), scenario=two_pairs))
    after = values(trained(merge, scenario=two_pairs, stages=3))
    assert before.keys() == after.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name for name in moved if name.endswith(("map_0", "map_1"))} == set()
    for part in ("encoders.audio", "encoders.text", "encoders.video.parts.0", "log_scale"):
        assert any(name.startswith(part) for name in moved), part
    assert merge.choices == ()


def test_it_says_how_well_the_spaces_agree(trained):
    merge = Merge()
    trained(merge)
    (found,) = merge.choices
    assert found["modalities"] == ["video"]
    assert found["items"] == 27
    assert 0 < found["after"] < found["before"] < 2
    assert "were not carried over" in found["note"]


def test_a_start_from_the_same_weights_is_another_one(trained, dataset):
    there, here = (
        encoded(trained(Merge(same_start=same, align="none")), dataset, "text") for same in (0, 1)
    )
    assert not torch.allclose(there, here, atol=1e-3)


@pytest.mark.parametrize(
    ("align", "how"), [("procrustes", "keep-both"), ("transport", "average"), ("none", "keep-a")]
)
def test_a_space_merged_with_itself_stays_itself(align, how, trained, dataset):
    learner, twin = trained(stages=1), trained(stages=1).space
    names = ("video", "audio")
    before = {name: encoded(learner, dataset, name) for name in names}
    others = {name: (twin.tower(name), twin.head(name)) for name in names}
    batches = [learner._benchmark.train[0].items.block((torch.arange(27),))]
    found = merge_into(learner.space, others, names, lambda: batches, align=align, how=how)
    assert found.before == 0
    assert found.after < 1e-5
    for name in names:
        torch.testing.assert_close(encoded(learner, dataset, name), before[name])


def test_without_an_item_of_what_both_have_nothing_can_be_aligned(trained):
    learner, twin = trained(stages=1), trained(stages=1).space
    others = {"video": (twin.tower("video"), twin.head("video"))}
    with pytest.raises(ValueError, match="no item has video"):
        merge_into(learner.space, others, ["video"], list, align="procrustes", how="keep-a")


def test_a_turned_space_is_turned_back_exactly(trained, dataset):
    """The second space is the first in other coordinates, so all of it can be recovered."""
    learner, twin = trained(stages=1), trained(stages=1).space
    rotation, _ = torch.linalg.qr(torch.randn(16, 16))
    video, audio = (encoded(learner, dataset, name) for name in ("video", "audio"))
    others = {
        name: (Merged([twin.tower(name)], [rotation], normalised=True), twin.head(name))
        for name in ("video", "audio")
    }
    items = learner._benchmark.train[0].items
    batches = [items.block((torch.arange(27),))]
    found = merge_into(
        learner.space, others, ("video",), lambda: batches, align="procrustes", how="keep-a"
    )
    assert found.before > 0.5
    assert found.after < 1e-4
    assert torch.equal(encoded(learner, dataset, "video"), video)
    torch.testing.assert_close(encoded(learner, dataset, "audio"), audio, atol=1e-4, rtol=1e-4)


def test_what_has_no_place_in_a_stage_trained_apart_is_refused(trained):
    with pytest.raises(InputError, match=r"\[merge\]: .* no place for Replay; leave"):
        trained(Merge(), Replay(rows=8))
    with pytest.raises(InputError, match=r"a grown space .*; give shared = \"keep-a\""):
        trained(Expand(), Merge(shared="keep-both"))
    with pytest.raises(InputError, match="'average' does not go with align = 'procrustes'"):
        Merge(shared="average")


def test_a_tower_of_unknown_units_cannot_be_averaged(scenario, dataset):
    from continual_mm.runs.run import train

    with pytest.raises(InputError, match="Adapted cannot be told"):
        train(
            scenario,
            dataset,
            plugins=[Merge(align="transport", shared="average")],
            towers={"video": torch.nn.Linear(8, 5)},
            device="cpu",
        )
