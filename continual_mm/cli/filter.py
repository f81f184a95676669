"""The command that filters the pairs of a dataset."""

from pathlib import Path
from typing import Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_COUNT, A_PATH, A_SEED, NEW_PATH, FiniteRange
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.rules import MOST_ROWS
from continual_mm.system.errors import InputError

BY = ("hype", "cosine", "union", "intersection", "cascade")


@click.command("filter", short_help="Leave out training pairs that are wrong or say little.")
@click.argument("source")
@click.option("--to", "target", type=NEW_PATH, required=True, help="As SOURCE: a pack or a store.")
@click.option("--pair", required=True, metavar="A-B", help="Two modalities, such as image-text.")
@click.option(
    "--by",
    type=click.Choice(BY),
    default="hype",
    help="hype: agreement, and how specific both items are; cosine: agreement alone; or by both: "
    "the best by either, the best by each, or the best by cosine of the best by hype.",
)
@click.option(
    "--keep",
    type=FiniteRange(min=0.0, max=1.0),
    help="Share of the pairs that is kept, such as 0.3.",
)
@click.option(
    "--threshold", type=FiniteRange(min=-1e9, max=1e9), help="Or the least score that is kept."
)
@click.option(
    "--generic",
    metavar="MODALITY",
    help="The more general modality.  [default: text, if it is one]",
)
@click.option(
    "--without-pair",
    type=click.Choice(("keep", "drop")),
    default="keep",
    help="What becomes of training items that lack one of the two.",
)
@click.option(
    "--terms", type=A_PATH, help="The .filter.npz of an earlier filter: nothing is trained."
)
@click.option("--steps", type=A_COUNT, default=500, help="Training steps of each scorer.")
@click.option(
    "--references",
    type=click.IntRange(min=2, max=MOST_ROWS),
    default=1000,
    help="Pairs to compare with.",
)
@click.option("--seed", type=A_SEED, default=0)
@click.option("--device", default="cpu", help="Where scorers are trained.")
def filter_(
    source: str,
    target: Path,
    pair: str,
    terms: Path | None,
    steps: int,
    seed: int,
    device: str,
    **asked: Any,
) -> None:
    """Write the items of SOURCE without the training pairs that are worst, by a trained scorer.

    Validation and test items stay. What was found of each pair is written beside the target, as
    NAME.filter.npz; with --terms another share is kept without training anew.
    """
    from continual_mm.cli.progress import bars
    from continual_mm.preparation.filtering.filter import PairFilter, filter_pairs
    from continual_mm.preparation.filtering.scorers import ScorerSettings

    try:
        named = Pair.parse(pair)
    except ValueError as error:
        raise InputError.at("--pair", str(error), "such as image-text") from error
    if device != "cpu":
        from continual_mm.runs.run import choose_device

        asked["device"] = choose_device(device)
    how = PairFilter(pair=named, scorer=ScorerSettings(steps=steps, seed=seed), **asked)
    try:
        with bars() as shown:
            bar = shown.add_task("scorers", total=steps * how.scorers, unit="steps")
            found = filter_pairs(
                source, target, how, terms=terms, after_step=lambda: shown.advance(bar)
            )
    except KeyboardInterrupt as error:
        raise terminal.EndedError(
            f"stopped; {target} is not there", terminal.INTERRUPTED
        ) from error
    terminal.out.print(f"{target}: {found.kept:,} of {found.pairs:,} training pairs, by {how.by}")
    if found.without_pair:
        what = "kept" if how.without_pair == "keep" else "left out"
        terminal.out.print(f"{found.without_pair:,} training items without the pair were {what}")
    terminal.out.print(f"{found.others:,} validation and test items are as they were")
    terminal.out.print(f"terms of each pair: {found.terms}")
