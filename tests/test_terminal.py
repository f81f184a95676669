"""How things look where there is no terminal."""

import pytest

from continual_mm import terminal
from continual_mm.complaint import Complaint, RefusedError


def test_columns_are_aligned_and_long_lines_are_not_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "word " * 100 + "end"
    terminal.print_rows(("name", "what"), [("a", long), ("longer", "b")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name    what", f"a       {long}", "longer  b"]


def test_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[space] :key: [bold]x[/bold] \\[y] 1.5"
    terminal.out.print(text)
    terminal.err.print(text)
    terminal.print_rows(("a", "b"), [("x", text)])
    shown = capsys.readouterr()
    assert shown.err == f"{text}\n"
    assert shown.out.startswith(f"{text}\n")
    assert shown.out.rstrip().endswith(text)


def test_each_complaint_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    complaints = [
        Complaint("mine.toml, [space], dim", "0 cannot be used", "give at least 2"),
        Complaint("mine.toml", "a problem\nof several lines, " + "long " * 60),
    ]
    terminal.print_refusal(RefusedError(complaints))
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first == ("continual-mm: mine.toml, [space], dim: 0 cannot be used; give at least 2")
    assert second.startswith("continual-mm: mine.toml: a problem of several lines, long long")
