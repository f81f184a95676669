"""Point clouds out of files: every format gives the same points, and odd files a reason."""

import csv
import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from continual_mm.data.registry import load
from continual_mm.data.solids.generate import cloud
from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.clip_files import records
from continual_mm.preparation.extraction.clouds import read_cloud
from continual_mm.preparation.extraction.depth_tower import DepthTower
from continual_mm.preparation.extraction.job import extract
from continual_mm.preparation.extraction.manifest import open_manifest
from continual_mm.preparation.extraction.media import MediaError
from continual_mm.preparation.extraction.towers import Recipe, build
from continual_mm.preparation.formats.records import write
from continual_mm.system.errors import InputError

POINTS = np.round(np.random.default_rng(0).standard_normal((40, 3)), 3).astype("f4")
DEPTH = Recipe.parse("depth=depth,size=24,radius=0.08")


def ply(form, *, order="<", before=b"", declared=40, numbers=True, kind="float"):
    head = f"ply\nformat {form} 1.0\ncomment made by hand\n"
    head += "element camera 2\nproperty uchar number\n" if before else ""
    head += f"element vertex {declared}\nproperty {kind} x\nproperty uchar red\n"
    head += f"property {kind} y\nproperty {kind} z\nelement face 1\n"
    head += "property list uchar int vertex_indices\nend_header\n"
    body = before
    if numbers and form == "ascii":
        body += "".join(f"{x} 7 {y} {z}\n" for x, y, z in POINTS).encode() + b"3 0 1 2\n"
    elif numbers:
        layout = f"{order}{'d' if kind == 'double' else 'f'}B{'dd' if kind == 'double' else 'ff'}"
        body += b"".join(struct.pack(layout, x, 7, y, z) for x, y, z in POINTS) + b"\3" + bytes(12)
    return head.encode() + body


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def lines(*before):
    return "\n".join([*before, *(f"{x} {y} {z}" for x, y, z in POINTS), ""]).encode()


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("npy", npy(POINTS)),
        ("npy", npy(np.concatenate([POINTS, np.ones((40, 4), "f4")], axis=1))),
        ("npz", npz(points=POINTS, label=np.array(3))),
        ("npz", npz(anything=POINTS)),
        ("ply", ply("ascii")),
        ("ply", ply("ascii", before=b"1\n2\n")),
        ("ply", ply("binary_little_endian")),
        ("ply", ply("binary_little_endian", before=b"ab", kind="double")),
        ("ply", ply("binary_big_endian", order=">")),
        ("off", lines("OFF", "# of no faces", "40 0 0")),
        ("off", lines("OFF40 0 0")),
        ("xyz", lines("# x y z")),
        ("xyz", lines().replace(b" ", b", ")),
        ("XYZ", lines().replace(b"\n", b" 255 0 0\n")),
    ],
)
def test_every_format_gives_the_points_that_were_written(ending, content, tmp_path):
    path = tmp_path / f"cloud.{ending}"
    path.write_bytes(content)
    np.testing.assert_allclose(read_cloud(path), POINTS, rtol=1e-6)


def test_of_many_points_so_many_are_drawn_the_same_at_every_call(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(npy(POINTS))
    drawn = read_cloud(path, points=10)
    assert len({tuple(row) for row in drawn}) == 10
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in POINTS.astype("f8")}
    np.testing.assert_array_equal(drawn, read_cloud(path, points=10))


def test_of_a_mesh_points_are_drawn_on_its_faces_evenly_by_area(tmp_path):
    path = tmp_path / "square.off"
    corners = "0 0 0\n2 0 0\n2 2 0\n0 2 0\n9 9 9\n"
    path.write_text(f"OFF\n5 1 0\n{corners}4 0 1 2 3 255 0 0\n")
    drawn = read_cloud(path, points=2000)
    assert drawn.shape == (2000, 3)
    assert (drawn[:, 2] == 0).all()
    assert drawn.min() >= 0
    assert drawn.max() <= 2
    quarters = np.bincount(2 * (drawn[:, 0] > 1) + (drawn[:, 1] > 1), minlength=4)
    assert quarters.min() > 430  # 500 expected


