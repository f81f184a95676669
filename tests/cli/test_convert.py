"""Bad input to `data convert`: one clear line, exit code 2, and nothing broken left behind."""

import json
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from continual_mm.cli.app import main
from continual_mm.data import registry
from continual_mm.system.errors import InputError

DICE = np.random.default_rng
Asked = Callable[..., SimpleNamespace]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Asked:
    """Run `data convert` in an empty folder with word vectors; what it said, and its exit code."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("add 0.1 0.2\nsalt 0.3 0.4\n")

    def ask(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as caught:
            main(("data", "convert", *arguments, "--vectors", "words.txt"))
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=out, err=err)

    return ask


def left() -> list[str]:
    """What there is beside the input, hidden files too."""
    given = ("words.txt", "clips.pkl", "paths.csv", "caption.json", "features", "file")
    return sorted(one.name for one in Path().iterdir() if not one.name.startswith(given))


def clip(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": f"video{number:06d}_{number}",
        "2d": DICE(number).normal(size=4).astype(np.float32),
        "3d": DICE(number + 99).normal(size=3).astype(np.float32),
        "audio": np.full((2, 5), -9, np.float32),
        "caption": "add the salt",
    } | changed


def converted(said: Asked, *more: Any, to: str = "out.npz", options: tuple[str, ...] = ()) -> Any:
    """Convert three sound clips and some more."""
    Path("clips.pkl").write_bytes(pickle.dumps([clip(0), clip(1), clip(2), *more]))
    return said("youcook2", "--test", "clips.pkl", "--to", to, *options)


BROKEN = {
    "other clips": 3,
    "no features": {"id": "a"},
    "an id of half a character": clip(3, id="a\ud800"),
    "keys that steer a terminal": {"id": "a", "\x1b[2J\ud800": 1},
    "not finite": clip(3, **{"2d": np.full(4, np.nan, np.float32)}),
    "of another size": clip(3, **{"2d": np.ones(5, np.float32)}),
    "no array": clip(3, audio="loud"),
    "said by an array of numbers": clip(3, caption=np.array(3)),
    "there already": clip(0),
}


@pytest.mark.parametrize("target", ["out", "out.npz"])
@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_clip_ends_the_job_or_is_left_out(said: Asked, broken: str, target: str) -> None:
    told = converted(said, BROKEN[broken], to=target)
    assert (told.code, told.out, len(told.err.splitlines())) == (2, "", 1)
    assert left() == []
    told = converted(said, BROKEN[broken], to=target, options=("--skip",))
    assert told.code == 0
    assert "left out: 1 in all" in told.err
    assert left() == [target, f"{target}.left-out.csv"]
    assert registry.card(target, splits=()).items == (0, 0, 3)


@pytest.mark.parametrize("target", ["out", "out.npz"])
def test_what_most_clips_have_is_right_whatever_the_first_one_has(said: Asked, target: str) -> None:
    odd = [clip(9, **{"2d": np.ones(5, np.float32)})]
    Path("clips.pkl").write_bytes(pickle.dumps([*odd, *map(clip, range(8))]))
    told = said("youcook2", "--test", "clips.pkl", "--to", target, "--skip")
    assert (told.code, "left out: 1 in all" in told.err) == (0, True)
    assert registry.card(target, splits=()).items == (0, 0, 8)


def test_a_job_that_leaves_out_more_than_half_ends_with_an_error(said: Asked) -> None:
    for broken, code in ((3, 0), (4, 1)):
        Path("clips.pkl").write_bytes(pickle.dumps([*map(clip, range(3)), *[3] * broken]))
        told = said("youcook2", "--test", "clips.pkl", "--to", f"out{broken}.npz", "--skip")
        assert told.code == code
        line = "continual-mm: more than half was left out: 4 of 7, see out4.npz.left-out.csv\n"
        assert told.err.endswith(line) == bool(code)
        assert registry.card(f"out{broken}.npz", splits=()).items == (0, 0, 3)


@pytest.mark.parametrize("target", ["", ".", "..", "/", "words.txt", "features", "dangling"])
def test_a_target_that_is_there_is_told_before_anything_is_read(said: Asked, target: str) -> None:
    Path("features").mkdir()
    Path("dangling").symlink_to("nowhere")
    told = said("youcook2", "--test", "missing.pkl", "--to", target)
    assert (told.code, len(told.err.splitlines())) == (2, 1)
    assert "names nothing new" in told.err or "is there already" in told.err


@pytest.mark.parametrize("target", ["file/out", "file/out.npz", "/proc/none/out", "/proc/out.npz"])
def test_a_target_that_cannot_be_written_is_one_line(said: Asked, target: str) -> None:
    Path("file").write_text("in the way")
    for more in ((), (3,)):
        told = converted(said, *more, to=target, options=("--skip",))
        assert told.code == 2
        (line,) = (one for one in told.err.splitlines() if one.startswith("continual-mm: "))
        assert "cannot be" in line
        assert left() == []


@pytest.mark.parametrize("target", ["out", "out.npz"])
def test_ctrl_c_leaves_nothing_of_the_target(
    said: Asked, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    from continual_mm.preparation.formats import clip_pickles as clip_files

    sound = clip_files.frames

    def interrupted(*given: Any, **options: Any) -> Any:
        interrupted.times += 1  # type: ignore[attr-defined]
        if interrupted.times == 3:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGINT)
        return sound(*given, **options)

    interrupted.times = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(clip_files, "frames", interrupted)
    told = converted(said, to=target)
    assert (told.code, told.err) == (130, f"continual-mm: stopped; nothing is left of {target}\n")
    assert left() == []


def write_video(name: str, features: int = 4) -> None:
    folder = Path("features") / name
    folder.mkdir(parents=True)
    np.savez(folder / f"{name}_2d.npz", features=np.ones((9, features), np.float32))
    np.savez(folder / f"{name}_3d.npz", features=np.ones((13, 3), np.float32))
    np.savez(folder / f"{name}_spec.npz", np.full((2, 901), -9, np.float16))


def howto100m(said: Asked, paths: str, *options: str, to: str = "out") -> SimpleNamespace:
    if not Path("features").exists():
        for name, features in (("aaa", 4), ("bbb", 4), ("odd", 5)):
            write_video(name, features)
    said_in = {"start": [1, 3], "end": [2, 8.5], "text": ["add", "salt"]}
    Path("caption.json").write_text(
        json.dumps(dict.fromkeys(("aaa", "bbb", "ccc", "ddd", "odd"), said_in))
    )
    Path("paths.csv").write_bytes(paths.encode())
    shares = () if "--validation" in options else ("--validation", "0", "--test", "0")
    source = ("paths.csv", "--captions", "caption.json", "--features", "features")
    return said("howto100m", *source, "--to", to, *shares, *options)


def test_lists_of_spreadsheets_are_read(said: Asked) -> None:
    assert howto100m(said, "\ufeffpath\r\naaa\r\nbbb\r\n").code == 0
    assert registry.card("out", splits=()).items == (4, 0, 0)


@pytest.mark.parametrize(
    "path",
    [
        "../aaa",
        "/etc",
        "aaa/../bbb",
        "C:/aaa",
        "a\\aaa",
        "..",
        "a\0a",
        "x" * 5000,
        "\x1b[2J",
        "odd",
    ],
)
def test_a_video_that_cannot_be_taken_ends_the_job_or_is_left_out(said: Asked, path: str) -> None:
    told = howto100m(said, f"path\naaa\n{path}\nbbb\n")
    assert (told.code, told.out, len(told.err.splitlines())) == (2, "", 1)
    assert "\x1b" not in told.err
    assert left() == []
    told = howto100m(said, f"path\naaa\n{path}\nbbb\n", "--skip")
    assert told.code == 0
    assert left() == ["out", "out.left-out.csv"]
    assert registry.card("out", splits=()).items == (4, 0, 0)


def test_what_most_videos_have_is_right_whatever_the_first_one_has(said: Asked) -> None:
    told = howto100m(said, "path\nodd\naaa\nbbb\n", "--skip")
    assert (told.code, registry.card("out", splits=()).items) == (0, (4, 0, 0))
    assert "odd" in Path("out.left-out.csv").read_text()


def test_videos_count_as_left_out_not_their_captions(said: Asked) -> None:
    assert howto100m(said, "path\nnone\naaa\n", "--skip", to="half").code == 0
    told = howto100m(said, "path\nnone\nneither\naaa\n", "--skip")
    assert (told.code, "left out: 2 of 3" in told.err) == (1, True)


def test_what_leads_out_of_the_folder_is_told_as_such(said: Asked) -> None:
    for path in ("../aaa", "/aaa", "aaa/../aaa"):
        told = howto100m(said, f"path\n{path}\n")
        assert "does not name a file below it" in told.err
    Path("features/round").symlink_to("round")
    assert "links lead nowhere" in howto100m(said, "path\nround\n").err


def test_a_video_that_is_listed_twice_is_taken_once(said: Asked) -> None:
    assert "more than once" in howto100m(said, "path\naaa\naaa\n").err
    assert howto100m(said, "path\naaa\naaa\n", "--skip").code == 0
    assert registry.card("out", splits=()).items == (2, 0, 0)


def test_a_video_of_nothing_but_0_db_has_no_sound_unless_read_as_published(said: Asked) -> None:
    write_video("aaa")
    write_video("bbb")
    np.savez("features/bbb/bbb_spec.npz", np.zeros((2, 901), np.float16))
    for options, present in (((), [True, True, False, False]), (("--reference",), [True] * 4)):
        assert howto100m(said, "path\naaa\nbbb\n", *options, to=f"out{len(options)}").code == 0
        dataset = registry.load(f"out{len(options)}", standardise=False, splits=())
        assert dataset.columns["audio"].present.tolist() == present


def test_howto100m_is_no_pack(said: Asked) -> None:
    told = howto100m(said, "path\naaa\n", to="out.npz")
    assert (told.code, "name a folder" in told.err) == (2, True)


def write_actions(*classes: str) -> None:
    clips = [
        {"2d_pooled": one.pop("2d"), "3d_pooled": one.pop("3d"), "video": one.pop("id")} | one
        for one in map(clip, range(6))
    ]
    for number, one in enumerate(clips):
        one |= {"class": classes[number % 2], "training": int(number < 3)}
    Path("clips.pkl").write_bytes(pickle.dumps(clips))


def test_classified_clips_are_a_dataset_by_name(
    said: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUAL_MM_DATA", str(tmp_path / "shelf"))
    write_actions("AddSalt", "Salt")
    for name in ("ucf101", "hmdb51"):
        before = registry.card(name)
        assert (before.has_labels, sum(before.items)) == (True, 0)
        assert said(name, "clips.pkl", "--validation", "0").code == 0
        after = registry.card(name, splits=())
        assert (after.has_labels, after.names) == (True, before.names)


def test_a_class_of_whose_name_no_word_is_known_cannot_be_answered(said: Asked) -> None:
    write_actions("AddSalt", "Zzz")
    told = said("ucf101", "clips.pkl", "--to", "out.npz")
    assert (told.code, "class 'Zzz': no word of it is known" in told.err) == (2, True)
    assert said("ucf101", "clips.pkl", "--to", "out.npz", "--skip").code == 0
    assert "class 'Zzz'" in Path("out.npz.left-out.csv").read_text()


@pytest.mark.parametrize("to", ["out", "out.npz"])
def test_sounds_are_as_long_as_published_only_in_reference(said: Asked, to: str) -> None:
    for options, frames in (((), 5), (("--reference",), 5120)):
        assert converted(said, to=f"{frames}{to}", options=options).code == 0
        card = registry.card(f"{frames}{to}", splits=())
        assert {one.name: one.shape for one in card.modalities}["audio"] == (frames, 2)


def test_of_few_videos_one_each_is_held_out_and_told(said: Asked) -> None:
    for name in ("aaa", "bbb", "ccc", "ddd"):
        write_video(name)
    names = "path\naaa\nbbb\nccc\nddd\nnone\n"
    told = howto100m(said, names, "--validation", "0.001", "--test", "0.001", "--skip")
    assert told.code == 0
    assert registry.card("out").items == (4, 2, 2)
    for split in ("validation", "test"):
        assert f"held out for {split}, so that there is one: " in told.out


@pytest.mark.parametrize("load", [registry.card, registry.load])
def test_a_store_without_validation_items_is_refused_with_the_options_that_help(
    said: Asked, load: Callable[[str], object]
) -> None:
    assert howto100m(said, "path\naaa\nbbb\n").code == 0
    with pytest.raises(InputError, match="there is no validation item; convert it again, with"):
        load("out")
    for target in ("clips", "clips.npz"):
        converted(said, to=target)
        with pytest.raises(InputError, match="files for --train and --test"):
            registry.card(target)
