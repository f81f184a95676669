"""What a strategy holds of the past while the second stage trains."""

from pathlib import Path
from typing import Any

from continual_mm.data import registry as datasets
from continual_mm.definitions.scenario import Scenario, Strategy
from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import build
from continual_mm.runs.session import Watchers, open_session
from continual_mm.runs.specification import specify


class Scales(Plugin):
    """Measures the bytes that the learner's plugins hold, after each step's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add up the bytes."""
        held = (
            value
            for plugin in strategy.plugins
            if isinstance(plugin, Plugin)
            for value in plugin.state().values()
        )
        self.found = sum(tensor.nbytes for tensor in held)


def held_bytes(scenario: Scenario, strategy: Strategy) -> int:
    """Bytes of items, embeddings, copies of towers and the like in the second stage.

    The count at the end of a run is another one, for items of the second stage have come in by
    then. It takes two steps of training to see; sizes do not depend on how many there are.
    """
    training = scenario.training.model_copy(update={"steps": 1})
    short = scenario.model_copy(update={"training": training})
    scales = Scales()
    session = open_session(
        specify(short, strategy),
        datasets.load(short.dataset, folder=Path(short.folder), standardise=short.standardise),
        build(strategy),
        watchers=Watchers(plugins=[scales]),
    )
    for stage in range(session.stages):
        session.learn(stage)
    return scales.found
