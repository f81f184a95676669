"""`data convert`: published files become datasets; bad input is a clear line and leaves nothing."""

import json
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from continual_mm.data import registry
from continual_mm.preparation.formats import clip_pickles
from continual_mm.system.errors import InputError

WORDS = "".join(
    f"{word} {number}.5 0.25 -1\n"
    for number, word in enumerate(("add", "the", "salt", "stir", "apply", "eye", "makeup", "hair"))
)
INPUT = ("words.txt", "clips.pkl", "paths.csv", "caption.json", "features", "file")


@pytest.fixture
def convert(said):
    """Run `data convert` with word vectors."""
    Path("words.txt").write_text(WORDS)
    return lambda *arguments: said("data", "convert", *arguments, "--vectors", "words.txt")


def left():
    """What there is beside the input, hidden files too."""
    return sorted(one.name for one in Path().iterdir() if not one.name.startswith(INPUT))


def clip(number, pooled="", key="caption", **changed):
    rng = np.random.default_rng(number)
    return {
        "id": f"video{number // 3:06d}_{number}",
        f"2d{pooled}": rng.normal(size=6).astype(np.float32),
        f"3d{pooled}": rng.normal(size=4).astype(np.float32),
        "audio": torch.from_numpy(rng.uniform(-80, 0, size=(3, 5))).float(),
        key: "add the salt",
    } | changed


def youcook2(convert, clips, to="out.npz", *options):
    Path("clips.pkl").write_bytes(pickle.dumps(clips))
    return convert("youcook2", "--test", "clips.pkl", "--to", to, *options)


BROKEN = {
    "other clips": 3,
    "an id of half a character": clip(3, id="a\ud800"),
    "keys that steer a terminal": {"id": "a", "\x1b[2J\ud800": 1},
    "of another size": clip(3, **{"2d": np.ones(5, np.float32)}),
    "no array": clip(3, audio="loud"),
    "there already": clip(0),
}


@pytest.mark.parametrize("target", ["out", "out.npz"])
@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_clip_ends_the_job_or_is_left_out(convert, broken, target):
    clips = [*map(clip, range(3)), BROKEN[broken]]
    answer = youcook2(convert, clips, target)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert left() == []
    answer = youcook2(convert, clips, target, "--skip")
    assert answer.code == 0
    assert "left out: 1 in all" in answer.err
    assert left() == [target, f"{target}.left-out.csv"]
    assert registry.card(target, splits=()).items == (0, 0, 3)


@pytest.mark.parametrize("target", ["out", "out.npz"])
def test_what_most_clips_have_is_right_whatever_the_first_one_has(convert, target):
    odd = clip(9, **{"2d": np.ones(5, np.float32)})
    answer = youcook2(convert, [odd, *map(clip, range(8))], target, "--skip")
    assert (answer.code, "left out: 1 in all" in answer.err) == (0, True)
    assert registry.card(target, splits=()).items == (0, 0, 8)


def test_a_job_that_leaves_out_more_than_half_ends_with_an_error(convert):
    for broken, code in ((3, 0), (4, 1)):
        clips = [*map(clip, range(3)), *[3] * broken]
        answer = youcook2(convert, clips, f"out{broken}.npz", "--skip")
        assert answer.code == code
        line = "continual-mm: more than half was left out: 4 of 7, see out4.npz.left-out.csv\n"
        assert answer.err.endswith(line) == bool(code)
        assert registry.card(f"out{broken}.npz", splits=()).items == (0, 0, 3)


@pytest.mark.parametrize("target", ["", ".", "..", "/", "words.txt", "features", "dangling"])
def test_a_target_that_exists_is_refused_before_anything_is_read(convert, target):
    Path("features").mkdir()
    Path("dangling").symlink_to("nowhere")
    answer = convert("youcook2", "--test", "missing.pkl", "--to", target)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "names nothing new" in answer.err or "is there already" in answer.err


@pytest.mark.parametrize("target", ["file/out", "file/out.npz", "/proc/none/out", "/proc/out.npz"])
def test_a_target_that_cannot_be_written_is_one_line(convert, target):
    Path("file").write_text("in the way")
    for more in ((), (3,)):
        answer = youcook2(convert, [*map(clip, range(3)), *more], target, "--skip")
        assert answer.code == 2
        (line,) = (one for one in answer.err.splitlines() if one.startswith("continual-mm: "))
        assert "cannot be" in line or "is no folder" in line
        assert left() == []


