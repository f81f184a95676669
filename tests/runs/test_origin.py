"""A scenario that starts from an earlier run: its space, its pairs, what may not change."""

import json
import shutil

import numpy as np
import pytest
from torch import nn

import continual_mm as cm
from continual_mm.data.pack import write_pack
from continual_mm.definitions import catalog
from continual_mm.definitions.modality import pair
from continual_mm.plugins.freeze import Freeze
from continual_mm.runs.opening import open_scenario
from continual_mm.runs.run import open_run, run, train
from continual_mm.system.errors import InputError

SPACE = cm.SpaceSettings(dim=8, clusters=3, refresh_every=4)
TRAINING = cm.Training(steps=30, batch_size=16, learning_rate=1e-2)
NAIVE = cm.Strategy(name="naive")


SPLIT = np.repeat([0, 1, 2], [60, 30, 30])


@pytest.fixture(scope="module")
def arrays_of(features):
    """(names) -> 120 items of these modalities, the same for each whatever the others are."""
    made = features(("video", "text", "audio", "touch"), items=120)
    return lambda *names: {name: made[name].astype(np.float32) for name in names}


@pytest.fixture(scope="module")
def dataset_of(arrays_of):
    return lambda *names: cm.Dataset.from_arrays(arrays_of(*names), split=SPLIT)


@pytest.fixture(scope="module")
def dataset(dataset_of):
    return dataset_of("video", "text", "audio")


@pytest.fixture(scope="module")
def video_text(tmp_path_factory, dataset_of):
    """A run that trained video and text."""
    out = tmp_path_factory.mktemp("start")
    stages = (cm.Stage(add=("video", "text")),)
    scenario = cm.Scenario(name="vt", space=SPACE, training=TRAINING, stages=stages)
    run(scenario, NAIVE, dataset_of("video", "text"), out, device="cpu")
    return out / "vt" / "naive" / "seed-0"


def add_audio(video_text, **changes):
    stages = (cm.Stage(add=("audio",), pairs=("audio-video",)),)
    settings = {"space": SPACE, "training": TRAINING, "start": str(video_text), "stages": stages}
    return cm.Scenario(**{"name": "add_audio", **settings, **changes})


def test_the_first_stage_is_the_run_as_it_was_and_the_second_adds_to_it(video_text, dataset):
    history = train(add_audio(video_text), dataset, device="cpu")
    assert [[m.name for m in a.added] for a in history.arrivals] == [["video", "text"], ["audio"]]
    assert [a.training.steps for a in history.arrivals] == [0, 30]
    assert history.roles.old == (pair("text", "video"),)
    assert history.roles.new == (pair("audio", "video"),)
    before = json.loads((video_text / "scores.json").read_text())["evaluations"]
    ended = [e for e in before if e["split"] == "test"]
    mean = np.mean([e["recall@1"] for e in ended])
    assert history.recall("text-video", stage=1) == pytest.approx(mean)
    assert history.recall("audio-video") > 0.1


def test_training_goes_on_from_the_runs_weights_and_centroids(video_text, dataset, contained):
    old = open_run(video_text)
    history = train(add_audio(video_text), dataset, plugins=[Freeze()], device="cpu")
    assert contained(old.state_dict(), history.space.state_dict())
    assert history.headline()["forgetting"] == 0


def test_the_dataset_may_lack_a_modality_of_the_start_but_not_all(video_text, dataset_of):
    history = train(add_audio(video_text), dataset_of("video", "audio"), device="cpu")
    assert [str(p) for p in history.births] == ["audio-video"]
    assert "text" in history.space
    neither = add_audio(video_text, stages=(cm.Stage(add=("audio", "touch")),))
    with pytest.raises(InputError, match=r"none of the start's modalities \(video, text\)"):
        train(neither, dataset_of("audio", "touch"), device="cpu")


def test_towers_of_the_start_may_be_kept_from_training_but_not_replaced(video_text, dataset, same):
    fixed = add_audio(video_text, towers={"video": cm.TowerSettings(trained=False)})
    history = train(fixed, dataset, device="cpu")
    old = open_run(video_text)
    assert same(old.tower("video").state_dict(), history.space.tower("video").state_dict())
    replaced = add_audio(video_text, towers={"video": cm.TowerSettings(kind="linear")})
    with pytest.raises(InputError, match="remove kind and weights"):
        train(replaced, dataset, device="cpu")


def test_a_module_of_the_start_is_given_again_where_the_dataset_lacks_its_modality(
    tmp_path, dataset_of, same
):
    stages = (cm.Stage(add=("video", "text"), steps=2),)
    scenario = cm.Scenario(name="vt", space=SPACE, stages=stages)
    towers = {"video": nn.Linear(6, 4)}
    run(scenario, NAIVE, dataset_of("video", "text"), tmp_path, device="cpu", towers=towers)
    start = tmp_path / "vt" / "naive" / "seed-0"
    scenario = add_audio(start, stages=(cm.Stage(add=("audio",)),))
    history = train(scenario, dataset_of("text", "audio"), towers=towers, device="cpu")
    old = open_run(start, towers=towers).tower("video")
    assert same(history.space.tower("video").state_dict(), old.state_dict())
    unused = {**towers, "touch": nn.Linear(6, 4)}
    with pytest.raises(InputError, match="no stage adds such a modality; there are audio, text, v"):
        train(scenario, dataset_of("text", "audio"), towers=unused, device="cpu")


