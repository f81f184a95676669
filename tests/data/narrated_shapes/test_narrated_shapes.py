import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from continual_mm.data.cache import CACHE_VARIABLE
from continual_mm.data.narrated_shapes import features, generate
from continual_mm.data.narrated_shapes.card import CARD
from continual_mm.data.pack import read_pack
from continual_mm.system.errors import InputError

ITEMS = (360, 20, 100)
TRAIN, TEST = slice(0, 360), slice(380, 480)


@pytest.fixture(scope="module")
def pack():
    return generate.generate(seed=0, items=ITEMS)


@pytest.fixture(scope="module")
def drawn():
    return [generate.clip(index).attributes for index in range(sum(ITEMS))]


def summary(pack, name):
    """Mean, maximum, deviation and local change over time: all that a linear model may need."""
    values, length = pack[name].astype(float), pack[f"{name}_length"]
    valid = (np.arange(values.shape[1]) < length[:, None])[..., None]
    scale = values[valid[..., 0]]
    values = (values - scale.mean(0)) / (scale.std(0) + 1e-6) * valid
    step = np.diff(values, axis=1)
    products = [step * np.roll(values, shift, axis=2)[:, :-1] for shift in (1, -1)]
    sums = [values, values**2, *products]
    means = [each.sum(1) / length[:, None] for each in sums]
    rows = np.concatenate([*means, np.where(valid, values, -9).max(1)], axis=1)
    rows = (rows - rows[TRAIN].mean(0)) / (rows[TRAIN].std(0) + 1e-6)
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def guessed(rows, target, strength=30.0):
    """Ridge regression from the training rows, read off on the test rows."""
    x = rows[TRAIN]
    weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ target[TRAIN])
    return rows[TEST] @ weights


def accuracy(pack, name, values):
    classes = sorted(set(values))
    one_hot = np.array([[value == each for each in classes] for value in values], dtype=float)
    right = guessed(summary(pack, name), one_hot).argmax(1) == one_hot[TEST].argmax(1)
    return right.mean(), 1 / len(classes)


def test_bytes_follow_from_the_seed_in_every_process():
    program = (
        "import hashlib; from continual_mm.data.narrated_shapes.generate import generate;"
        "pack = generate(seed=0, items=(20, 2, 2));"
        "print(hashlib.sha256(b''.join(pack[n].tobytes() for n in sorted(pack))).hexdigest())"
    )
    here = generate.generate(seed=0, items=(20, 2, 2))
    expected = hashlib.sha256(b"".join(here[name].tobytes() for name in sorted(here))).hexdigest()
    environment = {"PYTHONHASHSEED": "7", "PATH": ""}
    python = [sys.executable, "-c", program]
    folder = Path(generate.__file__).parents[3]
    run = subprocess.run(
        python, env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected
    other = generate.generate(seed=1, items=(20, 2, 2))
    assert not any(np.array_equal(here[name], other[name]) for name in ("video", "audio", "text"))


@pytest.mark.parametrize("index", [0, 99, 100, 479])
def test_the_features_of_an_item_are_those_of_its_clip(pack, index):
    clip = generate.clip(index)
    video, audio = features.frame_features(clip.frames[None]), features.log_mel(clip.waveform[None])
    assert pack["video_length"][index] == len(clip.frames)
    assert pack["audio_length"][index] == audio.shape[1]
    np.testing.assert_allclose(pack["video"][index, : len(clip.frames)], video[0], atol=1e-5)
    np.testing.assert_allclose(pack["audio"][index, : audio.shape[1]], audio[0], atol=1e-3)
    assert pack["text_raw"][index] == clip.caption
    beats = clip.frames[list(clip.attributes.beats)]
    assert any(np.array_equal(pack["picture"][index], frame) for frame in beats)


def test_a_pack_is_what_the_card_promises(pack, tmp_path):
    np.savez(tmp_path / "shapes.npz", **pack)
    card = read_pack(tmp_path / "shapes.npz").card
    assert (card.modalities, card.items) == (CARD.modalities, ITEMS)
    for modality in CARD.modalities:
        values, length = pack[modality.name], pack[f"{modality.name}_length"]
        assert values.shape == (sum(ITEMS), *modality.shape)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert str(pack[f"{modality.name}_kind"]) == modality.kind
        assert length.dtype == np.int64
        assert length.min() >= 1
        assert length.max() == modality.shape[0]
        assert len(set(length)) >= 3
        valid = np.arange(modality.shape[0]) < length[:, None]
        assert not values[~valid].any()
        assert (values[valid].std(0) > 1e-3).all()


def test_a_flash_is_where_a_note_begins():
    clip = generate.clip(0)
    colour = clip.frames.astype(float)
    flashes = (colour.max(-1) - colour.min(-1)).mean((1, 2))
    beats = list(clip.attributes.beats)
    between = [slot for slot in range(clip.attributes.slots) if slot not in beats]
    power = clip.waveform.reshape(clip.attributes.slots, -1).astype(float) ** 2
    # Long notes last beyond their slot; before a note there was less than in it.
    begins = power[:, :400].mean(1)
    assert flashes[beats].min() > flashes[between].max()
    assert begins[beats].min() > 2 * np.median(begins[between])


EVERYWHERE = dict.fromkeys(("shape", "size"), "video audio text")
PERCEIVED = {**EVERYWHERE, "colour": "video text", "height": "video audio"}
PERCEIVED |= dict.fromkeys(("articulation", "loudness"), "audio text")


@pytest.mark.parametrize("attribute", PERCEIVED)
@pytest.mark.parametrize("name", ["video", "audio", "text"])
def test_a_modality_reveals_its_attributes_and_no_others(pack, drawn, attribute, name):
    right, chance = accuracy(pack, name, [getattr(item, attribute) for item in drawn])

    if name in PERCEIVED[attribute].split():
        assert right > 1.6 * chance
    else:
        assert right < chance + 0.16  # three to four standard deviations at 100 items


def test_audio_hears_only_the_vertical_part_of_the_course(pack, drawn):
    for name, axis in (("audio", 0), ("audio", 1), ("video", 0), ("text", 0)):
        right, chance = accuracy(pack, name, [item.course[axis] for item in drawn])
        hidden = (name, axis) == ("audio", 0)
        assert bool(right < chance + 0.2) is hidden, (name, axis, right)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The cache in a folder of its own, and a generator that takes no time and counts."""
    made = []
    tiny = generate.generate(seed=0, items=(4, 1, 1))

    def quick(*, seed):
        made.append(seed)
        return tiny

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(generate, "generate", quick)
    return made


def test_the_cache_is_used_and_keeps_seeds_apart(small):
    first, again, other = (generate.pack_path(seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert small == [0, 1]
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, other.name])


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_cache_is_made_anew(small, damage):
    path = generate.pack_path()
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    damaged = {"truncated": whole[:middle], "changed": changed, "empty": b""}
    path.write_bytes(damaged[damage])
    assert generate.pack_path() == path
    assert path.read_bytes() == whole
    assert small == [0, 0]


def test_a_cache_that_cannot_be_written_is_refused_with_its_variable(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(InputError, match="set CONTINUAL_MM_CACHE to a folder"):
        generate.pack_path()
