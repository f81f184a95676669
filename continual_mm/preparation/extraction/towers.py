"""What towers are, how users name them, and the registry; imports neither av nor torch."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.schema import is_taken
from continual_mm.definitions.modality import Kind
from continual_mm.system.errors import InputError, Problem, first_line, suggestion
from continual_mm.system.imports import check_installed

if TYPE_CHECKING:
    from continual_mm.preparation.extraction.word_towers import Vectors

Features = NDArray[np.float32]
Setting = str | int | float | bool | None

MOST_RATE = 1000  # frames per second
MOST_FRAMES = 1_000_000  # of one clip
MOST_SIDE = 4096  # pixels

RANDOM = "random"  # untrained weights, drawn with a fixed seed: for trying things out


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Which frames of a video a tower needs: ``rate`` per second, or ``count`` per clip.

    The shorter side becomes ``side`` pixels, or all becomes (height, width). Antialiasing makes all
    pixels count where frames become smaller; networks for video were trained without.
    """

    rate: float = 1.0
    count: int | None = None
    side: int | tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError unless all numbers are above 0, and of a size that is of use."""
        if not 0 < self.rate <= MOST_RATE:
            problem = f"rate {self.rate} is not above 0 and at most {MOST_RATE} frames per second"
            raise ValueError(problem)
        if self.count is not None:
            check_count("count", self.count, most=MOST_FRAMES)
        for side in self.side if isinstance(self.side, tuple) else (self.side,):
            if side is not None:
                check_count("side", side, most=MOST_SIDE)

    @property
    def settings(self) -> dict[str, Setting]:
        """What decides which times are sampled, as a job stores it."""
        return {"rate": self.rate} if self.count is None else {"count": self.count}

    def times(self, start: float, end: float) -> NDArray[np.float64]:
        """Seconds at which a clip is sampled, each in the middle of its share; at least one.

        >>> FrameSampling().times(2.0, 5.2).tolist()
        [2.5, 3.5, 4.5]

        Raises:
            ValueError: If there are more than :data:`MOST_FRAMES`.
        """
        if self.count is None and (end - start) * self.rate > MOST_FRAMES:
            problem = (
                f"{end - start:g} s have more than {MOST_FRAMES} frames at {self.rate:g} a second"
            )
            raise ValueError(problem)
        if self.count is not None:
            steps, apart = self.count, (end - start) / self.count
        elif (fitting := math.ceil((end - start) * self.rate - 0.5)) >= 1:
            steps, apart = fitting, 1 / self.rate
        else:
            steps, apart = 1, end - start
        return np.array([start + (step + 0.5) * apart for step in range(steps)])

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a frame after resizing."""
        if self.side is None:
            return height, width
        if isinstance(self.side, tuple):
            return self.side
        shorter = min(height, width)
        return self.side * height // shorter, self.side * width // shorter


def check_count(name: str, value: object, *, most: int) -> None:
    """Raise ValueError unless an option, which a user wrote, is a whole number from 1 to this."""
    if not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} {str(value)[:20]} is not from 1 to {most}")


class AnyTower(Protocol):
    """What all towers have; ``settings`` are all that decides the features, as a job stores it."""

    kind: Kind
    features: int
    description: str
    settings: Mapping[str, Setting]


class VideoTower(AnyTower, Protocol):
    """Encodes frames, blocks of so many and the rest, whatever else is made of the same frames."""

    signal: Literal["frames"]
    sampling: FrameSampling
    block: int

    def encode(self, frames: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) RGB -> (steps, features)."""


class AudioTower(AnyTower, Protocol):
    """Encodes audio of so many samples per second."""

    signal: Literal["audio"]
    sample_rate: int

    def encode(self, wave: NDArray[np.float32]) -> Features:
        """(samples,) -> (steps, features)."""


class TextTower(AnyTower, Protocol):
    """Encodes text."""

    signal: Literal["text"]

    def encode(self, text: str) -> Features | None:
        """(words, features) or (features,); None if it knows no word of it."""


class CloudTower(AnyTower, Protocol):
    """Encodes point clouds, of which it needs so many points."""

    signal: Literal["cloud"]
    points: int

    def encode(self, points: NDArray[np.float64]) -> Features:
        """(N, 3) -> (views, ...)."""

    def outside(self, points: NDArray[np.float64]) -> float:
        """Share of the points that is not seen."""


Tower = VideoTower | AudioTower | TextTower | CloudTower

CLOUD = "cloud"
"""Of an option ``of`` that towers for frames take: what they see are depth maps of the cloud."""


def probe(tower: Tower) -> None:
    """Encode a tiny input, so that a network that cannot take it fails before hours of work."""
    if tower.signal == "frames":
        height, width = tower.sampling.size(256, 256)
        tower.encode(np.zeros((1, height, width, 3), dtype=np.uint8))
    elif tower.signal == "audio":
        tower.encode(np.zeros(1, dtype=np.float32))
    elif tower.signal == "cloud":
        tower.encode(np.eye(3))
    else:
        tower.encode("a")


Pool = Literal["none", "max", "mean"]
_POOLS: tuple[Pool, ...] = ("none", "max", "mean")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class TowerChoice:
    """A tower by name, and those options of its constructor that are not the default."""

    tower: str
    options: Mapping[str, Setting] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``tower``, ``tower:network``, ``tower:network@weights``, ``...,option=value``."""
        head, *settings = text.split(",")
        head, _, weights = head.partition("@")
        tower, _, network = head.partition(":")
        options = {"network": network, "weights": weights}
        given = {key: value for key, value in options.items() if value}
        named = (setting.partition("=") for setting in settings)
        return cls(tower, {**given, **{key: _value(value) for key, _, value in named}})


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a modality is made: by one tower, or by several whose pooled features are joined.

    ``max`` or ``mean`` over time, of which every tower's features have length 1 (MCN takes the
    maximum), make a vector; ``none`` keeps the sequence.
    """

    modality: str
    towers: tuple[TowerChoice, ...]
    pool: Pool = "none"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``modality=tower``, ``modality=tower+tower/max``."""
        modality, equals, rest = text.partition("=")
        body, slash, ending = rest.rpartition("/")
        pools = [each for each in _POOLS if slash and each == ending]
        towers = tuple(map(TowerChoice.parse, (body if pools else rest).split("+")))
        if not equals or not all(choice.tower for choice in towers):
            remedy = "write modality=tower, as video=frames:resnet18 or video=frames+motion/max"
            raise InputError.at(f"{text!r}", "is no modality with its towers", remedy)
        return cls(modality, towers, pools[0] if pools else "none")


