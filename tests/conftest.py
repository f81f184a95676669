"""What every test may ask for: the real data, and trainings of a small space.

What trains is imported inside the fixtures, so that tests that train nothing need not wait for it.
"""

import os
import re
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    pass


@pytest.fixture(scope="session")
def test_data():
    """Folder of the real data; without it the test is skipped, or fails where it is required."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CONTINUAL_MM_TEST_DATA") or beside)
    if folder.is_dir():
        return folder
    reason = f"no test data at {folder}: set CONTINUAL_MM_TEST_DATA to its folder"
    if os.environ.get("CONTINUAL_MM_REQUIRE_TEST_DATA") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def typed(capsys):
    """(words of a command) -> its exit code and what it printed.

    Of whatever is typed in a test: options that a complaint names are those of the command.
    """
    from continual_mm.cli.app import main

    def type_command(*words):
        words = [str(word) for word in words]
        with pytest.raises(SystemExit) as ended:
            main(words)
        printed = capsys.readouterr()
        given = {word.partition("=")[0] for word in words}
        assert not options_named(printed.err) - options_of(words) - given, printed.err
        return SimpleNamespace(code=ended.value.code or 0, **printed._asdict())

    return type_command


def options_named(complaint):
    """Options in a complaint, without those beside a command that it names."""
    of_others = re.sub(r"continual-mm [a-z][^;\n]*", "", complaint)
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", of_others))


def options_of(words):
    """Options of the command that is typed."""
    from continual_mm.cli.app import app

    command, words = app, list(words)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    named = (n for one in command.params for n in (*one.opts, *one.secondary_opts))
    return {*named, "--help", "--version"}


@pytest.fixture(scope="session")
def as_before():
    """(folder of a run) -> the same, as if a version had written it that kept no statistics."""
    from continual_mm.system.files import read_json, write_json

    def strip(run):
        for path in run.glob("checkpoints/*/state.json"):
            state = read_json(path)
            del state["space"]["statistics"]
            write_json(path, state, sealed=True)
        return run

    return strip


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, headless."""
    if not Path("/usr/bin/chromium").is_file():
        if os.environ.get("CONTINUAL_MM_REQUIRE_BROWSER") == "1":
            pytest.fail("there is no /usr/bin/chromium")
        pytest.skip("there is no /usr/bin/chromium to look at pages with")
    from playwright.sync_api import sync_playwright

    quiet = ("disable-background-networking", "disable-component-update", "no-first-run")
    arguments = ["--no-sandbox", "--disable-gpu", *(f"--{each}" for each in quiet)]
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def features():
    """(names, items) -> features of size 6 that have five numbers in common, by name."""

    def draw(names=("video", "audio", "text"), items=90):
        rng = np.random.default_rng(3)
        shared = rng.standard_normal((items, 5))
        return {name: shared @ rng.standard_normal((5, 6)) for name in names}

    return draw


@pytest.fixture(scope="session")
def written(features):
    """(path, names, arrays of 90 items) -> the path of a pack of them, a third in each split."""
    from continual_mm.data.pack import write_pack

    def write(path, names=("video", "audio", "text"), **arrays):
        items = {"ids": np.arange(90).astype(str), "split": np.repeat([0, 1, 2], 30)}
        write_pack(path, {**features(names), **arrays, **items})
        return path

    return write


@pytest.fixture(scope="session")
def stop_at():
    """(steps) -> a reporter that ends the run after so many optimiser steps, as Ctrl-C does."""
    from continual_mm.runs.reporter import RunReporter

    class StopAt(RunReporter):
        """Notes where the run resumed."""

        def __init__(self, steps):
            self.left, self.resumed = steps, (0, 0)

        def resumes(self, stage, step):
            self.resumed = (stage, step)

        def steps(self, count):
            self.left -= count
            if self.left == 0:
                raise KeyboardInterrupt

    return StopAt