HUGE = npy(POINTS[:1]).replace(b"(1, 3)", b"(999999999999, 3)", 1)


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        ("npy", npy(np.empty((0, 3))), "has no point; leave it out"),
        (
            "npy",
            npy(np.array([[0, 0, 0], [0, np.nan, 0]])),
            "point 2 of 2 is not finite, or beyond",
        ),
        ("npy", npy(np.array([[0, 0, 1e300]])), "point 1 of 1 is not finite, or beyond"),
        ("npy", npy(np.ones((4, 2))), "holds float64 of shape 4x2; give .points, 3. numbers"),
        ("npy", npy(np.array(5.0)), "holds float64 of shape "),
        ("npy", npy(np.array([[{}] * 3]), allow_pickle=True), "cannot be read: .*; write it again"),
        ("npy", npy(POINTS)[:-7], "cannot be read"),
        ("npy", HUGE, "cannot be read|says that it has"),
        ("npy", b"", "cannot be read"),
        ("npy", npz(a=POINTS), "is no .npy file"),
        ("npz", npz(a=POINTS, b=POINTS), "holds a, b; call the .points, 3. array 'points'"),
        ("npz", npz(), "holds nothing"),
        ("npz", npz(points=POINTS)[:200], "is no .npz file, or is cut short"),
        ("ply", b"", "has no PLY header with an end"),
        (
            "ply",
            b"ply\n" + b"comment x\n" * 10000 + b"end_header\n",
            "has no PLY header with an end",
        ),
        ("ply", ply("ascii").replace(b"ascii", b"utf"), "a line in its header that is not PLY's"),
        ("ply", ply("ascii").replace(b"format ascii 1.0\n", b""), "does not say its format"),
        (
            "ply",
            ply("ascii").replace(b"element vertex", b"element points"),
            "has no element vertex",
        ),
        ("ply", ply("ascii").replace(b"float z", b"float w"), "vertices without plain x, y and z"),
        ("ply", ply("ascii", declared=45), "is cut short|fewer than 4 numbers"),
        (
            "ply",
            ply("ascii", numbers=False),
            "is cut short: 0 of 40 points are there; copy it again",
        ),
        (
            "ply",
            ply("ascii", declared=10**12),
            "says that it has 1,000,000,000,000 points; at most",
        ),
        (
            "ply",
            ply("binary_little_endian", declared=9_000_000),
            "cut short: it says it has 9,000,000",
        ),
        ("ply", ply("binary_little_endian")[:-60], "is cut short: it says it has 40 points of 13"),
        (
            "ply",
            ply("binary_little_endian", before=b"ab").replace(
                b"property uchar number", b"property list uchar int a"
            ),
            "has lists in 'camera' before its vertices",
        ),
        ("off", b"PLY\n", "does not begin with OFF"),
        ("off", b"OFF\n", "does not say how many points and faces"),
        ("off", lines("OFF", "50 0 0"), "is cut short: 40 of 50 points are there; copy it again"),
        ("off", lines("OFF", "40 3 0"), "is cut short: 0 of 3 faces are there; copy it again"),
        ("off", lines("OFF", "40 1 0") + b"3 0 1 40\n", "a face of a point that is not there"),
        ("off", lines("OFF", "40 1 0") + b"3 0 1 x\n", "cannot be read: invalid literal"),
        ("off", b"OFF\n99999999999 0 0\n", "says that it has 99,999,999,999 points"),
        ("xyz", b"", "has no point"),
        ("xyz", b"40\nwater\n", "a first line without x, y and z"),
        ("xyz", b"1 2 3\n1 2 three\n", "a line that is no x, y and z"),
        ("xyz", b"\xff\xfe1 2 3", "cannot be read"),
        ("obj", b"v 0 0 0", r"is no point cloud; endings are .npy, .npz, .ply, .off, .xyz"),
    ],
)
def test_what_is_no_whole_cloud_of_finite_points_has_a_reason_and_a_remedy(
    ending, content, message, tmp_path
):
    path = tmp_path / f"cloud.{ending}"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        read_cloud(path)


def test_a_compressed_array_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", HUGE)
    with pytest.raises(MediaError, match="claims float32 of shape"):
        read_cloud(path)


def test_a_file_of_many_points_and_a_missing_one_are_refused(tmp_path):
    large = tmp_path / "a.npy"
    with large.open("wb") as stream:
        stream.truncate((1 << 28) + 1)
    with pytest.raises(MediaError, match="has more than 256 MB; give fewer points"):
        read_cloud(large)
    with pytest.raises(MediaError, match="cannot be opened: No such file"):
        read_cloud(tmp_path / "b.npy")


def made(folder, recipes, out):
    (clips,) = (open_manifest(folder / "clouds.csv"),)
    outcome = extract(clips, recipes, out, workers=0)
    with (out / "report.csv").open(encoding="utf-8") as stream:
        return outcome, {row["id"]: row["problem"] for row in csv.DictReader(stream)}


