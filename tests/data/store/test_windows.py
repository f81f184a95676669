"""Items that are windows of recordings."""

import numpy as np
import pytest
import torch

from continual_mm.data.store import sources
from continual_mm.data.store.form import Layout, Window, Windows
from continual_mm.data.store.reader import read_store, verify_store
from continual_mm.data.store.writer import store_writer
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError

LAYOUT: Layout = (
    Windows(Modality("video", Kind.VECTOR, (7,)), {"2d": 4, "3d": 3}, "max"),
    Windows(Modality("audio", Kind.SPECTROGRAM, (5, 2)), {"spec": 2}),
    Modality("text", Kind.VECTOR, (2,)),
)
SPLIT = [0, 0, 0, 0, 1, 2]
SPANS = [
    (0, ((0, 3), (2, 6)), (0, 4)),
    (1, ((1, 2), (0, 2)), (3, 30)),
    (0, ((4, 4), (5, 6)), (10, 12)),
    (2, ((0, 0), (0, 0)), None),
    (1, ((2, 99), (1, 99)), (19, 99)),
    (2, ((3, 9), (0, 1)), (0, 1)),
]


@pytest.fixture(scope="module")
def recordings():
    rng = np.random.default_rng(0)
    shapes = {"2d": (8, 4), "3d": (12, 3), "spec": (20, 2)}
    return [
        {part: rng.normal(size=shape).astype(np.float32) for part, shape in shapes.items()}
        for _ in range(3)
    ]


def write(folder, recordings, **options):
    with store_writer(folder, layout=LAYOUT, dtype="float32", **options) as writer:
        numbers = [
            writer.recording(f"recording {k}", recording) for k, recording in enumerate(recordings)
        ]
        for row, (recording, video_spans, audio_span) in enumerate(SPANS):
            video = Window(numbers[recording], video_spans)
            audio = None if audio_span is None else Window(numbers[recording], (audio_span,))
            item = {"video": video, "audio": audio, "text": np.full(2, row / 4)}
            writer.item({"ids": str(row), "split": SPLIT[row], **item})


@pytest.fixture(scope="module")
def folder(recordings, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    write(path, recordings, shard_bytes=300)
    return path


def pooled(recordings, items):
    """(items, 7) the published way, a window at a time."""
    rows = []
    for recording, spans, _ in items:
        halves = []
        for part, (begin, end) in zip(("2d", "3d"), spans, strict=True):
            values = recordings[recording][part]
            most = values[begin:end].max(axis=0) if begin < end else 0 * values[0]
            halves.append(most / (np.linalg.norm(most) or 1.0))
        rows.append(np.concatenate(halves))
    return np.stack(rows)


def test_a_window_is_its_largest_values_with_each_half_of_length_one(
    folder, recordings, monkeypatch
):
    expected = pooled(recordings, SPANS)
    rows = [5, 0, 3, 1, 2, 4, 0]
    for block in (1, 1 << 21):
        monkeypatch.setattr(sources, "BLOCK_VALUES", block)
        video = read_store(folder, standardise=False).columns["video"]
        values, lengths = video.take(torch.tensor(rows))
        np.testing.assert_allclose(values.numpy(), expected[rows], rtol=1e-5, atol=1e-7)
        assert lengths is None
    assert np.linalg.norm(values[0]) == pytest.approx(np.sqrt(2))
    assert not values[2].any()


def test_a_window_itself_is_cut_behind_the_longest_and_where_the_recording_ends(folder, recordings):
    audio = read_store(folder, standardise=False).columns["audio"]
    assert audio.present.tolist() == [True, True, True, False, True, True]
    assert audio.modality.shape == (5, 2)
    rows = [4, 1, 0, 2]
    values, lengths = audio.take(torch.tensor(rows))
    assert lengths.tolist() == [1, 5, 4, 2]
    for row, value, length in zip(rows, values.numpy(), lengths, strict=True):
        recording, _, (begin, end) = SPANS[row]
        assert np.array_equal(value[:length], recordings[recording]["spec"][begin:end][:5])
        assert not value[length:].any()


def test_windows_are_standardised_by_what_training_items_see_of_them(folder, recordings):
    measured = read_store(folder).statistics
    audio = [
        recordings[recording]["spec"][begin:end][:5] for recording, _, (begin, end) in SPANS[:3]
    ]
    np.testing.assert_allclose(
        measured["audio"].mean, np.concatenate(audio).mean(axis=0), rtol=1e-6
    )
    video = pooled(recordings, SPANS[:4])
    np.testing.assert_allclose(1 / measured["video"].rate, video.std(axis=0), rtol=1e-5)


def test_of_very_many_windows_some_are_measured_evenly_spread(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_WINDOWS", 2)
    write(tmp_path / "store", recordings)
    measured = read_store(tmp_path / "store").statistics
    video = pooled(recordings, [SPANS[0], SPANS[2]])
    np.testing.assert_allclose(measured["video"].mean, video.mean(axis=0), rtol=1e-5)
    # What is no window is measured whole.
    assert measured["text"].mean.tolist() == [3 / 8] * 2
    verify_store(tmp_path / "store")


def test_recordings_are_part_of_the_fingerprint(folder, recordings, tmp_path):
    verify_store(folder)
    other = [*recordings[:2], {**recordings[2], "3d": -recordings[2]["3d"]}]
    write(tmp_path / "store", other)
    assert read_store(tmp_path / "store").card.fingerprint != read_store(folder).card.fingerprint


def test_a_recording_may_lack_a_part(recordings, tmp_path):
    first, second, third = recordings
    write(tmp_path / "store", [first, second, {"2d": third["2d"], "spec": third["spec"]}])
    store = read_store(tmp_path / "store", standardise=False)
    values, _ = store.columns["video"].take(torch.tensor([5]))
    assert values[0, :4].any()
    assert not values[0, 4:].any()


@pytest.mark.parametrize(
    ("window", "problem"),
    [
        (Window(3, ((0, 1), (0, 1))), "there is no recording 3; write it before its items"),
        (Window(0, ((0, 1),)), "has 1 spans; give one for each of 2d, 3d"),
        (Window(0, ((2, 1), (0, 1))), "are no spans"),
        (Window(0, ((-1, 1), (0, 1))), "are no spans"),
        (np.zeros(7), "is ndarray, no window"),
    ],
)
def test_a_window_of_nothing_is_refused(recordings, tmp_path, window, problem):
    with (
        pytest.raises(InputError, match=problem),
        store_writer(tmp_path / "store", layout=LAYOUT) as writer,
    ):
        for recording in recordings:
            writer.recording("recording", recording)
        writer.item({"ids": "a", "split": 0, "video": window, "text": np.zeros(2)})


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"4d": np.zeros((2, 4))}, "is no part of a recording"),
        ({"2d": np.zeros((2, 5))}, "it has 4 features per step"),
        ({"2d": np.full((2, 4), np.nan)}, "is not finite"),
    ],
)
def test_a_faulty_recording_is_refused_with_its_name(tmp_path, parts, problem):
    with (
        pytest.raises(InputError, match=f"recording 'recording'.*{problem}"),
        store_writer(tmp_path / "store", layout=LAYOUT) as writer,
    ):
        writer.recording("recording", parts)
