"""Expand: old vectors stay bit for bit, new pairs are learned, and an index stays valid."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import continual_mm as cm
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Stage, Strategy
from continual_mm.plugins.expand import Expand
from continual_mm.plugins.pair_lora import PairLora
from continual_mm.runs.run import open_run, run
from continual_mm.runs.status import as_choices, statuses
from continual_mm.system.errors import InputError

SMALL = {"size": 4, "rank": 4}


@pytest.fixture
def longer(scenario, changed):
    """Enough steps to learn something."""
    return changed(scenario, steps=60)


def vectors(space, dataset, names):
    return {name: space.encode(name, dataset.columns[name].values) for name in names}


def test_after_each_stage_old_vectors_have_the_bytes_that_they_had(begun, dataset) -> None:
    learner, streams = begun(Expand(**SMALL))
    known: list[dict[str, torch.Tensor]] = []
    for stage in range(3):
        learner.learn(streams, stage)
        names = [modality.name for modality in learner.space.modalities]
        known.append(vectors(learner.space, dataset, names))
    assert [next(iter(each.values())).shape[1] for each in known] == sorted(
        {each.shape[1] for found in known for each in found.values()}
    )
    for earlier, later in pairwise(known):
        for name, before in earlier.items():
            after = later[name][:, : before.shape[1]].contiguous()
            assert after.numpy().tobytes() == before.numpy().tobytes()


def test_an_index_filled_before_a_stage_answers_queries_of_the_grown_space(
    begun, dataset, longer
) -> None:
    learner, streams = begun(Expand(**SMALL), scenario=longer)
    learner.learn(streams, 0)
    filled = learner.space.encode("video", dataset.columns["video"].values)
    audio = learner.space.encode("audio", dataset.columns["audio"].values)
    index = NearestNeighbors(n_neighbors=5, algorithm="brute", metric="cosine").fit(filled)
    before = index.kneighbors(audio, return_distance=False)
    learner.learn(streams, 1)
    size = filled.shape[1]
    audio, text = (
        learner.space.encode(name, dataset.columns[name].values) for name in ("audio", "text")
    )
    assert np.array_equal(index.kneighbors(audio[:, :size], return_distance=False), before)
    # Text, which came later, finds old entries better than chance by what it has in their place.
    found = index.kneighbors(text[:, :size], return_distance=False)
    right = (found == np.arange(len(found))[:, None]).any(1).mean()
    assert right > 3 * 5 / len(found)


def test_new_pairs_are_learned_better_than_beside_towers_that_stay(
    trained, dataset, longer
) -> None:
    freeze = trained(cm.Freeze(), scenario=longer)
    expand = trained(Expand(**SMALL), scenario=longer)

    def recall(learner) -> float:
        rows = dataset.split == 2
        video, text = (
            learner.space.encode(name, dataset.columns[name].values[rows])
            for name in ("video", "text")
        )
        return float(((video @ text.T).argmax(1) == torch.arange(rows.sum())).float().mean())

    assert recall(expand) > recall(freeze)


def test_of_each_stage_some_items_are_never_trained_on(trained, looking) -> None:
    def seen(*plugins) -> set[int]:
        rows: set[int] = set()
        trained(*plugins, looking(1, lambda learner: rows.update(learner.batch.index.tolist())))
        return rows

    plugin = Expand(held_out=0.25, **SMALL)
    every, some = seen(), seen(plugin)
    assert some < every
    (choice,) = plugin.choices
    assert choice["items"] == len(every - some) == len(every) // 4


def test_until_the_end_of_a_stage_old_pairs_do_not_see_its_subspace(begun, looking) -> None:
    scores = []

    def look(learner) -> None:
        space, batch = learner.space, learner.batch
        embedded = learner.embedded
        sides = [space.vectors(name, embedded[name]) for name in ("audio", "video")]
        apart = [embedded[name].embedding for name in ("audio", "video")]
        assert batch.present("audio").all()
        scores.append((sides[0] @ sides[1].T - apart[0] @ apart[1].T).abs().max())

    learner, streams = begun(Expand(**SMALL), looking(2, look))
    for stage in range(3):
        learner.learn(streams, stage)
    assert max(scores) < 1e-6


def test_a_newcomer_has_coordinates_in_the_subspaces_of_its_partners(trained) -> None:
    learner = trained(Expand(**SMALL), stages=3)
    first, mapped, second = learner.space.grown
    assert first.kinds == {"text": "own", "video": "adapted", "depth": "head"}
    assert mapped.kinds == {"video": "mapped", "audio": "mapped", "text": "head", "depth": "head"}
    assert second.kinds == {
        "audio": "adapted",
        "depth": "own",
        "text": "adapted",
        "video": "adapted",
    }


def test_where_nothing_old_is_trained_nothing_is_appended(trained, scenario) -> None:
    stages = (
        scenario.stages[0],
        scenario.stages[2].model_copy(update={"add": ("text", "depth"), "pairs": ("depth-text",)}),
    )
    learner = trained(Expand(**SMALL), scenario=scenario.model_copy(update={"stages": stages}))
    assert learner.space.size == scenario.space.dim


def test_before_any_pair_was_trained_there_is_nothing_to_keep(begun, scenario, values, same):
    """One modality at a time: the second stage has the first pair."""
    stages = tuple(Stage(add=(name,)) for name in ("video", "audio", "text"))
    one_by_one = scenario.model_copy(update={"stages": stages})
    alone, streams = begun(scenario=one_by_one)
    growing, _ = begun(Expand(**SMALL), scenario=one_by_one)
    for stage in range(2):
        for learner in (alone, growing):
            learner.learn(streams, stage)
    assert same(values(alone), values(growing))
    growing.learn(streams, 2)
    assert len(growing.space.grown) == 1


def test_beside_pair_lora_it_is_refused(begun) -> None:
    learner, streams = begun(PairLora(rank=2), Expand(**SMALL))
    with pytest.raises(InputError, match="take either expand or pair_lora"):
        learner.learn(streams, 0)


def test_a_space_in_reference_mode_is_refused_before_the_first_step(begun, scenario) -> None:
    space = scenario.space.model_copy(update={"mode": "reference"})
    learner, streams = begun(Expand(), scenario=scenario.model_copy(update={"space": space}))
    with pytest.raises(InputError, match="reference mode cannot grow"):
        learner.learn(streams, 0)
    assert learner.clock.train_iterations == 0


def test_a_run_is_opened_as_one_space_and_tells_what_it_chose(scenario, dataset, tmp_path) -> None:
    strategy = Strategy(name="expand", plugins={"expand": SMALL})
    history = run(scenario, strategy, dataset, tmp_path)
    folder = tmp_path / "small" / "expand" / "seed-0"
    opened = open_run(folder)
    for name in ("video", "text"):
        features = dataset.columns[name].values
        assert torch.equal(opened.encode(name, features), history.space.encode(name, features))
    written = json.loads((folder / "scores.json").read_text())["choices"]
    assert written == history.choices
    assert [each["pairs"] for each in written if each["stage"] == 2] == [["text-video"]]
    assert run(scenario, strategy, dataset, tmp_path).choices == history.choices
    (status,) = statuses([tmp_path])
    first, *_ = as_choices(status)
    assert first.startswith("stage 2, expand: text-video: weights ")
    events = EventAccumulator(str(folder / "events"))
    events.Reload()
    (text, *_) = events.Tensors("choices/text_summary")
    assert "text-video" in text.tensor_proto.string_val[0].decode()


def test_a_scenario_goes_on_from_a_grown_run(scenario, dataset, tmp_path, same, values) -> None:
    strategy = Strategy(name="expand", plugins={"expand": SMALL})
    first = scenario.model_copy(update={"stages": scenario.stages[:2]})
    before = run(first, strategy, dataset, tmp_path).space
    start = str(tmp_path / "small" / "expand" / "seed-0")
    rest = scenario.model_copy(
        update={
            "name": "rest",
            # Depth joins the first subspace, in which text has coordinates.
            "stages": (Stage(add=("depth",), pairs=("depth-text",)),),
            "start": start,
        }
    )
    history = run(rest, strategy, dataset, tmp_path)
    after = history.space
    assert after.grown[0].kinds["depth"] == "head"
    # Each stage appended coordinates of its own and, for audio which it never meets, mapped ones.
    assert len(after.grown) == 2 + len(before.grown) == 4
    for name, old in vectors(before, dataset, ("video", "audio", "text")).items():
        new = after.encode(name, dataset.columns[name].values)
        assert torch.equal(new[:, : old.shape[1]], old)
    again = run(rest, strategy, dataset, tmp_path)
    assert same(values(history), values(again))


@pytest.mark.parametrize("asked", [True, False])
def test_old_pairs_learn_a_head_of_their_own_unless_that_is_switched_off(
    begun, looking, asked
) -> None:
    heads: set[str] = set()
    learner, streams = begun(
        Expand(old_pairs=asked, **SMALL), looking(2, lambda learner: heads.update(learner.terms))
    )
    for stage in range(3):
        learner.learn(streams, stage)
    own = {name for name in heads if name.startswith("expand/") and "-3/" in name}
    # Audio and text meet in this stage as well, but no stage trains them.
    assert own == (
        {f"expand/3-3/{pair('audio', 'video')}", f"expand/3-3/{pair('text', 'video')}"}
        if asked
        else set()
    )


def test_pairs_that_never_meet_share_what_is_learned_of_a_common_partner(
    trained, dataset, longer
) -> None:
    """Audio and text meet through video: better with its map than by first coordinates alone."""
    rows = dataset.split == 2

    def recall(learner) -> float:
        audio, text = (
            learner.space.encode(name, dataset.columns[name].values[rows])
            for name in ("audio", "text")
        )
        order = (audio @ text.T).argsort(dim=1, descending=True)[:, :3]
        return float((order == torch.arange(rows.sum())[:, None]).any(1).float().mean())

    found = {
        each: np.mean(
            [
                recall(trained(Expand(emergent=each, **SMALL), scenario=longer, seed=seed))
                for seed in range(3)
            ]
        )
        for each in (0.0, 2.0)
    }
    assert found[2.0] > found[0.0]


def test_a_map_changes_nothing_for_pairs_that_are_trained(
    trained, dataset, scenario, changed
) -> None:
    free = changed(scenario, clip_norm=0.0)  # one gradient is clipped with all others
    with_map, without = (
        trained(Expand(emergent=each, **SMALL), scenario=free).space for each in (2.0, 0.0)
    )
    for name in ("video", "text"):
        features = dataset.columns[name].values
        kept = without.size
        assert torch.equal(
            with_map.encode(name, features)[:, :kept], without.encode(name, features)
        )


def test_a_map_serves_those_that_earlier_pairs_connect_and_no_others(begun, scenario) -> None:
    stages = (
        Stage(add=("video", "audio")),
        Stage(add=("depth",), pairs=()),
        Stage(add=("text",), pairs=("video-text",)),
    )
    learner, streams = begun(
        Expand(**SMALL), scenario=scenario.model_copy(update={"stages": stages})
    )
    for stage in range(3):
        learner.learn(streams, stage)
    (mapped,) = (each for each in learner.space.grown if each.map is not None)
    assert mapped.kinds == {"video": "mapped", "audio": "mapped", "text": "head"}
    # Video has its own coordinates with text, and its similarity to audio stays what it was.
    assert [sorted(block.factors) for block in mapped.layout] == [["audio", "text"]]


def test_a_map_leaves_out_what_met_its_partners_only_when_both_were_frozen(
    begun, features, scenario
) -> None:
    """Then they are aligned in appended coordinates, and first ones say nothing of each other."""
    names = ("video", "audio", "text", "depth", "infrared", "touch")
    stages = (
        Stage(add=("video", "audio")),
        Stage(add=("text", "depth"), pairs=("depth-text",)),
        Stage(add=("infrared",), pairs=("text-video", "infrared-video")),
        Stage(add=("touch",), pairs=("touch-video",)),
    )
    six = Dataset.from_arrays(
        {name: values.astype(np.float32) for name, values in features(names).items()},
        split=np.repeat([0, 1, 2], 30),
    )
    learner, streams = begun(
        Expand(**SMALL), scenario=scenario.model_copy(update={"stages": stages}), dataset=six
    )
    for stage in range(4):
        learner.learn(streams, stage)
    mapped = [set(each.kinds) for each in learner.space.grown if each.map is not None]
    assert mapped == [{"video", "audio", "infrared"}, {"video", "audio", "infrared", "touch"}]


def test_a_map_is_learned_by_pairs_of_what_arrives_alone(begun, looking, scenario) -> None:
    """An old pair that the stage names is trained in the stage's subspace, and not in the map."""
    stages = (
        Stage(add=("video", "audio")),
        Stage(add=("text",), pairs=("audio-video", "text-video")),
    )
    terms: set[str] = set()
    learner, streams = begun(
        Expand(**SMALL),
        looking(1, lambda learner: terms.update(learner.terms)),
        scenario=scenario.model_copy(update={"stages": stages}),
    )
    for stage in range(2):
        learner.learn(streams, stage)
    assert {name for name in terms if name.startswith("expand/2-")} == {"expand/2-1/text-video"}
    assert "expand/1-1/audio-video" in terms


def test_after_its_stage_a_subspace_leaves_nothing_with_the_optimiser(trained) -> None:
    """Its moments would be in all checkpoints that follow, and are never used again."""
    learner = trained(Expand(**SMALL), stages=3)
    assert not set(learner.space.subspaces.parameters()) & set(learner.optimizer.state)
