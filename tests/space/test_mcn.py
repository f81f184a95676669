"""Reference mode against MCN written down a second time: convolutions in two dimensions, a queue
that is shifted, k-means with one-hot matrices, every loss by its formula."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from continual_mm.data.dataset import Dataset
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Strategy, Training
from continual_mm.evaluation.composite import embed
from continual_mm.evaluation.pairs import evaluator
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import benchmark
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.transport import Transport
from continual_mm.runs.run import open_run, run, train
from continual_mm.runs.session import open_session
from continual_mm.runs.specification import Specification, opened
from continual_mm.space.mcn_weights import published_state
from continual_mm.space.space import JointSpace
from continual_mm.system.seeds import seed_for

MELS, FRAMES, WORDS, WORD, VIDEO = 5, 40, 6, 7, 12
DIM, HIDDEN, WIDTH, DEPTH, CLUSTERS = 16, 6, 4, 2, 5
CLIPS, ROWS, ITEMS, QUEUE, REFRESH = 4, 8, 60, 3, 3
SIZES = {
    "dim": DIM, "reconstruction_width": HIDDEN, "width": WIDTH, "depth": DEPTH,
    "clusters": CLUSTERS, "clips": CLIPS, "queue_batches": QUEUE, "refresh_every": REFRESH,
}  # fmt: skip
KINDS = {"video": Kind.VECTOR, "audio": Kind.SPECTROGRAM, "text": Kind.TOKENS}
SHAPES = {"video": (VIDEO,), "audio": (FRAMES, MELS), "text": (WORDS, WORD)}


# The published program, written down once more


class Gated(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.cg = nn.Module()
        self.cg.fc = nn.Linear(outputs, outputs)

    def forward(self, x):
        x = self.fc(x)
        return functional.glu(torch.cat([x, self.cg.fc(x)], 1), 1)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, (1, 9), (1, stride), (0, 4), bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, (1, 9), (1, 1), (0, 4), bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride == 2:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, (1, 1), (1, stride), bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Dave(nn.Module):
    def __init__(self, mels, width, depth):
        super().__init__()
        self.depth = depth
        self.batchnorm1 = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, width, (mels, 1), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for number in range(1, depth + 1):
            narrow, wide = width * 2 ** max(0, number - 2), width * 2 ** (number - 1)
            setattr(
                self, f"layer{number}", nn.Sequential(Block(narrow, wide, 2), Block(wide, wide, 1))
            )

    def forward(self, spectrograms):
        """(n, mels, time) -> (n, channels, time')."""
        x = functional.relu(self.bn1(self.conv1(spectrograms[:, None])))
        for number in range(1, self.depth + 1):
            x = getattr(self, f"layer{number}")(x)
        return x[:, :, 0]


class MCN(nn.Module):
    def __init__(self):
        super().__init__()
        channels = WIDTH * 2 ** (DEPTH - 1)
        self.DAVEnet = Dave(MELS, WIDTH, DEPTH)
        self.DAVEnet_projection = nn.Linear(channels, DIM)
        self.GU_audio = Gated(channels, channels)
        self.GU_video = Gated(VIDEO, DIM)
        self.text_pooling_caption = nn.Module()
        self.text_pooling_caption.fc = nn.Linear(WORD, DIM)
        self.GU_text_captions = Gated(DIM, DIM)
        for letter, size in {"v": VIDEO, "a": channels, "t": DIM}.items():
            head = (nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, size), nn.ReLU())
            setattr(self, f"recon_{letter}", nn.Sequential(*head))

    def forward(self, video, audio, nframes, text):
        maps = self.DAVEnet(audio.transpose(1, 2))
        if self.training:
            audio_gt = maps.mean(2)
        else:
            ratio = round(audio.shape[1] / maps.shape[2])
            valid = [max(1, int(n) // ratio) for n in nframes]
            audio_gt = torch.stack([m[:, :n].mean(1) for m, n in zip(maps, valid, strict=True)])
        text_gt = functional.relu(self.text_pooling_caption.fc(text)).max(1)[0]
        a = self.DAVEnet_projection(self.GU_audio(audio_gt))
        v, t = self.GU_video(video), self.GU_text_captions(text_gt)
        errors = {
            "video": (self.recon_v(v) - video) ** 2,
            "audio": (self.recon_a(a) - audio_gt) ** 2,
            "text": (self.recon_t(t) - text_gt) ** 2,
        }
        return {"video": v, "audio": a, "text": t}, {k: e.mean(-1) for k, e in errors.items()}


def mms(x, y):
    s = x @ y.T - 0.001 * torch.eye(len(x))
    target = torch.arange(len(x))
    return functional.cross_entropy(s, target) + functional.cross_entropy(s.T, target)


def kmeans(x, c):
    for _ in range(100):
        similarity = functional.normalize(x, dim=1, eps=1e-12) @ functional.normalize(c, dim=1).T
        closest = similarity.max(1)[1]
        mask = (closest[None] == torch.arange(CLUSTERS)[:, None]).float()
        new = mask @ x / mask.sum(1)[:, None]
        new[new != new] = 0
        error = (new - c).pow(2).sum()
        c = new
        if error <= 1e-4:
            break
    return closest, c


class Clustering:
    """The queue that is shifted, and when k-means is fitted."""

    def __init__(self, start):
        size = QUEUE * ROWS // CLIPS * (CLIPS // 2)
        self.queue = torch.zeros(size, DIM)
        self.start = start
        self.centroid = None

    def step(self, fused, i_batch):
        fused = fused.detach()
        if i_batch == 0:
            self.centroid = None
        out = torch.cat([self.queue, fused]) if not bool((self.queue[-1] == 0).all()) else fused
        if i_batch % REFRESH == 0:
            first = self.start(out) if self.centroid is None else self.centroid
            labels, self.centroid = kmeans(out, first)
        else:
            labels = functional.cosine_similarity(out[:, None], self.centroid[None], dim=-1).argmax(
                1
            )
        kept = fused.view(-1, CLIPS, DIM)[:, : CLIPS // 2].reshape(-1, DIM)
        self.queue[len(kept) :] = self.queue[: -len(kept)].clone()
        self.queue[: len(kept)] = kept
        return labels[-len(fused) :], self.centroid


def cluster_loss(x, centroid, labels):
    one_hot = functional.one_hot(labels, CLUSTERS)
    return functional.cross_entropy(x @ centroid.T - 0.001 * one_hot, labels)


# What is compared with it


def senses():
    rng = np.random.default_rng(5)
    topic = rng.standard_normal((ITEMS + 20, 4))
    arrays = {
        name: (
            topic @ rng.standard_normal((4, math.prod(shape))) / 2
            + rng.standard_normal((ITEMS + 20, math.prod(shape))) / 4
        ).reshape(-1, *shape)
        for name, shape in SHAPES.items()
    }
    lengths = {
        "audio": rng.integers(3, FRAMES + 1, ITEMS + 20),
        "text": rng.integers(1, WORDS + 1, ITEMS + 20),
    }
    lengths["audio"][0], lengths["text"][:2] = FRAMES, WORDS
    split = np.repeat([0, 1, 2], [ITEMS, 5, 15])
    return Dataset.from_arrays(arrays, split=split, kinds=KINDS, lengths=lengths, standardise=False)


def scenario_of(stages=None, *, space=None, **training):
    given = {"steps": 25, "batch_size": ROWS, "learning_rate": 1e-2, "warmup_steps": 4, **training}
    return Scenario(
        name="published",
        standardise=False,
        space=SpaceSettings(mode="reference", **{**SIZES, **(space or {})}),
        training=Training.published(**given),
        stages=stages or (Stage(add=("video", "audio", "text")),),
    )


def space_of(**changes):
    space = JointSpace(SpaceSettings(mode="reference", **{**SIZES, **changes}))
    for name, kind in KINDS.items():
        space.add_modality(Modality(name, kind, SHAPES[name]))
    return space


class Spy(Plugin):
    """Notes what each step started from, what it found, and its gradients."""

    def __init__(self):
        super().__init__()
        self.steps = []
        self.labels = torch.empty(0)

    def before_training_exp(self, strategy, *args, **kwargs):
        inner = strategy.clusters.labels

        def noted(points, *, refit=True):
            self.labels = inner(points, refit=refit)
            return self.labels

        strategy.clusters.labels = noted

    def before_forward(self, strategy, *args, **kwargs):
        self.weights = copy.deepcopy(published_state(strategy.space))

    def before_backward(self, strategy, *args, **kwargs):
        self.loss = strategy.loss.detach().squeeze()

    def after_backward(self, strategy, *args, **kwargs):
        gradients = copy.deepcopy(strategy.space)
        for mine, theirs in zip(gradients.parameters(), strategy.space.parameters(), strict=True):
            mine.data = torch.zeros_like(mine) if theirs.grad is None else theirs.grad.clone()
        step = {"weights": self.weights, "loss": self.loss, "labels": self.labels}
        step["rows"] = strategy.batch.index
        step["terms"] = {name: value.detach() for name, value in strategy.terms.items()}
        step["centroids"] = strategy.space.centroids
        step["queue"] = strategy.clusters.state().get("queue", torch.empty(0)).clone()
        step["gradients"] = published_state(gradients)
        self.steps.append(step)

    def after_update(self, strategy, *args, **kwargs):
        self.steps[-1]["rate"] = strategy.optimizer.param_groups[0]["lr"]


def spied(dataset, scenario):
    spy = Spy()
    space = JointSpace(scenario.space, seed=1)
    learner = Learner(space=space, seed=1, evaluator=evaluator(), plugins=[spy])
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=1)
    learner.train(streams.train[0], eval_streams=[])
    return spy.steps


def full(dataset, rows):
    """What the published reader hands over: everything filled up to one length."""
    video, audio, text = (torch.from_numpy(dataset.columns[n].values)[rows] for n in KINDS)
    return video, audio, torch.from_numpy(dataset.columns["audio"].lengths)[rows], text


@pytest.mark.parametrize("mean", [False, True])
def test_every_step_is_the_published_one(mean):
    dataset, scenario = senses(), scenario_of(space={"cluster_mean": mean})
    steps = spied(dataset, scenario)
    moment = [0]

    def start(out):
        seed = seed_for(seed_for(1, "clusters"), "centroids", 0, moment[0])
        rng = torch.Generator().manual_seed(seed)
        return out[torch.randperm(len(out), generator=rng)[:CLUSTERS]]

    clustering = Clustering(start)
    model = MCN().train()
    fitted, per_pass = 0, ITEMS // ROWS
    assert len(steps) == 25 > 3 * per_pass
    for number, step in enumerate(steps):
        moment[0] = number
        model.load_state_dict(step["weights"])
        model.zero_grad()
        found, errors = model(*full(dataset, step["rows"]))
        v, a, t = found["video"], found["audio"], found["text"]
        fused = (v + a + t) / 3
        labels, centroid = clustering.step(fused, number % per_pass)
        terms = {
            "contrast/text-video": mms(t, v),
            "contrast/audio-text": mms(a, t),
            "contrast/audio-video": mms(a, v),
            **{f"reconstruction/{name}": 50 * error.mean() for name, error in errors.items()},
        }
        if mean:
            terms["cluster/audio-text-video"] = cluster_loss(fused, centroid, labels)
        else:
            for name, x in found.items():
                terms[f"cluster/{name}"] = cluster_loss(x, centroid, labels) / 3
        assert step["terms"].keys() == terms.keys()
        assert step["labels"].tolist() == labels.tolist()
        torch.testing.assert_close(step["centroids"], centroid, rtol=1e-4, atol=1e-5)
        for name, value in terms.items():
            torch.testing.assert_close(step["terms"][name], value.detach(), rtol=1e-4, atol=1e-5)
        theirs = clustering.queue[clustering.queue[:, 0].argsort()]
        ours = step["queue"][step["queue"][:, 0].argsort()]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        sum(terms.values()).backward()
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(step["gradients"][name], gradient, rtol=1e-3, atol=1e-4)
        fitted += labels.unique().numel() > 1
    assert fitted > 20  # the labels say something


def test_adam_moves_the_weights_as_the_published_optimiser_does():
    """Free-running: the same batches, their own forward passes, gradients and updates."""
    dataset = senses()
    steps = spied(dataset, scenario_of(space={"clusters": 0}, steps=12, learning_rate=1e-3))
    model = MCN().train()
    model.load_state_dict(steps[0]["weights"])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=False)
    factor = [s / 4 if s < 4 else 0.5 * (1 + math.cos(math.pi * (s - 4) / 8)) for s in range(13)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: factor[s])
    for step in steps:
        assert step["rate"] == pytest.approx(schedule.get_last_lr()[0])
        found, errors = model(*full(dataset, step["rows"]))
        v, a, t = found["video"], found["audio"], found["text"]
        loss = mms(t, v) + mms(a, t) + mms(a, v) + 50 * sum(errors.values()).mean()
        torch.testing.assert_close(step["loss"], loss.detach(), rtol=1e-3, atol=1e-3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def test_in_evaluation_the_audio_tower_averages_the_frames_that_are_there():
    space, dataset = space_of().eval(), senses()
    model = MCN().eval()
    model.load_state_dict(published_state(space))
    rows = torch.arange(20)
    video, audio, nframes, text = full(dataset, rows)
    assert nframes.min() < 4 < nframes.max()  # the shortest has not one whole frame left
    expected, _ = model(video, audio, nframes, text)
    lengths = torch.from_numpy(dataset.columns["text"].lengths)[rows]
    longest = {"audio": int(nframes.max()), "text": int(lengths.max())}
    given = nframes.clone()
    found = space(
        {"video": video, "audio": audio[:, : longest["audio"]], "text": text[:, : longest["text"]]},
        {"audio": nframes, "text": lengths},
    )
    assert torch.equal(nframes, given)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].embedding, value)
    torch.testing.assert_close(space.encode("video", video), expected["video"])
    norms = found["audio"].embedding.norm(dim=1)
    assert (norms - 1).abs().min() > 1e-3  # raw
    torch.testing.assert_close(found["audio"].direction.norm(dim=1), torch.ones(20))


