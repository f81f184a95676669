"""The panels of a report that say why, and what queries find."""

from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite

from continual_mm.reporting.media import Media
from continual_mm.runs import records
from continual_mm.runs.reporter import percent
from continual_mm.runs.why import LAYERS, Reasons, cause

QUERIES, GAINED = 3, 2  # that broke worst, and that gained most, of each pair


def panels(reasons: Reasons, media: Media | None) -> Iterator[str]:
    """HTML of each old pair: the cause, the figures, and queries that broke."""
    for pair, found in reasons.diagnosis.pairs.items():
        then, now = found.recall
        yield (
            f"<h5>{escape(pair)}: R@1 {percent(then)} to {percent(now)} %</h5>"
            f"<p>{escape(cause(pair, reasons).capitalize())}. {found.broken} queries broke, "
            f"{found.mended} mended.</p>"
        )
        yield _figures(pair, found, reasons)
        if media is not None and found.queries:
            yield _examples(found, media)
    moved = [layer for layer in reasons.layers if layer.change][:LAYERS]
    if moved:
        cells = "".join(
            f"<tr><td>{escape(one.modality)}</td><td>{escape(one.layer)}</td>"
            f"<td class=number>{100 * one.change:.1f}</td></tr>"
            for one in moved
        )
        yield (
            "<table><caption>Layers that moved most</caption><thead><tr><th scope=col>modality"
            "<th scope=col>layer<th scope=col>change in % of its weights</tr></thead>"
            f"<tbody>{cells}</tbody></table>"
        )


def _figures(pair: str, found: records.PairDiagnosisRecord, reasons: Reasons) -> str:
    space = reasons.geometry
    rows = [("similarities changed between the two, 0 to 1", _shown(found.between))]
    rows += [
        (f"changed inside {name}, 0 to 1", _shown(one.inside))
        for name, one in reasons.diagnosis.modalities.items()
        if name in pair.split("-")
    ]
    rows.append(("cosine of partners, then and now", " to ".join(map(_shown, found.partners))))
    if space is not None:
        rows.append(("plan drift in nats", _shown(space.plan_drift.get(pair))))
        rows.append(("modality gap", _shown(space.modality_gap.get(pair))))
    rows += [(f"hubness, {way}", _shown(value)) for way, value in found.hubness.items()]
    cells = "".join(
        f"<tr><th scope=row>{escape(name)}<td class=number>{escape(value)}</tr>"
        for name, value in rows
    )
    return f"<table><caption>What changed</caption><tbody>{cells}</tbody></table>"


def _examples(found: records.PairDiagnosisRecord, media: Media) -> str:
    """Queries that were answered right before the stage, those that are now, and what they find."""
    broke = sorted((one for one in found.queries if one.rank > 1), key=lambda one: -one.rank)
    gained = sorted((one for one in found.queries if one.rank == 1), key=lambda one: -one.before)
    return _listed("Queries that broke worst", broke[:QUERIES], media) + _listed(
        "Queries that gained most", gained[:GAINED], media
    )


def _listed(title: str, queries: Sequence[records.QueryRecord], media: Media) -> str:
    items = "".join(
        f"<li><figure>{_item(one.item, media, one.query)}<figcaption>asked by {escape(one.query)}; "
        f"its answer was number {one.before} and is number {one.rank}. First are now:"
        "</figcaption></figure>"
        f"<ol>{''.join(f'<li>{_item(each, media, one.query)}' for each in one.finds)}</ol>"
        for one in queries
    )
    return f"<h6>{title}</h6><ul class=examples>{items}</ul>" if items else ""


def _item(item: records.ItemRecord, media: Media, query: str) -> str:
    picture, text = media.picture(item.row), item.text or item.id
    shown = f'<img src="{picture}" alt="frame of {escape(item.id)}" width=56>' if picture else ""
    sound = media.play(item.id)
    label = escape(f"sound of {item.id}")
    played = f'<audio controls src="{sound}" aria-label="{label}"></audio>' if sound else ""
    return f"{shown}<span>{escape(text)}</span>{played}"


def _shown(value: float | None) -> str:
    if value is None or not isfinite(value):
        return "-"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"
