"""Commands that turn published files, and extracted clips, into packs and stores."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from continual_mm import terminal
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data import shelf
from continual_mm.late import late
from continual_mm.options import A_PATH

if TYPE_CHECKING:
    from continual_mm.data.published.report import Report

SHOWN = 5
"""Complaints about what was left out that are shown; the file has all."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
A_SHARE = click.FloatRange(min=0.0, max=1.0, max_open=True)

_to = click.option(
    "--to",
    "target",
    type=A_PATH,
    required=True,
    help="A new folder for a store, or an .npz file for a pack.",
)
_to_shelf = click.option(
    "--to",
    "target",
    type=A_PATH,
    help="A new folder for a store, or an .npz file for a pack. If left out: where scenarios look"
    " for the dataset by its name.",
)
_skip = click.option(
    "--skip", is_flag=True, help="Leave out what cannot be read, and list it beside the target."
)
_dtype = click.option(
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
_validation = click.option(
    "--validation",
    type=A_SHARE,
    default=0.1,
    show_default=True,
    help="Share of the training videos that is held out for validation.",
)


def _published(to: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Options of every published format, in the order of its help."""

    def decorated(command: _Command) -> _Command:
        for option in (_skip, _dtype, _reference, _vectors, to):
            command = option(command)
        return command

    return decorated


@click.group()
def convert() -> None:
    """Turn published files, or extracted clips, into a pack (.npz) or a store (a folder)."""


@convert.command()
@click.argument("paths", type=A_PATH)
@click.option("--captions", type=A_PATH, required=True, help="caption.pickle or caption.json.")
@click.option("--features", type=A_PATH, required=True, help="Folder of PATH/ID_2d.npz and _3d.")
@click.option("--audio", type=A_PATH, help="Folder of PATH/ID_spec.npz, if another.")
@click.option(
    "--min-time",
    type=click.FloatRange(min=0.0),
    default=10.0,
    show_default=True,
    help="Seconds up to which a clip takes in the captions around its own.",
)
@click.option("--validation", type=A_SHARE, default=0.001, show_default=True)
@click.option("--test", type=A_SHARE, default=0.001, show_default=True)
@_published(_to_shelf)
def howto100m(
    paths: Path,
    captions: Path,
    features: Path,
    audio: Path | None,
    target: Path | None,
    skip: bool,
    **how: Any,
) -> None:
    """HowTo100M: PATHS lists the videos. Always a store: an item for every caption.

    Videos' features are stored once; of the videos, shares are held out by their names.
    """
    published, videos = late("data.published.howto100m"), late("data.conversion.long_videos")
    target = target or shelf.place_of("howto100m")
    with _Listed(target, skip=skip) as listed:
        found = published.videos(
            late("data.published.places").read_list(paths),
            late("data.published.captions").CaptionFile(captions),
            features=features,
            audio=audio,
            report=listed.report,
        )
        with late("count_bar").counting(found, "videos") as counted:
            videos.write_videos(
                counted,
                target,
                vectors=late("data.published.vectors").open_vectors(how["vectors"]),
                recipe=_recipe(how["reference"], min_time=how["min_time"]),
                held_out=late("data.conversion.dealing").HeldOut(
                    validation=how["validation"], test=how["test"]
                ),
                dtype=how["dtype"],
                left_out=listed.complaints,
            )
    _tell(target)


def _clips(name: str, train: str, test: str, told: str) -> click.Command:
    """The command of a format of short clips in pickles, one for each split."""

    @click.command(name, help=told, short_help=told.split(".")[0] + ".")
    @click.option("--train", type=A_PATH, help="The pickle of training clips.")
    @click.option("--test", type=A_PATH, help="The pickle of test clips.")
    @_validation
    @_published(_to_shelf)
    def command(
        train: Path | None,
        test: Path | None,
        target: Path | None,
        vectors: Path,
        reference: bool,
        dtype: str,
        skip: bool,
        validation: float,
    ) -> None:
        files = late("data.published.clip_files")
        place = target or shelf.place_of(name)
        forms = ((train, forms_of[0], 0), (test, forms_of[1], 2))
        given = [(path, getattr(files, form), split) for path, form, split in forms if path]
        if not given:
            raise RefusedError(
                Complaint(name, "there is nothing to read", "give --train or --test")
            )
        words = late("data.published.vectors").open_vectors(vectors)
        with _Listed(place, skip=skip) as listed:
            opened = [files.open_clips(path, form, split=split) for path, form, split in given]
            records = (
                record
                for one in opened
                for record in one.records(words, _recipe(reference), report=listed.report)
            )
            _write(records, place, dtype, listed, validation if train else 0.0)
        _tell(place)
        for one in opened:
            if one.misses:
                terminal.out.print(
                    f"{one.path}: {one.misses} of {one.expected:,} clips are not there; set"
                    f" expected = {one.expected} in a protocol, and they count as missed"
                )

    forms_of = (train, test)
    return command


convert.add_command(
    _clips(
        "youcook2",
        *("YOUCOOK2", "YOUCOOK2"),
        "YouCook2's clips. The pickles are youcook_train_audio.pkl and youcook_val_audio.pkl;"
        " validation clips are held out of the training videos.",
    )
)
convert.add_command(
    _clips(
        "msrvtt",
        *("MSRVTT_TRAIN", "MSRVTT_TEST"),
        "MSR-VTT's clips. The pickles are msrvtt_train.pkl and msrvtt_jsfusion_test.pkl, which has"
        " 968 of the 1,000 clips of the test.",
    )
)
convert.add_command(
    _clips("lsmdc", "LSMDC", "LSMDC", "LSMDC's clips. One pickle for training, one for testing.")
)


def _actions(name: str, told: str) -> click.Command:
    """The command of a format of clips with a class each."""

    @click.command(name.lower(), help=told, short_help=told.split(".")[0] + ".")
    @click.argument("file", type=A_PATH)
    @_validation
    @_published(_to)
    def command(
        file: Path,
        target: Path,
        vectors: Path,
        reference: bool,
        dtype: str,
        skip: bool,
        validation: float,
    ) -> None:
        files = late("data.published.action_files")
        words = late("data.published.vectors").open_vectors(vectors)
        with _Listed(target, skip=skip) as listed:
            opened = files.open_actions(file, getattr(files, name))
            records = late("data.conversion.classes").with_class_names(
                opened, words, _recipe(reference), listed.report
            )
            _write(records, target, dtype, listed, validation)
        _tell(target)

    return command


convert.add_command(
    _actions("UCF101", "UCF101's clips. Class names are test items of their own, of text alone.")
)
convert.add_command(
    _actions("HMDB51", "HMDB51's clips. Class names are test items of their own, of text alone.")
)


@convert.command()
@click.argument("folder", type=A_PATH)
@_to
@_dtype
@_skip
def clips(folder: Path, target: Path, dtype: str, skip: bool) -> None:
    """Clips in FOLDER, which `data extract` wrote."""
    extracted, records = late("extraction.records"), late("data.conversion.records")
    contents = extracted.contents(folder)
    kinds = {name: one.kind for name, one in contents.items()}
    with _Listed(target, skip=skip) as listed:
        layout, given = records.layout_of(extracted.records(folder), kinds, str(folder))
        records.write(given, target, layout=layout, dtype=dtype, left_out=listed.complaints)
    _tell(target)
    for name, one in contents.items():
        terminal.out.print(f"{name}: {one.told}")


class _Listed:
    """What a conversion leaves out: shown in part, and written into a file beside the target."""

    def __init__(self, target: Path, *, skip: bool) -> None:
        self.report: Report = late("data.published.report").Report(skip=skip)
        self.complaints: list[Complaint] | None = self.report.skipped if skip else None
        self._file = target.with_name(f"{target.name}.left-out.csv")

    def __enter__(self) -> "_Listed":
        return self

    def __exit__(self, *_: object) -> None:
        if found := self.report.skipped:
            late("data.conversion.left_out").write(found, self._file)
            for complaint in found[:SHOWN]:
                terminal.err.print(f"left out: {complaint}")
            terminal.err.print(f"left out: {len(found):,} in all, listed in {self._file}")


def _recipe(reference: bool, **given: Any) -> Any:
    mode = "reference" if reference else "robust"
    return late("data.published.recipe").Recipe(mode=mode, **given)


def _write(records: Any, target: Path, dtype: str, listed: _Listed, validation: float) -> None:
    """Write published clips, some of those for training held out."""
    made, dealing = late("data.conversion.records"), late("data.conversion.dealing")
    held_out = dealing.HeldOut(validation=validation)
    dealt = held_out.dealt(made.without_padding(records))
    layout, given = made.layout_of(dealt, made.KINDS, str(target))
    with late("count_bar").counting(given, "clips") as counted:
        made.write(counted, target, layout=layout, dtype=dtype, left_out=listed.complaints)


def _tell(target: Path) -> None:
    # As a path: a folder may be called like a dataset that is known by name.
    card = late("data.registry").card(str(target.absolute()), splits=())
    training, validation, test = card.items
    terminal.out.print(
        f"{target}: {training:,} training, {validation:,} validation and {test:,} test items with"
        f" {', '.join(card.names)}"
    )
    terminal.out.print(f"look at it: continual-mm data inspect {target}")