def test_sounds_of_a_test_set_are_filled_up_to_its_own_length(tmp_path):
    """As published: 5,120 frames of YouCook2 after training on 1,000 of HowTo100M."""
    session = open_session(
        Specification(opened(scenario_of(), senses().card), Strategy(name="naive")), senses(), {}
    )
    session.learn(0)
    rng, length = np.random.default_rng(8), 3 * FRAMES
    sounds = [rng.standard_normal((n, MELS)) for n in (length - 1, FRAMES + 1, 5, 1)]
    records = [{"ids": f"{n}", "split": 2, "audio": sound} for n, sound in enumerate(sounds)]
    layout = (Modality("audio", Kind.SPECTROGRAM, (length, MELS)),)
    write_store(records, tmp_path / "test", layout=layout, dtype="float32")
    other = read_store(tmp_path / "test", standardise=False, splits=["test"])
    assert other.card.modalities[0].shape == (length, MELS)
    found = embed(session.learner, other, torch.arange(4), ("audio",)).embeddings["audio"]
    model = MCN().eval()
    model.load_state_dict(published_state(session.learner.space))
    nframes = torch.tensor([len(sound) for sound in sounds])
    filled = torch.zeros(4, length, MELS)
    for row, sound in zip(filled, sounds, strict=True):
        row[: len(sound)] = torch.from_numpy(sound)
    texts, videos = torch.zeros(4, WORDS, WORD), torch.zeros(4, VIDEO)
    for rows in ([0, 1, 2, 3], [1, 2, 3]):
        again = embed(session.learner, other, torch.tensor(rows), ("audio",)).embeddings["audio"]
        torch.testing.assert_close(again, found[rows])
    expected = model(videos, filled, nframes, texts)[0]["audio"]
    torch.testing.assert_close(found, expected.detach())
    shorter = model(videos, filled[:, : FRAMES + 1], nframes.clamp(max=FRAMES + 1), texts)[0]
    assert (shorter["audio"][1] - found[1]).norm() > 1e-3 * found[1].norm()  # it matters