def test_a_list_of_clouds_becomes_a_dataset_of_depth_maps_and_bad_ones_are_reported(tmp_path):
    folder = tmp_path / "clouds"
    folder.mkdir()
    for number in range(3):
        np.save(folder / f"solid{number}.npy", cloud(number))
    (folder / "cut.ply").write_bytes(ply("binary_little_endian")[:-60])
    (folder / "clouds.csv").write_text(
        "path,split\nsolid0.npy,train\nsolid1.npy,val\nsolid2.npy,test\ncut.ply,test\n"
    )
    outcome, problems = made(folder, [DEPTH], tmp_path / "out")
    assert (outcome.finished, outcome.failed) == (3, 1)
    assert list(problems) == ["cut"]
    assert problems["cut"].startswith("cut.ply is cut short: it says it has 40 points of 13 bytes")
    write(records(tmp_path / "out"), tmp_path / "a.npz", {"depth": Kind.FRAMES}, dtype="float32",
          left_out=None)  # fmt: skip
    dataset = load(str(tmp_path / "a.npz"), standardise=False)
    assert dataset.card["depth"].shape == (6, 24, 24)
    tower = DepthTower(size=24, radius=0.08)
    np.testing.assert_array_equal(dataset.columns["depth"].values[2], tower.encode(cloud(2)))


def test_a_row_may_have_a_picture_and_the_cloud_of_what_it_shows(tmp_path):
    folder = tmp_path / "clouds"
    folder.mkdir()
    np.save(folder / "a.npy", cloud(0))
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(folder / "a.png")
    Image.fromarray(np.full((40, 40, 3), 20, np.uint8)).save(folder / "b.png")
    (folder / "clouds.csv").write_text(
        "id,path,cloud,text\na,a.png,a.npy,a cone\nb,b.png,,a table\nc,b.png,lost.npy,a ring\n"
    )
    image = Recipe.parse("image=frames:resnet18@random,side=32")
    outcome, problems = made(folder, [image, DEPTH], tmp_path / "out")
    assert outcome.failed == 1
    assert problems["c"].endswith("has a cloud that names no file: lost.npy")
    found = {each["ids"]: each for each in records(tmp_path / "out")}
    assert found["a"]["image"].shape == (1, 512)
    assert found["a"]["depth"].shape == (6, 24, 24)
    assert "depth" not in found["b"]


def test_a_cloud_may_not_leave_the_folder_of_its_list(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    folder = tmp_path / "clouds"
    folder.mkdir()
    (folder / "clouds.csv").write_text("id,path,cloud\na,a.png,../a.npy\n")
    with pytest.raises(InputError, match="column 'cloud': leaves the manifest's folder in row 2"):
        open_manifest(folder / "clouds.csv")


def test_towers_for_frames_see_the_depth_maps_of_a_cloud_in_place_of_a_picture_if_asked(tmp_path):
    folder = tmp_path / "clouds"
    folder.mkdir()
    np.save(folder / "a.npy", cloud(0))
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(folder / "a.png")
    (folder / "clouds.csv").write_text("id,path,cloud\nalone,a.npy,\nboth,a.png,a.npy\n")
    tower = "frames:resnet18@random,side=32"
    recipes = [Recipe.parse(f"{name}={tower}{of}") for name, of in (("s", ""), ("c", ",of=cloud"))]
    made(folder, recipes, tmp_path / "out")
    alone, both = records(tmp_path / "out")
    assert alone["s"].shape == (6, 512)
    assert np.abs(alone["s"][0] - alone["s"][1]).max() > 0  # of another side
    assert both["s"].shape == (1, 512)  # the picture
    for found in (alone["c"], both["c"]):
        np.testing.assert_array_equal(found, alone["s"])


def test_a_folder_of_clouds_needs_no_list(tmp_path):
    (tmp_path / "a.ply").write_bytes(ply("ascii"))
    (tmp_path / "b.off").write_bytes(lines("OFF", "40 0 0"))
    assert [clip.id for clip in open_manifest(tmp_path).clips] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=0", "size 0 is not from 1 to 4096"),
        ("views=seven", "views 'seven' is none of six, ten"),
        ("turn=left", "turn 'left' is none of none, modelnet"),
        ("sise=3", "has no option 'sise'; did you mean 'size'"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(Recipe.parse(f"depth=depth,{options}").towers[0], None, "cpu")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("a=audio,of=cloud", "tower 'audio': takes no frames; of=cloud gives towers for frames"),
        ("a=frames:resnet18@random,of=sound", "tower 'frames': cannot be of 'sound'; of=cloud"),
    ],
)
def test_only_towers_for_frames_see_depth_maps(recipe, message):
    with pytest.raises(InputError, match=message):
        build(Recipe.parse(recipe).towers[0], None, "cpu")


def test_what_is_upright_in_modelnet_is_upright_when_it_is_turned():
    """There z is up: a column along it must stand along the picture's height."""
    column = np.stack([np.zeros(50), np.zeros(50), np.linspace(-1, 1, 50)], axis=1)
    shown = DepthTower(size=25, turn="modelnet", radius=0.05).encode(column)[0] < 1
    assert shown.any(1).all()
    assert shown.sum() == shown[:, 12].sum()


def test_points_outside_the_views_are_told_and_none_is_at_the_usual_distance():
    tower = DepthTower(size=8)
    assert tower.outside(POINTS.astype("f8")) == 0.0
    assert DepthTower(size=8, distance=0.5).outside(POINTS.astype("f8")) > 0.0
