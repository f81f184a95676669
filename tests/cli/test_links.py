"""What a command writes replaces nothing through a link, and is whole or absent."""

import numpy as np
import pytest

from continual_mm.preparation.formats.records import write_left_out


@pytest.fixture
def precious(tmp_path):
    """A link that leads to a file that is not there yet."""
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "elsewhere")
    return link


def test_a_picture_takes_the_place_of_a_link(typed, written, tmp_path, precious):
    pack = written(tmp_path / "mine.npz")
    shown = typed("data", "inspect", pack, "--picture", precious)
    assert shown.code == 0, shown.err
    assert not precious.is_symlink()
    assert precious.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "elsewhere").exists()


def test_the_list_of_what_was_left_out_takes_the_place_of_a_link(tmp_path, precious):
    write_left_out([], precious)
    assert precious.read_text() == "place,problem,remedy\n"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("command", ["vectors", "copy"])
def test_a_new_file_is_not_written_where_a_link_leads(typed, written, tmp_path, command):
    texts = np.array(["a red square"] * 90)
    pack = written(tmp_path / "mine.npz", text_raw=texts)
    link = tmp_path / "new.toml"
    link.symlink_to(tmp_path / "elsewhere")
    words = {
        "vectors": ("data", "vectors", pack, "--to", link),
        "copy": ("copy", "av_t", link),
    }
    shown = typed(*words[command])
    assert (shown.code, "is there already" in shown.err) == (2, True)
    assert not (tmp_path / "elsewhere").exists()
