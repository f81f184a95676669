"""Tables of protocols for a paper, with numbers known by hand."""

import math

from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.latex import protocol_latex
from continual_mm.comparison.protocols import ProtocolComparison, ProtocolRow, Table
from continual_mm.metrics.answers import SERIES


def row(strategy: str, stage: int, recall: float, rank: float | None) -> ProtocolRow:
    """A strategy whose recalls are alike."""
    share = Estimate(recall, recall - 0.1, recall + 0.1)
    median = None if rank is None else Estimate(rank, rank - 1, math.inf)
    difference = None if strategy == "naive" else Estimate(-0.042, -0.1, 0.0)
    return ProtocolRow(strategy, stage, (0, 1), (share, share, share, median), difference)


def lines(*rows: ProtocolRow) -> list[str]:
    table = Table("mine", "item to item", 40, SERIES["retrieval"][0].measures, rows)
    text = protocol_latex(ProtocolComparison("you_cook", "naive", (table,), ()))
    return text.splitlines()


def test_the_best_of_a_stage_is_bold_and_of_ranks_that_is_the_lowest() -> None:
    assert lines(
        row("naive", 1, 0.5, 4.0), row("re_play", 2, 0.25, 9.0), row("naive", 2, 0.125, 3.5)
    ) == [
        "% mine, you_cook: item to item, 40 queries: value and 95 % interval",
        r"\begin{tabular}{rlrrrrrr}",
        r"\toprule",
        r"stage & strategy & seeds & R@1 \% & R@5 \% & R@10 \% & MedR & difference to naive \\",
        r"\midrule",
        r"1 & naive & 2 & 50.0 [40.0, 60.0] & 50.0 [40.0, 60.0] & 50.0 [40.0, 60.0] "
        r"& 4.0 [3.0, inf] & -- \\",
        r"2 & re\_play & 2 & \textbf{25.0 [15.0, 35.0]} & \textbf{25.0 [15.0, 35.0]} "
        r"& \textbf{25.0 [15.0, 35.0]} & 9.0 [8.0, inf] & $-$4.2 [$-$10.0, 0.0] \\",
        r"2 & naive & 2 & 12.5 [2.5, 22.5] & 12.5 [2.5, 22.5] & 12.5 [2.5, 22.5] "
        r"& \textbf{3.5 [2.5, inf]} & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_what_is_equal_as_printed_is_equally_good_and_what_is_undefined_is_not() -> None:
    first, second = lines(row("naive", 1, 0.5001, None), row("replay", 1, 0.5, 7.0))[5:7]
    assert first.count("textbf") == second.count("textbf") == 3
    assert first.split(" & ")[6] == "--"
    assert second.split(" & ")[6] == "7.0 [6.0, inf]"
