"""Distill, Relational, RowKL: what the terms of remembered and current rows compare."""

import pytest
import torch

from continual_mm.losses.distillation import row_divergence
from continual_mm.plugins.distill import Distill
from continual_mm.plugins.relational import Relational
from continual_mm.plugins.row_kl import RowKL


def teacher_of(space, strategy, name, part):
    """What a finished space makes of the part's rows, straight from the features."""
    batch = strategy.batch.select(torch.arange(part.start, part.stop))
    return space.encode(name, batch.features[name])


def student_of(strategy, name, part):
    rows = strategy.batch.rows[name]
    return strategy.embedded[name].direction[(rows >= part.start) & (rows < part.stop)]


def test_the_term_of_remembered_rows_is_their_mean_squared_distance_to_the_old_space(
    watched, terms_of
):
    def check(strategy, old):
        found = terms_of(strategy, "distill/")
        assert found.keys() == {"distill/audio", "distill/text", "distill/video"}
        for name in ("audio", "text", "video"):
            teacher = teacher_of(old, strategy, name, strategy.remembered)
            student = student_of(strategy, name, strategy.remembered)
            expected = 3.0 / 3 * (2 - 2 * (teacher * student).sum(1)).mean()
            torch.testing.assert_close(found[f"distill/{name}"], expected, rtol=1e-4, atol=2e-6)

    watched(Distill(weight=3.0, rows=16), 2, check)


def test_the_term_of_current_rows_compares_with_the_old_towers_on_whole_features(watched, terms_of):
    def check(strategy, old):
        found = terms_of(strategy, "distill/current/")
        assert found.keys() == {"distill/current/video"}
        teacher = teacher_of(old, strategy, "video", strategy.current)
        student = student_of(strategy, "video", strategy.current)
        expected = 0.5 * (2 - 2 * (teacher * student).sum(1)).mean()
        torch.testing.assert_close(found["distill/current/video"], expected, rtol=1e-4, atol=2e-6)
        assert expected > 0.01

    for items in (24, None):
        watched(Distill(current=0.5, rows=16), 1, check, items=items, feature_dropout=0.5)


def test_in_a_third_stage_what_arrived_in_the_second_is_held_too(watched, terms_of):
    def check(strategy, old):
        held = {"audio", "text", "video"}
        assert terms_of(strategy, "distill/current/").keys() == {
            f"distill/current/{name}" for name in held
        }

    watched(Distill(current=1.0, rows=24), 2, check)


def test_only_a_weight_on_current_rows_keeps_a_copy_of_the_towers(trained):
    lean, full = Distill(rows=16), Distill(rows=16, current=1.0)
    for plugin in (lean, full):
        trained(plugin)
    kinds = [{key.split("/")[0] for key in plugin.state()} for plugin in (lean, full)]
    assert kinds == [{"teacher"}, {"teacher", "towers"}]
    space = trained(stages=1).space
    size = sum(value.nbytes for value in space.encoders.state_dict().values())
    towers = [value for key, value in full.state().items() if key.startswith("towers/")]
    assert sum(value.nbytes for value in towers) == size


def test_with_nothing_to_distil_from_it_is_refused_at_the_start(trained):
    with pytest.raises(ValueError, match=r"give the run a memory.*distill\.current = 1"):
        trained(Distill(), stages=1, items=None)


def test_the_terms_compare_each_old_modality_with_the_old_space(watched, terms_of, remembered):
    def check(strategy, old):
        found = terms_of(strategy, "relational/")
        assert found.keys() == {f"relational/{name}" for name in ("audio", "text", "video")}
        batch, part = remembered(strategy), strategy.remembered
        for name in ("audio", "text", "video"):
            where = strategy.batch.positions(name, batch.rows[name] + part.start)
            new = strategy.embedded[name].direction[where]
            before = old.encode(name, batch.features[name])
            change = (new @ new.T - before @ before.T).square()
            count = len(new)
            expected = 6.0 / 3 * change.sum() / (count * (count - 1))
            torch.testing.assert_close(found[f"relational/{name}"], expected, rtol=1e-3, atol=1e-6)

    watched(Relational(weight=6.0, rows=16), 2, check)


def cosines(strategy, batch, old, first, second):
    """(present, old) cosines of the remembered rows that have both modalities."""
    part = strategy.remembered
    both = (batch.present(first) & batch.present(second)).nonzero().squeeze(1)
    new, before = {}, {}
    for name in (first, second):
        where = strategy.batch.positions(name, both + part.start)
        new[name] = strategy.embedded[name].direction[where]
        before[name] = old.encode(name, batch.features[name][batch.positions(name, both)])
    return tuple(each[first] @ each[second].T for each in (new, before))


@pytest.mark.parametrize("right_only", [0, 1])
def test_the_terms_are_the_divergences_of_old_pairs_from_the_old_space(
    right_only, watched, terms_of, remembered
):
    def check(strategy, old):
        pairs = {"audio-video": ("audio", "video"), "text-video": ("text", "video")}
        found = terms_of(strategy, "row_kl/")
        assert found.keys() == {f"row_kl/{name}" for name in pairs}
        for name, (first, second) in pairs.items():
            new, before = cosines(strategy, remembered(strategy), old, first, second)
            expected = row_divergence(new, before, temperature=0.5, right_only=bool(right_only))
            torch.testing.assert_close(
                found[f"row_kl/{name}"], 3.0 / 2 * expected, rtol=1e-3, atol=1e-5
            )

    plugin = RowKL(weight=3.0, temperature=0.5, right_only=right_only, rows=16)
    watched(plugin, 2, check)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: Relational(weight=1000.0, rows=24), "video"),
        (lambda: RowKL(weight=10.0, right_only=0, rows=24), "audio"),
    ],
)
def test_similarities_of_old_items_change_less_with_it(make, other, dataset, trained):
    def similarities(*plugins, **options):
        space = trained(*plugins, steps=40, **options).space
        video, others = (
            space.encode(name, dataset.columns[name].values[:80]) for name in ("video", other)
        )
        return (video @ others.T / 0.07).softmax(1)

    before = similarities(stages=1)
    moved = [(similarities(*plugins) - before).square().mean() for plugins in ([], [make()])]
    assert moved[1] < 0.5 * moved[0]
