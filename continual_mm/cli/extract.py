"""Commands that make features: of raw media, and of words."""

from pathlib import Path
from typing import Any

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import (
    A_PATH,
    A_SEED,
    NEW_FILE,
    NEW_FOLDER,
    UNITS,
    column_option,
    columns_of,
)

RECIPES = (
    "video=frames:resnet152+motion:r3d_18/max",
    "audio=audio",
    "text=text",
)
"""What is made if nothing else is asked for: as published, as far as torchvision goes."""


@click.command(short_help="Make features of a folder of clips.")
@click.argument("source", type=A_PATH)
@click.option(
    "--to", "target", type=NEW_FOLDER, required=True, help="Folder of the clips' features."
)
@click.option(
    "--make",
    "recipes",
    multiple=True,
    metavar="MODALITY=TOWER",
    help="What to make, as often as you like: image=frames:resnet18@random,rate=1/mean. By default "
    + ", ".join(RECIPES),
)
@click.option("--vectors", type=A_PATH, help="Word vectors; trained on the captions, if left out.")
@click.option("--workers", type=click.IntRange(min=0, max=1024), default=1, help="Processes.")
@click.option("--device", default="cpu", help="Where networks run.")
@click.option("--retry", is_flag=True, help="Try clips again that failed.")
@column_option
@click.option("--verbose", is_flag=True, help="A line for every clip that fails.")
def extract(
    source: Path,
    target: Path,
    recipes: tuple[str, ...],
    vectors: Path | None,
    columns: tuple[str, ...],
    verbose: bool,
    **how: Any,
) -> None:
    """Make features of the clips in SOURCE, a manifest or a folder of videos, sounds, clouds.

    A manifest is .csv, .tsv, .json or .jsonl with the columns path, id, start, end, text, split,
    group, label and cloud, of which a path or an id is enough. Lists of Clotho, AudioCaps, ESC-50,
    MSR-VTT, MSVD, VATEX, VGGSound, Kinetics, MUSIC and UCF101 are read as they are. The job goes on
    where it stopped; clips that cannot be decoded are listed in report.csv. Then: continual-mm data
    convert clips FOLDER.
    """
    from continual_mm.cli.progress import ClipBar
    from continual_mm.preparation.extraction.job import extract, without_text
    from continual_mm.preparation.extraction.manifest import open_manifest, with_validation
    from continual_mm.preparation.extraction.towers import Recipe, check_recipes
    from continual_mm.preparation.extraction.word_towers import file_vectors

    manifest = with_validation(open_manifest(source, columns_of(columns)))
    for warning in manifest.warnings:
        terminal.err.print(f"continual-mm: {warning}")
    made = tuple(Recipe.parse(text) for text in recipes or RECIPES)
    check_recipes(made)
    if lacking := without_text(manifest, made):
        remedy = "if a column has it: --column text=NAME"
        terminal.err.print(
            f"continual-mm: no clip has a text, so that there will be no {', '.join(lacking)};"
            f" {remedy}"
        )
    words = file_vectors(vectors) if vectors else None
    kept = f"finished clips are kept in {target}, the same command goes on from there"
    with terminal.stoppable(kept), ClipBar(verbose=verbose) as bar:
        outcome = extract(
            manifest,
            made,
            target,
            vectors=words,
            reporter=bar,
            **how,
        )
    have = "clip has" if outcome.finished == 1 else "clips have"
    terminal.out.print(f"{target}: {outcome.finished:,} {have} features")
    if outcome.failed:
        report = target / "report.csv"
        terminal.out.print(f"{outcome.failed:,} have none: {report} says why; --retry tries again")
    if outcome.finished:
        terminal.out.print(f"then: continual-mm data convert clips {target} --to {target}.npz")
    if not outcome.finished or outcome.failed:
        click.get_current_context().exit(1)


@click.command(short_help="Train word vectors on captions.")
@click.argument("source")
@click.option("--to", "target", type=NEW_FILE, required=True, help="A word2vec file, .bin.")
@click.option("--features", type=UNITS, default=300, help="Numbers per word.")
@click.option("--seed", type=A_SEED, default=0)
def vectors(source: str, target: Path, features: int, seed: int) -> None:
    """Train word vectors on the training captions of SOURCE, and write them as word2vec does.

    SOURCE is a dataset with captions, a caption.pickle or caption.json, or a .txt file with a
    sentence in each line. Use one file of vectors for all that is trained and scored together.
    """
    from continual_mm.preparation.formats.caption_vectors import texts_of, train

    words = train(texts_of(source), target, features=features, seed=seed)
    terminal.out.print(f"{target}: {words:,} words of {features} numbers")
