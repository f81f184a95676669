"""What people would say for a class."""

import pytest

from continual_mm.preparation.formats.clip_pickles import class_text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("YoYo", "yo yo"),
        ("brush_hair", "brush hair"),
        ("climb_stairs ", "climb stairs"),
        ("TVShow", "tv show"),
        ("TaiChi", "tai chi"),
        ("golf", "golf"),
    ],
)
def test_a_name_is_parted_at_capitals_and_underscores(name: str, words: str) -> None:
    assert class_text(name) == words
    assert class_text(name, template="a video of {}.") == f"a video of {words}."
