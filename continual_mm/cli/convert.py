"""Commands that turn published files, and extracted clips, into packs and stores."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import click

from continual_mm.cli import terminal
from continual_mm.cli.options import A_PATH, NEW_PATH, FiniteRange, column_option, columns_of
from continual_mm.data.cards import published_folder, steps_of
from continual_mm.definitions.modality import SPLITS, Kind, Modality, Provenance
from continual_mm.system.errors import SHOWN, InputError, Problems, printable
from continual_mm.system.files import check_target

if TYPE_CHECKING:
    from continual_mm.data.schema import Record
    from continual_mm.preparation.formats.recipe import Mode, Recipe
    from continual_mm.preparation.formats.records import DType, VideoStore
    from continual_mm.preparation.formats.word_vectors import WordVectors

_Command = TypeVar("_Command", bound=Callable[..., Any])
A_SHARE = FiniteRange(min=0.0, max=1.0, max_open=True)
KINDS = {"video": Kind.VECTOR, "audio": Kind.SPECTROGRAM, "text": Kind.TOKENS}
"""The kinds of signal in published clips."""

_NEW = "A new folder for a store, or an .npz file for a pack."

to_option = click.option("--to", "target", type=NEW_PATH, required=True, help=_NEW)
to_data_folder_option = click.option(
    "--to",
    "target",
    type=NEW_PATH,
    help=f"{_NEW} If left out: where scenarios look for the dataset by its name.",
)
skip_option = click.option(
    "--skip", is_flag=True, help="Leave out what cannot be read, and list it beside the target."
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(("float16", "float32")),
    default="float16",
    help="In which features are stored.",
)
vectors_option = click.option(
    "--vectors",
    type=A_PATH,
    required=True,
    help="Word vectors: word2vec's .bin or .bin.gz, or a text file (GloVe, gensim).",
)
reference_option = click.option(
    "--reference", is_flag=True, help="As the published programs read it, mistakes included."
)
validation_option = click.option(
    "--validation",
    type=A_SHARE,
    default=0.1,
    help="Share of the training videos that is held out for validation.",
)
test_option = click.option(
    "--test",
    type=A_SHARE,
    default=0.1,
    help="Share of the training items that is held out to test.",
)


def published(command: _Command) -> _Command:
    """Options of every published format, in the order of its help."""
    options = (skip_option, dtype_option, reference_option, vectors_option, to_data_folder_option)
    for option in options:
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Conversion:
    """What files are converted to, and how; ``left_out`` is None if nothing may be left out."""

    target: Path
    dtype: "DType"
    left_out: Problems | None
    vectors: Path
    mode: "Mode"

    def reading(
        self, name: str, *, grown: bool = False, **settings: Any
    ) -> "tuple[WordVectors, Recipe, Provenance]":
        """How files of a format are read, by recipe settings, and what the target records of it."""
        from continual_mm.preparation.formats.recipe import Recipe
        from continual_mm.preparation.formats.word_vectors import digest_of, open_vectors

        vectors, recipe = open_vectors(self.vectors), Recipe(mode=self.mode, **settings)
        provenance = Provenance(
            reader=name,
            mode=recipe.mode,
            vectors=digest_of(vectors),
            max_words=recipe.max_words,
            min_time=recipe.min_time if grown else None,
        )
        return vectors, recipe, provenance

    def store(self, name: str, *, grown: bool = False, **settings: Any) -> "VideoStore":
        """The store of long videos that the target becomes; arguments as of :meth:`reading`."""
        from continual_mm.preparation.formats.records import VideoStore

        vectors, recipe, provenance = self.reading(name, grown=grown, **settings)
        return VideoStore(
            folder=self.target,
            vectors=vectors,
            recipe=recipe,
            dtype=self.dtype,
            left_out=self.left_out,
            provenance=provenance,
        )

    def write(
        self,
        records: "Iterable[Record]",
        expected: Mapping[str, Kind] | Sequence[Modality],
        *,
        validation: float = 0.0,
        frames: int = 1,
        provenance: Provenance | None = None,
    ) -> None:
        """Write clips, some held out for validation; ``reference`` pads audio to ``frames``."""
        from continual_mm.cli.progress import counting
        from continual_mm.data.splits import HeldOut
        from continual_mm.preparation.formats.records import write

        with counting(HeldOut(validation=validation).assigned(records), "clips") as counted:
            write(
                counted,
                self.target,
                expected,
                dtype=self.dtype,
                left_out=self.left_out,
                audio_frames=frames if self.mode == "reference" else 1,
                provenance=provenance,
            )

    def finish(self, *lines: str, videos: int | None = None) -> None:
        """Print what the target holds; code 1 if most ``videos``, or else items, were left out."""
        from continual_mm.data import registry
        from continual_mm.data.store.form import read_form

        # As a path: a folder may be called like a dataset that is known by name.
        card = registry.card(str(self.target.absolute()), splits=())
        training, validation, test = card.items
        terminal.out.print(
            f"{self.target}: {training:,} training, {validation:,} validation and {test:,} test"
            f" items with {', '.join(card.names)}"
        )
        for line in (f"look at it: continual-mm data inspect {self.target}", *lines):
            terminal.out.print(line)
        kept, left_out = sum(card.items), len(self.left_out or ())
        if videos is not None:
            kept = sum(shard.rows for shard in read_form(self.target).tables["recordings"])
            left_out = videos - kept
        if left_out > kept:
            share = f"{left_out:,} of {left_out + kept:,}"
            message = f"more than half was left out: {share}, see {_list_beside(self.target)}"
            raise terminal.EndedError(message, 1)


@contextmanager
def converting(
    target: Path,
    *,
    dtype: "DType",
    skip: bool,
    vectors: Path = Path(),
    reference: bool = False,
) -> Iterator[Conversion]:
    """A block that writes a new pack or store, which is complete at its end or not there.

    With ``skip``, what cannot be read is left out, listed in a file beside the target, and the
    first of it printed. An OSError becomes an InputError.
    """
    if target.name in ("", ".."):
        raise InputError.at("--to", f"'{target}' names nothing new", "give a name")
    _check_new(target)
    left_out = Problems() if skip else None
    mode: Mode = "reference" if reference else "robust"
    try:
        with terminal.stoppable(f"nothing is left of {target}"):
            yield Conversion(target, dtype, left_out, vectors, mode)
    except OSError as error:
        place = str(error.filename or target)
        problem = f"cannot be read or written: {error.strerror or error}"
        raise InputError.at(place, problem) from error
    finally:
        if left_out:
            _print_left_out(left_out, _list_beside(target))


def _check_new(target: Path) -> None:
    check_target(target)
    if target.exists() or target.is_symlink():
        raise InputError.at(target, "is there already", "remove it, or choose another name")


def _check_folder(target: Path, name: str) -> None:
    if target.suffix == ".npz":
        problem, remedy = "is the name of a pack", f"{name} becomes a store: name a folder"
        raise InputError.at(target, problem, remedy)


def _list_beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.left-out.csv")


def _print_left_out(found: Problems, path: Path) -> None:
    from continual_mm.preparation.formats.records import write_left_out

    listed = f"listed in {path}"
    try:
        write_left_out(found, path)
    except OSError as error:
        listed = f"but {path} cannot be written: {error.strerror or error}"
    for problem in found[:SHOWN]:
        terminal.err.print(f"left out: {' '.join(str(problem).splitlines())}")
    terminal.err.print(f"left out: {len(found):,} in all, {listed}")


def _incomplete(target: Path) -> Iterator[str]:
    """How many test items lack text or audio and cannot be retrieved by it."""
    from continual_mm.data.registry import load

    dataset = load(str(target.absolute()), standardise=False, splits=())
    test = dataset.split == SPLITS.index("test")
    lacking = [
        f"{count:,} lack {name}"
        for name, column in dataset.columns.items()
        if name in ("text", "audio") and (count := int((test & ~column.present).sum()))
    ]
    if lacking:
        yield (
            f"of {int(test.sum()):,} test items {' and '.join(lacking)}: retrieval counts"
            " them as missed where a protocol has `expected` ones"
        )


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
    type=FiniteRange(min=0.0, max=1e6),
    default=10.0,
    help="Seconds up to which a clip takes in the captions around its own.",
)
@click.option("--validation", type=A_SHARE, default=0.001)
@click.option("--test", type=A_SHARE, default=0.001)
@column_option
@published
def howto100m(
    paths: Path,
    captions: Path,
    features: Path,
    audio: Path | None,
    target: Path | None,
    min_time: float,
    columns: tuple[str, ...],
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
    with converting(target, **how) as conversion:
        listed = howto100m.read_list(paths, columns_of(columns))
        texts = howto100m.CaptionFile(captions)
        folders = {"features": features, "audio": audio or features}
        by_name = {PurePosixPath(path).name: path for path in listed}
        held_out = shares.among(
            by_name, usable=lambda name: howto100m.is_there(by_name[name], texts, **folders)
        )
        for name, split in held_out.named.items():
            added = f"held out for {SPLITS[split]}, so that there is one: {printable(name)}"
            terminal.out.print(added)
        store = conversion.store("howto100m", grown=True, min_time=min_time)
        found = howto100m.videos(listed, texts, **folders, left_out=conversion.left_out)
        with counting(found, "videos") as counted:
            howto100m.write_videos(counted, store, held_out)
    conversion.finish(*_incomplete(target), videos=len(listed))


@convert.command()
@click.argument("annotations", type=A_PATH)
@click.option("--tasks", type=A_PATH, required=True, help="tasks_primary.txt.")
@click.option("--videos", type=A_PATH, required=True, help="videos_val.csv.")
@click.option("--features", type=A_PATH, required=True, help="Folder of ID_2d.npz and ID_3d.npz.")
@click.option("--audio", type=A_PATH, help="Folder of ID_spec.npz, if another.")
@published
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
    with converting(place, **how) as conversion:
        _check_new(steps)
        left_out = conversion.left_out
        store = conversion.store("crosstask", audio_frames=1024)
        listed = crosstask.read_videos(videos)
        named = {task for task, _ in listed}
        known = {name: one for name, one in crosstask.read_tasks(tasks).items() if name in named}
        known = crosstask.with_known_words(known, store, left_out)
        found = crosstask.videos(
            listed, known, annotations, features=features, audio=audio, left_out=left_out
        )
        with counting(found, "videos") as counted:
            crosstask.write_step_videos(counted, known, store)
    conversion.finish(
        f"when which step is shown: {steps}; for a scenario:\n",
        _steps_protocol(target, steps),
        videos=len({video for _, video in listed}),
    )


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


def _clips(name: str, train_form: str, test_form: str, description: str) -> click.Command:
    """The command of a format of short clips in pickles, one for each split."""

    @click.command(name, help=description, short_help=description.split(".")[0] + ".")
    @click.option("--train", type=A_PATH, help="The pickle of training clips.")
    @click.option("--test", type=A_PATH, help="The pickle of test clips.")
    @validation_option
    @published
    def command(
        train: Path | None, test: Path | None, target: Path | None, validation: float, **how: Any
    ) -> None:
        from continual_mm.preparation.formats import clip_pickles

        forms = ((train, train_form, 0), (test, test_form, 2))
        given = [(path, getattr(clip_pickles, form), split) for path, form, split in forms if path]
        if not given:
            raise InputError.at(name, "there is nothing to read", "give --train or --test")
        target = target or published_folder(name)
        with converting(target, **how) as conversion:
            vectors, recipe, provenance = conversion.reading(name)
            opened = [clip_pickles.ClipFile(path, form, split=split) for path, form, split in given]
            records = (one.records(vectors, recipe, conversion.left_out) for one in opened)
            conversion.write(
                chain.from_iterable(records),
                KINDS,
                validation=validation if train else 0.0,
                frames=max(one.form.audio_frames for one in opened),
                provenance=provenance,
            )
        misses = (
            f"{one.path}: {one.misses} of {one.expected:,} clips are not there; set"
            f" expected = {one.expected} in a protocol, and they count as missed"
            for one in opened
            if one.misses
        )
        conversion.finish(*_incomplete(target), *misses)

    return command


def _actions(name: str) -> click.Command:
    """The command of a format of clips with a class each."""
    description = f"{name}'s clips. Class names are test items of their own, of text alone."

    @click.command(name.lower(), help=description, short_help=description.split(".")[0] + ".")
    @click.argument("file", type=A_PATH)
    @validation_option
    @published
    def command(file: Path, target: Path | None, validation: float, **how: Any) -> None:
        from continual_mm.preparation.formats import clip_pickles

        with converting(target or published_folder(name.lower()), **how) as conversion:
            opened = clip_pickles.ActionFile(file, getattr(clip_pickles, name))
            vectors, recipe, provenance = conversion.reading(name.lower())
            records = opened.records(vectors, recipe, conversion.left_out)
            conversion.write(records, KINDS, validation=validation, provenance=provenance)
        conversion.finish()

    return command


def _hsa(name: str) -> click.Command:
    """The command of Hub-Spectral Activation's features of one backbone."""
    backbone = name.removeprefix("hsa_")
    described = {"languagebind": "LanguageBind", "imagebind": "ImageBind"}[backbone]
    text = (
        f"{described}'s features of pairs (UCF101, NYUv2, VGGSound, MSR-VTT and others). SOURCE is"
        " the folder of Rowance/HSA-features, which is downloaded if left out; its licences are"
        " those of the datasets, most of them non-commercial. Training rows pair every modality"
        " with the hub, and shares of them are held out. Test rows pair two others, which are never"
        " trained together; a share of them is held out for validation."
    )

    @click.command(name, help=text, short_help=text.split(". ")[0] + ".")
    @click.argument("source", default="hf:Rowance/HSA-features")
    @click.option("--relation", multiple=True, help="As image-video; all, if left out.")
    @validation_option
    @test_option
    @to_data_folder_option
    @dtype_option
    def command(
        source: str,
        relation: tuple[str, ...],
        target: Path | None,
        validation: float,
        test: float,
        dtype: "DType",
    ) -> None:
        from continual_mm.preparation.formats import hsa
        from continual_mm.preparation.formats.hub import fetched

        with converting(target or published_folder(name), dtype=dtype, skip=False) as conversion:
            folder = fetched(source, hsa.patterns(backbone, relation))
            for sentence in hsa.unread(folder, backbone):
                terminal.err.print(sentence)
            found = hsa.relations(folder, backbone, relation)
            records = hsa.records(found, validation=validation, test=test)
            conversion.write(records, hsa.layout(found))
        conversion.finish(*(f"{one.name}: {one.path}" for one in found))

    return command