@pytest.fixture(scope="session")
def media_file():
    """(path, frames and times, audio) -> a file of them, lossless unless the codec is not."""
    from fractions import Fraction

    import av

    def write(
        path,
        frames=None,
        *,
        times=None,
        codec="ffv1",
        pixel_format="bgr0",
        gop=12,
        audio=None,
        audio_start=0.0,
        audio_gap=(0, 0),
        audio_codec="pcm_f32le",
        sample_rate=44_100,
    ):
        with av.open(str(path), "w") as out:
            if frames is not None:
                ticks = 25 if times is None else 1000
                video = out.add_stream(codec, rate=25)
                video.height, video.width = frames.shape[1:3]
                video.pix_fmt = pixel_format
                video.codec_context.gop_size = gop
                video.codec_context.time_base = Fraction(1, ticks)
            if audio is not None:
                layout = "mono" if len(audio) == 1 else "stereo"
                track = out.add_stream(audio_codec, rate=sample_rate, layout=layout)
            if frames is not None:
                shown = np.arange(len(frames)) / 25 if times is None else times
                for image, time in zip(frames, shown, strict=True):
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
                    out.mux(video.encode(frame))
                out.mux(video.encode(None))
            if audio is not None:
                after, pause = audio_gap
                for begin in range(0, audio.shape[1], 1024):
                    piece = np.ascontiguousarray(audio[:, begin : begin + 1024], dtype=np.float32)
                    frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
                    frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
                    frame.pts = begin + round(audio_start * sample_rate)
                    frame.pts += pause if begin >= after else 0
                    out.mux(track.encode(frame))
                out.mux(track.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def colours():
    """The words that the small encoder knows."""
    return ("red", "blue", "green", "gold", "black", "white")


@pytest.fixture(scope="session")
def encoder(colours, tmp_path_factory):
    """The folder of a SentenceTransformer that knows six colours, and gives six numbers."""
    reason = "sentence-transformers is not installed: pip install 'continual-mm[st]'"
    library = pytest.importorskip("sentence_transformers", reason=reason)
    import torch
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(("?", *colours))}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(7, 6, generator=generator)
    folder = tmp_path_factory.mktemp("encoder") / "colours"
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    library.SentenceTransformer(modules=[module], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def dataset():
    """Four modalities with six numbers in common; items 0 to 79 are trained, 20 each score.

    Each item is a class of its own.
    """
    from continual_mm.data.dataset import Dataset

    rng = np.random.default_rng(1)
    shared = rng.standard_normal((120, 6))
    arrays = {
        name: (shared @ rng.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5), ("depth", 4))
    }
    split, label = np.repeat([0, 1, 2], [80, 20, 20]), np.arange(120)
    return Dataset.from_arrays(arrays, split=split, label=label)


@pytest.fixture(scope="module")
def scenario():
    """Three stages of twelve steps: video and audio, text with video alone, depth with all."""
    from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training

    return Scenario(
        name="small",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
        training=Training(steps=12, batch_size=20, learning_rate=1e-2),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",)),
            Stage(add=("depth",)),
        ),
    )


@pytest.fixture(scope="session")
def changed():
    """(scenario, settings) -> the scenario with these in its space, its training or itself."""

    def change(scenario, **settings):
        for table in ("space", "training"):
            old = getattr(scenario, table)
            own = {k: settings.pop(k) for k in settings.keys() & type(old).model_fields.keys()}
            settings.setdefault(table, old.model_copy(update=own))
        return scenario.model_copy(update=settings)

    return change


@pytest.fixture
def begun(scenario, dataset, changed):
    """(plugins; scenario, dataset, items) -> a learner and streams; with items it has a memory.

    ``joint=True`` or ``cumulative=True`` train what bounds what strategies can reach; all other
    options are settings that change the scenario.
    """
    from continual_mm.definitions.arrivals import plan
    from continual_mm.evaluation.pairs import evaluator
    from continual_mm.learning.learner import Learner
    from continual_mm.learning.memory import Memory
    from continual_mm.learning.stream import benchmark
    from continual_mm.plugins.recollection import Recollection
    from continual_mm.space.kinds import new_space

    def begin(
        *plugins, scenario=scenario, dataset=dataset, items=None,
        joint=False, cumulative=False, **settings,
    ):  # fmt: skip
        scenario, bound = changed(scenario, **settings), {"joint": joint, "cumulative": cumulative}
        streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0, **bound)
        memory = None if items is None else Memory(items)
        every = [*([] if memory is None else [Recollection(memory)]), *plugins]
        space = new_space(scenario.space)
        return Learner(
            space=space, seed=0, evaluator=evaluator(), plugins=every, memory=memory
        ), streams

    return begin


@pytest.fixture
def trained(begun):
    """(plugins; stages and what ``begun`` takes) -> a learner that has learned the stages."""

    def train(*plugins, stages=2, **options):
        learner, streams = begun(*plugins, **options)
        for stage in range(stages):
            learner.learn(streams, stage)
        return learner

    return train


