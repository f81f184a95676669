"""What is said of a run's progress where there is no terminal."""

import pytest

from continual_mm.progress_bar import RunProgress


def test_each_stage_and_each_run_that_is_found_finished_is_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with RunProgress(4) as progress:
        progress.begins("runs/a/naive/seed-0", stages=2, steps=20)
        progress.steps(10)
        progress.scored(1, {})
        progress.steps(10)
        progress.scored(2, {"audio-video": 0.125, "text-video": 1.0})
        progress.ends(1.0)
        progress.begins("runs/a/replay/seed-0", stages=2, steps=10)
        progress.resumes(1, 0)
        progress.begins("runs/a/naive/seed-1", stages=2, steps=5)
        progress.resumes(1, 5)
        progress.begins("runs/a/ewc/seed-0", stages=2, steps=0)
        progress.resumes(2, 0)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "[1/4] runs/a/naive/seed-0 stage 1: R@1 no pair yet",
        "[1/4] runs/a/naive/seed-0 stage 2: R@1 audio-video 12.5  text-video 100.0",
        "[2/4] runs/a/replay/seed-0: goes on after stage 1",
        "[3/4] runs/a/naive/seed-1: goes on after step 5 of stage 2",
        "[4/4] runs/a/ewc/seed-0: finished earlier",
    ]
