"""Lists as published sets have them, each in the form that it is downloaded in."""

import json

import pytest

from continual_mm.preparation.extraction.manifest import open_manifest
from continual_mm.system.errors import InputError

CLOTHO = """file_name,caption_1,caption_2,caption_3,caption_4,caption_5
 lead.wav,a door,"one, two", three ,,five
b.wav,other,,,,
"""
CLOTHO_LISTS = """fname,raw_text
 lead.wav,"[""a door"", ""one, two""]"
b.wav,['other']
"""
AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
91139,r1nicOVtvkQ,130,A woman talks
58146,vfY_TJq7n_U,12,Rustling
"""
ESC50 = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
1-100038-A-14.wav,2,14,chirping_birds,False,100038,A
"""
VGGSOUND = """---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
"""
KINETICS = """label,youtube_id,time_start,time_end,split
testifying,---QUuC4vJs,84,94,validate
eating spaghetti,--3ouPhoy2A,20,30,train
"""
MSVD = """VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description
mv89psg6zh4,33,46,588702,unverified,55,English,A bird is bathing in a sink.
mv89psg6zh4,33,46,588702,unverified,55,English,A bird splashes.
"""
MSRVTT = {
    "info": {"contributor": "Microsoft MSM group"},
    "videos": [
        {"category": 9, "video_id": "video0", "start time": 137.72, "end time": 149.44,
         "split": "train", "id": 0},
        {"category": 16, "video_id": "video7010", "start time": 0, "end time": 9,
         "split": "validate", "id": 7010},
    ],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "in a town", "video_id": "video7010", "sen_id": 1},
        {"caption": "a man drives", "video_id": "video0", "sen_id": 2},
    ],
}  # fmt: skip
JSFUSION = (
    "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person is connecting something\n"
)
MUSIC = {"videos": {"accordion": ["0bt1SbhbDHs"], "flute violin": ["-5UoN81bbTQ", "x"]}}
VATEX = [{"videoID": "G9zN5TTuGO4_000179_000189", "enCap": ["one", "two"], "chCap": ["x"]}]
UCF = "Archery/v_Archery_g08_c01.avi 3\nApplyLipstick/v_ApplyLipstick_g01_c02.avi 2\n"

