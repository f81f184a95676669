"""Scenarios, strategies and protocols as typed, frozen tables with ranges for all numbers."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from continual_mm.definitions.rules import MOST_ROWS, MOST_STEPS, MOST_UNITS, MOST_WEIGHT
from continual_mm.definitions.tables import Table, refusal, shown
from continual_mm.system.reading import user_path

ProtocolKind = Literal["retrieval", "video_retrieval", "steps", "classes"]
"""``scenarios/README.md`` explains them."""

Names = tuple[str, ...]
LONGEST_NAME = 100
"""Characters of the name of a scenario or strategy, which is that of a folder."""
_Value = TypeVar("_Value")


def name_problem(name: str) -> str:
    """Why something cannot be the name of a scenario or strategy; empty if it can."""
    if not name or len(name) > LONGEST_NAME:
        return f"a name has 1 to {LONGEST_NAME} characters"
    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        return f"{shown(name)} cannot be the name of a folder"
    return ""


def _a_name(name: str) -> str:
    if problem := name_problem(name):
        raise refusal(problem, NAME_REMEDY)
    return name


NAME_REMEDY = "take letters, digits, _ and -"
Name = Annotated[str, AfterValidator(_a_name), Field(examples=['"mine"'])]


def _a_set(names: Names) -> Names:
    if names and len(set(names)) == len(names):
        return names
    problem = f"a name is there twice: {', '.join(names)}" if names else "the list is empty"
    raise refusal(problem, "name each modality once")


def _others(names: Names, info: ValidationInfo) -> Names:
    if both := [name for name in names if name in info.data.get("query", ())]:
        problem = f"{', '.join(both)} is in query and in gallery"
        raise refusal(problem, "let other modalities answer than ask")
    return names


def _only_for(*kinds: str) -> AfterValidator:
    """Refuse a value other than the default in protocols of other kinds."""

    def check(value: _Value, info: ValidationInfo) -> _Value:
        kind, field = info.data.get("kind"), Protocol.model_fields[f"{info.field_name}"]
        if value != field.default and kind not in (None, *kinds):
            raise refusal(f"has no meaning for kind {kind!r}", "remove the key")
        return value

    return AfterValidator(check)


def _one_gallery(tower: str, info: ValidationInfo) -> str:
    named = (*info.data.get("query", ()), *info.data.get("gallery", ()))
    if tower and (tower in named or len(info.data.get("gallery", ())) > 1):
        problem = f"{shown(tower)} is not beside a gallery of one modality"
        raise refusal(problem, "give another modality than query and gallery, and a gallery of one")
    return tower


def _beside_through(value: _Value, info: ValidationInfo) -> _Value:
    if value not in ("", None) and not info.data.get("through", "?"):
        raise refusal("has no meaning without through", "remove the key, or name a tower: through")
    return value


def _needed_for_steps(file: str, info: ValidationInfo) -> str:
    if info.data.get("kind") == "steps" and not file and not info.data.get("dataset"):
        remedy = 'add annotations = "steps.csv", which says when each step is shown'
        raise refusal("kind 'steps' needs annotations", remedy)
    return file


class Protocol(Table):
    """One ``[[protocol]]``: scores at the end of each stage at which its modalities are there.

    Attributes:
        name: Names the scores; letters, digits, ``_`` and ``-``.
        kind: What is asked of the items.
        dataset: A registered name, or the path of a dataset relative to the scenario's folder;
            only its test items are used. The scenario's own, if left out.
        query: Modalities that ask, several of them together: their embeddings are added, or the
            space fuses them.
        gallery: Modalities that answer, several of them together.
        expected: Items that the published test set has; those that are missing count as missed.
            0 means as many as there are.
        annotations: A CSV file with the intervals of the steps, relative to the scenario's folder;
            that beside the dataset, called as it with ``.steps.csv`` behind, if left out.
        ordered: Whether steps are placed in their order, one second each, rather than every second
            given to the step that is most similar.
        partial: Whether items that lack some modalities of a side ask and answer with those that
            they have; else they are left out.
        through: A modality whose tower the gallery's features also go through; similarities of this
            old path are mixed with those of the gallery's own tower.
        through_features: The dataset's modality that goes through it; the gallery's, if left out.
        through_weight: Of the old path, beside one minus it; None chooses it on validation items.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", examples=['"youcook2"'])
    kind: ProtocolKind = "retrieval"
    dataset: str = ""
    query: Annotated[Names, AfterValidator(_a_set)] = Field(strict=False, examples=['["text"]'])
    gallery: Annotated[Names, AfterValidator(_a_set), AfterValidator(_others)] = Field(
        strict=False, examples=['["video", "audio"]']
    )
    expected: Annotated[int, Field(ge=0, le=10**9), _only_for("retrieval", "video_retrieval")] = 0
    annotations: Annotated[str, _only_for("steps"), AfterValidator(_needed_for_steps)] = Field(
        default="", validate_default=True
    )
    ordered: Annotated[bool, _only_for("steps")] = True
    partial: Annotated[bool, _only_for("retrieval")] = False
    through: Annotated[str, _only_for("classes"), AfterValidator(_one_gallery)] = ""
    through_features: Annotated[str, AfterValidator(_beside_through)] = ""
    through_weight: Annotated[
        Annotated[float, Field(ge=0.0, le=1.0)] | None, AfterValidator(_beside_through)
    ] = None

    @property
    def modalities(self) -> Names:
        """All that the protocol embeds, queries first."""
        return (*self.query, *self.gallery)

    def annotations_file(self, folder: str) -> Path:
        """Where the annotations are."""
        return user_path(self.annotations, folder)


