"""Teachers: at a stage's start the space is its own teacher."""

import pytest
import torch

from continual_mm.plugins.distill import Distill
from continual_mm.plugins.partners import Partners
from continual_mm.plugins.prototypes import Prototypes
from continual_mm.plugins.relational import Relational
from continual_mm.plugins.row_kl import RowKL
from continual_mm.plugins.transport import Transport

STARTS = ("distill", "partners", "prototypes", "relational", "row_kl", "transport")
PLUGINS = {
    "distill": lambda: Distill(current=1.0, rows=16),
    "partners": Partners,
    "prototypes": Prototypes,
    "relational": lambda: Relational(rows=16),
    "row_kl": lambda: RowKL(rows=16),
    "transport": lambda: Transport(rows=16),
    "transport, all rows": lambda: Transport(rows=24),
    "transport, trust": lambda: Transport(rows=16, trust=0.5),
    "transport, unbalanced": lambda: Transport(rows=16, unbalanced=0.5),
    "transport, right_only": lambda: Transport(rows=16, right_only=1),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PLUGINS)
def test_at_a_stages_start_nothing_has_moved(name, precision, scenario, changed, trained, looking):
    """Embeddings are the teacher's to the last bit; plans are, but for the solver's last step."""
    found = {}

    def look(strategy):
        if strategy.step:
            return
        terms = {k: v for k, v in strategy.terms.items() if k.startswith(("gauge", *STARTS))}
        weights = list(strategy.space.encoders.parameters())
        for term, value in terms.items():
            pulls = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            slope = max(float(pull.abs().max()) for pull in pulls if pull is not None)
            found[term] = float(value), slope

    learner = trained(
        PLUGINS[name](), looking(1, look), scenario=changed(scenario, precision=precision), items=24
    )
    assert learner.training.precision == precision
    assert found
    for term, (value, slope) in found.items():
        planned = term.startswith(("partners", "transport"))
        assert abs(value) <= (1e-6 if planned else 0.0), term
        assert slope <= (1e-4 if planned else 1e-6) or "trust" in name, term
