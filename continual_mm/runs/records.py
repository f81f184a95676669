"""The JSON files of a run's folder, as far as a comparison needs them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from continual_mm.definitions.modality import Pair
from continual_mm.system.errors import InputError
from continual_mm.system.files import SEAL, checksum, unsealed
from continual_mm.system.reading import LARGEST_TEXT, check_regular

Role = Literal["old", "new", "emergent"]
"""``old`` was trained before the last stage, ``new`` first in it, ``emergent`` never."""

Split = Literal["test", "validation"]
"""Whose scores are a run's results. Those of trials of a search are of validation items alone."""

REMEDY = "give the command that made the run again: it makes this anew"


Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """Part of a file; keys that only matter to others are left out."""

    model_config = ConfigDict(frozen=True, strict=True)


class ScenarioRecord(Record):
    """A scenario as it was when the run began, with all its keys."""

    model_config = ConfigDict(extra="allow")

    name: str


class StrategyRecord(Record):
    """A strategy as it was when the run began, with all its keys."""

    model_config = ConfigDict(extra="allow")

    name: str
    joint: bool
    cumulative: bool = False


class Definition(Record):
    """``definition.json``."""

    scenario: ScenarioRecord
    strategy: StrategyRecord
    data: dict[str, Any]
    seed: int
    split: Split = "test"


class StageRecord(Record):
    """A stage; ``added`` are names of modalities, ``trained`` pairs.

    ``items`` has the training items of each of them; earlier versions did not say.
    """

    added: tuple[str, ...]
    trained: tuple[str, ...] = ()
    items: dict[str, Count] = Field(default_factory=dict)


class PairRecord(Record):
    """A pair; ``birth`` is the 1-based stage at which both its modalities were there."""

    birth: Annotated[int, Field(ge=1)]
    role: Role


class Score(Record):
    """One direction of one pair at one moment; ``stage`` counts from 1."""

    stage: int
    final: bool
    split: str
    pair: str
    chance: Fraction
    step: int = 0
    recall_at_1: Annotated[float | None, Field(alias="recall@1", ge=0, le=1)] = None
    median_rank: float | None = None
    queries: int = 0
    gallery: int = 0  # 0 where it is as large as there are queries


class ProtocolRecord(Record):
    """A protocol scored at a stage's end; ``stage`` counts from 1."""

    name: str
    stage: Annotated[int, Field(ge=1)]


class IndexRecord(Record):
    """Queries to an index at a stage's end; ``stage`` counts from 1."""

    stage: Annotated[int, Field(ge=1)]
    kind: Literal["mixed", "earlier"]
    query: str
    gallery: tuple[str, ...]
    measures: dict[str, Annotated[float, Field(ge=0, le=1)]]


class Choice(Record):
    """What a plugin decided at a stage's end; ``stage`` counts from 1."""

    model_config = ConfigDict(extra="allow")

    stage: Annotated[int, Field(ge=1)]
    plugin: str
    pairs: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    default: tuple[float, ...] = ()
    items: int = 0
    gain: float = 0.0
    error: float | None = None
    note: str = ""


Number = Annotated[float | None, Field(allow_inf_nan=False)]


class ItemRecord(Record):
    """An item of the dataset."""

    row: Count
    id: str
    text: str = ""


class QueryRecord(Record):
    """A query that was answered right at the end of the stage before or is now, and what it finds.

    ``before`` and ``rank`` are places of its right answer, from 1.
    """

    query: str
    item: ItemRecord
    before: Annotated[int, Field(ge=1)]
    rank: Annotated[int, Field(ge=1)]
    finds: tuple[ItemRecord, ...]


class PairDiagnosisRecord(Record):
    """What became of an old pair; see ``evaluation.diagnosis.PairDiagnosis``."""

    between: Number
    partners: tuple[Number, Number]
    recall: tuple[Fraction, Fraction]
    broken: Count
    mended: Count
    hubness: dict[str, Number]
    queries: tuple[QueryRecord, ...] = ()


class ModalityDiagnosisRecord(Record):
    """What became of an old modality by itself."""

    inside: Number
    cka: Number


class DiagnosisRecord(Record):
    """Why old pairs forgot, at one moment; ``stage`` counts from 1."""

    stage: Annotated[int, Field(ge=1)]
    step: Count
    final: bool
    pairs: dict[str, PairDiagnosisRecord]
    modalities: dict[str, ModalityDiagnosisRecord]


