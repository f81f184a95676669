"""Protocols that do not fit the scenario or its data are refused before anything is trained."""

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.data.pack import read_card, read_pack, write_pack
from continual_mm.definitions import catalog
from continual_mm.evaluation.annotations import Interval, read_annotations
from continual_mm.runs.opening import open_scenario
from continual_mm.system.errors import InputError

HEAD = """
dataset = "trained.npz"
[[stage]]
add = ["video", "audio"]
[[stage]]
add = ["text"]
"""
ONE = '[[protocol]]\nname = "one"\ndataset = "scored.npz"\n'
BOTH = 'query = ["text"]\ngallery = ["video", "audio"]\n'


def pack(path, split, **sizes):
    rng = np.random.default_rng(0)
    columns = {name: rng.random((len(split), size)) for name, size in sizes.items()}
    ids = np.array([f"{row}" for row in range(len(split))])
    write_pack(path, {**columns, "ids": ids, "split": np.array(split)})
    return path


@pytest.fixture
def folder(tmp_path):
    pack(tmp_path / "trained.npz", [0, 0, 1, 2, 2], video=3, audio=2, text=4)
    pack(tmp_path / "scored.npz", [2, 2, 2], video=3, audio=2, text=4)
    return tmp_path


def opened(folder, text, *settings):
    file = folder / "mine.toml"
    file.write_text(HEAD + text, encoding="utf-8")
    return open_scenario(catalog.open_definition("scenarios", file), settings)


def refusal(folder, text):
    with pytest.raises(InputError) as caught:
        opened(folder, text)
    return str(caught.value).replace(str(folder), "here")


def test_a_dataset_that_only_scores_needs_test_items_only(folder):
    assert opened(folder, ONE + BOTH).scenario.protocols[0].dataset == "scored.npz"
    path = folder / "scored.npz"
    assert read_card(path, splits=["test"]).items == (0, 0, 3)
    with pytest.raises(InputError, match="there is no training item"):
        read_card(path)
    with pytest.raises(InputError, match="there is no test item"):
        read_card(pack(folder / "other.npz", [0, 1], video=3), splits=["test"])


def test_items_that_only_score_are_standardised_as_those_that_are_trained(folder):
    trained = read_pack(folder / "trained.npz")
    scored = read_pack(
        folder / "scored.npz", standardise=trained.statistics, splits=["test"]
    ).columns["video"]
    raw = read_pack(folder / "scored.npz", standardise=False, splits=["test"]).columns["video"]
    by = trained.statistics["video"]
    np.testing.assert_allclose(scored.values, (raw.values - by.mean) * by.rate, rtol=1e-5)
    with pytest.raises(InputError, match="no training item has it"):
        read_pack(folder / "scored.npz", splits=["test"])
    with pytest.raises(InputError, match="no training item has it"):
        Dataset.from_arrays({"video": np.ones((2, 2))}, split=[2, 2], splits=["test"])


REFUSED = {
    ONE + 'query = ["txt"]\ngallery = ["video"]': [
        "query: no stage adds a modality 'txt'; did you mean 'text'? there are audio, text, video"
    ],
    ONE.replace("scored", "absent") + BOTH: [
        "dataset 'absent.npz': not registered (registered: narrated_shapes, "
        "shapes_with_sound, shapes_with_captions, digits, named_digits, solids, solids_with_gap, "
        "howto100m, "
        "youcook2, msrvtt, lsmdc, crosstask, ucf101, hmdb51, hsa_languagebind, hsa_imagebind, "
        "msrvtt_imagebind) and no file here/absent.npz; "
        "give a registered name, an .npz file, a store, or hf:owner/name"
    ],
    ONE.replace("scored", "wide") + BOTH: [
        "gallery: dataset 'wide' has video as vector of 9 features; "
        "the scenario trains video as vector of 3 features: extract the same features",
        "gallery: no modality 'audio' in dataset 'wide'; it has text, video",
    ],
    ONE + BOTH + 'kind = "steps"\nannotations = "absent.csv"': [
        "annotations, here/absent.csv: no such file; give the file's path"
    ],
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_fit_is_refused_with_place_and_remedy(folder, text):
    pack(folder / "wide.npz", [2], video=9, text=4)
    expected = [f"here/mine.toml, [[protocol]] 1, {message}" for message in REFUSED[text]]
    assert refusal(folder, text).splitlines() == expected


def test_a_file_given_as_a_setting_lies_where_the_user_stands(folder, monkeypatch):
    away = folder / "away"
    away.mkdir()
    pack(away / "other.npz", [2], video=3, audio=2, text=4)
    monkeypatch.chdir(away)
    found = opened(folder, ONE + BOTH, ("protocol.1.dataset", "other.npz"))
    assert found.scenario.protocols[0].dataset == str(away / "other.npz")
    named = opened(folder, ONE + BOTH, ("protocol.1.dataset", "scored.npz"))
    assert named.scenario.protocols[0].dataset == "scored.npz"


LINES = "video,task,step,start,end\nv1,tea,1,0.5,2\nv1,tea,2,2,4.5\n"


@pytest.fixture
def file(tmp_path):
    """Where annotations are to be."""
    return tmp_path / "steps.csv"


def test_annotations_are_an_interval_per_line(file):
    file.write_text(LINES, encoding="utf-8")
    assert read_annotations(file) == (
        Interval("v1", "tea", 1, 0.5, 2.0),
        Interval("v1", "tea", 2, 2.0, 4.5),
    )


def test_empty_lines_are_no_intervals_and_lines_keep_their_numbers(file):
    first, *rest = LINES.splitlines()
    file.write_text("\n".join(["", first, "  ", *rest, "", ""]), encoding="utf-8")
    assert [one.step for one in read_annotations(file)] == [1, 2]
    file.write_text("\n".join([first, "", ",,,,", *rest, "v1,tea"]), encoding="utf-8")
    with pytest.raises(InputError, match="line 6: is not two names"):
        read_annotations(file)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("v1,tea,1,0.5", "line 4: is not two names, a whole number and two numbers of seconds"),
        ("v1,tea,one,0,1", "line 4: is not two names, a whole number and two numbers of seconds"),
        ("v1,tea,0,0,1", "line 4: step 0; steps are counted from 1"),
        ("v1,tea,1,3,3", "line 4: from 3.0 to 3.0 is no interval"),
        ("v1,tea,1,-1,3", "line 4: from -1.0 to 3.0 is no interval"),
        ("v1,tea,1,nan,3", "line 4: from nan to 3.0 is no interval"),
        ("v1,tea,1,1,inf", "line 4: from 1.0 to inf is no interval"),
        (",tea,1,1,2", "line 4: a name is empty"),
        ("v1,rice,1,1,2", "line 4: video 'v1' shows task 'rice', but 'tea' further up"),
    ],
)
def test_a_line_that_is_no_interval_is_refused(file, line, expected):
    file.write_text(f"{LINES}{line}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_annotations(file)
    assert str(caught.value) == f"{file}, {expected}"


@pytest.mark.parametrize("text", ["", "video,task,step,start,end\n", "a,b\nv1,tea\n", "\xff"])
def test_a_file_that_is_none_of_annotations_is_refused(file, text):
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"first line is not|cannot be read|is not UTF-8"):
        read_annotations(file)