@pytest.mark.parametrize("target", ["out", "out.npz"])
def test_ctrl_c_leaves_nothing_of_the_target(convert, monkeypatch, target):
    frames, calls = clip_pickles.frames, []

    def interrupted(*given, **options):
        calls.append(given)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return frames(*given, **options)

    monkeypatch.setattr(clip_pickles, "frames", interrupted)
    answer = youcook2(convert, [*map(clip, range(3))], target)
    stopped = f"continual-mm: stopped; nothing is left of {target}\n"
    assert (answer.code, answer.err) == (130, stopped)
    assert left() == []


def test_validation_videos_are_held_out_of_the_training_clips(convert):
    train = [clip(n) for n in range(60)]
    Path("train.pkl").write_bytes(pickle.dumps(train))
    test = [clip(n) for n in range(90, 95)]
    assert (
        youcook2(convert, test, "out.npz", "--train", "train.pkl", "--validation", "0.3").code == 0
    )
    dataset = registry.load("out.npz", standardise=False)
    training, validation, held = dataset.card.items
    assert (training + validation, held) == (60, 5)
    assert 0 < validation < 30
    assert not {*dataset.group[dataset.split == 0]} & {*dataset.group[dataset.split == 1]}
    values, _ = dataset.columns["video"].take(torch.tensor([0]))
    first = [part / np.linalg.norm(part) for part in (train[0]["2d"], train[0]["3d"])]
    np.testing.assert_allclose(values[0], np.concatenate(first), atol=1e-3)


def test_clips_that_msrvtt_lacks_are_counted_and_a_test_set_alone_will_do(convert):
    clips = [clip(n, pooled="_pooled", key="eval_caption") for n in range(8)]
    Path("clips.pkl").write_bytes(pickle.dumps(clips))
    answer = convert("msrvtt", "--test", "clips.pkl", "--to", "mine")
    assert answer.code == 0
    assert "992 of 1,000 clips are not there; set expected = 1000" in answer.out
    assert registry.card("mine", splits=["test"]).items == (0, 0, 8)


def test_a_hostile_pickle_is_refused_and_runs_nothing(convert):
    class Hostile:
        def __reduce__(self):
            return Path.write_text, (Path("marker"), "ran")

    answer = youcook2(convert, [Hostile()], "out.npz", "--skip")
    assert (answer.code, "clips.pkl" in answer.err) == (2, True)
    assert not Path("marker").exists()


def write_actions(*classes):
    actions = []
    for number in range(6):
        action = clip(number, pooled="_pooled")
        action |= {"video": action.pop("id"), "training": int(number < 3)}
        actions.append(action | {"class": classes[number % 2]})
    Path("clips.pkl").write_bytes(pickle.dumps(actions))


def test_classified_clips_are_a_dataset_by_name_and_their_classes_test_items_of_text_alone(convert):
    write_actions("ApplyEyeMakeup", "Salt")
    for name in ("ucf101", "hmdb51"):
        before = registry.card(name)
        assert (before.has_labels, sum(before.items)) == (True, 0)
        assert convert(name, "clips.pkl", "--validation", "0").code == 0
        after = registry.card(name, splits=())
        assert (after.has_labels, after.names) == (True, before.names)
    dataset = registry.load("ucf101", standardise=False, splits=())
    text, video = (dataset.columns[name].present for name in ("text", "video"))
    assert dataset.text[text & ~video].tolist() == ["apply eye makeup", "salt"]
    assert dataset.label[text & ~video].tolist() == [0, 1]
    assert not text[(dataset.split == 2) & video].any()


def test_a_class_of_whose_name_no_word_is_known_cannot_be_answered(convert):
    write_actions("AddSalt", "Zzz")
    answer = convert("ucf101", "clips.pkl", "--to", "out.npz")
    assert (answer.code, "class 'Zzz': no word of it is known" in answer.err) == (2, True)
    assert convert("ucf101", "clips.pkl", "--to", "out.npz", "--skip").code == 0
    assert "class 'Zzz'" in Path("out.npz.left-out.csv").read_text()


def write_video(name, features=6, values=1.0):
    folder = Path("features") / name
    folder.mkdir(parents=True)
    np.savez(folder / f"{name}_2d.npz", features=np.full((9, features), values))
    np.savez(folder / f"{name}_3d.npz", features=np.ones((13, 4), np.float32))
    np.savez(folder / f"{name}_spec.npz", np.full((3, 901), -9, np.float16))


