"""What the projector is given."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from matplotlib.image import imread
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from continual_mm.data.dataset import Dataset
from continual_mm.evaluation.pairs import Gallery
from continual_mm.runs.board import projector
from continual_mm.runs.board.projector import metadata, points_of, sprite, thumbnails_of, write


def dataset(items=30, **rest):
    return Dataset.from_arrays({"a": np.ones((items, 2)), "b": np.ones((items, 2))}, **rest)


def gallery(items=30, dimension=4):
    rng = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(items, dimension, generator=rng) for name in ("a", "b")}
    return Gallery(drawn, {"a": torch.arange(items), "b": torch.arange(items)})


def test_items_are_evenly_spaced_and_the_same_for_every_modality():
    seen = gallery(items=4500)
    points = points_of(seen)
    for name in ("a", "b"):
        rows = points.rows[points.modality == name]
        assert len(rows) == projector.ITEMS
        assert (rows[0], rows[-1]) == (0, 4499)
        assert set(np.diff(rows)) == {11, 12}
        expected = seen.embeddings[name][rows].numpy()
        assert (points.embeddings[points.modality == name] == expected).all()


def test_a_large_space_shows_fewer_items(monkeypatch):
    monkeypatch.setattr(projector, "VALUES", 2 * 16 * 10)
    assert len(points_of(gallery(dimension=16)).rows) == 2 * 10
    assert len(points_of(gallery(dimension=1024)).rows) == 2


def test_columns_name_what_the_dataset_knows_and_captions_stay_on_their_line():
    texts = ["a\tred\nring"] * 30
    points = points_of(gallery())
    lines = metadata(points, dataset(text=texts, label=range(30))).splitlines()
    assert lines[0].split("\t") == ["modality", "item", "caption", "label"]
    assert lines[31].split("\t") == ["b", "0", "a red ring", "0"]
    assert len(lines) == 61
    assert metadata(points, dataset()).splitlines()[60] == "b\t29"


def test_grey_pictures_become_rgb_and_large_ones_small_in_proportion():
    grey = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    assert (thumbnails_of(grey) == grey[..., None]).all()
    large = np.full((2, 256, 128, 3), 7, dtype=np.uint8)
    assert thumbnails_of(large).shape == (2, 32, 16, 3)
    assert (thumbnails_of(large) == 7).all()


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_a_sprite_is_read_row_by_row(count):
    pictures = np.random.default_rng(0).integers(1, 256, (count, 2, 3, 3), dtype=np.uint8)
    sheet = sprite(pictures)
    across = sheet.shape[1] // 3
    assert sheet.shape == (2 * across, 3 * across, 3)
    for number in range(count):
        top, left = 2 * (number // across), 3 * (number % across)
        assert (sheet[top : top + 2, left : left + 3] == pictures[number]).all()


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_files_are_what_the_configuration_says_and_writing_again_replaces_them(tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (30, 5, 7, 3), dtype=np.uint8)
    items, points = dataset(picture=picture), points_of(gallery())
    write(tmp_path, points, items, name="before", stage=1)
    write(tmp_path, points, items, name="earlier", stage=2)
    write(tmp_path, points, items, name="now", stage=2)
    again = contents(tmp_path)
    write(tmp_path, points, items, name="now", stage=2)
    assert contents(tmp_path) == again
    text = (tmp_path / "projector_config.pbtxt").read_text()
    info, before = text_format.Parse(text, ProjectorConfig()).embeddings
    assert (info.tensor_name, before.tensor_name) == ("now", "before")
    values = np.fromfile(tmp_path / info.tensor_path, dtype="<f4").reshape(info.tensor_shape)
    assert (values == points.embeddings).all()
    wide, high = info.sprite.single_image_dim
    assert (wide, high) == (7, 5)
    sheet = np.rint(255 * imread(tmp_path / info.sprite.image_path)[..., :3]).astype(np.uint8)
    assert (sheet[:5, 7:14] == picture[1]).all()
    write(tmp_path / "plain", points, dataset(), name="no pictures", stage=1)
    assert "sprite" not in (tmp_path / "plain" / "projector_config.pbtxt").read_text()
