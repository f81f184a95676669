"""Tables for a paper, with numbers known by hand."""

import math
import re
from dataclasses import replace

from continual_mm.comparison.compare import Comparison, Headline, Row, ScenarioReport
from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.latex import as_latex
from continual_mm.comparison.protocols import ProtocolComparison, ProtocolRow, SeriesReport
from continual_mm.comparison.tables import protocol_tables, scenario_tables
from continual_mm.metrics.answers import SERIES

ROW = Row("naive", False, (0, 1), Headline(*[Estimate(0.5, 0.4, 0.6)] * 7), None, 0, 7.25, {})


def row(strategy, *, joint=False, cumulative=False, **measures):
    """A strategy whose measures are 50 % except for those given."""
    given = {k: v if v is None else Estimate(v, v - 0.1, v + 0.1) for k, v in measures.items()}
    difference = given.pop("difference", None)
    headline = replace(ROW.headline, **given)
    kind = {"strategy": strategy, "joint": joint, "cumulative": cumulative}
    return replace(ROW, **kind, headline=headline, difference=difference)


def table(*rows, scenario="av_vt"):
    comparison = Comparison("naive", {scenario: ScenarioReport((), {}, rows)}, ())
    return as_latex(scenario_tables(comparison))


def body(text):
    """First cell -> cells of every line with cells, its end taken off."""
    lines = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]
    return {cells[0]: cells for cells in lines}


def test_a_row_is_the_one_worked_out_by_hand():
    worse = row("replay_ewc", old_pairs=0.25, difference=-0.042)
    assert body(table(ROW, worse))[r"replay\_ewc"] == [
        *(r"replay\_ewc", "2", r"\textbf{50.0 [40.0, 60.0]}", r"25.0$\pm$10.0"),
        *[r"\textbf{50.0$\pm$10.0}"] * 4,
        *("$-$4.2 [$-$14.2, 5.8]", "0 B", "7.2"),
    ]


def test_rules_braces_and_dollars_come_in_pairs():
    text = table(ROW, row(r"\{$_%#^~<|>"), scenario="50%_{")
    commands = [re.sub(r"\\textit.*", "", line) for line in text.splitlines()]
    order = [line for line in commands if line.startswith("\\") and "&" not in line]
    assert order == [
        r"\begin{tabular}{lrrrrrrrrrr}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    plain = re.sub(r"\\[{}$&%#_]", "", text)
    code = "\n".join(line for line in plain.splitlines() if not line.startswith("%"))
    depth = 0
    for character in code:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert all(line.count("$") % 2 == 0 for line in code.splitlines())
    assert not set("%#_^~<|>") & set(code)


def test_every_special_character_is_escaped():
    (name,) = [cell for cell in body(table(ROW, row(r"\^~&%$#_{}"))) if cell.startswith(r"\t")]
    assert name == (r"\textbackslash{}\textasciicircum{}\textasciitilde{}\&\%\$\#\_\{\}")


def test_the_best_is_bold_the_least_forgetting_is_best_and_a_bound_never_is():
    bold = {
        name: [column for column, cell in enumerate(cells) if cell.startswith(r"\textbf")]
        for name, cells in body(
            table(
                row("joint", joint=True, old_pairs=0.9, forgetting=None, difference=0.9),
                row("cumulative", cumulative=True, new_pairs=0.9, forgetting=0.0),
                row("ewc", old_pairs=0.6, forgetting=0.1, difference=0.1),
                row("replay", new_pairs=0.6, forgetting=0.2, difference=0.2),
                row("naive", forgetting=0.3),
            )
        ).items()
    }
    everyone = [2, 5, 7]
    assert bold.pop("strategy") == []
    assert bold == {
        r"\textit{joint}": [],
        r"\textit{cumulative}": [],
        "ewc": sorted([*everyone, 3, 6]),
        "replay": sorted([*everyone, 4, 8]),
        "naive": everyone,
    }


def test_what_prints_equal_is_equally_bold_and_one_alone_is_not():
    cells = body(table(row("a", old_pairs=0.50004), row("b", old_pairs=0.49996)))
    assert cells["a"][3].startswith(r"\textbf{50.0")
    assert cells["b"][3].startswith(r"\textbf{50.0")
    assert "textbf" not in table(ROW, row("joint", joint=True))


def protocol_row(strategy, stage, recall, rank):
    """A strategy whose recalls are alike."""
    share = Estimate(recall, recall - 0.1, recall + 0.1)
    median = None if rank is None else Estimate(rank, rank - 1, math.inf)
    difference = None if strategy == "naive" else Estimate(-0.042, -0.1, 0.0)
    return ProtocolRow(strategy, stage, (0, 1), (share, share, share, median), difference)


def lines(*rows):
    report = SeriesReport("mine", "item to item", 40, SERIES["retrieval"][0].measures, rows)
    text = as_latex(protocol_tables(ProtocolComparison("you_cook", "naive", (report,), ())))
    return text.splitlines()


def test_the_best_of_a_stage_is_bold_and_of_ranks_that_is_the_lowest():
    assert lines(
        protocol_row("naive", 1, 0.5, 4.0),
        protocol_row("re_play", 2, 0.25, 9.0),
        protocol_row("naive", 2, 0.125, 3.5),
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
