"""Fewer units: what two copies do one does as well, and what is kept can be worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.linalg import qr
from torch.nn.functional import batch_norm, conv1d

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.merging.compress import compress_space, kept_units, read_moments
from continual_mm.merging.groups import EMBEDDING, carry
from continual_mm.merging.norms import BatchNorm, batch_norms
from continual_mm.merging.space_groups import embedding_group, hidden_groups
from continual_mm.merging.units import least_squares, spanning_units
from continual_mm.space.merged import Merged
from continual_mm.space.space import JointSpace
from continual_mm.space.towers import Tower

SHAPES = {
    "video": (Kind.FRAMES, (9, 6)),
    "audio": (Kind.SPECTROGRAM, (9, 6)),
    "text": (Kind.TOKENS, (5, 6)),
    "touch": (Kind.VECTOR, (6,)),
}
FORMS = ("robust", "reference", "grown", "merged")
METHODS = ("fusion", "interpolative", "magnitude", "random")


def filled(space, seed=0):
    """The space with every number drawn, running statistics as well."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in space.state_dict().items():
            if value.is_floating_point() and key != "log_scale":
                value.normal_(std=0.3, generator=generator)
                if key.endswith(("running_var", "bias")):
                    value.abs_().add_(0.3)
        if space.form.normalised:
            space.centroids.copy_(torch.nn.functional.normalize(space.centroids, dim=1))
    return space.eval()


def built(form="robust", **settings):
    mode = "reference" if form == "reference" else "robust"
    sizes = {"dim": 8, "clusters": 3, "width": 4, "depth": 3, "mode": mode} | settings
    space = JointSpace(SpaceSettings(**sizes))
    for name, (kind, shape) in SHAPES.items():
        if form == "grown" and name == "touch":
            # One subspace by adapters and an encoder of its own, one by a map and a head.
            space.append_subspace(4, ["video", "audio", "text", "touch"], heads=2, rank=2)
            space.append_subspace(4, ["video", "audio", "touch"], mapped=True)
        space.add_modality(Modality(name, kind, shape))
    if form == "merged":
        parts = [space.tower("text"), space.new_encoder(space.modalities[2], seed=5)[0]]
        turned = Merged(parts, [torch.eye(8), torch.eye(8).flip(0)], normalised=True)
        space.replace_encoder("text", turned, space.head("text"))
    return filled(space)


def batch(count=40):
    generator = torch.Generator().manual_seed(1)
    features, lengths = {}, {}
    for name, (kind, shape) in SHAPES.items():
        features[name] = torch.randn(count, *shape, generator=generator)
        if kind.has_length:
            lengths[name] = torch.randint(3, shape[0] + 1, (count,), generator=generator)
    every = torch.arange(count)
    rows = dict.fromkeys(features, every)
    return Batch(features, lengths, rows, every, torch.zeros_like(every))


def seen(space):
    """Modality -> what its items are compared by, and what the head makes of them."""
    items = batch()
    with torch.no_grad():
        embedded = space(items.features, items.lengths)
        return {
            name: (
                space.vectors(name, found),
                found.pooled,
                space.reconstruct(name, found.embedding),
            )
            for name, found in embedded.items()
        }


def doubled(space, units):
    """The space with each unit of the groups twice, of which a reader gets half."""
    groups = hidden_groups(space)[0] if units != "embedding" else []
    groups = groups if units == "hidden" else [*groups, embedding_group(space)]
    before = dict(space.state_dict())
    state = {k: v.double() if v.is_floating_point() else v for k, v in before.items()}
    for group in groups:
        one = torch.eye(len(group.writers[0].rows(state)), dtype=torch.float64)
        both = torch.cat([one, one], dim=1) / 2
        carry(state, group, torch.cat([one, one]), both)
    dim = None if units == "hidden" else 2 * space.settings.dim
    space.resize({name: value.shape for name, value in state.items()}, dim=dim)
    space.load_state_dict({name: value.to(before[name]) for name, value in state.items()})
    return space