DEVELOPMENT = "development/ lead"
READ = {
    # Contents, media files, and of every clip id, path, start, end, text, group, label, split.
    "clotho.csv": (
        CLOTHO,
        ["development/ lead.wav", "development/b.wav"],
        [
            (f"{DEVELOPMENT}#{n}", f"{DEVELOPMENT}.wav", 0, None, text, f"{DEVELOPMENT}.wav")
            for n, text in enumerate(["a door", "one, two", " three ", "five"], 1)
        ]
        + [("development/b", "development/b.wav", 0, None, "other", None)],
    ),
    "clotho_lists.csv": (
        CLOTHO_LISTS,
        [" lead.wav", "b.wav"],
        [
            (" lead#1", " lead.wav", 0, None, "a door", " lead.wav"),
            (" lead#2", " lead.wav", 0, None, "one, two", " lead.wav"),
            ("b", "b.wav", 0, None, "other", None),
        ],
    ),
    "audiocaps.csv": (
        AUDIOCAPS,
        ["Yr1nicOVtvkQ.wav", "vfY_TJq7n_U.wav"],
        [
            ("91139", "Yr1nicOVtvkQ.wav", 130, 140, "A woman talks", None),
            ("58146", "vfY_TJq7n_U.wav", 12, 22, "Rustling", None),
        ],
    ),
    "esc50.csv": (
        ESC50,
        ["1-100032-A-0.wav", "1-100038-A-14.wav"],
        [
            ("1-100032-A-0", "1-100032-A-0.wav", 0, None, "dog", None, 0),
            ("1-100038-A-14", "1-100038-A-14.wav", 0, None, "chirping_birds", None, 14),
        ],
    ),
    "vggsound.csv": (
        VGGSOUND,
        ["---g-f_I2yQ_000001.mp4", "--0PQM4-hqg.mp4"],
        [
            ("---g-f_I2yQ_000001", "---g-f_I2yQ_000001.mp4", 0, None,
             "people marching", None, 0, 2),
            ("--0PQM4-hqg", "--0PQM4-hqg.mp4", 30, 40, "waterfall burbling", None, 1, 0),
        ],
    ),
    "kinetics.csv": (
        KINETICS,
        ["val/---QUuC4vJs_000084_000094.mp4", "--3ouPhoy2A.mp4"],
        [
            ("val/---QUuC4vJs_000084_000094", "val/---QUuC4vJs_000084_000094.mp4", 0, None,
             "testifying", None, 1, 1),
            ("--3ouPhoy2A", "--3ouPhoy2A.mp4", 20, 30, "eating spaghetti", None, 0, 0),
        ],
    ),
    "msvd.csv": (
        MSVD,
        ["mv89psg6zh4_33_46.avi"],
        [
            (f"mv89psg6zh4_33_46#{n}", "mv89psg6zh4_33_46.avi", 0, None, text,
             "mv89psg6zh4_33_46.avi")
            for n, text in enumerate(["A bird is bathing in a sink.", "A bird splashes."], 1)
        ],
    ),
    "msrvtt.json": (
        MSRVTT,
        ["video0.mp4", "video7010.mp4"],
        [
            ("video0#1", "video0.mp4", 0, None, "a car is shown", "video0.mp4", 9, 0),
            ("video7010", "video7010.mp4", 0, None, "in a town", None, 16, 1),
            ("video0#2", "video0.mp4", 0, None, "a man drives", "video0.mp4", 9, 0),
        ],
    ),
    "jsfusion.csv": (
        JSFUSION,
        ["video9770.mp4"],
        [("video9770", "video9770.mp4", 0, None, "a person is connecting something", None)],
    ),
    "music.json": (
        MUSIC,
        ["0bt1SbhbDHs.mp4", "-5UoN81bbTQ.webm"],
        [
            ("0bt1SbhbDHs", "0bt1SbhbDHs.mp4", 0, None, "accordion", None, 0),
            ("-5UoN81bbTQ", "-5UoN81bbTQ.webm", 0, None, "flute violin", None, 1),
            ("x", "x", 0, None, "flute violin", None, 1),
        ],
    ),
    "vatex.json": (
        VATEX,
        ["G9zN5TTuGO4_000179_000189.mp4"],
        [
            (f"G9zN5TTuGO4_000179_000189#{n}", "G9zN5TTuGO4_000179_000189.mp4", 0, None, text,
             "G9zN5TTuGO4_000179_000189.mp4")
            for n, text in enumerate(["one", "two"], 1)
        ],
    ),
    "trainlist01.txt": (
        UCF,
        ["Archery/v_Archery_g08_c01.avi", "ApplyLipstick/v_ApplyLipstick_g01_c02.avi"],
        [
            ("Archery/v_Archery_g08_c01", "Archery/v_Archery_g08_c01.avi", 0, None, "Archery",
             "v_Archery_g08", 1),
            ("ApplyLipstick/v_ApplyLipstick_g01_c02", "ApplyLipstick/v_ApplyLipstick_g01_c02.avi",
             0, None, "ApplyLipstick", "v_ApplyLipstick_g01", 0),
        ],
    ),
}  # fmt: skip


def written(folder, name, contents, media=()):
    for path in (folder / each for each in media):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    text = contents if isinstance(contents, str) else json.dumps(contents)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", READ)
def test_a_published_list_is_read_as_it_is(tmp_path, name):
    contents, media, expected = READ[name]
    manifest = open_manifest(written(tmp_path, name, contents, media))
    found = [
        (clip.id, clip.path, clip.start, clip.end, clip.text, clip.group, clip.label, clip.split)
        for clip in manifest.clips
    ]
    assert [each[: len(one)] for each, one in zip(found, expected, strict=True)] == expected
    # One line for each cause, whatever the rows: what is read, what not, which files.
    assert all(warning.count("\n") == 0 for warning in manifest.warnings)
    assert len(manifest.warnings) <= 4


def test_what_is_read_and_what_is_not_is_told_in_a_line_each(tmp_path):
    path = written(
        tmp_path, "clotho.csv", "fname,raw_text,text,licence\na.wav,x,one,CC\n", ["a.wav"]
    )
    ours = "the columns of a clip are id, path, start, end, text, words, split, group, label, cloud"
    assert open_manifest(path).warnings == (
        f"{path}: reads fname as path; --column OURS=THEIRS reads another one",
        f"{path}: columns that are not used: raw_text (text is read from text), licence; {ours}",
    )


