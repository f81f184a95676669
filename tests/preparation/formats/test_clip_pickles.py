"""YouCook2, MSR-VTT, LSMDC, UCF101 and HMDB51, written here by pickle and torch alone."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.preparation.formats.clip_pickles import (
    HMDB51,
    LSMDC,
    MSRVTT_TEST,
    MSRVTT_TRAIN,
    UCF101,
    YOUCOOK2,
    ActionFile,
    ClipFile,
    Entry,
    class_text,
    entries_in,
)
from continual_mm.preparation.formats.recipe import Recipe
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problems

WORDS = {"salt": 0, "add": 1, "stir": 2, "it's": 3, "eye": 4, "Eye": 5, "hair": 6}
VECTORS = WordVectors(WORDS, np.random.default_rng(9).normal(size=(7, 5)).astype(np.float32))
REFERENCE = Recipe(mode="reference", max_words=6)
POOLED = ("2d_pooled", "3d_pooled")
IDS = ("GLd3aX16zBg_0", "GLd3aX16zBg_1", "xHr8X2Wpmno_0")


def clip(number, pooled="_pooled", frames=50, **others):
    rng = np.random.default_rng(number)
    return {
        "id": f"video{number}",
        f"2d{pooled}": rng.normal(size=6).astype(np.float32),
        f"3d{pooled}": rng.normal(size=4).astype(np.float32),
        "audio": torch.from_numpy(rng.uniform(-80, 0, (3, frames))).float(),
    } | others


def youcook2():
    captions = ("add the salt", "Stir, it's salt", "nothing known")
    return [
        clip(number, pooled="", frames=frames, id=IDS[number], caption=captions[number])
        for number, frames in enumerate((7, 5200, 90))
    ]


def msrvtt(count, key, value):
    return [clip(number, **{key: value}) for number in range(count)]


def lsmdc():
    clips = [clip(number, frames=3072 + number, caption="add salt") for number in range(3)]
    return [
        each | {key: torch.from_numpy(each[key]) for key in ("2d_pooled", "3d_pooled")}
        for each in clips
    ]


def opened(folder, clips, form=YOUCOOK2):
    path = folder / "clips.pkl"
    path.write_bytes(pickle.dumps(clips))
    return ClipFile(path, form, split=2)


def records(clips, recipe=REFERENCE):
    return list(clips.records(VECTORS, recipe))


def described(clip, keys, frames):
    """One published item, written down from the specification of the published reader."""
    halves = [normalize(torch.as_tensor(clip[key]), dim=0) for key in keys[:2]]
    audio = clip["audio"]
    filled = torch.zeros(len(audio), frames)
    filled[:, : min(frames, audio.shape[1])] = audio[:, :frames]
    known = [WORDS[word] for word in re.findall(r"[\w']+", clip[keys[2]]) if word in WORDS]
    vectors = np.zeros((6, 5), np.float32)
    vectors[: len(known)] = VECTORS.values[known]
    item = {"ids": clip["id"], "nframes": audio.shape[1], "text_raw": clip[keys[2]], "split": 2}
    return item | {"video": torch.cat(halves).numpy(), "audio": filled.T.numpy(), "text": vectors}


@pytest.mark.parametrize(
    ("clips", "form", "keys", "frames"),
    [
        (youcook2(), YOUCOOK2, ("2d", "3d", "caption"), 5120),
        (msrvtt(3, "eval_caption", "add it's salt"), MSRVTT_TEST, (*POOLED, "eval_caption"), 3072),
        (lsmdc(), LSMDC, (*POOLED, "caption"), 3072),
    ],
    ids=["youcook2", "msrvtt", "lsmdc"],
)
def test_reference_gives_the_published_items(tmp_path, clips, form, keys, frames):
    for each, record in zip(clips, records(opened(tmp_path, clips, form)), strict=True):
        expected = described(each, keys, frames)
        if form is YOUCOOK2:
            expected["group"] = each["id"][:11]
        assert record.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(record[key], value, rtol=1e-6, err_msg=key)
            else:
                assert record[key] == value, key


def test_robust_gives_frames_and_words_of_their_own_length(tmp_path):
    clips = youcook2()
    first, second, third = records(opened(tmp_path, clips), Recipe())
    np.testing.assert_array_equal(first["audio"], clips[0]["audio"].numpy().T)
    assert np.shape(second["audio"]) == (5120, 3)
    np.testing.assert_array_equal(second["text"], VECTORS.values[[2, 3, 0]])
    assert "text" not in third
    assert "nframes" not in first


def test_one_of_several_captions_is_chosen_by_the_clip(tmp_path):
    captions = [f"caption {n}" for n in range(20)]
    clips = opened(tmp_path, msrvtt(9, "caption", captions), MSRVTT_TRAIN)
    chosen = [record["text_raw"] for record in records(clips)]
    assert chosen == [record["text_raw"] for record in records(clips)]
    assert set(chosen) <= set(captions)
    assert len(set(chosen)) > 4


MISSING = object()
BREAKS = {
    "no dict": ("", [1], "item 1: is a list"),
    "no id": ("id", MISSING, "item 1: has no 'id'"),
    "id again": ("id", IDS[0], "item 1: is 'GLd3aX16zBg_0' like a clip before it"),
    "no features": ("2d", MISSING, "key '2d': is missing; the clip has id, 3d"),
    "text as features": ("2d", "salt", "key '2d': is a str"),
    "integers": ("2d", np.zeros(6, int), "key '2d': is no float array"),
    "two axes": ("2d", np.zeros((2, 6)), "key '2d': has shape (2, 6)"),
    "nothing": ("3d", np.zeros(0), "key '3d': has shape (0,)"),
    "not finite": ("2d", np.array([1, np.inf, np.nan]), "key '2d': 2 of 3 values are not finite"),
    "audio of one axis": ("audio", torch.zeros(9), "key 'audio': has shape (9,)"),
    "endless audio": ("audio", np.zeros((10**12, 0)), "key 'audio': has shape (1000000000000, 0)"),
    "audio not finite": ("audio", torch.full((3, 2), torch.nan), "6 of 6 values"),
    "caption of a number": ("caption", 3, "key 'caption': is no text"),
    "no caption of many": ("caption", [], "key 'caption': is no text"),
}


@pytest.mark.parametrize("broken", sorted(BREAKS))
def test_a_broken_clip_ends_the_job_or_is_left_out(tmp_path, broken):
    clips = youcook2()
    key, value, message = BREAKS[broken]
    changed = {name: one for name, one in (clips[1] | {key: value}).items() if one is not MISSING}
    clips[1] = changed if key else value
    file = opened(tmp_path, clips)
    with pytest.raises(InputError) as caught:
        records(file)
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert problem.place.startswith(f"{file.path}, item 1")
    left_out = Problems()
    given = [one["ids"] for one in file.records(VECTORS, REFERENCE, left_out)]
    assert (given, left_out, file.misses) == ([IDS[0], IDS[2]], [problem], 1)


@pytest.mark.parametrize("content", [{}, [], "clips", np.zeros(3)])
def test_what_is_no_list_of_clips_is_refused_as_a_whole(tmp_path, content):
    with pytest.raises(InputError, match="it should be a list with a dict for each clip"):
        opened(tmp_path, content)


def actions():
    classes = ("brush_hair", "ApplyEyeMakeup", "brush_hair")
    others = {"has_audio": True}
    return [
        {**clip(n, frames=70), "class": name, "video": f"v_{n}", "training": n, **others}
        for n, name in enumerate(classes)
    ]


def classified(folder, clips, recipe, splits=UCF101, left_out=None):
    path = folder / "actions.pkl"
    path.write_bytes(pickle.dumps(clips))
    return list(ActionFile(path, splits).records(VECTORS, recipe, left_out))


@pytest.mark.parametrize(
    ("splits", "expected"),
    [(UCF101, [("v_0", 2), ("v_1", 0), ("v_2", 2)]), (HMDB51, [("v_1", 0), ("v_2", 2)])],
)
def test_classes_are_labels_words_and_test_items_and_splits_those_of_the_file(
    tmp_path, splits, expected
):
    *clips, makeup, hair = classified(tmp_path, actions(), Recipe(), splits)
    assert [(one["ids"], one["split"]) for one in clips] == expected
    training = next(one for one in clips if one["split"] == 0)
    assert (training["label"], training["text_raw"]) == (0, "apply eye makeup")
    np.testing.assert_array_equal(training["text"], VECTORS.values[[4]])
    np.testing.assert_allclose(np.linalg.norm(training["video"]), np.sqrt(2), rtol=1e-6)
    assert all(one["text"] is None for one in clips if one["split"] == 2)
    names = [(one["ids"], one["split"], one["label"]) for one in (makeup, hair)]
    assert names == [("class/ApplyEyeMakeup", 2, 0), ("class/brush_hair", 2, 1)]
    np.testing.assert_array_equal(hair["text"], VECTORS.values[[6]])


@pytest.mark.parametrize(
    "change", [{"has_audio": np.bool_(False), "audio": None}, {"audio": np.zeros((40, 9))}]
)
def test_a_clip_without_audio_lacks_it_in_robust_and_has_zeros_in_reference(tmp_path, change):
    clips = actions()
    clips[0] = {key: value for key, value in (clips[0] | change).items() if value is not None}
    assert "audio" not in classified(tmp_path, clips, Recipe())[0]
    (published, *_) = classified(tmp_path, clips, Recipe(mode="reference"))
    if "audio" in change:
        assert np.shape(published["audio"]) == (1000, 40)
        assert not np.any(published["audio"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": 7}, "key 'training': is 7"),
        ({"training": "yes"}, "key 'training': is no whole number"),
        ({"class": 3}, "key 'class': is no text"),
        ({"2d_pooled": None}, "key '2d_pooled': is a NoneType"),
        ({"video": ""}, "item 1: has no 'video'"),
        ({"has_audio": "no"}, "key 'has_audio': is no whole number"),
    ],
)
def test_a_broken_action_ends_the_job_or_is_left_out(tmp_path, change, message):
    broken = actions()
    broken[1] |= change
    with pytest.raises(InputError) as caught:
        classified(tmp_path, broken, Recipe())
    (problem,) = caught.value.problems
    assert message in str(problem)
    left_out = Problems()
    kept = classified(tmp_path, broken, Recipe(), left_out=left_out)
    assert [one["ids"] for one in kept][:2] == ["v_0", "v_2"]
    assert left_out == [problem]


def test_a_file_without_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="names no class"):
        classified(tmp_path, [{"video": "a"}, 3], Recipe())


def test_a_name_is_split_at_capitals_and_underscores():
    names = ("ApplyEyeMakeup", "YoYo", "brush_hair", "climb_stairs ", "TVShow", "TaiChi", "golf")
    words = "apply eye makeup, yo yo, brush hair, climb stairs, tv show, tai chi, golf"
    assert ", ".join(map(class_text, names)) == words
    assert class_text("YoYo", template="a video of {}.") == "a video of yo yo."


def entry(**values):
    return Entry.of({"id": "a"} | values, 3, Path("clips.pkl"), set())


def refusal(action):
    with pytest.raises(InputError) as caught:
        action()
    (problem,) = caught.value.problems
    return str(problem)


def test_a_text_may_be_alone_in_an_array_or_one_of_a_list():
    arrays = (np.array("mix"), np.array(["mix"]), np.array([["mix"]]))
    for given in ("mix", ["mix"], ("mix",), *arrays):
        assert entry(caption=given).texts("caption") == ["mix"]
    for wrong in ([], np.array([]), [1], None, np.array(1), {"mix"}, [["mix"]]):
        assert "is no text" in refusal(lambda wrong=wrong: entry(caption=wrong).texts("caption"))


def test_an_id_that_no_file_can_hold_is_refused():
    for wrong in ("a\ud800", "a\0", "", None, 3, b"a"):
        assert "has no 'id'" in refusal(lambda wrong=wrong: entry(id=wrong))
    assert entry(id="é b").name == "é b"


def test_problems_repeat_nothing_that_steers_a_terminal_or_fills_it():
    odd = {"\x1b[2J\ud800": 1, 10**5000: 2, (1, 2): 3, "k" * 10**6: 4}
    values = {"id": "a" * 10**6, **odd, **{str(n): 5 for n in range(99)}}
    message = refusal(lambda: Entry.of(values, 0, Path("clips.pkl"), set()).array("2d", 1))
    assert message.isprintable()
    assert len(message) < 2000
    assert r"\x1b[2J\ud800" in message


def test_numbers_are_whole_and_of_64_bits():
    for given in (1, True, np.True_, np.int8(1), np.array(1), torch.tensor(1)):
        assert entry(training=given).number("training") == 1
    for wrong in (10**5000, -(2**63) - 1, 1.0, "1", None, np.array([1]), torch.tensor(1.0)):
        message = refusal(lambda wrong=wrong: entry(training=wrong).number("training"))
        assert "is no whole number" in message


def read_entry(path, data):
    path.write_bytes(data)
    (found,) = entries_in(path)
    return Entry.of(found, 0, path, set())


def test_a_file_of_one_clip_that_holds_itself_is_refused_clip_by_clip(tmp_path):
    path = tmp_path / "clips.pkl"
    whole = []
    whole += [whole, {"id": "a", "2d": whole, "caption": whole}]
    path.write_bytes(pickle.dumps(whole))
    first, second = entries_in(path)
    assert "is a list" in refusal(lambda: Entry.of(first, 0, path, set()))
    clip = Entry.of(second, 1, path, set())
    assert "is a list" in refusal(lambda: clip.array("2d", 1))
    assert "is no text" in refusal(lambda: clip.texts("caption"))


def python_2(text, code):
    """A string as Python 2 pickled it: short, long, or in letters."""
    if code == pickle.STRING:
        return code + b"'" + text.decode("latin-1").encode("unicode-escape") + b"'\n"
    size = len(text).to_bytes(1 if code == pickle.SHORT_BINSTRING else 4, "little")
    return code + size + text


@pytest.mark.parametrize("code", [pickle.STRING, pickle.SHORT_BINSTRING, pickle.BINSTRING])
def test_strings_of_python_2_are_utf_8_where_they_can_be(tmp_path, code):
    for raw, text in (
        ("don\u2019t add salt".encode(), "don\u2019t add salt"),
        ("crème brûlée".encode("latin-1"), "crème brûlée"),
        ("\N{GRINNING FACE}".encode(), "\N{GRINNING FACE}"),
        (b"salt", "salt"),
    ):
        string = python_2(raw, code)
        values = b"]}(U\x02id" + string + b"U\x07caption" + string + b"U\x04many]" + string
        found = read_entry(tmp_path / "clips.pkl", b"\x80\x02" + values + b"aua.")
        assert (found.name, found.text("caption"), found.texts("many")) == (text, text, [text])
        assert {type(one) for one in (found.name, *found.texts("many"))} == {str}


def test_texts_that_only_look_damaged_stay_and_halves_of_characters_are_joined(tmp_path):
    data = pickle.dumps([{"id": "a", "caption": "donâ\x80\x99t"}], 2)
    assert read_entry(tmp_path / "clips.pkl", data).text("caption") == "donâ\x80\x99t"
    # Narrow builds of Python 2 pickled a character beyond 16 bits as two.
    old = pickle.loads(b"V\\ud83d\\ude00\n.")
    assert len(old) == 2
    assert entry(caption=old).texts("caption") == ["\N{GRINNING FACE}"]
    assert entry(caption="a\ud800b\0").text("caption") == "a\ufffdb\ufffd"


def test_bytes_of_an_array_of_python_2_stay_bytes(tmp_path):
    raw = "\u2019\u2019\u2019\u2019".encode()  # valid UTF-8, and three float32
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    order = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR" + order
    state = b"(K\x01(K\x03t" + dtype + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    data = b"\x80\x02]}(U\x02idU\x01aU\x022d" + array + state + b"ua."
    found = read_entry(tmp_path / "clips.pkl", data).array("2d", 1)
    np.testing.assert_array_equal(found, np.frombuffer(raw, np.float32))
