"""Commands that turn published files, and extracted clips, into packs and stores."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import click

from continual_mm.cli import terminal
from continual_mm.cli.conversion import Conversion, check_new
from continual_mm.cli.options import A_PATH
from continual_mm.data.cards import published_folder, steps_of
from continual_mm.definitions.modality import SPLITS
from continual_mm.system.errors import InputError, Problem, printable

if TYPE_CHECKING:
    from continual_mm.data.splits import HeldOut

_Command = TypeVar("_Command", bound=Callable[..., Any])
A_SHARE = click.FloatRange(min=0.0, max=1.0, max_open=True)

to_option = click.option(
    "--to",
    "target",
    type=A_PATH,
    required=True,
    help="A new folder for a store, or an .npz file for a pack.",
)
to_data_folder_option = click.option(
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


@click.group(short_help="Turn published files or clips into a pack or a store.")
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
@published(to_data_folder_option)
def howto100m(
    paths: Path,
    captions: Path,
    features: Path,
    audio: Path | None,
    target: Path | None,
    min_time: float,
    **how: Any,
) -> None:
    """HowTo100M: PATHS lists the videos. Always a store: an item for every caption.

    Videos' features are stored once; of the videos, shares are held out by their names.
    """
    from continual_mm.cli.progress import counting
    from continual_mm.data.splits import HeldOut
    from continual_mm.preparation.formats import howto100m

    target = target or published_folder("howto100m")
    _check_folder(target, "HowTo100M")
    shares = HeldOut(validation=how.pop("validation"), test=how.pop("test"))
    with Conversion(target, **how) as conversion:
        listed = howto100m.read_list(paths)
        texts = howto100m.CaptionFile(captions)
        folders = {"features": features, "audio": audio or features}
        held_out = _held_out(
            listed, shares, lambda path: howto100m.is_there(path, texts, **folders)
        )
        found = howto100m.videos(
            listed, texts, features=features, audio=audio, report=conversion.report
        )
        vectors, recipe = conversion.vectors(), conversion.recipe(min_time=min_time)
        store = conversion.store("howto100m", vectors, recipe, grown=True)
        with counting(found, "videos") as counted:
            howto100m.write_videos(counted, store, held_out)
    conversion.print_contents()
    conversion.print_incomplete()
    conversion.check_left_out()


def _held_out(
    listed: Sequence[str], shares: "HeldOut", is_there: Callable[[str], bool]
) -> "HeldOut":
    """The videos held out: shares, but at least one each; those added for that are printed."""
    paths = {PurePosixPath(path).name: path for path in listed}
    held_out = shares.among(paths, usable=lambda name: is_there(paths[name]))
    for name, split in held_out.named.items():
        terminal.out.print(f"held out for {SPLITS[split]}, so that there is one: {printable(name)}")
    return held_out


@convert.command()
@click.argument("annotations", type=A_PATH)
@click.option("--tasks", type=A_PATH, required=True, help="tasks_primary.txt.")
@click.option("--videos", type=A_PATH, required=True, help="videos_val.csv.")
@click.option("--features", type=A_PATH, required=True, help="Folder of ID_2d.npz and ID_3d.npz.")
@click.option("--audio", type=A_PATH, help="Folder of ID_spec.npz, if another.")
@published(to_data_folder_option)
def crosstask(
    annotations: Path,
    tasks: Path,
    videos: Path,
    features: Path,
    audio: Path | None,
    target: Path | None,
    **how: Any,
) -> None:
    """CrossTask: ANNOTATIONS is the folder of TASK_ID.csv. Always a store, all of it for testing.

    Every second of a video is an item, and every step of a task. When which step is shown goes
    into TARGET.steps.csv, and a [[protocol]] for scenarios is printed.
    """
    from continual_mm.cli.progress import counting
    from continual_mm.preparation.formats import crosstask

    place = target or published_folder("crosstask")
    _check_folder(place, "CrossTask")
    steps = steps_of(place)
    with Conversion(place, **how) as conversion:
        check_new(steps)
        vectors, recipe = conversion.vectors(), conversion.recipe(audio_frames=1024)
        listed = crosstask.read_videos(videos)
        named = {task for task, _ in listed}
        known = {name: one for name, one in crosstask.read_tasks(tasks).items() if name in named}
        known = crosstask.with_known_words(known, vectors, recipe, conversion.report)
        found = crosstask.videos(
            listed, known, annotations, features=features, audio=audio, report=conversion.report
        )
        store = conversion.store("crosstask", vectors, recipe)
        with counting(found, "videos") as counted:
            crosstask.write_step_videos(counted, known, store)
    conversion.print_contents()
    terminal.out.print(f"when which step is shown: {steps}; for a scenario:\n")
    terminal.out.print(_steps_protocol(target, steps))
    conversion.check_left_out(videos=len({video for _, video in listed}))


def _steps_protocol(target: Path | None, steps: Path) -> str:
    """A table to paste; what lies in the data folder is found by its name."""
    dataset = "crosstask" if target is None else str(target.absolute())
    lines = [
        "[[protocol]]",
        'name = "crosstask"',
        'kind = "steps"',
        f"dataset = {json.dumps(dataset, ensure_ascii=False)}",
        'query = ["text"]',
        'gallery = ["video", "audio"]',
    ]
    if target is not None:
        annotations = json.dumps(str(steps.absolute()), ensure_ascii=False)
        lines.append(f"annotations = {annotations}")
    return "\n".join(lines)


def _check_folder(target: Path, name: str) -> None:
    if target.suffix == ".npz":
        problem, remedy = "is the name of a pack", f"{name} becomes a store: name a folder"
        raise InputError(Problem(str(target), problem, remedy))


def _clips(name: str, train_form: str, test_form: str, description: str) -> click.Command:
    """The command of a format of short clips in pickles, one for each split."""

    @click.command(name, help=description, short_help=description.split(".")[0] + ".")
    @click.option("--train", type=A_PATH, help="The pickle of training clips.")
    @click.option("--test", type=A_PATH, help="The pickle of test clips.")
    @validation_option
    @published(to_data_folder_option)
    def command(
        train: Path | None, test: Path | None, target: Path | None, validation: float, **how: Any
    ) -> None:
        from continual_mm.preparation.formats import clip_pickles

        forms = ((train, train_form, 0), (test, test_form, 2))
        given = [(path, getattr(clip_pickles, form), split) for path, form, split in forms if path]
        if not given:
            raise InputError(Problem(name, "there is nothing to read", "give --train or --test"))
        with Conversion(target or published_folder(name), **how) as conversion:
            vectors, recipe = conversion.vectors(), conversion.recipe()
            opened = [
                clip_pickles.open_clips(path, form, split=split) for path, form, split in given
            ]
            records = (
                record
                for one in opened
                for record in one.records(vectors, recipe, report=conversion.report)
            )
            conversion.write_clips(
                records,
                provenance=conversion.provenance(name, vectors, recipe),
                validation=validation if train else 0.0,
                frames=max(one.form.audio_frames for one in opened),
            )
        conversion.print_contents()
        conversion.print_incomplete()
        for one in opened:
            if one.misses:
                terminal.out.print(
                    f"{one.path}: {one.misses} of {one.expected:,} clips are not there; set"
                    f" expected = {one.expected} in a protocol, and they count as missed"
                )
        conversion.check_left_out()

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


def _actions(name: str) -> click.Command:
    """The command of a format of clips with a class each."""
    description = f"{name}'s clips. Class names are test items of their own, of text alone."

    @click.command(name.lower(), help=description, short_help=description.split(".")[0] + ".")
    @click.argument("file", type=A_PATH)
    @validation_option
    @published(to_data_folder_option)
    def command(file: Path, target: Path | None, validation: float, **how: Any) -> None:
        from continual_mm.preparation.formats import clip_pickles

        with Conversion(target or published_folder(name.lower()), **how) as conversion:
            opened = clip_pickles.open_actions(file, getattr(clip_pickles, name))
            vectors, recipe = conversion.vectors(), conversion.recipe()
            records = opened.records(vectors, recipe, report=conversion.report)
            provenance = conversion.provenance(name.lower(), vectors, recipe)
            conversion.write_clips(records, provenance=provenance, validation=validation)
        conversion.print_contents()
        conversion.check_left_out()

    return command


for dataset in ("UCF101", "HMDB51"):
    convert.add_command(_actions(dataset))


@convert.command()
@click.argument("folder", type=A_PATH)
@to_option
@dtype_option
@skip_option
def clips(folder: Path, target: Path, **how: Any) -> None:
    """Clips in FOLDER, which `data extract` wrote."""
    from continual_mm.preparation.extraction import records

    with Conversion(target, **how) as conversion:
        contents = records.contents(folder)
        kinds = {name: one.kind for name, one in contents.items()}
        conversion.write(records.records(folder), kinds, source=str(folder))
    conversion.print_contents()
    for name, one in contents.items():
        terminal.out.print(f"{name}: {one.description}")
    conversion.check_left_out()
