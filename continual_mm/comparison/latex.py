"""Tables of a comparison in LaTeX, for a paper."""

from collections.abc import Sequence

from continual_mm.comparison.tables import Table

_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def as_latex(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """A ``tabular`` each, for the package ``booktabs``; without float and caption.

    Captions and notes are comments.
    The best values of each measure, as printed, are bold among strategies that learn stage by stage
    or after one stage of a protocol. Upper bounds are in italics and never bold.
    """
    remarks = "\n".join(f"% {' '.join(note.split())}" for note in notes)
    return "\n\n".join([*map(_tabular, tables), *([remarks] if remarks else [])])


def _tabular(table: Table) -> str:
    best = _best(table)
    lines = []
    for place, line in enumerate(table.lines):
        cells = [
            escaped(text) if letter == "l" else number(text)
            for letter, text in zip(table.alignment, line.cells, strict=True)
        ]
        if line.group is None:
            cells[0] = rf"\textit{{{cells[0]}}}"
        for column in line.values:
            if (place, column) in best:
                cells[column] = rf"\textbf{{{cells[column]}}}"
        lines.append(_row(cells))
    return "\n".join(
        [
            f"% {table.caption}",
            rf"\begin{{tabular}}{{{table.alignment}}}",
            r"\toprule",
            _row([escaped(heading) for heading in table.headings]),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _best(table: Table) -> set[tuple[int, int]]:
    """Line and column of the values that are best in their groups; a single value is not."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    for place, line in enumerate(table.lines):
        if line.group is not None:
            for column, value in line.values.items():
                found.setdefault((line.group, column), {})[place] = value
    return {
        (place, column)
        for (_, column), values in found.items()
        for place, value in values.items()
        if len(values) > 1 and value == max(values.values())
    }


def escaped(text: str) -> str:
    r"""Text as it is, in LaTeX.

    >>> print(escaped("replay_ewc 50 %"))
    replay\_ewc 50 \%
    """
    return text.translate(_ESCAPED)


def number(text: str) -> str:
    r"""A printed number with real minus signs; a hyphen alone is a dash.

    >>> print(number("-4.2 [-8.2, -0.4]"), number("33.5±3.6"), number("-"))
    $-$4.2 [$-$8.2, $-$0.4] 33.5$\pm$3.6 --
    """
    return "--" if text == "-" else text.replace("-", "$-$").replace("±", r"$\pm$")