def test_padding_counts_in_a_short_caption_and_its_row_does_not_depend_on_the_others():
    space = space_of().eval()
    words = torch.randn(1, 2, WORD, generator=torch.Generator().manual_seed(0))
    tower = space.tower("text")
    with torch.no_grad():
        tower.words.bias.fill_(5.0)
        pooled, _ = tower(words, torch.tensor([2]))
        project = words @ tower.words.weight.T
        assert torch.equal(pooled, (project.amax(1).clamp(min=0) + 5.0).relu())
        long = torch.cat([words, torch.randn(1, WORDS - 2, WORD)], 1)
        both = torch.cat([functional.pad(words, (0, 0, 0, WORDS - 2)) + 9 * (long * 0), long])
        both[0, 2:] = 77.0  # whatever lies behind the length
        together, _ = tower(both, torch.tensor([2, WORDS]))
        torch.testing.assert_close(together[:1], pooled)
        every, _ = tower(long, torch.tensor([WORDS]))
        torch.testing.assert_close(every, (long @ tower.words.weight.T + 5.0).relu().amax(1))
        nothing, _ = tower(words, torch.tensor([0]))
        torch.testing.assert_close(nothing, torch.full((1, DIM), 5.0))


def test_frames_are_pooled_by_their_maximum():
    space = JointSpace(SpaceSettings(mode="reference", **SIZES))
    space.add_modality(Modality("clip", Kind.FRAMES, (9, 3, 4)))
    frames = torch.randn(2, 9, 3, 4)
    found = space({"clip": frames}, {"clip": torch.tensor([4, 9])})["clip"]
    expected = torch.stack([frames[0, :4].flatten(1).amax(0), frames[1].flatten(1).amax(0)])
    assert torch.equal(found.pooled, expected)


