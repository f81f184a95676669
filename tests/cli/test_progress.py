"""What is said of the progress of runs and clips, with a terminal and without one."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from continual_mm.cli.progress import ClipBar, RunProgress


def test_each_stage_and_each_run_that_is_found_finished_is_a_line(capsys):
    with RunProgress(4) as progress:
        for what in ("torch", "dataset digits", "torch"):
            progress.loads(what)
        naive = progress.run_reporter("runs/a/naive/seed-0")
        naive.begins("runs/a/naive/seed-0", stages=2, steps=20)
        naive.steps(10)
        naive.scored(1, {})
        replay = progress.run_reporter("runs/a/replay/seed-0")
        replay.begins("runs/a/replay/seed-0", stages=2, steps=10)
        naive.steps(10)
        replay.resumes(1, 5)
        naive.scored(2, {"audio-video": 0.125, "text-video": 1.0})
        naive.ends(1.0)
        progress.skips("runs/a/ewc/seed-0")
        progress.fails("runs/a/replay/seed-0", "no space left")
        last = progress.run_reporter("runs/a/joint/seed-0")
        last.begins("runs/a/joint/seed-0", stages=2, steps=0)
        last.resumes(2, 0)
        last.ends(1.0)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "loading torch ...",
        "loading dataset digits ...",
        "[1/4] runs/a/naive/seed-0 stage 1: R@1 no pair yet",
        "[2/4] runs/a/replay/seed-0: goes on after step 5 of stage 2",
        "[1/4] runs/a/naive/seed-0 stage 2: R@1 audio-video 12.5  text-video 100.0",
        "[3/4] runs/a/ewc/seed-0: finished earlier",
        "[2/4] runs/a/replay/seed-0: failed: no space left",
        "[4/4] runs/a/joint/seed-0: finished earlier",
    ]


def test_a_terminal_shows_a_bar_for_each_run_in_progress_and_one_for_all():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)

    def shown():
        """The bars as they are now, spaces made one."""
        start = screen.tell()
        progress.bars.refresh()
        return " ".join(Text.from_ansi(screen.getvalue()[start:]).plain.split())

    with RunProgress(3, console) as progress:
        first, second = (progress.run_reporter(name) for name in ("runs/a", "runs/b"))
        first.begins("runs/a", stages=2, steps=20)
        second.begins("runs/b", stages=2, steps=40)
        first.steps(5)
        second.steps(30)
        text = shown()
        assert "all" in text and "0/3 runs" in text
        assert "[1/3] runs/a" in text and "5/20 steps" in text
        assert "[2/3] runs/b" in text and "30/40 steps" in text
        first.ends(1.0)
        progress.fails("runs/b", "no space left")
        text = shown()
        assert "2/3 runs" in text
        assert "steps" not in text


@pytest.mark.parametrize("every", [0, 60])
def test_without_a_terminal_clips_are_counted_in_lines_now_and_then_and_at_the_end(capsys, every):
    with ClipBar(every=every) as bar:
        bar.prepares(2)
        bar.begins(1200, 2)
        bar.finished("a")
        bar.failed("b", "no video")
        bar.ends(1199, 1)
    assert capsys.readouterr().err.splitlines() == [
        "loading towers in 2 processes ...",
        "1,198 of 1,200 clips are there already",
        *([] if every else ["1,199 of 1,200 clips are done"]),
        "b: no video",
        "1,200 of 1,200 clips are done",
    ]
