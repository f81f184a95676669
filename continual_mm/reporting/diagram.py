"""The stages of a scenario, and the pairs that they train, as a drawing."""

from collections.abc import Mapping, Sequence
from html import escape

from continual_mm.runs.finished import PairFacts

_WIDE, _HIGH, _GAP = 190, 34, 44
_TOP = 30


def diagram(arrivals: Sequence[Sequence[str]], pairs: Mapping[str, PairFacts]) -> str:
    """An SVG: a column for each stage with what arrives, and below it the pairs born there.

    Old pairs have a solid frame, new ones a dashed one, emergent ones, which no stage trains, a
    dotted one.
    """
    columns = [
        [*added, *(f"{name} ({facts.role})" for name, facts in pairs.items() if facts.birth == n)]
        for n, added in enumerate(arrivals)
    ]
    high = _TOP + max(map(len, columns)) * (_HIGH + 8) + 4
    wide = len(columns) * (_WIDE + _GAP) - _GAP + 4
    told = "; ".join(
        f"stage {n}: {', '.join(added) or 'nothing'} arrives; pairs: "
        f"{', '.join(cells[len(added) :]) or 'none'}"
        for n, (added, cells) in enumerate(zip(arrivals, columns, strict=True), start=1)
    )
    parts = [
        f'<svg class="diagram" role="img" viewBox="0 0 {wide} {high}" width="{wide}" '
        f'height="{high}" aria-label="{escape(told)}">'
    ]
    for number, (added, cells) in enumerate(zip(arrivals, columns, strict=True)):
        left = 2 + number * (_WIDE + _GAP)
        parts.append(f'<text class="head" x="{left}" y="18">stage {number + 1}</text>')
        for place, cell in enumerate(cells):
            top = _TOP + place * (_HIGH + 8)
            kind = "modality" if place < len(added) else cell.rpartition("(")[2].rstrip(")")
            sign = "+ " if place < len(added) else ""
            parts.append(
                f'<rect class="{kind}" x="{left}" y="{top}" width="{_WIDE}" height="{_HIGH}" '
                f'rx="6"/><text x="{left + 12}" y="{top + 22}">{sign}{escape(cell)}</text>'
            )
        if number:
            middle = _TOP + _HIGH / 2
            line = f"M{left - _GAP + 8} {middle} H{left - 8} m-7 -5 l7 5 l-7 5"
            parts.append(f'<path class="arrow" d="{line}"/>')
    return "".join([*parts, "</svg>"])