PUBLISHED_SPACE: Mapping[str, Any] = MappingProxyType(
    {
        "dim": 6144,
        "clusters": 256,
        "cluster_weight": 1.0,
        "reconstruction_weight": 50.0,
        "reconstruction_width": 1024,
        "margin": 0.001,
        "scale": 1.0,
        "queue_batches": 20,
        "refresh_every": 20,
        "width": 128,
        "depth": 4,
        "feature_dropout": 0.0,
        "clips": 32,
    }
)
"""What ``[space]`` means in reference mode where it says nothing (MCN's released command)."""

FUSION_SPACE: Mapping[str, Any] = MappingProxyType(
    {
        "clusters": 0,
        "cluster_weight": 0.0,
        "reconstruction_weight": 0.0,
        "reconstruction_width": 0,
        "margin": 0.0,
        "scale": 20.0,
        "queue_batches": 0,
    }
)
"""What ``[space]`` means for the kind ``fusion`` where it says nothing."""

PUBLISHED_TRAINING: Mapping[str, Any] = MappingProxyType(
    {
        "batch_size": 4096,
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "warmup_steps": 5000,
        "clip_norm": 0.0,
    }
)
"""What ``[training]`` means in reference mode where it says nothing."""


Weight = Annotated[float, Field(ge=0.0, le=MOST_WEIGHT)]
LearningRate = Annotated[float, Field(gt=0.0, le=1000.0)]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
StepsOrZero = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Epochs = Annotated[int, Field(ge=0, le=1_000_000)]
Units = Annotated[int, Field(ge=0, le=MOST_UNITS)]
Rows = Annotated[int, Field(ge=2, le=MOST_ROWS)]  # of a batch; a contrast needs at least two

Bug = Literal["stays_in_evaluation", "ties_listed_each", "two_over_three"]
"""A mistake of the published program that changes numbers; ``scenarios/README.md`` explains it."""


def _robust_only(value: _Value, info: ValidationInfo) -> _Value:
    if info.data.get("mode") != "reference" or value == PUBLISHED_SPACE[f"{info.field_name}"]:
        return value
    problem = f"{value} has no meaning in reference mode"
    raise refusal(problem, 'remove the key, or mode = "reference"')


def _reference_only(value: _Value, info: ValidationInfo) -> _Value:
    field = SpaceSettings.model_fields[f"{info.field_name}"]
    if info.data.get("mode") != "robust" or value == field.default:
        return value
    problem = "the key has a meaning in reference mode only"
    raise refusal(problem, 'remove the key, or add mode = "reference"')


def _mcn_only(value: _Value, info: ValidationInfo) -> _Value:
    if info.data.get("kind") != "fusion":
        return value
    key = f"{info.field_name}"
    usual = FUSION_SPACE.get(key, SpaceSettings.model_fields[key].default)
    if value == usual:
        return value
    raise refusal(f"{shown(value)} has no meaning for kind 'fusion'", "remove the key")


def _fusion_only(value: _Value, info: ValidationInfo) -> _Value:
    field = SpaceSettings.model_fields[f"{info.field_name}"]
    if info.data.get("kind") != "mcn" or value == field.default:
        return value
    raise refusal(
        "the key has a meaning for kind 'fusion' only", 'remove it, or add kind = "fusion"'
    )


