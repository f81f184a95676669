"""Bars on a terminal, and silence without one."""

import io

import pytest
from rich.console import Console

from continual_mm.cli.progress import ClipBar, bars, counting


def test_things_pass_in_order_and_nothing_is_said_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with counting(iter("abc"), "letters") as letters:
        assert list(letters) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_bar_tells_what_of_how_many_it_counts() -> None:
    shown = io.StringIO()
    with bars(Console(file=shown, force_terminal=True, width=80)) as progress:
        bar = progress.add_task("[1/2] mine", total=8, unit="steps")
        progress.advance(bar, 3)
        progress.refresh()
    assert "[1/2] mine" in shown.getvalue()
    assert "3/8" in shown.getvalue()
    assert "steps" in shown.getvalue()


def test_clips_that_are_there_and_those_that_fail_are_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ClipBar() as bar:
        bar.prepares(2)
        bar.begins(5, 3)
        bar.finished("a")
        bar.failed("b", "no film")
    assert capsys.readouterr().err.splitlines() == [
        "loading towers in 2 processes ...",
        "2 of 5 clips are there already",
        "b: no film",
    ]


def test_without_a_terminal_clips_are_counted_in_lines_now_and_then_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ClipBar(every=0) as bar:
        bar.begins(1200, 2)
        bar.finished("a")
        bar.finished("b")
        bar.ends(1200, 0)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "1,199 of 1,200 clips are done",
        "1,200 of 1,200 clips are done",
    ]
