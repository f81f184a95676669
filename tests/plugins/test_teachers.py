"""Teachers: what is kept of old items and towers, and that nothing has moved at first."""

from copy import deepcopy

import pytest
import torch

from continual_mm.losses.transport import plan_distillation
from continual_mm.plugins.distill import Distill
from continual_mm.plugins.partners import Partners
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.prototypes import Prototypes
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.relational import Relational
from continual_mm.plugins.row_kl import RowKL
from continual_mm.plugins.transport import Transport


@pytest.fixture
def scenario(scenario):
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


def test_the_term_is_the_divergence_of_plans_with_what_the_finished_space_stored(begun, looking):
    plugin = Partners(weight=2.0)
    learner, streams = begun(plugin, look := looking(1, lambda strategy: check(strategy)))
    learner.learn(streams, 0)
    old = deepcopy(learner.space)
    partners = plugin.state()["partners/audio"]

    def check(strategy):
        assert torch.equal(plugin.state()["partners/audio"], partners)
        teacher = old.encode("video", strategy.batch.features["video"])
        student = strategy.embedded["video"].direction
        expected = plan_distillation(
            1 - teacher @ partners.T, 1 - student @ partners.T, epsilon=0.07
        )
        found = strategy.terms["partners/video-audio"]
        torch.testing.assert_close(found, 2 * expected, rtol=2e-2, atol=1e-4)

    learner.learn(streams, 1)
    assert look.calls == 12


def test_what_is_stored_are_embeddings_of_the_stage_s_items_and_nothing_else(dataset, trained):
    plugin = Partners(items=30)
    learner = trained(plugin, stages=1)
    state = plugin.state()
    assert state.keys() == {"partners/video", "partners/audio"}
    for name in ("video", "audio"):
        all_of_them = learner.space.encode(name, dataset.columns[name].values[:80])
        stored = state[f"partners/{name}"]
        assert stored.shape == (30, 16)
        nearest = (stored @ all_of_them.T).max(1).values
        torch.testing.assert_close(nearest, torch.ones(30))


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


def test_a_space_without_centroids_is_refused(trained):
    with pytest.raises(ValueError, match=r"\[space\] clusters"):
        trained(Prototypes(), stages=1, clusters=0)


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
        trained(Old(), New(), look)
    assert rows == [9] * 12


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
def test_at_a_stages_start_nothing_has_moved(name, precision, trained, looking):
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

    learner = trained(PLUGINS[name](), looking(1, look), precision=precision)
    assert learner.training.precision == precision
    assert found
    for term, (value, slope) in found.items():
        planned = term.startswith(("partners", "transport"))
        assert abs(value) <= (1e-6 if planned else 0.0), term
        assert slope <= (1e-4 if planned else 1e-6) or "trust" in name, term
