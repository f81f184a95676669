"""Pictures of a few items, measured in pixels."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.preparation.inspection.picture import Form, draw, style_of
from continual_mm.system.errors import InputError

SPLIT = [0] * 6 + [1] * 2 + [2] * 4
RNG = np.random.default_rng


def dataset(split=SPLIT, text=None, lengths=None, **given):
    return Dataset.from_arrays(
        given, split=split, text=text, lengths=lengths, standardise=False, splits=()
    )


def pixels(shown, path, items=1):
    draw(shown, path / "items.png", items=items)
    with Image.open(path / "items.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def style(kind, *items, shape=None):
    values = [np.asarray(item, dtype=np.float32) for item in items]
    return style_of(Modality("it", kind, shape or values[0].shape), values)


def test_the_picture_has_a_row_for_each_item_and_says_when_there_are_fewer(tmp_path):
    shown = dataset(lips=np.arange(12 * 18.0).reshape(12, 3, 6), audio=np.eye(12))
    heights = [len(pixels(shown, tmp_path, items)) for items in (1, 2, 4, 9)]
    assert heights[2] - heights[1] == pytest.approx(2 * (heights[1] - heights[0]), abs=3)
    assert heights[3] == heights[2]
    assert draw(shown, tmp_path / "items.png", items=9)[0] == 4
    alone = dataset([0] * 3, video=RNG(0).standard_normal((3, 2, 2)))  # without test items
    assert draw(alone, tmp_path / "items.png", items=2)[0] == 2


def test_frames_that_are_pictures_are_shown_as_pictures_in_reading_order(tmp_path):
    clip = np.broadcast_to(np.arange(4.0)[:, None, None], (12, 4, 5, 8))
    grey = pixels(dataset(clip=clip), tmp_path)[..., 0]
    # Black, dark, bright; the last of the four is white as the page is.
    places = [np.argwhere(grey == level) for level in (0, 85, 170)]
    assert min(map(len, places)) > 1000
    (y0, x0), (y1, x1), (y2, x2) = (np.median(place, axis=0) for place in places)
    assert (y0, x0) == pytest.approx((y1, x2), abs=2)
    assert x1 > x0 + 20
    assert y2 > y0 + 20


@pytest.mark.parametrize("axis", [-1, -3])
def test_frames_of_three_colours_are_shown_in_them(tmp_path, axis):
    clip = np.zeros((12, 2, 9, 9, 3), dtype=np.uint8)
    clip[:, 0, ..., 0], clip[:, 1, ..., 2] = 255, 255
    colours = pixels(dataset(clip=np.moveaxis(clip, -1, axis)), tmp_path).reshape(-1, 3)
    for colour in (255, 0, 0), (0, 0, 255):
        assert (colours == colour).all(axis=1).sum() > 5000


SQUARE = RNG(0).uniform(size=(28, 28))


@pytest.mark.parametrize(
    ("form", "kind", "item", "shape"),
    [
        (Form.IMAGE, Kind.TOKENS, SQUARE, None),
        (Form.TIME, Kind.SPECTROGRAM, SQUARE, None),
        (Form.TIME, Kind.TOKENS, SQUARE - 0.5, None),
        (Form.TIME, Kind.TOKENS, SQUARE[:20], (28, 28)),
        (Form.LINE, Kind.VECTOR, SQUARE.reshape(-1)[:256], None),
        (Form.BLOCK, Kind.VECTOR, SQUARE.reshape(-1), None),
        (Form.FRAMES, Kind.FRAMES, np.ones((9, 3, 5, 5)), None),
        (Form.TIME, Kind.FRAMES, np.ones((9, 5, 5, 5)), None),
    ],
)
def test_what_is_drawn_is_what_the_shape_suggests(form, kind, item, shape):
    assert style(kind, item, shape=shape).form is form


def test_time_is_to_scale(tmp_path):
    values = np.ones((12, 20, 4)) * np.linspace(1, 2, 4)
    lengths = {"audio": [20] * 11 + [10]}
    picture = pixels(dataset(audio=values, lengths=lengths), tmp_path, items=4)
    coloured = (np.ptp(picture, axis=2) > 60).sum(axis=1)
    widths = coloured[coloured > 0]
    assert np.median(widths[-20:]) == pytest.approx(widths.max() / 2, abs=3)


ODD = "日本語の字幕 $x_1$ $\\frac{a}$ % & <b> \\alpha"


def test_captions_are_no_mathematics_and_letters_without_a_font_are_reported(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(dataset(a=np.eye(12), text=[ODD] * 12), tmp_path / "items.svg")
        _, unwritten = draw(dataset(a=np.eye(12), text=["é"] * 12), tmp_path / "items.png")
    assert (tmp_path / "items.svg").is_file()
    assert not unwritten


def test_where_nothing_can_be_written_it_is_refused(tmp_path):
    (tmp_path / "items.png").mkdir()
    with pytest.raises(InputError, match=re.escape(f"picture {tmp_path / 'items.png'}: cannot")):
        draw(dataset(a=np.eye(12)), tmp_path / "items.png")
