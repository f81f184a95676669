"""One conversion as a command sees it: what is left out, and how it ends."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from continual_mm.cli import terminal
from continual_mm.system.errors import InputError, Problem

if TYPE_CHECKING:
    from continual_mm.preparation.formats.recipe import Mode
    from continual_mm.preparation.formats.records import DType

SHOWN = 5
"""Problems about what was left out that are shown; the file has all."""

NOTHING: Mapping[str, int] = MappingProxyType({})

_INTERRUPTED = 130
_TEST = 2


def check_new(target: Path) -> None:
    """Refuse a target that is there."""
    if target.exists() or target.is_symlink():
        remedy = "remove it, or choose another name"
        raise InputError(Problem(str(target), "is there already", remedy))


class Conversion:
    """A conversion, around whose work this is a ``with`` block.

    What it leaves out is shown in part, and written into a file beside the target. Errors of the
    disk become refusals. Nothing is left of the target unless all went well; its writers see to it.

    Args:
        target: Where to; nothing may be there.
        dtype: In which features are stored.
        skip: Whether what cannot be read is left out.
        vectors: The file of word vectors, for formats that need one.
        reference: Whether the mistakes of the published programs are kept.

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
        if target.name in ("", ".."):
            raise InputError(Problem("--to", f"'{target}' names nothing new", "give a name"))
        check_new(target)
        self.target, self.dtype = target, dtype
        from continual_mm.preparation.formats.recipe import Report

        self.report: Report = Report(skip=skip)
        self.problems: list[Problem] | None = self.report.skipped if skip else None
        self._vectors = vectors
        self._mode: Mode = "reference" if reference else "robust"

    def vectors(self) -> Any:
        """The word vectors, opened."""
        from continual_mm.preparation.formats.word_vectors import open_vectors

        if self._vectors is None:
            raise InputError(Problem("--vectors", "is missing", "give a file of word vectors"))
        return open_vectors(self._vectors)

    def recipe(self, **given: Any) -> Any:
        """How the files are read; ``given`` is what the command decides of it."""
        from continual_mm.preparation.formats.recipe import Recipe

        return Recipe(mode=self._mode, **given)

    def provenance(self, reader: str, vectors: Any, recipe: Any, *, grown: bool = False) -> Any:
        """What the target keeps of how it came about.

        Args:
            reader: The name of the format.
            vectors: Of words.
            recipe: How the files are read.
            grown: Whether clips grow to the recipe's time.
        """
        from continual_mm.definitions.modality import Provenance
        from continual_mm.preparation.formats.word_vectors import digest_of

        return Provenance(
            reader=reader,
            mode=recipe.mode,
            vectors=digest_of(vectors),
            max_words=recipe.max_words,
            min_time=recipe.min_time if grown else None,
        )

    def store(self, reader: str, vectors: Any, recipe: Any, *, grown: bool = False) -> Any:
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
        self, records: Any, *, provenance: Any, validation: float, frames: int = 1
    ) -> None:
        """Write published clips, a share of those for training held out.

        Args:
            records: Any number.
            provenance: How they were read.
            validation: The share.
            frames: Of sound, that the published program fills clips up to; as a reference has it.
        """
        from continual_mm.data.splits import HeldOut
        from continual_mm.preparation.formats.records import KINDS, without_padding

        dealt = HeldOut(validation=validation).assigned(without_padding(records))
        filled = {"audio": frames} if self.recipe().reference else {}
        self.write(
            dealt,
            KINDS,
            source=str(self.target),
            unit="clips",
            filled=filled,
            provenance=provenance,
        )

    def write(
        self,
        records: Any,
        kinds: Any,
        *,
        source: str,
        unit: str,
        filled: Any = NOTHING,
        provenance: Any = None,
    ) -> None:
        """Write records whose modalities are of these kinds.

        Args:
            records: Any number.
            kinds: By modality.
            source: What to call them in problems.
            unit: What they are called while they are counted.
            filled: Modality -> time that its items are filled up to in reference mode.
            provenance: How published files were read, if they were.
        """
        from continual_mm.cli.progress import counting
        from continual_mm.preparation.formats.records import layout_of, write

        layout, given = layout_of(records, kinds, source, filled=filled)
        with counting(given, unit) as counted:
            write(
                counted,
                self.target,
                layout=layout,
                dtype=self.dtype,
                left_out=self.problems,
                provenance=provenance,
            )

    def tell(self) -> None:
        """Say what was made."""
        # As a path: a folder may be called like a dataset that is known by name.
        from continual_mm.data import registry

        card = registry.card(str(self.target.absolute()), splits=())
        training, validation, test = card.items
        terminal.out.print(
            f"{self.target}: {training:,} training, {validation:,} validation and {test:,} test"
            f" items with {', '.join(card.names)}"
        )
        terminal.out.print(f"look at it: continual-mm data inspect {self.target}")

    def tell_lacking(self) -> None:
        """Say how many test items lack text or sound, which no question can find then."""
        from continual_mm.data.registry import load

        dataset = load(str(self.target.absolute()), standardise=False, splits=())
        test = dataset.split == _TEST
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

    def end(self, *, videos: int | None = None) -> None:
        """End with an error if more was left out than kept: something is wrong with the files.

        Args:
            videos: How many there were to read, where the report counts more than videos.
        """
        from continual_mm.preparation.formats.records import balance

        kept, left_out = balance(self.target, self.report, videos=videos)
        if left_out > kept:
            raise _MostlyLeftOutError(self.target, left_out, left_out + kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.report.skipped:
            self._tell_left_out(self.report.skipped)
        if isinstance(error, KeyboardInterrupt):
            raise StoppedError(f"nothing is left of {self.target}") from error
        if isinstance(error, OSError):
            place = str(error.filename or self.target)
            problem = f"cannot be read or written: {error.strerror or error}"
            raise InputError(Problem(place, problem)) from error

    def _tell_left_out(self, found: list[Problem]) -> None:
        file = _list_of(self.target)
        listed = f"listed in {file}"
        try:
            from continual_mm.preparation.formats.records import write_left_out

            write_left_out(found, file)
        except OSError as error:
            listed = f"but {file} cannot be written: {error.strerror or error}"
        for problem in found[:SHOWN]:
            terminal.err.print(f"left out: {' '.join(str(problem).splitlines())}")
        terminal.err.print(f"left out: {len(found):,} in all, {listed}")


def _list_of(target: Path) -> Path:
    """Where what was left out is listed."""
    return target.with_name(f"{target.name}.left-out.csv")


class StoppedError(click.ClickException):
    """Ctrl-C.

    Args:
        left: What is left.
    """

    exit_code = _INTERRUPTED

    def __init__(self, left: str) -> None:
        super().__init__(f"stopped; {left}")

    def show(self, file: Any = None) -> None:
        """Say so in one line."""
        terminal.err.print(f"continual-mm: {self.message}")


class _MostlyLeftOutError(click.ClickException):
    exit_code = 1

    def __init__(self, target: Path, left_out: int, given: int) -> None:
        super().__init__(
            f"more than half was left out: {left_out:,} of {given:,}, see {_list_of(target)}"
        )

    show = StoppedError.show
