"""A report written to a file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from continual_mm.reporting.content import Content, content_of
from continual_mm.reporting.figures import write_figures
from continual_mm.reporting.media import Media
from continual_mm.reporting.page import is_report, page
from continual_mm.runs.trained_on import dataset_of
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write


def write_report(
    folders: Iterable[Path],
    to: Path,
    *,
    metric: str = "r@1",
    baseline: str = "naive",
    examples: bool = True,
    datasets: Sequence[str] = (),
    figures: Path | None = None,
    figure_format: str = "svg",
) -> Iterator[Path]:
    """Write a page of all finished runs at or below some folders, and figures beside it if asked.

    ``datasets`` are where the runs' datasets lie, if not where their scenarios name them; of a
    dataset that is not found the page has captions alone.

    Raises:
        InputError: If there is no finished run, runs do not go together, or the file is there and
            no report.
    """
    if to.is_file() and not is_report(to):
        raise InputError.at(to, "is there, and no report", "choose another file")
    content = content_of(folders, metric=metric, baseline=baseline)
    if not content.comparison.reports:
        raise InputError.at(to, "no run has a pair to show", "give runs of two modalities or more")
    shown = partial(_media, content, datasets) if examples else _no_media
    text = page(content, shown)
    to.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(to) as temporary:
        temporary.write_text(text, encoding="utf-8")
    yield to
    if figures is not None:
        yield from write_figures(content.comparison, figures, figure_format)


def _no_media(_: str) -> None:
    return None


def _media(content: Content, datasets: Sequence[str], scenario: str) -> Media:
    """What the scenario's dataset shows of its items, if it is found and the one that was used."""
    definitions = [found.definition for found in content.strategies[scenario].values()]
    for definition in filter(None, definitions):
        for given in ([], *([each] for each in datasets)):
            with suppress(InputError):
                dataset = dataset_of(definition, given)
                return Media.of(dataset.card.name, dataset)
    return Media(None, None)
