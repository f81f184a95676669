"""What commands that convert can be asked for."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from continual_mm.options import A_PATH

_Command = TypeVar("_Command", bound=Callable[..., Any])
A_SHARE = click.FloatRange(min=0.0, max=1.0, max_open=True)

to_option = click.option(
    "--to",
    "target",
    type=A_PATH,
    required=True,
    help="A new folder for a store, or an .npz file for a pack.",
)
to_shelf_option = click.option(
    "--to",
    "target",
    type=A_PATH,
    help="A new folder for a store, or an .npz file for a pack. If left out: where scenarios look"
    " for the dataset by its name.",
)
skip_option = click.option(
    "--skip", is_flag=True, help="Leave out what cannot be read, and list it beside the target."
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(("float16", "float32")),
    default="float16",
    show_default=True,
    help="In which features are stored.",
)
_vectors = click.option(
    "--vectors",
    type=A_PATH,
    required=True,
    help="Word vectors: word2vec's .bin or .bin.gz, or a text file (GloVe, gensim).",
)
_reference = click.option(
    "--reference", is_flag=True, help="As the published programs read it, mistakes included."
)
validation_option = click.option(
    "--validation",
    type=A_SHARE,
    default=0.1,
    show_default=True,
    help="Share of the training videos that is held out for validation.",
)


def published(to: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Options of every published format, in the order of its help."""

    def decorated(command: _Command) -> _Command:
        for option in (skip_option, dtype_option, _reference, _vectors, to):
            command = option(command)
        return command

    return decorated
