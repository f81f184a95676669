"""Name of a tower -> tower: the only list. What a tower needs is imported with it, not before."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.schema import is_taken
from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.media import Pictures
from continual_mm.system.errors import InputError, Problem, suggestion
from continual_mm.system.imports import check_installed

Features = NDArray[np.float32]
Setting = str | int | float | bool | None

RANDOM = "random"
"""Weights that nobody trained, drawn with fixed dice: for trying things out."""


class Described(Protocol):
    """What all towers say of themselves.

    Attributes:
        kind: What their features are: vectors, or which sequence.
        features: Values of a vector, or of a step of a sequence.
        told: What they are, for people; says so if their weights are random.
        settings: All that decides what they give, as a job keeps it.
    """

    kind: Kind
    features: int
    told: str
    settings: Mapping[str, Setting]


class PictureTower(Described, Protocol):
    """Describes pictures, some at a time.

    Attributes:
        wanted: Which pictures.
        block: How many at a time; always the same number but for a clip's last block, so that
            features never depend on what else is extracted.
    """

    signal: Literal["pictures"]
    wanted: Pictures
    block: int

    def describe(self, pictures: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) RGB -> (steps, features), or (n, features)."""


class SoundTower(Described, Protocol):
    """Describes sound.

    Attributes:
        sample_rate: Samples per second that it wants.
    """

    signal: Literal["sound"]
    sample_rate: int

    def describe(self, wave: NDArray[np.float32]) -> Features:
        """(samples,) -> (steps, features)."""


class TextTower(Described, Protocol):
    """Describes text."""

    signal: Literal["text"]

    def describe(self, text: str) -> Features | None:
        """(words, features) or (features,); None if it knows no word of it."""


Tower = PictureTower | SoundTower | TextTower


class Vectors(Protocol):
    """Word vectors, such as those of GoogleNews.

    Attributes:
        name: What they are; a job goes on with vectors of the same name only.
        features: Numbers of each.
        fingerprint: Another one whenever a vector is another one; what is made of text is then made
            anew.
    """

    name: str
    features: int
    fingerprint: str

    def __contains__(self, word: object) -> bool:
        """Whether a word, as it is written, has a vector."""

    def vector(self, word: str) -> NDArray[np.floating]:
        """(features,)."""


def probe(tower: Tower) -> None:
    """Have a tower describe a little nothing, so that what cannot work fails before hours of work.

    Raises:
        RuntimeError: Or whatever else a network says of sizes that it cannot take.
    """
    if tower.signal == "pictures":
        height, width = tower.wanted.size(256, 256)
        tower.describe(np.zeros((1, height, width, 3), dtype=np.uint8))
    elif tower.signal == "sound":
        tower.describe(np.zeros(1, dtype=np.float32))
    else:
        tower.describe("a")


Pool = Literal["none", "max", "mean"]
_POOLS: tuple[Pool, ...] = ("none", "max", "mean")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class TowerChoice:
    """A tower by name.

    Attributes:
        tower: In the registry.
        options: Of its constructor, those that are not the default.
    """

    tower: str
    options: Mapping[str, Setting] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``tower``, ``tower:network``, ``tower:network@weights``, ``...,option=value``.

        >>> TowerChoice.parse("frames:resnet18@random,rate=2").options
        {'network': 'resnet18', 'weights': 'random', 'rate': 2}
        """
        head, *settings = text.split(",")
        head, _, weights = head.partition("@")
        tower, _, network = head.partition(":")
        options = {"network": network, "weights": weights}
        given = {key: value for key, value in options.items() if value}
        named = (setting.partition("=") for setting in settings)
        return cls(tower, {**given, **{key: _value(value) for key, _, value in named}})


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a modality is made.

    Attributes:
        modality: Its name.
        towers: One; or several whose features are pooled and put side by side.
        pool: ``max`` or ``mean`` over time, of which every tower's features have length 1 (MCN
            takes the maximum), make a vector; ``none`` keeps the sequence.
    """

    modality: str
    towers: tuple[TowerChoice, ...]
    pool: Pool = "none"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``modality=tower``, ``modality=tower+tower/max``.

        >>> recipe = Recipe.parse("video=frames+motion:s3d/max")
        >>> recipe.modality, [choice.tower for choice in recipe.towers], recipe.pool
        ('video', ['frames', 'motion'], 'max')

        Raises:
            InputError: If the text is no recipe.
        """
        modality, equals, rest = text.partition("=")
        body, slash, pool = rest.rpartition("/")
        if not slash or pool not in _POOLS:
            body, pool = rest, "none"
        towers = tuple(TowerChoice.parse(part) for part in body.split("+"))
        chosen = next(each for each in _POOLS if each == pool)
        if not equals or not all(choice.tower for choice in towers):
            problem = "is no modality with its towers"
            remedy = (
                "write modality=tower, such as video=frames:resnet18 or video=frames+motion/max"
            )
            raise InputError(Problem(f"{text!r}", problem, remedy))
        return cls(modality, towers, chosen)


def check_recipes(recipes: tuple[Recipe, ...]) -> None:
    """Check what can be known of recipes without their towers.

    Raises:
        InputError: With everything that is wrong.
    """
    names = [recipe.modality for recipe in recipes]
    problems = [] if names else [Problem("recipes", "there is none", "name one modality")]
    for recipe in recipes:
        place = f"modality {recipe.modality!r}"
        if not _NAME.fullmatch(recipe.modality):
            remedy = "letters, digits and _ make one, a letter first"
            problems.append(Problem(place, "is no name for a modality", remedy))
        elif is_taken(recipe.modality):
            problem = "is what datasets call something else"
            problems.append(Problem(place, problem, "give another name"))
        if names.count(recipe.modality) > 1:
            problems.append(Problem(place, "is made more than once", "give another name"))
        if len(recipe.towers) > 1 and recipe.pool == "none":
            problem = "has several towers, which look at different moments"
            problems.append(Problem(place, problem, "pool them: max or mean"))
    if problems:
        raise InputError(dict.fromkeys(problems))


def _value(text: str) -> Setting:
    """A number where the text is one.

    >>> _value("2"), _value("2.5"), _value("robust")
    (2, 2.5, 'robust')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True, slots=True)