def check_recipes(recipes: tuple[Recipe, ...]) -> None:
    """Check what can be known of recipes without their towers."""
    names = [recipe.modality for recipe in recipes]
    problems = [] if names else [Problem("recipes", "there is none", "name one modality")]
    for recipe in recipes:
        wrong = []
        if not _NAME.fullmatch(recipe.modality):
            remedy = "letters, digits and _ make one, a letter first"
            wrong.append(("is no name for a modality", remedy))
        elif is_taken(recipe.modality):
            wrong.append(("is what datasets call something else", "give another name"))
        if names.count(recipe.modality) > 1:
            wrong.append(("is made more than once", "give another name"))
        if len(recipe.towers) > 1 and recipe.pool == "none":
            problem = "has several towers, whose steps are at different times"
            wrong.append((problem, "pool them: max or mean"))
        problems += [Problem(f"modality {recipe.modality!r}", *each) for each in wrong]
    if problems:
        raise InputError(dict.fromkeys(problems))


def _value(text: str) -> Setting:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True, slots=True)
class Registered:
    """A tower that may be chosen; what it needs is imported with its module."""

    path: str  # module:class in this folder
    package: str = ""  # that may not be installed
    vectors: bool = False  # whether it takes word vectors
    device: bool = True  # whether it can run on another device than the CPU
    reads: bool = False  # whether it takes text, and no file


_ROOM = "continual_mm.preparation.extraction"

TOWERS: Mapping[str, Registered] = MappingProxyType(
    {
        "frames": Registered("torchvision_towers:FrameTower"),
        "motion": Registered("torchvision_towers:MotionTower"),
        "audio": Registered("spectrogram_tower:LogMelTower", device=False),
        "depth": Registered("depth_tower:DepthTower", device=False),
        "text": Registered("word_towers:WordTower", vectors=True, device=False, reads=True),
        "clap_audio": Registered("clap_towers:AudioTower", package="transformers"),
        "clap_text": Registered("clap_towers:SentenceTower", package="transformers", reads=True),
        "sentence_transformer": Registered(
            "sentence_towers:SentenceTower", package="sentence_transformers", reads=True
        ),
        "open_clip_image": Registered("clip_towers:ImageTower", package="open_clip"),
        "open_clip_text": Registered("clip_towers:SentenceTower", package="open_clip", reads=True),
    }
)


def registered(name: str) -> Registered:
    """The tower of a name, which must be in the registry."""
    if name in TOWERS:
        return TOWERS[name]
    problem = "there is none"
    remedy = f"{suggestion(name, TOWERS)}the towers are {', '.join(TOWERS)}"
    if name == "open_clip_audio":
        problem = "open_clip has no network for audio"
        remedy = "clap_audio uses transformers' CLAP, audio makes spectrograms"
    raise InputError.at(f"tower {name!r}", problem, remedy)


def modules_of(recipes: Iterable[Recipe]) -> tuple[str, ...]:
    """Modules of the towers that recipes name."""
    paths = [registered(choice.tower).path for recipe in recipes for choice in recipe.towers]
    return tuple(dict.fromkeys(f"{_ROOM}.{path.partition(':')[0]}" for path in paths))


def need_vectors(recipes: Iterable[Recipe]) -> bool:
    """Whether a tower that recipes name takes word vectors."""
    return any(registered(one.tower).vectors for recipe in recipes for one in recipe.towers)


def build(choice: TowerChoice, vectors: "Vectors | None", device: str) -> Tower:
    """Make a tower."""
    place, known = f"tower {choice.tower!r}", registered(choice.tower)
    if known.package:
        check_installed(known.package, place)
    maker = resolve_name(f"{_ROOM}.{known.path}")
    accepted = [
        name
        for name, parameter in signature(maker).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name != "device"
    ]
    options = dict(choice.options)
    of = options.pop("of", None)
    if unknown := [name for name in options if name not in accepted]:
        remedy = f"{suggestion(unknown[0], accepted)}its options are {', '.join(accepted)}"
        raise InputError.at(place, f"has no option {unknown[0]!r}", remedy)
    given = {**options, **({"device": device} if known.device else {})}
    try:
        tower: Tower = maker(vectors, **given) if known.vectors else maker(**given)
    except InputError:
        raise
    # AssertionError: torch, if it was built without the device.
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        remedy = "correct its options, or the device"
        raise InputError.at(place, first_line(error), remedy) from error
    return tower if of is None else _of_cloud(tower, of, place)


def _of_cloud(tower: Tower, of: Setting, place: str) -> Tower:
    """A tower for frames as one for clouds."""
    if of != CLOUD or tower.signal != "frames":
        problem = f"cannot be of {str(of)[:20]!r}" if of != CLOUD else "takes no frames"
        raise InputError.at(place, problem, f"of={CLOUD} gives towers for frames depth maps to see")
    through: Tower = resolve_name(f"{_ROOM}.depth_tower:ThroughFrames")(tower)
    return through
