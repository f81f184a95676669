"""The memory in training: copies of items, and the rows that plugins ask for."""

import pytest
import torch

from continual_mm.definitions.scenario import Scenario
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


def test_remembered_rows_are_copies_of_what_their_stage_showed(dataset, trained):
    learner = trained(items=24)
    memory = next(p for p in learner.plugins if isinstance(p, Recollection))
    batch = memory.batch
    assert len(batch) == 24
    assert batch.stage.bincount().tolist() == [12, 12]
    assert not batch.present("audio")[batch.stage == 1].any()
    for name in ("video", "audio", "text"):
        column = torch.from_numpy(dataset.columns[name].values)
        source = column[batch.index[batch.rows[name]]]
        assert torch.equal(source, batch.features[name])
        assert batch.features[name].data_ptr() != column.data_ptr()


def test_the_largest_number_of_rows_counts_and_its_former_name_warns(trained, looking):
    class Old(Plugin):
        recalled_rows = 9

    class New(Plugin):
        memory_rows = 5

    rows = []
    look = looking(1, lambda learner: rows.append(len(learner.remembered)))
    with pytest.warns(DeprecationWarning, match="memory_rows"):
        trained(Old(), New(), look, items=24)
    assert rows == [9] * 12
