"""A joint space as the module of a ``SentenceTransformer``: written there, and loaded again."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, cast
from warnings import warn

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from continual_mm.data.archive import UNREADABLE
from continual_mm.data.batch import padded
from continual_mm.definitions.modality import Modality
from continual_mm.preparation.extraction.sentence_towers import open_encoder
from continual_mm.preparation.extraction.texts import TEXT, Reader
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.space.kinds import rebuilt
from continual_mm.space.space import JointSpace
from continual_mm.space.statistics import Statistics
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, first_line, printable
from continual_mm.system.files import atomic_write, read_json, write_json

FORMAT = 2
FORMATS = (1, FORMAT)  # those that are read
DESCRIPTION, WEIGHTS = "space.json", "model.safetensors"
WORDS, VECTORS, ENCODER = "words.json", "words.npy", "text"
_DAMAGED = (AttributeError, *UNREADABLE)
"""What is raised where a description is not as :meth:`Space.save` writes it."""


class Space(InputModule):
    """The joint space as the one module of a ``SentenceTransformer``.

    An input is one item's features, named by their modality: ``{"video": array}``. Arrays have the
    shape of the dataset's items, of signals in time just the valid steps. Strings are of the
    modality ``text``, where it is known how they became features. A batch has one modality.

    Features are given as an extractor gives them, and standardised as the run's dataset was, as for
    :meth:`~continual_mm.space.space.JointSpace.encode`. Options of ``encode``:
    ``standardised=True`` takes those that are already, ``one_index=True`` multiplies vectors by
    the space's factors, for an index that items of several modalities share.

    Args:
        space: The space.
        reader: How strings become features of the modality ``text``.
    """

    forward_kwargs = frozenset({"standardised", "standardise", "one_index"})

    def __init__(self, space: JointSpace, reader: Reader | None = None) -> None:
        super().__init__()
        self.space = space
        self.reader = reader or Reader()

    @property
    def modalities(self) -> list[str]:
        """Names of all that the space has."""
        return [modality.name for modality in self.space.modalities]

    def get_embedding_dimension(self) -> int:
        """Numbers of a vector."""
        return self.space.size

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        standardised: bool = False,
        standardise: bool | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Make a batch of items of one modality; an InputError says what is no such item."""
        if standardise is not None:
            message = "encode(standardise=True) is the default; give standardised=True for others"
            warn(message, DeprecationWarning, stacklevel=2)
            standardised = not standardise
        names, values = zip(*(_named(one, self.modalities) for one in inputs), strict=True)
        if len(set(names)) > 1:
            problem = f"a batch has {' and '.join(sorted(set(names)))}"
            raise InputError.at("inputs", problem, "encode one modality after another")
        modality = {each.name: each for each in self.space.modalities}[names[0]]
        if any(isinstance(value, str) for value in values):
            values, standardised = self._read(values, prompt or "", modality), False
        items = [_tensor(value, modality) for value in values]
        if not standardised:
            items = [self.space.prepare(modality.name, item[None])[0] for item in items]
        lengths = None
        if modality.kind.has_length:
            lengths = torch.tensor([len(item) for item in items])
            # As long as the dataset's items are, so that every tower sees what it saw there.
            steps = max(modality.shape[0], *map(len, items))
            items = [padded(item[None], steps)[0] for item in items]
        return {"modality": modality.name, "values": torch.stack(items), "lengths": lengths}

    def _read(self, values: Sequence[Any], prompt: str, modality: Modality) -> tuple[Any, ...]:
        texts = [value for value in values if isinstance(value, str)]
        if modality.name != TEXT or len(texts) < len(values):
            problem = f"'{printable(texts[0])}' is a string"
            raise InputError.at(modality.name, problem, f"give features, {_form(modality)}")
        return tuple(self.reader.read([prompt + text for text in texts], modality.shape[0]))

    def forward(
        self, features: dict[str, Any], *, one_index: bool = False, **options: Any
    ) -> dict[str, Any]:
        """A batch with ``sentence_embedding``, (n, size of the space), beside what it had."""
        name, lengths = features["modality"], features["lengths"]
        embedded = self.space(
            {name: features["values"]}, {} if lengths is None else {name: lengths}
        )
        vectors = self.space.vectors(name, embedded[name])
        if one_index:
            vectors = vectors * self.space.factors.get(name, 1.0)
        return {**features, "sentence_embedding": vectors}

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Write tensors as safetensors and ``.npy``, all else as JSON."""
        folder, reader = Path(output_path), self.reader
        tensors = {key: value.detach().cpu() for key, value in self.space.state_dict().items()}
        tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
        with atomic_write(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary)
        if reader.words is not None:
            # The table may be mapped from the file that is written.
            with atomic_write(folder / VECTORS) as temporary, temporary.open("wb") as stream:
                np.save(stream, reader.words.values, allow_pickle=False)
            write_json(folder / WORDS, list(reader.words.rows))
        if reader.model is not None:
            reader.model.save(str(folder / ENCODER), create_model_card=False)
        strings = "encoder" if reader.model else "words" if reader.words else ""
        contents = {"format": FORMAT, "space": self.space.describe()}
        write_json(folder / DESCRIPTION, {**contents, "strings": strings, "mode": reader.mode})

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> Self:
        """Read what :meth:`save` wrote, in a folder or on the Hugging Face Hub; no code is run.

        Raises:
            InputError: If a file is missing or damaged, is of another version, or a tower of the
                space is not installed.
        """
        where = {
            key: options[key]
            for key in ("token", "cache_folder", "revision", "local_files_only")
            if key in options
        }
        fetch = partial(cls.load_file_path, model_name_or_path, subfolder=subfolder, **where)

        def file(name: str) -> Path:
            found = fetch(name)
            if found is None:
                remedy = "give a folder that continual-mm export --to sentence-transformers wrote"
                raise InputError.at(model_name_or_path, f"has no {name}", remedy)
            return Path(found)

        contents = read_json(file(DESCRIPTION))
        if not isinstance(contents, Mapping) or contents.get("format") not in FORMATS:
            problem = f"is not of format {FORMAT}"
            raise InputError.at(file(DESCRIPTION), problem, "export the run with this version")
        reader = Reader()
        try:
            space = _space(contents["space"], file(WEIGHTS))
            sizes = {modality.name: modality.features for modality in space.modalities}
            space.statistics |= {  # in format 1 only
                name: Statistics.from_json(each, sizes[name])
                for name, each in contents.get("statistics", {}).items()
                if name in sizes
            }
            if contents["strings"] == "words":
                table = _words(file(WORDS), file(VECTORS), sizes[TEXT])
                reader = Reader(words=table, mode=contents["mode"])
        except _DAMAGED as error:
            if isinstance(error, InputError):
                raise
            problem = f"is damaged ({type(error).__name__}: {first_line(error)})"
            raise InputError.at(file(DESCRIPTION), problem, "export the run again") from error
        if contents["strings"] == "encoder":
            folder = cls.load_dir_path(model_name_or_path, str(Path(subfolder, ENCODER)), **where)
            reader = Reader(_encoder(folder, model_name_or_path))
        return cls(space, reader)

    def __repr__(self) -> str:
        return f"Space({', '.join(self.modalities)}: {self.space.size})"


@checked_arguments
def open_sentence_transformer(folder: str | Path) -> SentenceTransformer:
    """An exported space as a ``SentenceTransformer``.

    ``SentenceTransformer(folder, trust_remote_code=True)`` gives the same: the flag lets it import
    the class that the folder names. Here it is always the one of this package.

    Raises:
        InputError: If the folder is no export, or is damaged.
    """
    return SentenceTransformer(
        modules=[Space.load(str(folder), local_files_only=True)], similarity_fn_name="dot"
    )


def _named(one: Any, names: Sequence[str]) -> tuple[str, Any]:
    """The modality of an input, and its value."""
    if isinstance(one, str) and TEXT in names:
        return TEXT, one
    if isinstance(one, Mapping) and len(one) == 1 and next(iter(one)) in names:
        return cast(tuple[str, Any], next(iter(one.items())))
    keys = f" of {', '.join(map(repr, one)) or 'nothing'}" if isinstance(one, Mapping) else ""
    problem = f"a {type(one).__name__}{keys} is no item"
    raise InputError.at("inputs", problem, f"give {{modality: array}}, one of {', '.join(names)}")


def _form(modality: Modality) -> str:
    steps = ("steps", *modality.shape[1:]) if modality.kind.has_length else modality.shape
    shape = ", ".join(map(str, steps)) + ("," if len(steps) == 1 else "")
    return f"{{{modality.name!r}: array of shape ({shape})}}"


def _tensor(value: Any, modality: Modality) -> Tensor:
    """One item's features; an InputError if they are not of the modality."""
    try:
        if not isinstance(value, Tensor):
            # Made anew: an array may be read-only, or of another order of bytes or strides.
            with np.errstate(over="ignore"):
                value = np.asarray(value).astype(np.float32, order="C", casting="same_kind")
            value = torch.from_numpy(value)
        item: Tensor = value.detach().to(torch.float32)
    except (TypeError, ValueError) as error:
        problem = f"a {type(value).__name__} is no array of real numbers"
        raise InputError.at(modality.name, problem, f"give {_form(modality)}") from error
    free = 1 if modality.kind.has_length else 0
    fits = item.dim() == len(modality.shape) and item.shape[free:] == modality.shape[free:]
    if not fits or not item.numel():
        problem = f"an item of shape {tuple(item.shape)} does not fit"
        raise InputError.at(modality.name, problem, f"give {_form(modality)}")
    if not item.isfinite().all():
        raise InputError.at(modality.name, "an item has a NaN or an infinity", "leave it out")
    return item


def _words(names: Path, vectors: Path, size: int) -> WordVectors:
    rows = {word: row for row, word in enumerate(read_json(names))}
    table = np.load(vectors, mmap_mode="r", allow_pickle=False)
    if table.shape != (len(rows), size):
        raise ValueError(f"{len(rows)} words have vectors of shape {table.shape}")
    return WordVectors(rows, table)


def _encoder(folder: str | None, place: str) -> SentenceTransformer:
    if folder is None or not Path(folder).is_dir():
        raise InputError.at(place, f"has no {ENCODER}/", "export the run again")
    return open_encoder(folder, device=None)


def _space(description: Mapping[str, Any], weights: Path) -> JointSpace:
    space = rebuilt(description)
    try:
        space.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        problem = f"does not fit its description: {printable(' '.join(str(error).split()))}"
        raise InputError.at(weights, problem, "export the run again") from error
    return space.eval()
