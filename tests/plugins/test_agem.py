"""A-GEM: the gradient never points against that of the remembered rows."""

import pytest
import torch

from continual_mm.plugins.agem import AGEM, projected
from continual_mm.plugins.plugin import Plugin


def test_what_is_left_of_a_conflict_is_orthogonal_to_the_reference_and_lies_nearest():
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(50, generator=generator, dtype=torch.float64)
    gradient = torch.randn(50, generator=generator, dtype=torch.float64) - 0.3 * reference
    assert gradient @ reference < 0
    found = projected(gradient, reference)
    assert abs(float(found @ reference)) < 1e-12
    # The nearest point of a plane lies along its normal.
    basis = torch.linalg.svd(reference[None]).Vh[1:]
    torch.testing.assert_close(found, basis.T @ (basis @ gradient))


def test_without_a_conflict_the_gradient_stays_bit_for_bit():
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(50, generator=generator)
    gradient = torch.randn(50, generator=generator) + reference
    assert gradient @ reference > 0
    assert torch.equal(projected(gradient, reference), gradient)
    assert torch.equal(projected(gradient, torch.zeros(50)), gradient)


class Watch(Plugin):
    """Notes, in each step of a stage, the gradient without A-GEM, the reference's, and the last."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage
        self.steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def before_backward(self, strategy, *args, **kwargs):
        if strategy.stage == self.stage:
            terms = strategy.objective(strategy.remembered)
            losses = strategy.loss.sum(), torch.stack(list(terms.values())).sum()
            self.seen = [self.gradient(strategy, loss) for loss in losses]

    def gradient(self, strategy, loss):
        weights = [p for p in strategy.space.parameters() if p.requires_grad]
        found = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
        return torch.cat([each.flatten() for each in found]).double()

    def before_update(self, strategy, *args, **kwargs):
        if strategy.stage == self.stage:
            weights = [p for p in strategy.space.parameters() if p.requires_grad]
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
            scale = strategy.scaler.get_scale()
            last = torch.cat([each.flatten() for each in found]).double() / scale
            self.steps.append((*self.seen, last))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_in_training_conflicts_are_projected_away_and_nothing_else_is(precision, trained):
    watch = Watch(1)
    trained(AGEM(rows=16), watch, steps=20, precision=precision)
    conflicts = 0
    for gradient, reference, last in watch.steps:
        if not last.isfinite().all():
            assert precision == "float16"  # a step that the scaler skips
            continue
        dot = float(gradient @ reference)
        expected = gradient - min(dot, 0.0) / (reference @ reference) * reference
        loose = 1e-3 if precision == "float32" else 0.05
        assert (last - expected).norm() <= loose * expected.norm()
        if dot < 0:
            conflicts += 1
            cosine = float(last @ reference / last.norm() / reference.norm())
            assert abs(cosine) < loose
    assert conflicts > 0
    assert len(watch.steps) == 20


def test_a_tower_that_only_the_past_trains_takes_what_the_projection_gives_it(trained):
    seen = []

    class Audio(Plugin):
        def before_update(self, strategy, *args, **kwargs):
            weights = strategy.space.tower("audio").parameters()
            seen.append((strategy.stage, [weight.grad for weight in weights]))

    trained(AGEM(rows=16), Audio())
    trained(Audio())
    moved = [sum(float(each.norm()) for each in found) for _, found in seen[12:24]]
    assert any(moved)
    assert all(each is None for _, found in seen[36:] for each in found)