def _arrays(name: str, source: str, modalities: tuple[str, ...], text: str) -> click.Command:
    """The command of features that lie in a file for each item; ``name`` is the dataset's."""

    @click.command(name, help=text, short_help=text.split(". ")[0] + ".")
    @click.argument("source", default=source or None, required=not source)
    @click.option("--modality", multiple=True, default=modalities, required=not modalities)
    @validation_option
    @test_option
    @(to_data_folder_option if source else to_option)
    @dtype_option
    @skip_option
    def command(
        source: str,
        modality: tuple[str, ...],
        target: Path | None,
        validation: float,
        test: float,
        **how: Any,
    ) -> None:
        from continual_mm.data.splits import HeldOut
        from continual_mm.preparation.formats import arrays
        from continual_mm.preparation.formats.hub import fetched

        modality = tuple(dict.fromkeys(modality))
        with converting(target or published_folder(name), **how) as conversion:
            folder = fetched(source, arrays.patterns(modality))
            items = arrays.files(folder, modality)
            split_of = arrays.splits(items, folder, msrvtt=name == "msrvtt_imagebind")
            given = set(split_of.values())
            shares = HeldOut(
                validation=0.0 if 1 in given else validation, test=0.0 if 2 in given else test
            ).among([item for item, split in split_of.items() if split == 0])
            layout = arrays.layout(items, modality)
            records = arrays.records(items, split_of, layout, conversion.left_out)
            conversion.write(shares.assigned(records), layout)
        conversion.finish(*arrays.notes(folder, modality, split_of))

    return command


