"""Commands that use the space of a run: search, embed."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, NEW_FILE
from continual_mm.system.errors import InputError

if TYPE_CHECKING:
    from continual_mm.retrieval.retriever import Hit, Retriever


@click.command(short_help="Find items by a text, features or an item.")
@click.argument("run", metavar="RUN", type=A_PATH)
@click.argument("query", required=False)
@click.option("--like", type=A_PATH, help="A .npy file of one item's features, in place of a text.")
@click.option("--item", help="The id of an item of the dataset, in place of a text.")
@click.option("--ask", help="Modality that asks; text, if a text does.")
@click.option("--find", default="", help="Modality that is found; by default the first other one.")
@click.option("--split", type=click.Choice(("test", "validation", "training")), default="test")
@click.option("-k", "count", type=click.IntRange(min=1, max=1000), default=10, help="How many.")
@click.option("--dataset", multiple=True, help="Where the run's dataset lies, if elsewhere now.")
@click.option("--vectors", type=A_PATH, help="Word vectors that its texts were made of.")
@click.option("--encoder", default="", help="SentenceTransformer that its texts were made of.")
@click.option("--picture", type=NEW_FILE, help="A .png, .svg or .pdf file of thumbnails.")
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table")
def search(
    run: Path,
    query: str | None,
    count: int,
    picture: Path | None,
    format_: str,
    **options: Any,
) -> None:
    """List the items of RUN's dataset that fit a text best, or one item's features, or an item."""
    like, item = options.pop("like"), options.pop("item")
    ask, dataset = options.pop("ask"), options.pop("dataset")
    _check_asked({"QUERY": query, "--like": like, "--item": item}, ask)
    from continual_mm.retrieval.retriever import Retriever

    wanted = ask or "text"
    retriever = Retriever(run, dataset=dataset or None, ask=wanted, **options)
    hits = _hits(retriever, query, like, item, count)
    if format_ == "json":
        sys.stdout.write(json.dumps([asdict(hit) for hit in hits], indent=2) + "\n")
    else:
        rows = [(str(hit.rank), f"{hit.score:.3f}", hit.id, hit.text) for hit in hits]
        terminal.print_rows(("rank", "score", "item", "caption"), rows)
    if picture is not None:
        from continual_mm.retrieval.sheet import draw_sheet

        title = query or f"{wanted} of {item or like}"
        draw_sheet(picture, title, hits, retriever.dataset)
        terminal.err.print(f"picture: {picture}")


def _check_asked(given: Mapping[str, object], ask: str | None) -> None:
    """Refuse no question, several ones, and one of which it is not said who asks."""
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) != 1:
        problem = f"{' and '.join(asked)} are given" if asked else "nothing is asked"
        raise InputError.at("search", problem, 'give a text, "a red circle", --like or --item')
    if given["QUERY"] is None and not ask:
        raise InputError.at(asked[0], "it is not said of which modality", "give --ask video")


def _hits(
    retriever: "Retriever", query: str | None, like: Path | None, item: str | None, count: int
) -> "list[Hit]":
    if item is not None:
        return retriever.search_item(item, k=count)
    if like is not None:
        import numpy as np

        from continual_mm.system.reading import check_regular

        check_regular(like)
        try:
            features = np.load(like, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            remedy = "give a .npy file of one item's features; data extract makes such"
            raise InputError.at(like, "is no array of numbers", remedy) from error
        return retriever.search(features, k=count)
    text = query or ""
    if unknown := retriever.reader.unknown(text):
        terminal.say(f"no vector of {', '.join(unknown)}: left out of the query")
    return retriever.search(text, k=count)


@click.command(short_help="Write vectors of a dataset's items.")
@click.argument("run", metavar="RUN", type=A_PATH)
@click.argument("data", metavar="DATA")
@click.option("--to", type=NEW_FILE, required=True, help="A .npz or .parquet file.")
@click.option("--pair", default="", help="A pair to see the space as, where pairs have adapters.")
def embed(run: Path, data: str, to: Path, pair: str) -> None:
    """Embed all items of DATA, a pack, a store or a built-in dataset, in the space of RUN."""
    from continual_mm.retrieval.embeddings import embed as write

    counts = write(run, data, to, pair=pair)
    told = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    terminal.out.print(f"{to}: vectors, {told}")


COMMANDS = (search, embed)