class Known:
    """A tower that may be chosen.

    Attributes:
        path: ``module:class``.
        summary: One line for lists.
        package: What it needs that may not be installed, as it is imported.
        vectors: Whether it is given word vectors.
        device: Whether it can run on another device than the processor.
        reads: Whether it takes text, and neither film nor sound.
    """

    path: str
    summary: str
    package: str = ""
    vectors: bool = False
    device: bool = True
    reads: bool = False


_ROOM = "continual_mm.preparation.extraction"

TOWERS: Mapping[str, Known] = MappingProxyType(
    {
        "frames": Known(
            f"{_ROOM}.torchvision_towers:FrameTower", "pictures through a classifier of torchvision"
        ),
        "motion": Known(
            f"{_ROOM}.torchvision_towers:MotionTower",
            "windows of film through a classifier of torchvision",
        ),
        "audio": Known(
            f"{_ROOM}.spectrogram_tower:LogMelTower",
            "log-mel spectrograms of the sound",
            device=False,
        ),
        "text": Known(
            f"{_ROOM}.word_towers:WordTower",
            "a vector for each word",
            vectors=True,
            device=False,
            reads=True,
        ),
        "clap_audio": Known(
            f"{_ROOM}.clap_towers:SoundTower",
            "sound through a CLAP of transformers",
            package="transformers",
        ),
        "clap_text": Known(
            f"{_ROOM}.clap_towers:SentenceTower",
            "text through a CLAP of transformers",
            package="transformers",
            reads=True,
        ),
        "open_clip_image": Known(
            f"{_ROOM}.clip_towers:ImageTower",
            "pictures through a CLIP of open_clip",
            package="open_clip",
        ),
        "open_clip_text": Known(
            f"{_ROOM}.clip_towers:SentenceTower",
            "text through a CLIP of open_clip",
            package="open_clip",
            reads=True,
        ),
    }
)


def modules_of(recipes: Iterable[Recipe]) -> tuple[str, ...]:
    """Modules of the towers that recipes name, as far as there are such towers.

    >>> modules_of([Recipe.parse("video=frames+motion/max")])
    ('continual_mm.preparation.extraction.torchvision_towers',)
    """
    names = dict.fromkeys(choice.tower for recipe in recipes for choice in recipe.towers)
    paths = [TOWERS[name].path for name in names if name in TOWERS]
    return tuple(dict.fromkeys(path.partition(":")[0] for path in paths))


def need_vectors(recipes: Iterable[Recipe]) -> bool:
    """Whether a tower that recipes name takes words."""
    chosen = (TOWERS.get(choice.tower) for recipe in recipes for choice in recipe.towers)
    return any(known is not None and known.vectors for known in chosen)


def build(choice: TowerChoice, vectors: Vectors | None, device: str) -> Tower:
    """Make a tower.

    Args:
        choice: Its name and options.
        vectors: For towers that take words.
        device: For towers that are networks.

    Raises:
        InputError: If there is no such tower or option, or it cannot be made.
    """
    place = f"tower {choice.tower!r}"
    known = TOWERS.get(choice.tower)
    if choice.tower == "open_clip_audio":
        problem = "open_clip has no network for sound"
        remedy = "clap_audio uses transformers' CLAP, audio makes spectrograms"
        raise InputError(Problem(place, problem, remedy))
    if known is None:
        remedy = f"{suggestion(choice.tower, TOWERS)}the towers are {', '.join(TOWERS)}"
        raise InputError(Problem(place, "there is none", remedy))
    if known.package:
        check_installed(known.package, place)
    maker = resolve_name(known.path)
    accepted = [
        name
        for name, parameter in signature(maker).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name != "device"
    ]
    if unknown := [name for name in choice.options if name not in accepted]:
        remedy = f"{suggestion(unknown[0], accepted)}its options are {', '.join(accepted)}"
        raise InputError(Problem(place, f"has no option {unknown[0]!r}", remedy))
    given = {**choice.options, **({"device": device} if known.device else {})}
    try:
        tower: Tower = maker(*([vectors] if known.vectors else []), **given)
    except InputError:
        raise
    # AssertionError: torch, if it was built without the device.
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(Problem(place, told, "mend its options, or the device")) from error
    return tower
