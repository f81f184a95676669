"""How published files were read, as packs and stores keep it; imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from continual_mm.definitions.modality import Provenance
from continual_mm.definitions.tables import Table


class ProvenanceForm(Table):
    """A :class:`~continual_mm.definitions.modality.Provenance` as a file has it."""

    reader: Annotated[str, Field(pattern="^[a-z0-9_]{1,100}$")]
    mode: Literal["reference", "robust"]
    vectors: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    max_words: Annotated[int, Field(ge=1, le=1 << 31)]
    min_time: Annotated[float, Field(ge=0)] | None = None

    @property
    def provenance(self) -> Provenance:
        """The same as everything else knows it."""
        return Provenance(**self.model_dump())

    @property
    def remedy(self) -> str:
        """What to do where a split has no item."""
        shares = "a greater share for --validation"
        if self.reader == "crosstask":
            return "CrossTask is for testing alone: name it in a [[protocol]]"
        if self.reader == "howto100m":
            shares = "greater shares for --validation and --test, or a list of more videos"
        elif self.reader not in ("ucf101", "hmdb51"):
            shares = f"files for --train and --test, and {shares}"
        return f"convert it again, with {shares}"

    @classmethod
    def of(cls, provenance: Provenance | None) -> "ProvenanceForm | None":
        """The form of what is known; None of nothing."""
        if provenance is None:
            return None
        return cls.model_validate(provenance, from_attributes=True)