@pytest.mark.parametrize("units", ["hidden", "embedding", "all"])
@pytest.mark.parametrize("form", FORMS)
def test_a_space_of_units_that_are_there_twice_is_halved_without_a_change(form, units):
    small, large = built(form), doubled(built(form), units)
    before, after = seen(small), compress_space(large, 0.5, method="fusion", units=units)
    assert all(new == old // 2 for old, new in after.groups.values())
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    assert {name: value.shape for name, value in large.state_dict().items()} == shapes
    for name, values in seen(large).items():
        for value, expected in zip(values, before[name], strict=True):
            torch.testing.assert_close(value, expected, atol=2e-5, rtol=1e-4)
    if form != "reference":
        torch.testing.assert_close(large.centroids, small.centroids)


@pytest.mark.parametrize("form", FORMS)
def test_interpolation_finds_units_that_are_there_twice_from_items_alone(form):
    before, space = seen(built(form)), doubled(built(form), "all")
    compress_space(space, 0.5, method="interpolative", units="all", batches=[batch()])
    for name, (vectors, *_) in seen(space).items():
        ours = before[name][0]
        if form == "reference":  # raw vectors, of as many dimensions as before they were doubled
            vectors, ours = (torch.nn.functional.normalize(each, dim=1) for each in (vectors, ours))
        torch.testing.assert_close(vectors @ vectors.T, ours @ ours.T, atol=0.02, rtol=0.02)


def test_channels_that_differ_but_for_what_their_norms_undo_are_fused_exactly():
    """The second of two channels is three times as large in front of its norm, and not behind."""
    before, space = seen(built("reference")), doubled(built("reference"), "hidden")
    state, rate = space.state_dict(), 3.0
    for group in hidden_groups(space)[0]:
        for norm in batch_norms(space, group):
            half = len(state[f"{norm.norm}.weight"]) // 2
            state[f"{norm.layer}.weight"][half:] *= rate
            state[f"{norm.norm}.running_mean"][half:] *= rate
            variance = state[f"{norm.norm}.running_var"]
            variance[half:] = rate**2 * (variance[half:] + norm.eps) - norm.eps
    compress_space(space, 0.5, method="fusion", units="hidden")
    torch.testing.assert_close(seen(space)["audio"], before["audio"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_twice_the_units_are_the_same_space(form):
    """What the test above halves was no other function before; raw similarities are doubled."""
    small, large = built(form), doubled(built(form), "all")
    for name, (vectors, _, predicted) in seen(large).items():
        ours, _, expected = seen(small)[name]
        rate = 2.0 if form == "reference" else 1.0
        torch.testing.assert_close(vectors @ vectors.T, rate * ours @ ours.T, atol=2e-5, rtol=1e-4)
        assert predicted.shape[1] >= expected.shape[1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_where_all_are_kept_every_bit_stays(form, method):
    space, before = built(form), built(form).state_dict()
    compress_space(space, 1.0, method=method, units="all", batches=[batch()])
    assert space.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in space.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_a_compressed_space_is_described_and_built_again(form, method):
    space = built(form)
    found = compress_space(space, 0.5, method=method, units="all", batches=[batch()])
    assert found.weights[1] < found.weights[0]
    again = JointSpace.rebuild(space.describe())
    again.load_state_dict(space.state_dict())
    again.eval()
    for name, values in seen(again).items():
        assert all(map(torch.equal, values, seen(space)[name]))
        assert again.tower(name).pooled == values[1].shape[1]
    assert again.describe() == space.describe()


def test_magnitude_keeps_what_numpy_finds_and_leaves_it_as_it_was():
    space, old = built(), {k: v.numpy() for k, v in built().state_dict().items()}
    compress_space(space, 0.4, method="magnitude", units="hidden")
    words, gate = old["encoders.text.words.weight"], old["encoders.text.unit.fc.weight"]
    head = old["reconstructions.text.2.weight"]
    sizes = np.abs(words).sum(1) + np.abs(gate).sum(0) + np.abs(head).sum(1)
    kept = np.sort(np.argsort(-sizes)[:3])
    new = {k: v.numpy() for k, v in space.state_dict().items()}
    np.testing.assert_array_equal(new["encoders.text.words.weight"], words[kept])
    np.testing.assert_array_equal(new["encoders.text.bias"], old["encoders.text.bias"][kept])
    np.testing.assert_array_equal(new["encoders.text.unit.fc.weight"], gate[:, kept])
    np.testing.assert_array_equal(new["reconstructions.text.2.weight"], head[kept])


def test_dimensions_of_the_embedding_are_left_out_of_all_modalities_at_once():
    space, old = built("grown"), built("grown").state_dict()
    compress_space(space, 0.5, method="magnitude", units="embedding")
    assert space.settings.dim == 4
    kept = {}
    for name in SHAPES:
        rows, before = space.state_dict(), old[f"encoders.{name}.unit.fc.weight"]
        now = rows[f"encoders.{name}.unit.fc.weight"]
        kept[name] = [int((before == row).all(1).nonzero()) for row in now]
        head = old[f"reconstructions.{name}.0.weight"][:, kept[name]]
        assert torch.equal(rows[f"reconstructions.{name}.0.weight"], head)
    assert len({tuple(each) for each in kept.values()}) == 1
    assert len(kept["text"]) == 4
    assert all(vectors.shape[1] == space.size for vectors, _, _ in seen(space).values())
    torch.testing.assert_close(space.centroids.norm(dim=1), torch.ones(3))


def test_random_units_depend_on_the_seed_alone():
    weights = []
    for seed in (0, 0, 1):
        space = built()
        compress_space(space, 0.5, method="random", units="hidden", seed=seed)
        weights.append(space.state_dict()["encoders.text.words.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_norm_that_is_folded_is_what_torch_computes_with_its_epsilon():
    """With variances far below the epsilon, which is then all there is to divide by."""
    generator = torch.Generator().manual_seed(0)
    gain, bias, mean = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    variance = torch.tensor([0.0, 1e-7, 1e-5, 0.1, 2.0], dtype=torch.float64)
    weight = torch.randn(5, 3, 3, generator=generator, dtype=torch.float64)
    values = torch.randn(7, 3, 9, generator=generator, dtype=torch.float64)
    gain[3] = 0.0  # a channel that is dead
    norm = BatchNorm("c", "n", 1e-5)
    names = ("n.weight", "n.running_mean", "n.running_var", "n.bias")
    state = {"c.weight": weight, **dict(zip(names, (gain, mean, variance, bias), strict=True))}
    expected = batch_norm(conv1d(values, weight), mean, variance, gain, bias, eps=1e-5)
    norm.fold(state)
    folded = conv1d(values, state["c.weight"], state["n.bias"])
    torch.testing.assert_close(folded, expected)
    norm.unfold(state)
    gain, mean, variance, bias = (state[name] for name in names)
    again = batch_norm(conv1d(values, state["c.weight"]), mean, variance, gain, bias, eps=1e-5)
    torch.testing.assert_close(again, expected)


def test_norms_train_on_with_the_mean_and_spread_that_they_had():
    space, before = built("reference"), built("reference")
    state = {k: v.double() for k, v in space.state_dict().items()}
    for group in hidden_groups(space)[0]:
        for norm in batch_norms(space, group):
            norm.fold(state)
            norm.unfold(state)
    space.load_state_dict(state)
    values = batch().features["audio"]
    with torch.no_grad():
        expected = before.train().tower("audio")(values, None)[1]
        torch.testing.assert_close(space.train().tower("audio")(values, None)[1], expected)


def test_pivots_are_those_of_a_qr_decomposition():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 9, generator=generator, dtype=torch.float64)
    read = torch.rand(9, generator=generator, dtype=torch.float64)
    outgoing = spanning_units(values.T @ values, read, 4)
    pivots = qr((values * read.sqrt()).numpy(), mode="r", pivoting=True)[1][:4]
    assert outgoing.nonzero()[:, 1].tolist() == sorted(pivots)


def test_units_that_others_add_up_to_are_left_out_without_a_change():
    """Of ten units seen on items six are independent: any six that span them tell the others."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    values = few @ torch.randn(6, 10, generator=generator, dtype=torch.float64)
    moments = values.T @ values
    outgoing = spanning_units(moments, torch.ones(10, dtype=torch.float64), 6)
    incoming = least_squares(moments, outgoing)
    told = values @ outgoing.T @ incoming.T
    assert float((told - values).norm() / values.norm()) < 1e-2
    expected = np.linalg.lstsq((values @ outgoing.T).numpy(), values.numpy(), rcond=None)[0]
    np.testing.assert_allclose(expected, incoming.T.numpy(), atol=1e-2)


def test_moments_are_those_of_what_is_read():
    space = built("grown")
    groups = {group.name: group for group in hidden_groups(space)[0]}
    found = read_moments(space, groups.values(), [batch(25), batch(40)])
    assert found.keys() == {*groups, EMBEDDING}
    pooled, total = found["encoders.text.pooled"], 0.0
    adapted = space.grown[0].part("text")
    for items in (batch(25), batch(40)):
        values, lengths = items.features["text"], items.lengths["text"]
        for encoder in (space.tower("text"), adapted.adapters):
            given = (
                (values, lengths)
                if encoder is space.tower("text")
                else (space.tower("text"), values, lengths)
            )
            seen_there = encoder(*given)[0].double()
            total = total + seen_there.T @ seen_there
    torch.testing.assert_close(pooled, total, check_dtype=False)


def test_each_gate_has_the_moments_of_what_it_reads_itself():
    space, items = built(), batch()
    found = read_moments(space, [embedding_group(space)], [items])
    gates = {f"encoders.{name}.unit.gate.weight" for name in SHAPES}
    assert found.keys() == {EMBEDDING, *gates}
    unit = space.tower("touch").unit
    read = unit.norm(unit.fc(items.features["touch"])).double()
    torch.testing.assert_close(found["encoders.touch.unit.gate.weight"], read.T @ read)
    total = sum(vectors.double().T @ vectors.double() for vectors, *_ in seen(space).values())
    torch.testing.assert_close(found[EMBEDDING], total)


@pytest.mark.parametrize("form", FORMS)
def test_interpolation_changes_less_than_leaving_out_what_is_small(form):
    errors = {}
    for method in ("interpolative", "magnitude"):
        space = built(form)
        before = seen(space)
        compress_space(space, 0.75, method=method, units="hidden", batches=[batch()])
        after = seen(space)
        errors[method] = sum(
            float((after[name][0] - before[name][0]).square().mean()) for name in SHAPES
        )
    assert errors["interpolative"] < errors["magnitude"]


def test_units_inside_a_module_of_ones_own_stay_and_a_note_says_so():
    own = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 5))
    space = JointSpace(SpaceSettings(dim=8), towers={"touch": Tower.of(own)})
    for name in ("touch", "text"):
        kind, shape = SHAPES[name]
        space.add_modality(Modality(name, kind, shape))
    found = compress_space(space, 0.5, method="fusion", units="all")
    (note,) = found.notes
    assert "hidden units of touch stay" in note
    assert found.groups.keys() == {"encoders.text.pooled", EMBEDDING}
    again = JointSpace.rebuild(space.describe(), {"touch": Tower.of(own)})
    again.load_state_dict(space.state_dict())
    assert again.size == 4


def test_what_cannot_be_compressed_is_refused():
    space = JointSpace(SpaceSettings(dim=6), towers={"touch": Tower.of(torch.nn.Linear(6, 6))})
    space.add_modality(Modality("touch", *SHAPES["touch"]))
    with pytest.raises(ValueError, match="touch gives embeddings of its own size"):
        compress_space(space, 0.5, method="fusion", units="embedding")
    plain = JointSpace(SpaceSettings(dim=8))
    plain.add_modality(Modality("touch", *SHAPES["touch"]))
    with pytest.raises(ValueError, match="has no hidden units"):
        compress_space(plain, 0.5, method="fusion", units="hidden")
    with pytest.raises(ValueError, match="no training item shows"):
        compress_space(built(), 0.5, method="interpolative", units="hidden")


def test_a_share_is_rounded_down_but_leaves_something():
    assert [kept_units(10, keep) for keep in (1.0, 0.99, 0.5, 0.3, 0.01)] == [10, 9, 5, 3, 1]
    assert kept_units(8, 0.01, least=2) == 2
    assert kept_units(1, 0.5, least=2) == 1
