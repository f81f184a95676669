"""Decoding: which picture is shown when, which sample sounds when, and files with faults."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import from_numpy
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import _compute_resized_output_size, resize

from continual_mm.preparation.extraction.describe import span
from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.media import (
    SAMPLE_RATE,
    MediaError,
    Notes,
    Pictures,
    decoded,
    film,
    last_moment,
    length,
    sound,
)

Write = Callable[..., Path]


def greys(count: int, height: int = 8, width: int = 12) -> np.ndarray:
    """Pictures whose brightness is 2 times their number."""
    levels = 2 * np.arange(count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def seen(path: Path, start: float, end: float, wanted: Pictures, notes: Notes | None = None):
    return [picture for _, picture in film(path, start, end, [wanted], notes or Notes())]


def numbers(pictures: list[np.ndarray]) -> list[int]:
    return [round(picture.mean() / 2) for picture in pictures]


def sine(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_the_picture_at_a_moment_is_the_last_one_before_it(tmp_path: Path, media_file: Write):
    times = np.array([0.0, 0.1, 0.2, 1.0, 2.0, 2.9])
    path = media_file(tmp_path / "uneven.mkv", greys(6), times=times)
    assert numbers(seen(path, 0.0, 3.0, Pictures(rate=1))) == [2, 3, 4]
    assert numbers(seen(path, 0.0, 2.0, Pictures(rate=4))) == [1, 2, 2, 2, 3, 3, 3, 3]
    assert numbers(seen(path, 0.0, 3.0, Pictures(count=2))) == [2, 4]
    # A picture that begins at the very moment is shown.
    assert numbers(seen(path, 0.5, 1.5, Pictures(rate=1))) == [3]


def test_a_clip_too_short_for_its_rate_still_gives_one_picture(tmp_path: Path, media_file: Write):
    path = media_file(tmp_path / "film.mkv", greys(50))
    assert numbers(seen(path, 1.0, 1.2, Pictures(rate=1))) == [27]


def test_everybody_is_served_by_one_decoding(tmp_path: Path, media_file: Write):
    path = media_file(tmp_path / "film.mkv", greys(50, 32, 64))
    wanted = [Pictures(rate=1), Pictures(rate=5, side=16), Pictures(count=3, side=(10, 20))]
    got = list(film(path, 0.0, 2.0, wanted, Notes()))
    for index, (viewer, shape) in enumerate(
        zip(wanted, [(32, 64), (16, 32), (10, 20)], strict=True)
    ):
        mine = [picture for whose, picture in got if whose == index]
        assert numbers(mine) == numbers(seen(path, 0.0, 2.0, viewer))
        assert {picture.shape for picture in mine} == {(*shape, 3)}


def test_lossless_pictures_come_out_bit_for_bit(tmp_path: Path, media_file: Write):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    path = media_file(tmp_path / "film.mkv", pictures)
    assert np.array_equal(seen(path, 0.0, 0.2, Pictures(rate=25)), pictures)


@pytest.mark.parametrize(
    ("name", "codec", "gop"),
    [
        ("film.mp4", "mpeg4", 12),
        ("film.mpg", "mpeg1video", 12),
        ("film.ts", "mpeg2video", 12),
        ("film.ts", "mpeg2video", 60),  # seeking leads between key frames
    ],
)
def test_a_clip_inside_a_film_is_decoded_exactly(
    tmp_path: Path, media_file: Write, name: str, codec: str, gop: int
):
    rng = np.random.default_rng(0)
    pictures = (greys(120, 32, 32) // 2 + rng.integers(0, 60, (120, 32, 32, 3))).astype(np.uint8)
    path = media_file(tmp_path / name, pictures, codec=codec, colours="yuv420p", gop=gop)
    assert next(decoded(path, "video", 0.0, Notes()))[0] == pytest.approx(0.0, abs=1e-3)
    whole = seen(path, 0.0, 4.8, Pictures(rate=25))
    assert len(whole) == 120
    for start in (0.4, 1.52, 3.0, 4.4):
        first = round(start * 25)
        part = seen(path, start, start + 0.4, Pictures(rate=25))
        assert np.array_equal(part, whole[first : first + 10])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("smooth", ["bilinear", "bicubic"])
def test_pictures_are_resized_as_torchvision_does(test_data: Path, smooth: str, antialias: bool):
    path = test_data / "grid_raw60" / "bbaf2n.mpg"
    (large,) = seen(path, 1.0, 1.04, Pictures())
    wanted = Pictures(side=112, smooth=smooth, antialias=antialias)
    (small,) = seen(path, 1.0, 1.04, wanted)
    way = InterpolationMode(smooth)
    reference = resize(from_numpy(large).permute(2, 0, 1), [112], way, antialias=antialias)
    assert small.shape == (112, 140, 3)
    assert np.array_equal(small, reference.permute(1, 2, 0).numpy())


def test_a_film_that_was_held_upright_is_shown_upright(tmp_path: Path, media_file: Write):
    pictures = np.zeros((10, 32, 48, 3), dtype=np.uint8)
    pictures[:, :16] = 200  # bright above, as it is stored
    path = media_file(tmp_path / "a.mp4", pictures, codec="mpeg4", colours="yuv420p")
    contents = bytearray(path.read_bytes())
    # The matrix of ISO/IEC 14496-12, 8.3.2: a quarter turn clockwise when it is shown.
    turned = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    at = contents.index(b"tkhd") + 4 + 40
    contents[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    path.write_bytes(contents)
    (picture,) = seen(path, 0.0, 0.04, Pictures(side=16))
    assert picture.shape == (24, 16, 3)
    assert picture[:, 9:].mean() > 150 > 50 > picture[:, :7].mean()


@pytest.mark.parametrize(("height", "width"), [(33, 47), (47, 33), (1, 64), (288, 360), (35, 35)])
def test_film_of_any_size_is_resized_to_the_size_that_torchvision_chooses(
    tmp_path: Path, media_file: Write, height: int, width: int
):
    shades = np.linspace(20, 220, width, dtype=np.uint8)
    pictures = np.broadcast_to(shades[:, None], (2, height, width, 3)).copy()
    path = media_file(tmp_path / "odd.mkv", pictures)
    (picture,) = seen(path, 0.0, 0.04, Pictures(side=16))
    assert [*picture.shape[:2]] == _compute_resized_output_size((height, width), [16])
    # Still darker on the left, and as bright as the whole.
    brightness = picture.mean((0, 2))
    assert (np.diff(brightness) >= 0).all()
    assert brightness.mean() == pytest.approx(shades.mean(), abs=3)


def test_a_file_may_lack_sound_or_film(tmp_path: Path, media_file: Write):
    silent = media_file(tmp_path / "silent.mkv", greys(25))
    blind = media_file(tmp_path / "blind.wav", sound=sine(1.0, 44_100)[None])
    assert sound(silent, 0.0, 1.0, Notes()) is None
    assert seen(blind, 0.0, 1.0, Pictures()) == []
    assert length(silent) == pytest.approx(1.0, abs=0.05)
    assert length(blind) == pytest.approx(1.0, abs=0.01)


def test_film_that_begins_late_shows_its_first_picture_before(tmp_path: Path, media_file: Write):
    late = media_file(
        tmp_path / "late.mkv",
        greys(26)[1:],
        times=1.0 + np.arange(25) / 25,
        sound=sine(2.0, 44_100)[None],
    )
    assert numbers(seen(late, 0.0, 2.0, Pictures(rate=2))) == [1, 1, 7, 19]


def test_sound_is_the_mean_of_its_channels_at_16_khz(tmp_path: Path, media_file: Write):
    left, right = sine(1.0, 44_100, 440.0), sine(1.0, 44_100, 1000.0)
    path = media_file(tmp_path / "two.wav", sound=np.stack([left, right]))
    wave = sound(path, 0.0, 1.0, Notes())
    expected = (sine(1.0, SAMPLE_RATE, 440.0) + sine(1.0, SAMPLE_RATE, 1000.0)) / 2
    assert wave.shape == (16_000,)
    assert np.abs(wave - expected)[100:-100].max() < 2e-3


def test_sound_of_a_clip_is_that_part_of_the_whole(tmp_path: Path, media_file: Write):
    rng = np.random.default_rng(0)
    path = media_file(tmp_path / "noise.wav", sound=0.1 * rng.standard_normal((1, 44_100 * 3)))
    whole = sound(path, 0.0, 3.0, Notes())
    part = sound(path, 1.25, 2.0, Notes())
    assert np.abs(part - whole[20_000:32_000]).max() < 1e-3


def test_sound_that_begins_late_is_silent_before(tmp_path: Path, media_file: Write):
    path = media_file(
        tmp_path / "late.mkv", greys(50), sound=sine(1.0, 44_100)[None], sound_start=0.5
    )
    wave = sound(path, 0.0, 2.0, Notes())
    expected = np.zeros(32_000)
    expected[8000:24_000] = sine(1.0, SAMPLE_RATE)
    assert not wave[:7900].any() and not wave[24_100:].any()
    assert np.abs(wave - expected)[8100:23_900].max() < 2e-3


def test_a_gap_in_the_sound_is_silent_and_shifts_nothing(tmp_path: Path, media_file: Write):
    wave = sine(2.0, SAMPLE_RATE, 440.0)
    path = media_file(
        tmp_path / "gap.mkv", sound=wave[None], sample_rate=16_000, sound_gap=(8192, 4000)
    )
    found = sound(path, 0.0, 2.25, Notes())
    assert np.abs(found[:8192] - wave[:8192]).max() < 1e-6
    assert not found[8192:12_192].any()
    assert np.abs(found[12_192:] - wave[8192 : 8192 + 23_808]).max() < 1e-6


@pytest.mark.parametrize(
    ("codec", "values"),
    [
        *[("pcm_u8", 1 / 128), ("pcm_s16le", 1 / 32_768), ("pcm_s24le", 1e-6), ("pcm_f64le", 1e-6)],
        ("flac", 1 / 32_768),
    ],
)
def test_samples_of_any_format_have_the_same_size(
    tmp_path: Path, media_file: Write, codec: str, values: float
):
    path = media_file(
        tmp_path / "a.mkv",
        sound=np.outer([1.5, 0.5], sine(0.5, SAMPLE_RATE)),  # each channel apart
        sound_codec=codec,
        sample_rate=16_000,
    )
    wave = sound(path, 0.0, 0.5, Notes())
    assert np.abs(wave - sine(0.5, SAMPLE_RATE)).max() <= 1.01 * values


def test_broken_pictures_are_skipped_and_counted(tmp_path: Path, media_file: Write):
    path = media_file(tmp_path / "film.mov", greys(25), codec="png", colours="rgb24")
    contents = path.read_bytes()
    parts = contents.split(b"\x89PNG")
    for broken in (6, 7):
        parts[broken] = b"\0\0\0\0" + parts[broken][4:]
    path.write_bytes(b"\x89PNG".join(parts))
    notes = Notes()
    found = numbers(seen(path, 0.0, 1.0, Pictures(rate=25), notes))
    assert found == [0, 1, 2, 3, 4, 4, 4, *range(7, 25)]
    assert notes.told() == ("2 broken pieces of video skipped",)


def test_frames_without_times_follow_each_other_at_the_files_rate(
    tmp_path: Path, media_file: Write
):
    path = media_file(
        tmp_path / "film.h264", greys(100, 32, 32), codec="libx264", colours="yuv420p"
    )
    frames = list(decoded(path, "video", 0.0, Notes()))
    assert {frame.time for _, frame in frames} == {None}
    assert [time for time, _ in frames] == pytest.approx(list(np.arange(100) / 25))
    assert length(path) == 0.0
    assert last_moment(path) == pytest.approx(4.0)
    assert numbers(seen(path, 3.0, 3.4, Pictures(rate=5))) == pytest.approx([77, 82], abs=1)


def test_a_file_that_was_cut_off_is_told_from_one_that_ends(tmp_path: Path, media_file: Write):
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    path = media_file(tmp_path / "film.mkv", noise)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    with pytest.raises(
        MediaError, match=r"cut short: it says it lasts 4\.0\d s, but ends after [12]"
    ):
        seen(path, 0.0, 4.0, Pictures())
    assert len(seen(path, 0.0, 1.0, Pictures(rate=25))) == 25

    short = media_file(tmp_path / "short.mkv", greys(25), sound=sine(4.0, 44_100)[None])
    notes = Notes()
    assert numbers(seen(short, 0.0, 4.0, Pictures(rate=1), notes)) == [12]
    assert notes.told() == ("its film ends at 1.00 s, before the clip's end at 4.00 s",)


@pytest.mark.parametrize("name", ["cut.mp4", "text.mp4", "empty.mp4", "gone.mp4"])
def test_what_is_no_media_file_is_one_clear_error(tmp_path: Path, media_file: Write, name: str):
    path = tmp_path / name
    if name == "cut.mp4":
        media_file(path, greys(50, 32, 32), codec="mpeg4", colours="yuv420p")
        path.write_bytes(path.read_bytes()[:2000])
    elif name != "gone.mp4":
        path.write_text("hello" if name == "text.mp4" else "")
    with pytest.raises(MediaError, match="cannot be opened"):
        length(path)


def test_a_file_that_does_not_say_how_long_it_lasts_is_read_to_its_end(
    tmp_path: Path, media_file: Write
):
    """FFmpeg takes the length of such a file from its first bits: here three times the true one."""
    rng = np.random.default_rng(0)
    loud = 0.3 * rng.standard_normal((1, 44_100 * 6)) * np.repeat([0, 1], 44_100 * 3)
    for name, wave in {"late": loud, "early": loud[:, ::-1]}.items():
        path = media_file(tmp_path / f"{name}.aac", sound=wave, sound_codec="aac")
        notes = Notes()
        start, end = span(Clip("a", path.name), path, notes)
        assert (start, end) == (0.0, pytest.approx(6.0, abs=0.1))
        heard = sound(path, start, end, notes)
        halves = (
            np.sqrt((heard[: 3 * SAMPLE_RATE] ** 2).mean()),
            np.sqrt((heard[-16_000:] ** 2).mean()),
        )
        assert (halves[0] < 0.1 * halves[1]) == (name == "late")
        assert notes.told() == ()


LISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {}\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_is_no_film(tmp_path: Path, media_file: Write, kind: str):
    other = media_file(tmp_path / "b.ts", greys(25, 32, 32), codec="mpeg2video", colours="yuv420p")
    (tmp_path / "a.mp4").write_text(LISTS[kind].format(other.name))
    with pytest.raises(MediaError, match="cannot be opened"):
        seen(tmp_path / "a.mp4", 0.0, 1.0, Pictures())


def test_a_name_is_never_an_address(
    tmp_path: Path, media_file: Write, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    media_file(tmp_path / "a.mkv", greys(25))
    Path("a.mkv").rename("concat:a.mkv")
    assert numbers(seen(Path("concat:a.mkv"), 0.0, 1.0, Pictures(rate=1))) == [12]
