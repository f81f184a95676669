"""What every plugin of the registry must do; a new one is tested by being there."""

import pytest

from continual_mm.definitions.catalog import open_definition
from continual_mm.definitions.rules import Number, Words
from continual_mm.definitions.scenario import Strategy
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.registry import BUILT_IN, build
from continual_mm.runs.opening import open_strategy
from continual_mm.system.errors import InputError

SMALL = {
    "agem": {"rows": 16},
    "distill": {"rows": 16},
    "ewc": {"batches": 4, "rows": 8},
    "mas": {"batches": 2, "rows": 8},
    "nullspace": {"batches": 4, "rows": 20},
    "partners": {"items": 30},
    "prototypes": {"weight": 3.0},
    "realign": {"steps": 3, "rows": 16},
    "relational": {"rows": 16},
    "replay": {"rows": 16},
    "row_kl": {"rows": 16},
    "si": {"weight": 10.0},
    "transport": {"rows": 16},
    "watch": {"stop_at": 1e-6, "every": 8},
}
"""Plugin -> parameters that suit 80 items; others have their defaults."""

BESIDE = {"rest": {"replay": {"rows": 16}}}
"""Plugin -> what it needs beside itself to change anything."""

NEUTRAL = {
    "interpolate": {"towards_old": 0.0},
    "nullspace": {"keep": 0.0},
    "realign": {"towards_old": 0.0, "rate": 0.0},
    "slow": {"ratio": 1.0},
    "warmup": {"share": 0.0},
    "watch": {"stop_at": 0.0},
    **dict.fromkeys(("agem", "cross_intra", "expand", "freeze", "joint_lora"), None),
    **dict.fromkeys(("merge", "mmlora", "pair_lora", "rest"), None),
    **{
        name: {"weight": 0.0}
        for name, known in BUILT_IN.items()
        if "weight" in known.rule.parameters
    },
}
"""Plugin -> values with which it changes nothing; None where there are none."""

FASTER = {"mas": (10.0, 1000.0), "si": (1.0, 100.0)} | dict.fromkeys(
    ("distill", "partners", "prototypes"), (3.0, 100.0)
)
"""Plugin that holds embeddings -> a small and a large weight."""


def plugins(name, **parameters):
    """The plugin and what stands beside it, as a strategy file would make them."""
    tables = BESIDE.get(name, {}) | {name: SMALL.get(name, {}) | parameters}
    return list(build(Strategy(name=name, plugins=tables)).values())


@pytest.fixture
def without(trained, values):
    """(plugin; stages) -> what training without it comes to."""

    def train(name, **options):
        beside = build(Strategy(name="without", plugins=BESIDE.get(name, {})))
        return values(trained(*beside.values(), **options))

    return train


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_changes_training_from_the_second_stage_on(name, trained, without, values, same):
    assert same(without(name, stages=1), values(trained(*plugins(name), stages=1)))
    assert not same(without(name), values(trained(*plugins(name))))


@pytest.mark.parametrize("name", [name for name in BUILT_IN if NEUTRAL[name]])
def test_at_its_neutral_value_it_changes_no_bit_and_keeps_nothing(
    name, trained, without, values, same
):
    made = plugins(name, **NEUTRAL[name])
    assert same(without(name, stages=3), values(trained(*made, stages=3)))
    assert made[-1].state() == {} or name == "realign"
    assert made[-1].memory_rows == 0


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_run_resumed_inside_a_stage_or_at_its_end_ends_with_the_same_bits(name, ends, same):
    """Features are dropped at random, so that the generators must be restored as well."""
    whole, *resumed = ends(lambda: plugins(name), feature_dropout=0.2)
    for each in resumed:
        assert same(whole, each)


