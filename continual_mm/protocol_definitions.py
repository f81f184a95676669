"""What a ``[[protocol]]`` table says: how test items are scored by the book, on which dataset."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from continual_mm.tables import Table

ProtocolKind = Literal["retrieval", "video_retrieval", "steps", "classes"]
"""``scenarios/README.md`` explains them."""

COUNTING = ("retrieval", "video_retrieval")
"""Kinds of protocol that may be told how many items the published test set has."""

Names = tuple[str, ...]


def _refuse(problem: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("misused", "{problem}", {"problem": problem, "remedy": remedy})


def _a_set(names: Names) -> Names:
    if names and len(set(names)) == len(names):
        return names
    problem = f"a name is there twice: {', '.join(names)}" if names else "the list is empty"
    raise _refuse(problem, "name each modality once")


def _others(names: Names, info: ValidationInfo) -> Names:
    both = [name for name in names if name in info.data.get("query", ())]
    if both:
        problem = f"{', '.join(both)} is in query and in gallery"
        raise _refuse(problem, "let other modalities answer than ask")
    return names


def _counted(expected: int, info: ValidationInfo) -> int:
    kind = info.data.get("kind")
    if expected and kind is not None and kind not in COUNTING:
        raise _refuse(f"has no meaning for kind {kind!r}", "remove the key")
    return expected


def _about_steps(said: str, info: ValidationInfo) -> str:
    kind = info.data.get("kind")
    if kind == "steps" and not said and not info.data.get("dataset"):
        remedy = 'add annotations = "steps.csv", which says when each step is shown'
        raise _refuse("kind 'steps' needs annotations", remedy)
    if kind not in ("steps", None) and said:
        raise _refuse(f"has no meaning for kind {kind!r}", "remove the key")
    return said


def _order(ordered: bool, info: ValidationInfo) -> bool:
    kind = info.data.get("kind")
    if not ordered and kind not in ("steps", None):
        raise _refuse(f"has no meaning for kind {kind!r}", "remove the key")
    return ordered


class Protocol(Table):
    """One ``[[protocol]]``: scores at the end of each stage at which its modalities are there.

    Attributes:
        name: Names the scores; letters, digits, ``_`` and ``-``.
        kind: What is asked of the items.
        dataset: A registered name, or the path of a dataset relative to the scenario's folder;
            only its test items are used. The scenario's own, if left out.
        query: Modalities that ask; the embeddings of several are added.
        gallery: Modalities that answer; the embeddings of several are added.
        expected: Items that the published test set has; those that are missing count as missed.
            0 means as many as there are.
        annotations: A CSV file with the intervals of the steps, relative to the scenario's folder;
            that beside the dataset, called as it with ``.steps.csv`` behind, if left out.
        ordered: Whether steps are placed in their order, one second each, rather than every second
            given to the step that is most similar.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", examples=['"youcook2"'])
    kind: ProtocolKind = "retrieval"
    dataset: str = ""
    query: Annotated[Names, AfterValidator(_a_set)] = Field(strict=False, examples=['["text"]'])
    gallery: Annotated[Names, AfterValidator(_a_set), AfterValidator(_others)] = Field(
        strict=False, examples=['["video", "audio"]']
    )
    expected: Annotated[int, Field(ge=0), AfterValidator(_counted)] = 0
    annotations: Annotated[str, AfterValidator(_about_steps)] = Field(
        default="", validate_default=True
    )
    ordered: Annotated[bool, AfterValidator(_order)] = True

    @property
    def modalities(self) -> Names:
        """All that the protocol embeds, queries first."""
        return (*self.query, *self.gallery)

    def annotations_file(self, folder: str) -> Path:
        """Where the annotations are."""
        return Path(folder) / Path(self.annotations).expanduser()