def test_the_published_sizes():
    with torch.device("meta"):
        space = JointSpace(SpaceSettings(mode="reference"))
        shapes = {"video": (4096,), "audio": (1000, 40), "text": (20, 300)}
        for name, kind in KINDS.items():
            space.add_modality(Modality(name, kind, shapes[name]))
        found = space(
            {name: torch.empty(2, *shape) for name, shape in shapes.items()},
            {"audio": torch.full((2,), 1000), "text": torch.full((2,), 20)},
        )
    assert found["audio"].embedding.shape == (2, 6144)
    parts = {name: sum(p.numel() for p in space.encoders[name].parameters()) for name in KINDS}
    heads = {n: sum(p.numel() for p in space.reconstructions[n].parameters()) for n in KINDS}
    assert parts["video"] == 62_926_848
    assert parts["audio"] == 44_670_978 + 2_099_200 + 6_297_600
    assert parts["text"] == 1_849_344 + 75_509_760
    assert heads == {"video": 10_490_880, "audio": 7_342_080, "text": 12_590_080}
    assert sum(parts.values()) + sum(heads.values()) == 223_776_770
    state = published_state(space)
    assert len(state) == 159
    buffers = [b for name, b in space.named_buffers() if name != "centroids"]
    assert sum(buffer.numel() for buffer in buffers) == 19_480