@pytest.mark.parametrize("name", BUILT_IN)
def test_in_bfloat16_all_terms_and_weights_stay_finite(name, trained, values, looking):
    terms = []
    looks = [
        looking(stage, lambda learner: terms.extend(learner.terms.values())) for stage in (1, 2)
    ]
    learner = trained(*plugins(name), *looks, stages=3, precision="bfloat16")
    found = [*terms, *values(learner).values()]
    assert all(bool(value.isfinite().all()) for value in found)


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_frozen_for_good_stays_bit_for_bit_beside_it(name, trained, values, contained):
    before = values(trained(stages=1))
    for order in (1, -1):
        after = values(trained(*[Freeze(), *plugins(name)][::order]))
        assert contained(before, after)


def test_together_they_add_all_their_terms(trained, looking):
    seen = set()
    together = [*plugins("replay"), *plugins("ewc"), *plugins("transport")]
    trained(*together, looking(1, lambda learner: seen.update(learner.terms)))
    assert {"ewc", "gauge", "transport/audio-video", "replay/contrast/audio-video"} <= seen
    assert "contrast/text-video" in seen
    assert "transport/text-video" not in seen  # no item of this pair is remembered yet


@pytest.mark.parametrize("name", FASTER)
def test_embeddings_of_old_modalities_move_less_the_larger_the_weight(name, dataset, trained):
    video = dataset.columns["video"].values[80:]
    before = trained(stages=1, steps=40).space.encode("video", video)
    moved = []
    for weight in (0.0, *FASTER[name]):
        after = trained(*plugins(name, weight=weight), steps=40).space.encode("video", video)
        moved.append(float((after - before).square().sum(1).mean()))
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize("name", [name for name in BUILT_IN if BUILT_IN[name].rule.needs_memory])
def test_without_a_memory_it_is_refused_at_the_start(name, begun):
    learner, streams = begun(*plugins(name), items=None)
    with pytest.raises(ValueError, match="needs past items: give the run a memory"):
        learner.learn(streams, 0)


def parameters(kind):
    """Plugin and key of each parameter of a kind."""
    rules = {name: known.rule.parameters for name, known in BUILT_IN.items()}
    return [
        (name, key) for name in rules for key, rule in rules[name].items() if type(rule) is kind
    ]


@pytest.mark.parametrize(("name", "key"), parameters(Words))
def test_a_word_that_is_not_known_is_refused_alike_in_a_file_and_in_python(name, key, tmp_path):
    known = BUILT_IN[name].rule.parameters[key].known
    path = tmp_path / "mine.toml"
    path.write_text(f'[{name}]\n{key} = "{known[0]}x"')
    with pytest.raises(InputError, match=f'{known[0]}x\' cannot be used; give "{known[0]}" or'):
        open_strategy(open_definition("strategies", path))
    with pytest.raises(InputError, match=f"{name}.{key}: '{known[0]}x' cannot be used"):
        build(Strategy(name="mine", plugins={name: {key: f"{known[0]}x"}}))


@pytest.mark.parametrize(("name", "key"), parameters(Number))
def test_a_number_out_of_range_is_refused_alike_in_a_file_and_in_python(name, key, tmp_path):
    number = BUILT_IN[name].rule.parameters[key]
    step = 1 if number.whole else 0.25
    smallest = number.least + (step if number.above else 0)
    largest = smallest + 2 * step if number.most is None else number.most

    def from_file(value):
        path = tmp_path / "mine.toml"
        path.write_text(f"[memory]\nitems = 4\n[{name}]\n{key} = {value}")
        return build(open_strategy(open_definition("strategies", path)))

    def from_python(value):
        return build(Strategy(name="mine", plugins={name: {key: value}}))

    for right in (smallest, largest):
        assert from_file(right)
        assert from_python(right)
    wrong = [smallest - step, float("nan"), float("inf"), -float("inf"), "1"]
    wrong += [] if number.most is None else [number.most + max(step, int(number.most) // 8)]
    wrong += [1.5] if number.whole else []
    for value in wrong:
        with pytest.raises(InputError) as refused:
            from_file(repr(value))
        (problem,) = refused.value.problems
        assert problem.place.endswith(f"mine.toml, [{name}], {key}")
        with pytest.raises(InputError) as refused:
            from_python(value)
        assert f"{name}.{key}: {problem.message}; {problem.remedy}" in str(refused.value)
