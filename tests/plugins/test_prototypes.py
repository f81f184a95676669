"""Prototypes: current rows keep their places among the old centroids."""

import pytest
import torch

from continual_mm.definitions.scenario import Scenario, SpaceSettings
from continual_mm.plugins.prototypes import Prototypes


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


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