# The published program's mistakes, each only where it is asked for


def test_a_bug_divides_two_losses_by_three(looking):
    stages = (Stage(add=("video", "text")),)
    plain, bug = {}, {}
    for bugs, found in (((), plain), (("two_over_three",), bug)):
        look = looking(0, lambda learner, found=found: found.update(learner.terms))
        definition = scenario_of(stages, steps=1, space={"bugs": bugs})
        train(definition, senses(), plugins=[look], device="cpu")
    for name in ("cluster/video", "cluster/text"):
        torch.testing.assert_close(bug[name], plain[name] * 2 / 3)
    assert torch.equal(bug["contrast/text-video"], plain["contrast/text-video"])


@pytest.mark.parametrize("bugs", [(), ("stays_in_evaluation",)])
def test_a_bug_goes_on_in_evaluation_mode_once_it_was_evaluated(bugs, looking):
    def look(learner):
        modes.append({module.training for module in learner.space.encoders.modules()})

    modes = []
    stages = (Stage(add=("video", "audio")), Stage(add=("text",)))
    definition = scenario_of(stages, steps=6, evaluate_every=2, space={"bugs": bugs})
    train(definition, senses(), plugins=[looking(0, look), looking(1, look)], device="cpu")
    later = {False} if bugs else {True}
    assert modes == [{True}, {True}, later, later, later, later] * 2