def test_columns_may_be_named(tmp_path):
    table = "text,start,wav,one,two\nx,5,a.wav,1st,2nd\n"
    path = written(tmp_path, "m.csv", table, ["a.wav"])
    columns = {"path": ["wav"], "text": ["two", "one"], "start": []}
    first, second = open_manifest(path, columns).clips
    assert (first.text, second.text, first.start) == ("2nd", "1st", 0.0)
    assert first.group == second.group == "a.wav"
    for given, problem in (
        ({"paht": ["wav"]}, "no clip has a column 'paht'; did you mean 'path'?"),
        (
            {"path": ["wave"]},
            "no column 'wave'; did you mean 'wav'? its columns are text, start, w",
        ),
        ({"path": ["wav", "one"]}, "'path' is given 2 columns"),
    ):
        with pytest.raises(InputError, match=problem.replace("?", r"\?")):
            open_manifest(path, given)


def test_a_column_of_unknown_name_that_names_the_files_is_found_and_told(tmp_path):
    path = written(tmp_path, "m.csv", "klang,text\na.wav,one\nb,two\n", ["a.wav", "in/b.wav"])
    manifest = open_manifest(path)
    assert [clip.path for clip in manifest.clips] == ["a.wav", "in/b.wav"]
    assert f"{path}: reads klang as path" in manifest.warnings[0]
    assert manifest.warnings[1] == f"{path}: found in folders below: in/b.wav"


def test_every_refusal_names_the_columns_that_are_there(tmp_path):
    path = written(tmp_path, "m.csv", "sound,fold,caption,target\nx.wav,1,one,a\nx.wav,2,two,1\n")
    with pytest.raises(InputError) as caught:
        open_manifest(path, {"path": ["sound"]})
    missing, columns = map(str, caught.value.problems[-2:])
    assert missing == f"{path}, column 'sound': names no file in rows 2 ('x.wav'), 3 ('x.wav')"
    assert columns.startswith(f"{path}: its columns are sound, fold, caption, target; if another")
    assert f"{path}, column 'target': is no whole number in row 2 ('a')" in str(caught.value)


def test_a_name_that_is_nearly_there_is_told_and_not_taken(tmp_path):
    path = written(tmp_path, "m.csv", "path\nlead.wav\nCafe\u0301.wav\na.wav\n",
                   [" lead.wav", "café.wav", "a.wav"])  # fmt: skip
    manifest = open_manifest(path)
    assert [clip.fault for clip in manifest.clips] == ["names no file", "names no file", ""]
    (warning,) = manifest.warnings
    assert "2 ('lead.wav', but ' lead.wav' is there)" in warning
    assert "3 ('Cafe\u0301.wav', but 'café.wav' is there)" in warning


def test_cells_are_taken_as_they_stand(tmp_path):
    rows = '\ufeff id ,path,text,label,split\n" x", b.wav,"  two  ", 3 , Test \n,a.wav," ",,train\n'
    path = written(tmp_path, "m.csv", rows, [" b.wav", "a.wav"])
    first, second = open_manifest(path).clips
    assert (first.id, first.path, first.text, first.label, first.split) == (
        " x", " b.wav", "  two  ", 3, 2
    )  # fmt: skip
    assert (second.id, second.text, second.label) == ("a", None, None)


def test_a_name_that_several_files_have_is_refused(tmp_path):
    path = written(tmp_path, "m.csv", "path\na.wav\n", ["one/a.wav", "two/a.wav"])
    with pytest.raises(InputError, match="the name of several media files below it in row 2"):
        open_manifest(path)


def test_names_of_classes_are_numbered_and_numbers_are_kept(tmp_path):
    path = written(tmp_path, "m.csv", "path,label,text\na.wav,b,x\nc.wav,a,\nd.wav,,\n",
                   ["a.wav", "c.wav", "d.wav"])  # fmt: skip
    manifest = open_manifest(path)
    assert [clip.label for clip in manifest.clips] == [1, 0, None]
    assert [clip.text for clip in manifest.clips] == ["x", None, None]
    assert manifest.warnings == (f"{path}: classes are numbered from 0 to 1 by their names",)
    path = written(tmp_path, "n.csv", "path,label\na.wav,7.0\nc.wav,2\nd.wav,\n")
    assert [clip.label for clip in open_manifest(path).clips] == [7, 2, None]


def test_captions_of_a_clip_that_has_an_id_are_numbered(tmp_path):
    rows = [{"id": "a", "captions": ["one", "two"]}, {"id": "b", "captions": []}]
    manifest = open_manifest(written(tmp_path, "m.json", rows, ["a.wav", "b.wav"]))
    assert [(clip.id, clip.text, clip.group) for clip in manifest.clips] == [
        ("a#1", "one", "a.wav"), ("a#2", "two", "a.wav"), ("b", None, None)
    ]  # fmt: skip
