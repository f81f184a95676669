"""Classified clips for zero-shot classification: classes' names are items of their own."""

from collections.abc import Iterator

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.class_names import class_text
from continual_mm.data.published.action_files import ActionFile
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.report import Record, Report
from continual_mm.data.published.vectors import WordVectors

_TEST = 2


def with_class_names(
    clips: ActionFile, vectors: WordVectors, recipe: Recipe, report: Report
) -> Iterator[Record]:
    """Records of clips, and behind them one for each class.

    Clips for testing have no text, so that only names answer them; a protocol of the kind
    ``classes`` wants it so.

    Args:
        clips: The clips.
        vectors: Of words.
        recipe: How they are read.
        report: Takes what is left out; a class of whose name no word is known, too.

    Raises:
        RefusedError: At the first of these, unless the report skips such.
    """
    for record in clips.records(vectors, recipe, report=report):
        yield record if record["split"] != _TEST else record | {"text": None}
    for label, name in enumerate(clips.classes):
        text = class_text(name)
        words = vectors.of(text, recipe)
        with report.item():
            if words is None:
                remedy = "give word vectors that have one, or it cannot be answered"
                raise RefusedError(Complaint(f"class {name!r}", "no word of it is known", remedy))
        if words is not None:
            yield {
                "ids": f"class/{name}",
                "split": _TEST,
                "label": label,
                "text_raw": text,
                "text": words,
            }
