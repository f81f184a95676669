"""The figures of a report as files for a paper, and their program for a page."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import vl_convert

from continual_mm.comparison.compare import Comparison
from continual_mm.reporting.charts import charts
from continual_mm.system.files import atomic_write

FORMATS = ("svg", "pdf", "png")
VEGA_LITE = "6.4"


def write_figures(comparison: Comparison, folder: Path, format_: str) -> Iterator[Path]:
    """Write every figure of every scenario: ``<scenario>-<figure>.<format>``."""
    folder.mkdir(parents=True, exist_ok=True)
    for scenario in comparison.reports:
        for name, chart in charts(comparison, scenario).items():
            path = folder / f"{scenario.replace('/', '_')}-{name}.{format_}"
            with atomic_write(path) as temporary:
                temporary.write_bytes(_drawn(chart.to_json(), format_))
            yield path


def _drawn(chart: str, format_: str) -> bytes:
    if format_ == "svg":
        return str(vl_convert.vegalite_to_svg(chart, vl_version=VEGA_LITE)).encode()
    if format_ == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(chart, vl_version=VEGA_LITE))
    return bytes(vl_convert.vegalite_to_png(chart, vl_version=VEGA_LITE, scale=2))


@cache
def program() -> str:
    """The JavaScript of Vega, Vega-Lite and Vega-Embed, which sets ``window.vegaEmbed``."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))