def keepers(learner):
    """What a checkpoint keeps beside the learner, by name."""
    from continual_mm.plugins.plugin import Plugin

    return {type(each).__name__: each for each in learner.plugins if isinstance(each, Plugin)}


def everything(learner):
    """Copies of all tensors of a learner's space, clusters and plugins."""
    states = {name: each.state() for name, each in keepers(learner).items()}
    states |= {"space": learner.space.state_dict(), "clusters": learner.clusters.state()}
    return {f"{name}/{k}": v.clone() for name, state in states.items() for k, v in state.items()}


@pytest.fixture
def ends(begun, tmp_path):
    """(makes plugins; a step, what ``begun`` takes) -> all that the stages come to, in three ways.

    Trained in one go; resumed behind the step of the second stage; resumed at that stage's end.
    """
    from continual_mm.runs.checkpoint import add_modalities, restore, save

    notes = {"seconds": 0.0, "learned": 0, "scores": [], "geometry": []}

    def trained_in_all_ways(make, at=6, **options):
        def keep():
            if (whole.stage, whole.step) == (1, at):
                save(tmp_path / "inside", whole, keepers(whole), notes, {})

        whole, streams = begun(*make(), **options)
        whole.after_step = keep
        for stage in range(len(streams.train)):
            whole.learn(streams, stage)
            save(tmp_path / f"{stage}", whole, keepers(whole), notes, {})
        found = [everything(whole)]
        for stage, step in [(1, at), (2, 0)][: len(streams.train) - 1]:
            parts, streams = begun(*make(), **options)
            inside = partial(restore, tmp_path / "inside", parts, keepers(parts))
            add_modalities(tmp_path / f"{stage - 1}", parts)
            restore(tmp_path / f"{stage - 1}", parts, keepers(parts))
            parts.pass_over(streams, stage)
            parts.learn(streams, stage, step=step, restore=inside if step else None)
            for later in range(stage + 1, len(streams.train)):
                parts.learn(streams, later)
            found.append(everything(parts))
        return found

    return trained_in_all_ways


@pytest.fixture
def values():
    """(learner or history) -> a copy of its space's weights and buffers, by name."""
    return lambda learner: {k: value.clone() for k, value in learner.space.state_dict().items()}


@pytest.fixture
def weights():
    """(learner) -> a copy of its space's weights by canonical name."""
    from continual_mm.space.naming import named_parameters

    return lambda learner: {k: v.detach().clone() for k, v in named_parameters(learner.space)}


@pytest.fixture
def contained():
    """(first, second) -> whether all that is in the first is in the second, bit for bit."""
    import torch

    def is_contained(first, second):
        return all(torch.equal(value, second[name]) for name, value in first.items())

    return is_contained


@pytest.fixture
def same(contained):
    """(first, second) -> whether both have the same names and under these the same bits."""
    return lambda first, second: first.keys() == second.keys() and contained(first, second)


@pytest.fixture
def terms_of():
    """(learner, start) -> its step's terms whose names begin so."""
    return lambda learner, start: {k: v for k, v in learner.terms.items() if k.startswith(start)}


@pytest.fixture
def remembered():
    """(learner) -> the remembered rows of its batch, as a batch of their own."""
    import torch

    def rows(learner):
        part = learner.remembered
        assert len(part)
        return learner.batch.select(torch.arange(part.start, part.stop))

    return rows


@pytest.fixture
def looking():
    """(stage, function) -> a plugin that calls it in each of the stage's steps, and counts calls.

    The function is given the learner when all terms are there.
    """
    from continual_mm.plugins.plugin import Plugin

    class Look(Plugin):
        def __init__(self, stage, function):
            super().__init__()
            self.stage, self.function, self.calls = stage, function, 0

        def before_backward(self, strategy, *args, **kwargs):
            if strategy.stage == self.stage:
                self.function(strategy)
                self.calls += 1

    return Look


@pytest.fixture
def watched(begun, looking):
    """A run that is looked at; the function is also told of the space before the stage."""

    def watch(plugin, stage, function, **options):
        finished = []
        look = looking(stage, lambda learner: function(learner, finished[-1]))
        learner, streams = begun(plugin, look, **options)
        for number in range(stage + 1):
            finished.append(deepcopy(learner.space))
            learner.learn(streams, number)
        assert look.calls == learner.training.steps
        return learner

    return watch