def _divides(heads: int, info: ValidationInfo) -> int:
    width = info.data.get("token_width") or info.data.get("dim", heads)
    if info.data.get("kind") == "fusion" and width % heads:
        problem = f"{width} numbers of a token cannot be divided among {heads} heads"
        raise refusal(problem, "give a number of heads that divides token_width")
    return heads


def _at_least_smaller(larger: int, info: ValidationInfo) -> int:
    if larger < (smaller := info.data.get("smaller_side", larger)):
        problem = f"{larger} is less than smaller_side = {smaller}"
        raise refusal(problem, "give at least as many")
    return larger


class SpaceSettings(Table):
    """The ``[space]`` table: size and losses of the joint embedding space.

    Attributes:
        kind: ``mcn``, an encoder per modality; or ``fusion``, whose modalities share a transformer
            that embeds any of them together, without centroids and reconstruction.
        mode: ``robust``, or ``reference``: MCN as published, to the letter. In reference mode a key
            that is not given has its published value rather than the default.
        dim: D, the dimension that all modalities share.
        clusters: K, the number of centroids; 0 trains without the clustering loss.
        cluster_weight: Weight of the clustering loss beside the contrast.
        reconstruction_weight: Weight of the reconstruction loss beside the contrast.
        reconstruction_width: Hidden units of a reconstruction head; 0 takes half of ``dim``.
        margin: What the contrast subtracts from each positive's logit.
        scale: First value of the learned logit scale (the inverse temperature), at most 100.
        queue_batches: Batches of embeddings kept for k-means besides the current one.
        refresh_every: Optimiser steps from one k-means fit to the next.
        width: Channels of the first layer of the temporal encoders (frames, spectrograms).
        depth: Residual stages of those encoders; each after the first doubles the channels, each
            halves the time. The published DAVEnet is width 128, depth 4.
        feature_dropout: Probability that an input feature is hidden from the encoder during
            training, for all time steps of an item at once; 0 hides none.
        clips: Items of one ``group`` of the dataset, such as a video, that a batch shows side by
            side; 1 draws items whatever their group. In reference mode they are drawn with
            replacement, and the queue keeps the first half of each group's.
        cluster_mean: Whether the clustering loss is that of the modalities' mean (the published
            ``--mean 1``) rather than the mean of the modalities' losses. Reference mode only.
        bugs: Mistakes of the published program to repeat. Reference mode only.
        token_width: Numbers of a token in the shared transformer; 0 takes ``dim``. This and what
            follows for kind ``fusion`` only.
        blocks: Blocks of the transformer; with 0 modalities meet in the mean of their embeddings.
        heads: Heads of its attention.
        smaller_side: Modalities on the smaller side of a term of the contrast, at most.
        larger_side: Modalities on the larger side, at most.
        term_weights: Term, such as ``"text-audio+video"`` -> its weight, where that is not 1; with
            0 it is not trained.
    """

    kind: Literal["mcn", "fusion"] = "mcn"
    mode: Annotated[Literal["robust", "reference"], AfterValidator(_mcn_only)] = "robust"
    dim: Annotated[int, Field(ge=2, le=65536)] = 256
    clusters: Annotated[Units, AfterValidator(_mcn_only)] = 64
    cluster_weight: Annotated[Weight, AfterValidator(_mcn_only)] = 0.1
    reconstruction_weight: Annotated[Weight, AfterValidator(_mcn_only)] = 0.1
    reconstruction_width: Annotated[Units, AfterValidator(_mcn_only)] = 0
    margin: Weight = 0.001
    scale: Annotated[float, Field(ge=1.0, le=100.0), AfterValidator(_robust_only)] = 8.0
    queue_batches: Annotated[int, Field(ge=0, le=10_000), AfterValidator(_mcn_only)] = 8
    refresh_every: Annotated[Steps, AfterValidator(_mcn_only)] = 20
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    depth: Annotated[int, Field(ge=1, le=8)] = 1
    feature_dropout: Annotated[float, Field(ge=0.0, le=0.9)] = 0.2
    clips: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 1
    cluster_mean: Annotated[bool, AfterValidator(_reference_only)] = False
    bugs: Annotated[tuple[Bug, ...], AfterValidator(_reference_only)] = Field(
        default=(), strict=False, examples=['["two_over_three"]']
    )
    token_width: Annotated[Units, AfterValidator(_fusion_only)] = 0
    blocks: Annotated[int, Field(ge=0, le=64), AfterValidator(_fusion_only)] = 1
    heads: Annotated[
        int, Field(ge=1, le=1024), AfterValidator(_fusion_only), AfterValidator(_divides)
    ] = Field(default=4, validate_default=True)
    smaller_side: Annotated[int, Field(ge=1, le=32), AfterValidator(_fusion_only)] = 1
    larger_side: Annotated[
        int, Field(ge=1, le=32), AfterValidator(_fusion_only), AfterValidator(_at_least_smaller)
    ] = Field(default=2, validate_default=True)
    term_weights: Annotated[Mapping[str, Weight], AfterValidator(_fusion_only)] = Field(
        default={}, examples=['{"text-audio+video" = 0.1}']
    )

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        """Fill in what mode and kind imply, for files and for Python alike."""
        if not isinstance(values, Mapping):
            return values
        if values.get("kind") == "fusion":
            return {**FUSION_SPACE, **values}
        return {**PUBLISHED_SPACE, **values} if values.get("mode") == "reference" else values

    @model_serializer(mode="wrap")
    def _lean(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave keys of a fusion space out of another's, as they were before there was any."""
        found: dict[str, Any] = serialise(self)
        if self.kind == "mcn":
            return {key: value for key, value in found.items() if key not in FUSION_KEYS}
        return found

    @property
    def token_size(self) -> int:
        """Numbers of a token in the shared transformer."""
        return self.token_width or self.dim

    @property
    def reference(self) -> bool:
        """Whether the space is MCN as published."""
        return self.mode == "reference"

    @property
    def reconstruction_units(self) -> int:
        """Hidden units of a reconstruction head."""
        return self.reconstruction_width or max(self.dim // 2, 1)


FUSION_KEYS = (
    "kind",
    "token_width",
    "blocks",
    "heads",
    "smaller_side",
    "larger_side",
    "term_weights",
)
"""Keys of ``[space]`` that a space of the usual kind does not have."""


def _instead_of_steps(epochs: int, info: ValidationInfo) -> int:
    usual = Training.model_fields["steps"].default
    if not epochs or info.data.get("steps", usual) in (usual, None):
        return epochs
    raise refusal("steps are given as well", "give one of them, 0 epochs or no steps")


class Training(Table):
    """The ``[training]`` table; a stage may override any of it.

    Attributes:
        steps: Optimiser steps of one stage.
        epochs: Passes over a stage's training items, instead of steps; 0 counts steps.
        batch_size: Rows per step, memory rows not counted.
        learning_rate: Adam's peak learning rate.
        schedule: Course of the learning rate over the stage's steps, begun anew at each stage.
        warmup_steps: Steps of linear warm-up at the start of the stage.
        precision: Number format inside the encoders; losses are float32 whatever it is.
        evaluate_every: Steps between evaluations inside a stage; 0 evaluates at stage ends only.
        clip_norm: Longest gradient that is not shortened; 0 shortens none.
    """

    steps: Steps = 400
    epochs: Annotated[Epochs, AfterValidator(_instead_of_steps)] = 0
    batch_size: Rows = 256
    learning_rate: LearningRate = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: StepsOrZero = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    evaluate_every: StepsOrZero = 0
    clip_norm: Weight = 5.0

    @classmethod
    def published(cls, **given: Any) -> Self:
        """MCN's published settings where none is given; what a file in reference mode gets.

        >>> Training.published(batch_size=64).warmup_steps
        5000
        """
        return cls(**{**PUBLISHED_TRAINING, **given})


def _something(add: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    # A faulty list of pairs is a problem of its own.
    if not add and not info.data.get("pairs", True):
        remedy = 'name what arrives, such as add = ["text"], or pairs to train further'
        raise refusal("the stage adds nothing", remedy)
    return add


class Stage(Table):
    """One ``[[stage]]``; what it does not override is as in ``[training]``.

    Attributes:
        pairs: Pairs trained, such as ``"video-text"``; None trains all that the arrival completes.
        add: Modalities that arrive; none where pairs that are there are named and trained further.
        dataset: What the stage is trained on, where not the scenario's dataset.
        steps: Optimiser steps; none for towers that arrive trained.
        epochs: Passes over the stage's training items, instead of steps.
    """

    pairs: tuple[str, ...] | None = Field(default=None, strict=False, examples=['["video-text"]'])
    add: Annotated[tuple[str, ...], AfterValidator(_something)] = Field(
        default=(), strict=False, validate_default=True, examples=['["video", "audio"]']
    )
    dataset: str = ""
    steps: StepsOrZero | None = None
    epochs: Epochs | None = None
    batch_size: Rows | None = None
    learning_rate: LearningRate | None = None
    schedule: Literal["cosine", "constant"] | None = None
    warmup_steps: StepsOrZero | None = None
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    evaluate_every: StepsOrZero | None = None
    clip_norm: Weight | None = None

    def training(self, common: Training) -> Training:
        """The scenario's training settings with this stage's overrides."""
        given = {key: getattr(self, key) for key in Training.model_fields}
        own = {key: value for key, value in given.items() if value is not None}
        # Steps of its own are not those that the scenario's epochs would come to.
        counted = {"epochs": 0} if "steps" in own else {}
        return common.model_copy(update=counted | own)


class TowerSettings(Table):
    """A ``[tower.<modality>]`` table: the encoder of one modality.

    Attributes:
        kind: Name of a registered tower; the one for the modality's kind of signal, if left out.
        weights: A file of weights to begin with, relative to the scenario's folder.
        trained: Whether training changes the tower.
    """

    kind: str = ""
    weights: str = ""
    trained: bool = True


def _yes_no_or_names(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    remedy = 'give true, false, or names of modalities, such as ["audio"]'
    raise refusal(f"{shown(value)} is neither true or false nor names", remedy)


class ScenarioHead(Table):
    """The keys of a scenario file outside its tables."""

    description: str = ""
    dataset: str = ""
    items: Literal["split", "shared", "paired"] = "split"
    positives: Literal["paired", "label", "group", "duplicates"] = "paired"
    standardise: Annotated[bool | tuple[str, ...], BeforeValidator(_yes_no_or_names)] = True
    start: str = ""


class Scenario(ScenarioHead):
    """Which modalities arrive in which order, on which data.

    Attributes:
        name: The file's stem; names the run's folder.
        dataset: A registered name, or the path of a feature pack relative to ``folder``.
        folder: Where relative dataset paths start; the definition file's own folder.
        items: ``split``: each stage sees its own share of the training items, drawn by the seed;
            ``shared``: every stage sees all of them; ``paired``: those that have a pair of it.
        positives: Which items answer a query correctly besides those that it occurs with, where
            items with the same features are one: none (``paired``), those of its ``label`` or its
            ``group``, or those of the same caption, whatever its features are (``duplicates``).
        standardise: Whether features are standardised on the training split, or names of the
            modalities whose features are. A file in reference mode that does not say so means
            that none are.
        start: Folder of a run whose space this one starts from, relative to ``folder``.
        space: Sizes and losses of the space.
        training: Optimisation of every stage.
        towers: Modality -> its encoder, where it is not the usual one.
        stages: What arrives, in order.
        protocols: How else the space is scored at stage ends.
    """

    name: Name
    folder: str = "."
    space: SpaceSettings = SpaceSettings()
    training: Training = Training()
    towers: Mapping[str, TowerSettings] = Field(
        default_factory=dict, examples=['{"video": TowerSettings(kind="identity")}']
    )
    stages: tuple[Stage, ...] = Field(
        strict=False, min_length=1, examples=['(Stage(add=("video", "audio")),)']
    )
    protocols: tuple[Protocol, ...] = Field(default=(), strict=False)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every dataset that it names: what is trained on, and what protocols score."""
        named = (*self.corpora, *(protocol.dataset for protocol in self.protocols))
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def corpora(self) -> tuple[str, ...]:
        """The datasets that are trained on: one, unless stages name their own."""
        named = (self.dataset, *(stage.dataset for stage in self.stages))
        return tuple(dict.fromkeys(name for name in named if name))

    def training_of(self, stage: int) -> Training:
        """Settings of a stage (0-based), its overrides applied."""
        return self.stages[stage].training(self.training)


class MemorySettings(Table):
    """The ``[memory]`` table: how many items a run may keep of past stages."""

    items: int = Field(ge=1, le=10**9, examples=["128"])


class Strategy(Table):
    """What protects the pairs already aligned.

    Attributes:
        name: The file's stem; names the run's folder.
        joint: Train everything at once, the upper bound.
        cumulative: Train each stage on everything seen until then, an upper bound with stages.
        memory: The run's one memory, if any.
        plugins: Plugin name -> the parameters that the file gives.
    """

    name: Name
    description: str = ""
    joint: bool = False
    cumulative: bool = False
    memory: MemorySettings | None = None
    plugins: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, examples=['{"replay": {"weight": 1.0}}']
    )
