"""Prototypes: current rows keep their places among the old centroids."""

import pytest
import torch
from safetensors.torch import load, save

from continual_mm.definitions.scenario import Scenario, SpaceSettings
from continual_mm.plugins.prototypes import Prototypes


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


def test_it_changes_training_and_with_no_weight_it_does_not(trained, values, same):
    naive = values(trained())
    none = Prototypes(weight=0.0)
    assert same(naive, values(trained(none)))
    assert none.state() == {}
    assert not same(naive, values(trained(Prototypes(weight=3.0))))


def test_it_leaves_the_first_stage_alone(trained, values, same):
    naive = values(trained(stages=1))
    assert same(naive, values(trained(Prototypes(), stages=1)))


def test_at_the_teacher_there_is_no_divergence_and_no_pull(trained, looking, terms_of):
    def check(strategy):
        if strategy.step:
            return
        found = terms_of(strategy, "prototypes")
        assert found.keys() == {"prototypes/video"}
        loss = torch.stack(list(found.values())).sum()
        weights = list(strategy.space.tower("video").parameters())
        pulls = torch.autograd.grad(loss, weights, retain_graph=True)
        assert abs(float(loss)) < 1e-4
        assert max(float(pull.abs().max()) for pull in pulls) < 2e-3

    trained(Prototypes(weight=1.0), look := looking(1, check))
    assert look.calls == 12


def test_a_fresh_plugin_with_a_state_from_inside_a_stage_gives_the_same_terms(
    trained, looking, terms_of, same
):
    plugin = Prototypes()

    def check(strategy):
        before = terms_of(strategy, "prototypes")
        fresh = Prototypes()
        fresh.load_state(load(save(plugin.state())))
        strategy.terms = {}
        fresh.before_backward(strategy)
        assert before.keys() == strategy.terms.keys() == {"prototypes/video"}
        assert same(before, strategy.terms)

    trained(plugin, look := looking(1, check))
    assert look.calls == 12


def test_the_old_tower_s_output_moves_less_the_stronger_it_is(scenario, dataset, changed, trained):
    video = dataset.columns["video"].values[80:]
    before = trained(stages=1, scenario=changed(scenario, steps=40)).space.encode("video", video)
    drifts = []
    for weight in (0.0, 3.0, 100.0):
        learner = trained(Prototypes(weight=weight), scenario=changed(scenario, steps=40))
        drifts.append(float((learner.space.encode("video", video) - before).square().sum(1).mean()))
    assert drifts[0] > drifts[1] > drifts[2]


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"epsilon": 0.0}, {"items": 0}):
        with pytest.raises(ValueError, match=rf"prototypes\.{next(iter(wrong))} = "):
            Prototypes(**wrong)


def test_masses_are_the_shares_of_items_nearest_to_each_centroid(dataset, begun):
    plugin = Prototypes(items=128)
    learner, streams = begun(plugin)
    learner.learn(streams, 0)
    rows = streams.train[0].items.shares[0].rows.numpy()
    joint = sum(
        learner.space.encode(name, dataset.columns[name].values[rows])
        for name in ("video", "audio")
    )
    counts = (joint @ learner.space.centroids.T).argmax(1).bincount(minlength=4) + 1.0
    torch.testing.assert_close(plugin.state()["masses"], counts / counts.sum())
    torch.testing.assert_close(plugin.state()["centroids"], learner.space.centroids)


def test_a_space_without_centroids_is_refused(scenario, begun):
    space = SpaceSettings(dim=16, clusters=0)
    learner, streams = begun(Prototypes(), scenario=scenario.model_copy(update={"space": space}))
    with pytest.raises(ValueError, match=r"\[space\] clusters"):
        learner.learn(streams, 0)
