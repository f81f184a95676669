"""What all commands of ``data convert`` do: check the target, write, report what was left out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from continual_mm.cli import terminal
from continual_mm.definitions.modality import SPLITS, Kind, Provenance
from continual_mm.system.errors import SHOWN, InputError, Problem

if TYPE_CHECKING:
    from continual_mm.data.schema import Record
    from continual_mm.preparation.formats.recipe import Mode, Recipe
    from continual_mm.preparation.formats.records import DType, VideoStore
    from continual_mm.preparation.formats.word_vectors import WordVectors

NOTHING: Mapping[str, int] = MappingProxyType({})


def check_new(target: Path) -> None:
    """Refuse a target that is there."""
    if target.exists() or target.is_symlink():
        remedy = "remove it, or choose another name"
        raise InputError(Problem(str(target), "is there already", remedy))


class Conversion:
    """A conversion, as a context manager around its work.

    At the end the first records that were left out are printed, and all are listed in a file beside
    the target. An OSError becomes an InputError. The target is written whole or not at all.

    Args:
        target: The new pack or store.
        dtype: Of the stored features.
        skip: Whether records that cannot be read are left out.
        vectors: The file of word vectors, for formats that need one.
        reference: Whether files are read with the mistakes of the published programs.

    Raises:
        InputError: If the target has no name, or is there.
    """

    def __init__(
        self,
        target: Path,
        *,
        dtype: "DType",
        skip: bool,
        vectors: Path | None = None,
        reference: bool = False,
    ) -> None:
        from continual_mm.preparation.formats.recipe import Report

        if target.name in ("", ".."):
            raise InputError(Problem("--to", f"'{target}' names nothing new", "give a name"))
        check_new(target)
        self.target, self.dtype = target, dtype
        self.report = Report(skip=skip)
        self.problems = self.report.skipped if skip else None
        self._vectors = vectors
        self._mode: Mode = "reference" if reference else "robust"

    def vectors(self) -> "WordVectors":
        """Open the word vectors."""
        from continual_mm.preparation.formats.word_vectors import open_vectors

        if self._vectors is None:
            raise InputError(Problem("--vectors", "is missing", "give a file of word vectors"))
        return open_vectors(self._vectors)

    def recipe(self, **given: Any) -> "Recipe":
        """How the files are read; ``given`` are fields that the command sets."""
        from continual_mm.preparation.formats.recipe import Recipe

        return Recipe(mode=self._mode, **given)

    def provenance(
        self, reader: str, vectors: "WordVectors", recipe: "Recipe", *, grown: bool = False
    ) -> Provenance:
        """What the target records about its conversion.

        Args:
            reader: The name of the format.
            vectors: Its texts are made of these.
            recipe: How the files are read.
            grown: Whether clips grow to the recipe's ``min_time``.
        """
        from continual_mm.preparation.formats.word_vectors import digest_of

        return Provenance(
            reader=reader,
            mode=recipe.mode,
            vectors=digest_of(vectors),
            max_words=recipe.max_words,
            min_time=recipe.min_time if grown else None,
        )

    def store(
        self, reader: str, vectors: "WordVectors", recipe: "Recipe", *, grown: bool = False
    ) -> "VideoStore":
        """The store of long videos that the target becomes; arguments as of :meth:`provenance`."""
        from continual_mm.preparation.formats.records import VideoStore

        return VideoStore(
            folder=self.target,
            vectors=vectors,
            recipe=recipe,
            dtype=self.dtype,
            left_out=self.problems,
            provenance=self.provenance(reader, vectors, recipe, grown=grown),
        )

    def write_clips(
        self,
        records: "Iterable[Record]",
        *,
        provenance: Provenance,
        validation: float,
        frames: int = 1,
    ) -> None:
        """Write published clips, a share of the training clips held out for validation.

        Args:
            records: The clips.
            provenance: How they were read.
            validation: The share.
            frames: Length of audio that the published program pads clips to; in reference mode.
        """
        from continual_mm.data.splits import HeldOut
        from continual_mm.preparation.formats.records import KINDS, without_padding

        split = HeldOut(validation=validation).assigned(without_padding(records))
        filled = {"audio": frames} if self._mode == "reference" else NOTHING
        self.write(split, KINDS, source=str(self.target), filled=filled, provenance=provenance)

    def write(
        self,
        records: "Iterable[Record]",
        kinds: Mapping[str, Kind],
        *,
        source: str,
        filled: Mapping[str, int] = NOTHING,
        provenance: Provenance | None = None,
    ) -> None:
        """Write clips, counting them on a terminal.

        Args:
            records: The clips.
            kinds: Modality -> its kind.
            source: What to call them in problems.
            filled: Modality -> time that its items are padded to.
            provenance: How published files were read, if they were.
        """
        from continual_mm.cli.progress import counting
        from continual_mm.preparation.formats.records import layout_of, write

        layout, given = layout_of(records, kinds, source, filled=filled)
        with counting(given, "clips") as counted:
            write(
                counted,
                self.target,
                layout=layout,
                dtype=self.dtype,
                left_out=self.problems,
                provenance=provenance,
            )

    def print_contents(self) -> None:
        """Print what the target holds."""
        from continual_mm.data import registry

        # As a path: a folder may be called like a dataset that is known by name.
        card = registry.card(str(self.target.absolute()), splits=())
        training, validation, test = card.items
        terminal.out.print(
            f"{self.target}: {training:,} training, {validation:,} validation and {test:,} test"
            f" items with {', '.join(card.names)}"
        )
        terminal.out.print(f"look at it: continual-mm data inspect {self.target}")

    def print_incomplete(self) -> None:
        """Print how many test items lack text or audio and cannot be retrieved by it."""
        from continual_mm.data.registry import load

        dataset = load(str(self.target.absolute()), standardise=False, splits=())
        test = dataset.split == SPLITS.index("test")
        lacking = [
            f"{count:,} lack {name}"
            for name, column in dataset.columns.items()
            if name in ("text", "audio") and (count := int((test & ~column.present).sum()))
        ]
        if lacking:
            terminal.out.print(
                f"of {int(test.sum()):,} test items {' and '.join(lacking)}: retrieval counts"
                " them as missed where a protocol has `expected` ones"
            )

    def check_left_out(self, *, videos: int | None = None) -> None:
        """Exit with code 1 if more was left out than kept: something is wrong with the files.

        Args:
            videos: How many there were to read, where the report counts more than videos.
        """
        from continual_mm.preparation.formats.records import balance

        kept, left_out = balance(self.target, self.report, videos=videos)
        if left_out > kept:
            share = f"{left_out:,} of {left_out + kept:,}"
            message = f"more than half was left out: {share}, see {self._list}"
            raise terminal.EndedError(message, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.report.skipped:
            self._print_left_out(self.report.skipped)
        if isinstance(error, KeyboardInterrupt):
            message = f"stopped; nothing is left of {self.target}"
            raise terminal.EndedError(message, terminal.INTERRUPTED) from error
        if isinstance(error, OSError):
            place = str(error.filename or self.target)
            problem = f"cannot be read or written: {error.strerror or error}"
            raise InputError(Problem(place, problem)) from error

    @property
    def _list(self) -> Path:
        """Where everything that was left out is listed."""
        return self.target.with_name(f"{self.target.name}.left-out.csv")

    def _print_left_out(self, found: list[Problem]) -> None:
        from continual_mm.preparation.formats.records import write_left_out

        listed = f"listed in {self._list}"
        try:
            write_left_out(found, self._list)
        except OSError as error:
            listed = f"but {self._list} cannot be written: {error.strerror or error}"
        for problem in found[:SHOWN]:
            terminal.err.print(f"left out: {' '.join(str(problem).splitlines())}")
        terminal.err.print(f"left out: {len(found):,} in all, {listed}")
