"""What docs/real-data.md shows works as it stands, from films to a table of comparisons."""

import re
import shlex
from itertools import takewhile
from pathlib import Path

import click
import pytest

from continual_mm.cli import app as cli

PAGE = (Path(__file__).parents[1] / "docs" / "real-data.md").read_text(encoding="utf-8")
EXAMPLE = "### An example: 60 clips of GRID"
HURRY = {
    "extract": ["--workers", "0"],
    "run": ["--seeds", "1", "--set", "training.steps=1", "--no-board"],
}
"""What a page may take its time for and a test may not; the last of two settings counts."""


def commands(text):
    """The commands of all blocks, without the program's name."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "continual-mm"
            found.append(arguments)
    return found


def test_the_example_goes_from_media_to_a_table(test_data, tmp_path, monkeypatch, typed):
    (tmp_path / "grid_raw60").symlink_to(test_data / "grid_raw60")
    monkeypatch.chdir(tmp_path)
    example = commands(PAGE.partition(EXAMPLE)[2].partition("\n## ")[0])
    named = ("data extract", "data convert", "data inspect", "run av_t", "compare grid")
    assert [" ".join(arguments[:2]) for arguments in example] == list(named)
    told = ""
    for arguments in example:
        ended = typed(*arguments, *HURRY.get(arguments[0], HURRY.get(arguments[1], [])))
        assert not ended.code, arguments
        told += ended.out
    assert "grid_features: 60 clips have features" in told
    assert "grid.npz: 28 training, 2 validation and 30 test items with video, audio, text" in told
    assert "video: resnet18, random weights" in told
    shown = PAGE.partition("```\nstrategy")[2].partition("```")[0].splitlines()
    table = told[told.index("\nstrategy  seeds") + 1 :].splitlines()
    headings, *rows = takewhile(str.strip, table)
    assert headings.split() == f"strategy{shown[0]}".split()
    assert {row.split()[0] for row in rows} == {row.split()[0] for row in shown[1:]}


@pytest.mark.parametrize("arguments", commands(PAGE), ids=" ".join)
def test_every_command_is_one_that_there_is_with_options_that_there_are(arguments):
    command = cli.app
    rest = arguments
    with click.Context(command) as context:
        while isinstance(command, click.Group):
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command = found
        command.make_context(command.name, [*rest])
