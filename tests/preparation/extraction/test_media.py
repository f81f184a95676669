"""Decoding: which frame belongs to which time, which sample to which, and files with faults."""

import struct
from pathlib import Path

import numpy as np
import pytest
from torch import from_numpy
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import _compute_resized_output_size, resize

from continual_mm.preparation.extraction.clip_features import span
from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.media import (
    SAMPLE_RATE,
    MediaError,
    Notes,
    audio_wave,
    decoded,
    last_packet_end,
    stated_duration,
    video_frames,
)
from continual_mm.preparation.extraction.towers import FrameSampling


@pytest.fixture
def write(tmp_path, media_file):
    """(name, what ``media_file`` takes) -> a file."""
    return lambda name, *args, **options: media_file(tmp_path / name, *args, **options)


def greys(count, height=8, width=12):
    """Frames whose brightness is 2 times their number."""
    levels = 2 * np.arange(count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def frames(path, start, end, sampling, notes=None):
    return [image for _, image in video_frames(path, start, end, [sampling], notes or Notes())]


def numbers(images):
    return [round(image.mean() / 2) for image in images]


def sine(seconds, rate, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize(
    ("start", "end", "sampling", "expected"),
    [
        (0.0, 3.0, FrameSampling(rate=1), [2, 3, 4]),
        (0.0, 2.0, FrameSampling(rate=4), [1, 2, 2, 2, 3, 3, 3, 3]),
        (0.0, 3.0, FrameSampling(count=2), [2, 4]),
        (0.5, 1.5, FrameSampling(rate=1), [3]),  # a frame that begins at the very time
        (1.0, 1.2, FrameSampling(rate=1), [3]),  # a clip shorter than the interval
    ],
)
def test_the_frame_at_a_time_is_the_last_one_before_it(write, start, end, sampling, expected):
    path = write("a.mkv", greys(6), times=np.array([0.0, 0.1, 0.2, 1.0, 2.0, 2.9]))
    assert numbers(frames(path, start, end, sampling)) == expected


@pytest.mark.parametrize(
    ("name", "codec", "gop"),
    [
        ("a.mkv", "ffv1", 12),
        ("a.mp4", "mpeg4", 12),
        ("a.mpg", "mpeg1video", 12),
        ("a.ts", "mpeg2video", 12),
        ("a.ts", "mpeg2video", 60),  # seeking leads between key frames
    ],
)
def test_a_clip_inside_a_video_is_decoded_exactly(write, name, codec, gop):
    rng = np.random.default_rng(0)
    images = (greys(120, 32, 32) // 2 + rng.integers(0, 60, (120, 32, 32, 3))).astype(np.uint8)
    pixel_format = "bgr0" if codec == "ffv1" else "yuv420p"
    path = write(name, images, codec=codec, pixel_format=pixel_format, gop=gop)
    assert next(decoded(path, "video", 0.0, Notes()))[0] == pytest.approx(0.0, abs=1e-3)
    whole = frames(path, 0.0, 4.8, FrameSampling(rate=25))
    assert len(whole) == 120
    assert np.array_equal(whole, images) == (codec == "ffv1")  # which alone is lossless
    for start in (0.4, 1.52, 3.0, 4.4):
        first = round(start * 25)
        part = frames(path, start, start + 0.4, FrameSampling(rate=25))
        assert np.array_equal(part, whole[first : first + 10])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_frames_are_resized_as_torchvision_does(test_data, mode, antialias):
    path = test_data / "grid_raw60" / "bbaf2n.mpg"
    (large,) = frames(path, 1.0, 1.04, FrameSampling())
    sampling = FrameSampling(side=112, interpolation=mode, antialias=antialias)
    (small,) = frames(path, 1.0, 1.04, sampling)
    pixels = from_numpy(large).permute(2, 0, 1)
    expected = resize(pixels, [112], InterpolationMode(mode), antialias=antialias)
    assert small.shape == (112, 140, 3)
    assert np.array_equal(small, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("height", "width"), [(33, 47), (47, 33), (1, 64), (288, 360), (35, 35)])
def test_frames_of_any_size_become_the_size_that_torchvision_chooses(height, width):
    expected = _compute_resized_output_size((height, width), [16])
    assert [*FrameSampling(side=16).size(height, width)] == expected


def test_a_video_with_a_rotation_is_decoded_upright(write):
    images = np.zeros((10, 32, 48, 3), dtype=np.uint8)
    images[:, :16] = 200  # bright above, as it is stored
    path = write("a.mp4", images, codec="mpeg4", pixel_format="yuv420p")
    contents = bytearray(path.read_bytes())
    # The matrix of ISO/IEC 14496-12, 8.3.2: a quarter turn clockwise when it is shown.
    turned = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    at = contents.index(b"tkhd") + 4 + 40
    contents[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    path.write_bytes(contents)
    (image,) = frames(path, 0.0, 0.04, FrameSampling(side=16))
    assert image.shape == (24, 16, 3)
    assert image[:, 9:].mean() > 150 > 50 > image[:, :7].mean()


def test_a_file_may_lack_audio_or_video(write):
    silent, blind = write("a.mkv", greys(25)), write("a.wav", audio=sine(1.0, 44_100)[None])
    assert audio_wave(silent, 0.0, 1.0, Notes()) is None
    assert frames(blind, 0.0, 1.0, FrameSampling()) == []
    for path in (silent, blind):
        assert stated_duration(path) == pytest.approx(1.0, abs=0.05)


def test_before_its_beginning_a_video_has_its_first_frame(write):
    times = 1.0 + np.arange(25) / 25
    path = write("a.mkv", greys(26)[1:], times=times, audio=sine(2.0, 44_100)[None])
    assert numbers(frames(path, 0.0, 2.0, FrameSampling(rate=2))) == [1, 1, 7, 19]


def test_audio_is_the_mean_of_its_channels_at_16_khz(write):
    left, right = sine(1.0, 44_100, 440.0), sine(1.0, 44_100, 1000.0)
    wave = audio_wave(write("a.wav", audio=np.stack([left, right])), 0.0, 1.0, Notes())
    expected = (sine(1.0, SAMPLE_RATE, 440.0) + sine(1.0, SAMPLE_RATE, 1000.0)) / 2
    assert wave.shape == (16_000,)
    assert np.abs(wave - expected)[100:-100].max() < 2e-3


def test_audio_of_a_clip_is_that_part_of_the_whole(write):
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 44_100 * 3))
    path = write("a.wav", audio=noise)
    whole, part = (audio_wave(path, *times, Notes()) for times in ((0.0, 3.0), (1.25, 2.0)))
    assert np.abs(part - whole[20_000:32_000]).max() < 1e-3


def test_before_its_beginning_audio_is_silent(write):
    path = write("a.mkv", greys(50), audio=sine(1.0, 44_100)[None], audio_start=0.5)
    wave = audio_wave(path, 0.0, 2.0, Notes())
    assert not wave[:7900].any() and not wave[24_100:].any()
    assert np.abs(wave[8100:23_900] - sine(1.0, SAMPLE_RATE)[100:-100]).max() < 2e-3


def test_a_gap_in_audio_is_silent_and_shifts_nothing(write):
    wave = sine(2.0, SAMPLE_RATE, 440.0)
    path = write("a.mkv", audio=wave[None], sample_rate=16_000, audio_gap=(8192, 4000))
    found = audio_wave(path, 0.0, 2.25, Notes())
    assert np.abs(found[:8192] - wave[:8192]).max() < 1e-6
    assert not found[8192:12_192].any()
    assert np.abs(found[12_192:] - wave[8192 : 8192 + 23_808]).max() < 1e-6


@pytest.mark.parametrize(
    ("codec", "precision"),
    [
        *[("pcm_u8", 1 / 128), ("pcm_s16le", 1 / 32_768), ("pcm_s24le", 1e-6), ("pcm_f64le", 1e-6)],
        ("flac", 1 / 32_768),
    ],
)
def test_samples_of_any_format_have_the_same_scale(write, codec, precision):
    channels = np.outer([1.5, 0.5], sine(0.5, SAMPLE_RATE))
    path = write("a.mkv", audio=channels, audio_codec=codec, sample_rate=16_000)
    wave = audio_wave(path, 0.0, 0.5, Notes())
    assert np.abs(wave - sine(0.5, SAMPLE_RATE)).max() <= 1.01 * precision


def test_broken_frames_are_skipped_and_counted(write):
    path = write("a.mov", greys(25), codec="png", pixel_format="rgb24")
    parts = path.read_bytes().split(b"\x89PNG")
    for broken in (6, 7):
        parts[broken] = b"\0\0\0\0" + parts[broken][4:]
    path.write_bytes(b"\x89PNG".join(parts))
    notes = Notes()
    found = numbers(frames(path, 0.0, 1.0, FrameSampling(rate=25), notes))
    assert found == [0, 1, 2, 3, 4, 4, 4, *range(7, 25)]
    assert notes.all() == ("2 broken pieces of video skipped",)


def test_frames_without_times_follow_each_other_at_the_files_rate(write):
    path = write("a.h264", greys(100, 32, 32), codec="libx264", pixel_format="yuv420p")
    found = list(decoded(path, "video", 0.0, Notes()))
    assert {frame.time for _, frame in found} == {None}
    assert [time for time, _ in found] == pytest.approx(list(np.arange(100) / 25))
    assert stated_duration(path) == 0.0
    assert last_packet_end(path) == pytest.approx(4.0)
    sampled = frames(path, 3.0, 3.4, FrameSampling(rate=5))
    assert numbers(sampled) == pytest.approx([77, 82], abs=1)


def test_a_file_that_was_cut_short_is_refused_unless_the_clip_is_in_what_is_left(write):
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    path = write("a.mkv", noise)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    problem = r"cut short: it says it lasts 4\.0\d s, but ends after [12]"
    with pytest.raises(MediaError, match=problem):
        frames(path, 0.0, 4.0, FrameSampling())
    assert len(frames(path, 0.0, 1.0, FrameSampling(rate=25))) == 25


@pytest.mark.parametrize("begin", [0.0, 8.0, 3600.0])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("a.mkv", "pcm_f32le"), ("a.nut", "pcm_s16le"), ("a.asf", "pcm_s16le")),
        *(("a.mov", "pcm_s16le"), ("a.ts", "mp2"), ("a.flv", "pcm_s16le"), ("a.opus", "libopus")),
    ],
)
def test_times_are_those_since_the_beginning_whatever_the_file_calls_it(write, name, codec, begin):
    rate = 48_000 if codec == "libopus" else 44_100
    loud = np.concatenate([np.zeros(2 * rate), sine(1.0, rate), np.zeros(3 * rate)])[None]
    path = write(name, audio=loud, audio_start=begin, audio_codec=codec, sample_rate=rate)
    notes = Notes()
    start, end = span(Clip("a", name), path, notes)
    assert (start, end) == (0.0, pytest.approx(6.0, abs=0.1))
    wave = np.abs(audio_wave(path, start, end, notes))
    second = wave[: 6 * SAMPLE_RATE // 100 * 100].reshape(-1, 100).mean(1) > 0.1
    assert np.flatnonzero(second) == pytest.approx(np.arange(320, 480), abs=12)
    assert audio_wave(path, 2.1, 2.9, notes).std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert notes.all() == ()


def test_a_file_that_begins_late_and_was_cut_short_is_refused_too(write):
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    path = write("a.mkv", noise, times=np.arange(100) / 25 + 8)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    with pytest.raises(
        MediaError, match=r"cut short: it says it lasts 4\.0\d s, but ends after [12]"
    ):
        frames(path, 0.0, 4.0, FrameSampling())


def test_a_stream_that_ends_before_the_file_is_noted(write):
    path, notes = write("a.mkv", greys(25), audio=sine(4.0, 44_100)[None]), Notes()
    assert numbers(frames(path, 0.0, 4.0, FrameSampling(rate=1), notes)) == [12]
    assert notes.all() == ("its video ends at 1.00 s, before the clip's end at 4.00 s",)


@pytest.mark.parametrize("name", ["cut.mp4", "text.mp4", "empty.mp4", "gone.mp4"])
def test_what_is_no_media_file_is_refused(write, tmp_path, name):
    path = tmp_path / name
    if name == "cut.mp4":
        write(name, greys(50, 32, 32), codec="mpeg4", pixel_format="yuv420p")
        path.write_bytes(path.read_bytes()[:2000])
    elif name != "gone.mp4":
        path.write_text("hello" if name == "text.mp4" else "")
    with pytest.raises(MediaError, match="cannot be opened"):
        stated_duration(path)


@pytest.mark.parametrize("is_late", [True, False])
def test_a_file_without_a_duration_is_read_to_its_end(write, is_late):
    """FFmpeg guesses the duration from the first bits: here three times the true one."""
    rng, notes = np.random.default_rng(0), Notes()
    loud = 0.3 * rng.standard_normal((1, 44_100 * 6)) * np.repeat([0, 1], 44_100 * 3)
    path = write("a.aac", audio=loud if is_late else loud[:, ::-1], audio_codec="aac")
    start, end = span(Clip("a", path.name), path, notes)
    assert (start, end) == (0.0, pytest.approx(6.0, abs=0.1))
    wave = audio_wave(path, start, end, notes)
    first, second = np.abs(wave[: 3 * SAMPLE_RATE]).mean(), np.abs(wave[-SAMPLE_RATE:]).mean()
    assert (first < 0.1 * second) == is_late
    assert notes.all() == ()


@pytest.mark.parametrize(
    "listing",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nb.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile b.ts\n",
    ],
)
def test_a_list_of_other_files_is_not_opened(write, tmp_path, listing):
    write("b.ts", greys(25, 32, 32), codec="mpeg2video", pixel_format="yuv420p")
    (tmp_path / "a.mp4").write_text(listing)
    with pytest.raises(MediaError, match="cannot be opened"):
        frames(tmp_path / "a.mp4", 0.0, 1.0, FrameSampling())


def test_a_name_is_never_an_address(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.mkv", greys(25)).rename("concat:a.mkv")
    assert numbers(frames(Path("concat:a.mkv"), 0.0, 1.0, FrameSampling(rate=1))) == [12]


def test_a_wave_file_that_claims_one_sample_a_second_fills_no_memory(tmp_path):
    """16 MB of a rate of 1 Hz would be 8,000,000 seconds, half a terabyte at 16 kHz."""
    path = tmp_path / "slow.wav"
    samples = 8_000_000
    head = struct.pack("<IHHIIHH", 16, 1, 1, 1, 2, 2, 16)
    body = b"WAVEfmt " + head + b"data" + struct.pack("<I", 2 * samples) + b"\0" * 2 * samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with pytest.raises(MediaError, match="of more than 9 hours give clips, with start and end"):
        audio_wave(path, 0.0, 8e6, Notes())