def howto100m(convert, paths, *options, to="out", head="path\n"):
    if not Path("features").exists():
        for name in ("aaa", "bbb"):
            write_video(name)
        write_video("odd", features=5)
        write_video("loud", values=7e4)  # beyond float16
    captions = {"start": [1, 3], "end": [2, 8.5], "text": ["add", "salt"]}
    names = ("aaa", "bbb", "ccc", "ddd", "odd", "loud")
    Path("caption.json").write_text(json.dumps(dict.fromkeys(names, captions)))
    Path("paths.csv").write_bytes(f"{head}{paths}\n".encode())
    shares = () if "--validation" in options else ("--validation", "0", "--test", "0")
    source = ("paths.csv", "--captions", "caption.json", "--features", "features")
    where = ("--to", to) if to else ()
    return convert("howto100m", *source, *where, *shares, *options)


def test_lists_of_spreadsheets_are_read(convert):
    assert howto100m(convert, "aaa\r\nbbb\r", head="\ufeffpath\r\n").code == 0
    assert registry.card("out", splits=()).items == (4, 0, 0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *((path, "does not name a file below it") for path in ("../aaa", "/etc", "aaa/../bbb")),
        *((path, "does not name a file below it") for path in ("C:/aaa", "a\\aaa", "..", "a\0a")),
        *(("x" * 5000, ""), ("\x1b[2J", ""), ("round", "links lead nowhere")),
        *(("odd", "recording 'odd'"), ("loud", "70000 is beyond float16")),
        ("aaa", "more than once"),
    ],
)
def test_a_video_that_cannot_be_taken_ends_the_job_or_is_left_out(convert, path, message):
    howto100m(convert, "")
    Path("features/round").symlink_to("round")
    answer = howto100m(convert, f"aaa\n{path}\nbbb")
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert message in answer.err
    assert "\x1b" not in answer.err
    assert left() == []
    assert howto100m(convert, f"aaa\n{path}\nbbb", "--skip").code == 0
    assert left() == ["out", "out.left-out.csv"]
    assert registry.card("out", splits=()).items == (4, 0, 0)


def test_videos_count_as_left_out_not_their_captions(convert):
    assert howto100m(convert, "none\naaa", "--skip", to="half").code == 0
    answer = howto100m(convert, "none\nneither\naaa", "--skip")
    assert (answer.code, "left out: 2 of 3" in answer.err) == (1, True)


def test_howto100m_is_no_pack(convert):
    answer = howto100m(convert, "aaa", to="out.npz")
    assert (answer.code, "name a folder" in answer.err) == (2, True)


@pytest.mark.parametrize("load", [registry.card, registry.load])
def test_a_store_without_validation_items_is_refused_with_the_options_that_help(convert, load):
    assert howto100m(convert, "aaa\nbbb").code == 0
    with pytest.raises(InputError, match="there is no validation item; convert it again, with"):
        load("out")
    for target in ("clips", "clips.npz"):
        youcook2(convert, [*map(clip, range(3))], target)
        with pytest.raises(InputError, match="files for --train and --test"):
            registry.card(target)


SMALL = (
    "training.steps=1 training.batch_size=4 space.clips=2 space.dim=8 space.width=4 space.depth=1 "
    "space.reconstruction_width=4 space.clusters=2 space.queue_batches=1"
)


def test_the_original_experiment_runs_by_name_on_whatever_was_converted(said, convert, tmp_path):
    refused = said("run", "howto100m_av_t", "--no-board")
    assert refused.code == 2
    assert "loading torch" not in refused.err
    checked = said("validate", "howto100m_av_t")
    assert checked.code == 0
    for name in ("howto100m", "youcook2", "msrvtt"):
        lacking = f"is not in {tmp_path / 'data' / name}; convert the published files"
        assert lacking in refused.err
        assert lacking in checked.out
    howto100m(convert, "")
    write_video("ccc")
    shares = ("--validation", "0.001", "--test", "0.001")
    assert howto100m(convert, "aaa\nbbb\nccc", "--reference", *shares, to="").code == 0
    msrvtt = {"pooled": "_pooled", "key": "eval_caption"}
    for name, how in {"youcook2": {}, "msrvtt": msrvtt}.items():
        clips = [clip(90 + number, **how) for number in range(6)]
        Path("clips.pkl").write_bytes(pickle.dumps(clips))
        assert convert(name, "--test", "clips.pkl", "--reference").code == 0
    settings = [part for setting in SMALL.split() for part in ("--set", setting)]
    run = said("run", "howto100m_av_t", "--no-board", *settings)
    assert run.code == 0, run.err
    for name, queries in {"youcook2": 3350, "msrvtt": 1000}.items():
        out = said("compare", "runs", "--protocol", name).out
        assert f"howto100m_av_t, {name}: item to item, {queries} queries" in out
