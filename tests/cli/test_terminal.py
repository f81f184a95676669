"""How things look on a terminal, and where there is none."""

import pytest
from rich.console import Console
from rich.text import Text

from continual_mm.cli import terminal
from continual_mm.system.errors import InputError, Problem


@pytest.mark.parametrize("columns", [24, 40, 70])
def test_no_number_is_cut_on_a_terminal_of_any_width(columns, capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(terminal, "out", Console(soft_wrap=True))
    row = ("replay", "84.0 [78.0, 89.5]", "word " * 9 + "end")
    terminal.print_rows(("strategy", "harmonic mean %", "note"), [row])
    lines = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert lines[0].split() == ["strategy", "harmonic", "mean", "%", "note"]
    assert lines[1].startswith("replay    84.0 [78.0, 89.5]  word")
    assert " ".join(lines[1:]).count("word") == 9
    assert (len(lines) > 2) == (columns == 70)


def test_text_is_shown_as_it_is(capsys):
    text = "[space] :key: [bold]x[/bold] \\[y] 1.5"
    terminal.out.print(text)
    terminal.err.print(text)
    terminal.print_rows(("a", "b"), [("x", text)])
    shown = capsys.readouterr()
    assert shown.err == f"{text}\n"
    assert shown.out.startswith(f"{text}\n")
    assert shown.out.rstrip().endswith(text)


def test_each_problem_is_one_line_on_standard_error(capsys):
    problems = [
        Problem("mine.toml, [space], dim", "0 cannot be used", "give at least 2"),
        Problem("mine.toml", "a problem\nof several lines, " + "long " * 60),
    ]
    terminal.print_refusal(InputError(problems))
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first == ("continual-mm: mine.toml, [space], dim: 0 cannot be used; give at least 2")
    assert second.startswith("continual-mm: mine.toml: a problem of several lines, long long")