def test_a_bug_lists_every_tie():
    dataset = senses()
    for name in KINDS:
        dataset.columns[name].values[:] = dataset.columns[name].values[:1]
        if dataset.columns[name].lengths is not None:
            dataset.columns[name].lengths[:] = WORDS
    stages = (Stage(add=("video", "text")),)
    plain, bug = (
        train(scenario_of(stages, steps=1, space={"bugs": bugs}), dataset, device="cpu")
        for bugs in ((), ("ties_listed_each",))
    )
    listed, once = (
        {(score.recall_at_1, score.recall_at_10) for score in each.scores if score.split == "test"}
        for each in (bug, plain)
    )
    assert listed == {(1.0, 10.0)}
    assert max(recall for _, recall in once) <= 1.0


# In a whole run


@pytest.mark.parametrize(
    ("key", "missing"),
    [("queue_batches", ""), ("reconstruction_weight", "reconstruction"), ("clusters", "cluster")],
)
def test_it_trains_without_a_queue_without_reconstruction_and_without_clusters(
    key, missing, looking
):
    terms = set()
    look = looking(0, lambda learner: terms.update(name.split("/")[0] for name in learner.terms))
    train(scenario_of(steps=8, space={key: 0}), senses(), plugins=[look], device="cpu")
    assert terms == {"contrast", "reconstruction", "cluster"} - {missing}


def test_a_run_in_a_folder_gives_its_space_back(tmp_path):
    stages = (Stage(add=("video", "audio")), Stage(add=("text",)))
    scenario = scenario_of(stages, steps=5, space={"bugs": ("two_over_three",)})
    history = run(scenario, Strategy(name="naive"), senses(), tmp_path, device="cpu")
    space = open_run(tmp_path / "published" / "naive" / "seed-0")
    assert space.settings == scenario.space
    for name, value in published_state(history.space).items():
        assert torch.equal(published_state(space)[name], value)


@pytest.mark.parametrize("plugins", [list, lambda: [Replay(rows=6)], lambda: [Transport(rows=6)]])
def test_a_scenario_of_two_stages_is_learned(plugins):
    stages = (Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",)))
    chosen = plugins()
    scenario = scenario_of(stages, steps=12, learning_rate=1e-3)
    memory = 10 if chosen else None
    history = train(scenario, senses(), plugins=chosen, memory=memory, device="cpu")
    assert np.isfinite(history.matrix()[-1]).all()
    assert all(p.isfinite().all() for p in history.space.parameters())
    assert history.space.centroids.norm(dim=1).max() > 0
    for teacher in (plugin.state() for plugin in chosen if isinstance(plugin, Transport)):
        assert {key.split("/")[1] for key in teacher} == {"video", "audio", "text"}
        for directions in teacher.values():
            torch.testing.assert_close(directions.norm(dim=1), torch.ones(len(directions)))