for _command in (
    _hsa("hsa_languagebind"),
    _hsa("hsa_imagebind"),
    _arrays(
        "msrvtt_imagebind",
        "hf:RichyHu999/msrvtt-imagebind-features",
        ("video", "audio"),
        "ImageBind's features of MSR-VTT's clips. SOURCE is the folder of"
        " RichyHu999/msrvtt-imagebind-features, which is downloaded if left out. It is read as by"
        " `arrays`, which is an assumption: its layout could not be looked up.",
    ),
    _arrays(
        "arrays",
        "",
        (),
        "A folder for each modality, an .npy for each item. SOURCE holds MODALITY/ITEM.npy, at any"
        " depth, or is hf:owner/name. Folders that are called train, val or test are splits.",
    ),
    _clips(
        "youcook2",
        *("YOUCOOK2", "YOUCOOK2"),
        "YouCook2's clips. The pickles are youcook_train_audio.pkl and youcook_val_audio.pkl;"
        " validation clips are held out of the training videos.",
    ),
    _clips(
        "msrvtt",
        *("MSRVTT_TRAIN", "MSRVTT_TEST"),
        "MSR-VTT's clips. The pickles are msrvtt_train.pkl and msrvtt_jsfusion_test.pkl, which has"
        " 968 of the 1,000 clips of the test.",
    ),
    _clips("lsmdc", "LSMDC", "LSMDC", "LSMDC's clips. One pickle for training, one for testing."),
    _actions("UCF101"),
    _actions("HMDB51"),
):
    convert.add_command(_command)


@convert.command()
@click.argument("folder", type=A_PATH)
@to_option
@dtype_option
@skip_option
def clips(folder: Path, target: Path, **how: Any) -> None:
    """Clips in FOLDER, which `data extract` wrote."""
    from continual_mm.data import registry
    from continual_mm.preparation.extraction.clip_files import contents, records

    with converting(target, **how) as conversion:
        modalities = contents(folder)
        kinds = {name: one.kind for name, one in modalities.items()}
        conversion.write(records(folder), kinds)
    there = registry.card(str(target.absolute()), splits=()).names
    conversion.finish(
        *(
            f"{name}: {one.description if name in there else 'left out, since no clip has it'}"
            for name, one in modalities.items()
        )
    )