class GeometryRecord(Record):
    """How the space has moved, at one moment; ``stage`` counts from 1."""

    stage: Annotated[int, Field(ge=1)]
    step: Count
    final: bool
    modality_gap: dict[str, Number]
    rotation: Number
    moved: dict[str, Number]
    residual: dict[str, Number]
    plan_drift: dict[str, Number]


class Scores(Record):
    """``scores.json``."""

    stages: Annotated[tuple[StageRecord, ...], Field(min_length=1)]
    pairs: dict[str, PairRecord]
    unscored: tuple[str, ...] = ()
    evaluations: tuple[Score, ...]
    protocols: tuple[ProtocolRecord, ...] = ()
    choices: tuple[Choice, ...] = ()
    indexes: tuple[IndexRecord, ...] = ()
    geometry: tuple[GeometryRecord, ...] = ()
    diagnosis: tuple[DiagnosisRecord, ...] = ()
    ranks: dict[str, str] = {}

    def check_ranks(self, folder: Path) -> None:
        """Refuse ranks that are missing in a run's folder, or not those that were scored."""
        for name, expected in self.ranks.items():
            path = folder / "ranks" / Path(name).name
            check_regular(path, REMEDY)
            if checksum(path) != expected:
                problem = "was changed after it was written: its checksum does not fit"
                raise InputError.at(path, f"is damaged: {problem}", REMEDY)

    @model_validator(mode="after")
    def _pairs_are_born(self) -> Self:
        for name, known in self.pairs.items():
            Pair.parse(name)
            if known.birth > len(self.stages):
                raise ValueError(f"{name} is born after the last stage")
        return self


class Cost(Record):
    """``cost.json``."""

    seconds: Seconds
    memory_bytes: Count
    memory_items: Count | None = None
    steps: Count | None = None
    step_seconds: Seconds | None = None
    vector_size: Count | None = None


class Failure(Record):
    """``failure.json``: why a run stopped before its end."""

    error: str


class Notes(Record):
    """What a run noted in a checkpoint; ``learned`` are the stages that it had trained.

    What it had taken until then is there, too.
    """

    model_config = ConfigDict(extra="allow")

    seconds: Seconds
    learned: Count
    scores: list[dict[str, Any]]
    geometry: list[dict[str, Any]]
    diagnosis: list[dict[str, Any]] = []
    protocols: list[dict[str, Any]] = []
    indexes: list[dict[str, Any]] = []
    choices: list[dict[str, Any]] = []
    ranks: dict[str, str] = {}


class KnownModality(Record):
    """A modality of a space."""

    name: str
    kind: str
    shape: tuple[Annotated[int, Field(ge=1)], ...]


class KnownTower(Record):
    """A tower of a space, by its registered name if it has one."""

    kind: str
    trained: bool


class Space(Record):
    """What a space consists of."""

    model_config = ConfigDict(extra="allow")

    settings: dict[str, Any]
    seed: int
    modalities: tuple[KnownModality, ...]
    towers: dict[str, KnownTower]


class Checkpoint(Record):
    """``state.json`` of a checkpoint; ``stage`` counts from 1.

    A space alone, from which no run goes on, has no ``notes`` and none of what follows them.
    """

    format: int
    stage: Annotated[int, Field(ge=1)]
    space: Space
    sha256: dict[str, str]
    notes: Notes | None = None
    clock: dict[str, Count] = {}
    scaler: dict[str, Any] = {}
    pace: dict[str, float] = {}
    definition: dict[str, Any] | None = None


_AnyRecord = TypeVar("_AnyRecord", bound=Record)


def read(kind: type[_AnyRecord], path: Path, remedy: str = REMEDY) -> _AnyRecord:
    """Read a file; refused if it is missing, damaged, or lacks something."""
    check_regular(path, remedy, most=LARGEST_TEXT)
    try:
        content = path.read_bytes()
        if SEAL.encode() in content:
            unsealed(content)
        return kind.model_validate_json(content)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValidationError as error:
        problem = f"is damaged: {first_fault(error)}"
    except (RecursionError, ValueError) as error:
        problem = f"is damaged: {error}"
    raise InputError.at(path, problem, remedy)


def first_fault(error: ValidationError) -> str:
    """Where the first thing is that is wrong, and what."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place + ': ' if place else ''}{first['msg']}"