def test_a_run_that_started_from_another_resumes_and_opens_without_it(
    video_text, dataset, tmp_path
):
    start = tmp_path / "start"
    shutil.copytree(video_text, start)
    first = run(add_audio(start), NAIVE, dataset, tmp_path, device="cpu")
    again = run(add_audio(video_text), NAIVE, dataset, tmp_path, device="cpu")
    assert again.scores == first.scores
    shutil.rmtree(start)
    folder = tmp_path / "add_audio" / "naive" / "seed-0"
    assert [m.name for m in open_run(folder).modalities] == ["video", "text", "audio"]


def test_joint_training_from_a_start_trains_its_pairs_too(video_text, dataset, tmp_path):
    joint = cm.Strategy(name="joint", joint=True)
    history = run(add_audio(video_text), joint, dataset, tmp_path, device="cpu")
    assert history.space.state_dict().keys() > open_run(video_text).state_dict().keys()
    assert history.recall("text-video") > 0.1


@pytest.fixture
def scenario_file(video_text, arrays_of, tmp_path):
    items = {"split": SPLIT, "ids": np.arange(120).astype(str)}
    write_pack(tmp_path / "senses.npz", {**arrays_of("video", "text", "audio"), **items})

    def written(more=""):
        path = tmp_path / "mine.toml"
        path.write_text(
            f'dataset = "senses.npz"\nstart = "{video_text}"\n{more}\n[[stage]]\nadd = ["audio"]\n'
        )
        return path

    return written


def opened(path, *settings):
    return open_scenario(catalog.find("scenarios", str(path)), settings)


def test_a_file_takes_sizes_from_the_start_and_may_change_the_weights_of_losses(scenario_file):
    found = opened(scenario_file("[space]\ncluster_weight = 0.5\n"))
    assert (found.scenario.space.dim, found.scenario.space.cluster_weight) == (8, 0.5)
    assert [[m.name for m in a.added] for a in found.arrivals] == [["video", "text"], ["audio"]]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('[space]\nmode = "reference"', r"mode: is 'reference', but the run .* has 'robust'"),
        ("[space]\ndim = 16", r"\[space\], dim: is 16, but the space it starts from has 8"),
        (
            '[tower.video]\nkind = "linear"',
            r"\[tower\.video\]: tower and weights come from the run",
        ),
        ('[tower.audio]\nkind = "linaer"', r"there is no tower 'linaer'; did you mean 'linear'\?"),
        ('[tower.audio]\nkind = "tokens"', "as 'audio' is; these fit: vector, linear$"),
        ('[tower.audio]\nkind = "identity"', "needs 'audio' to have 8 features"),
        ('[tower.audio]\nweights = "no.pt"', r"weights 'no\.pt': no file"),
        ('[tower.smell]\nkind = "linear"', r"no stage adds a modality 'smell'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(scenario_file, more, expected):
    with pytest.raises(InputError, match=expected):
        opened(scenario_file(more))


def test_a_file_that_starts_from_a_run_in_reference_mode_says_so_itself(
    scenario_file, dataset_of, tmp_path
):
    sizes = {"dim": 8, "clusters": 3, "clips": 2, "width": 4, "depth": 1}
    space = cm.SpaceSettings(mode="reference", **sizes)
    stages = (cm.Stage(add=("video", "text"), steps=1),)
    scenario = cm.Scenario(name="vt", space=space, training=TRAINING, stages=stages)
    run(scenario, NAIVE, dataset_of("video", "text"), tmp_path, device="cpu")
    start = ("start", str(tmp_path / "vt" / "naive" / "seed-0"))
    for said in ("", '[space]\nmode = "robust"'):
        with pytest.raises(InputError, match=r'has .reference.; write mode = "reference"'):
            opened(scenario_file(said), start)
    found = opened(scenario_file('[space]\nmode = "reference"'), start).scenario
    assert (found.space.clips, found.training.clip_norm, found.standardise) == (2, 0.0, False)


def test_a_start_that_is_no_run_is_refused(scenario_file, tmp_path):
    for path in ("nowhere", str(tmp_path)):
        with pytest.raises(InputError, match="no finished stage in"):
            opened(scenario_file(), ("start", path))


def test_a_stage_of_no_steps_takes_towers_as_they_come_and_scores_them(arrays_of, changed):
    arrays = arrays_of("video", "audio")
    arrays["text"] = arrays["video"].copy()
    dataset = cm.Dataset.from_arrays(arrays, split=SPLIT, standardise=["audio"])
    stages = (cm.Stage(add=("video", "text"), steps=0), cm.Stage(add=("audio",)))
    towers = dict.fromkeys(("video", "text"), cm.TowerSettings(kind="identity"))
    scenario = cm.Scenario(name="theirs", stages=stages, standardise=("audio",), towers=towers)
    scenario = changed(scenario, dim=6, clusters=0, steps=200, batch_size=16, learning_rate=1e-2)
    history = train(scenario, dataset, device="cpu")
    assert history.recall("text-video", stage=1) == 1.0
    assert history.recall("text-video", stage=2) == 1.0
    assert history.recall("audio-video") > 0.1
