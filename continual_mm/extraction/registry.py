"""Name of a tower -> tower: the only list. What a tower needs is imported with it, not before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import Parameter, signature
from pkgutil import resolve_name
from types import MappingProxyType

from continual_mm.complaint import Complaint, RefusedError, suggestion
from continual_mm.extraction.recipe import Recipe, TowerChoice
from continual_mm.extraction.tower import Tower, Vectors


@dataclass(frozen=True, slots=True)
class Known:
    """A tower that may be chosen.

    Attributes:
        path: ``module:class``.
        summary: One line for lists.
        package: What it needs that may not be installed, as it is imported.
        extra: The extra that installs it.
        vectors: Whether it is given word vectors.
        device: Whether it can run on another device than the processor.
        reads: Whether it takes text, and neither film nor sound.
    """

    path: str
    summary: str
    package: str = ""
    extra: str = ""
    vectors: bool = False
    device: bool = True
    reads: bool = False


_ROOM = "continual_mm.extraction"

TOWERS: Mapping[str, Known] = MappingProxyType(
    {
        "frames": Known(
            f"{_ROOM}.frames:FrameTower", "pictures through a classifier of torchvision"
        ),
        "motion": Known(
            f"{_ROOM}.frames:MotionTower", "windows of film through a classifier of torchvision"
        ),
        "audio": Known(
            f"{_ROOM}.log_mel:LogMelTower", "log-mel spectrograms of the sound", device=False
        ),
        "text": Known(
            f"{_ROOM}.words:WordTower",
            "a vector for each word",
            vectors=True,
            device=False,
            reads=True,
        ),
        "clap_audio": Known(
            f"{_ROOM}.clap:SoundTower",
            "sound through a CLAP of transformers",
            *("transformers", "clap"),
        ),
        "clap_text": Known(
            f"{_ROOM}.clap:SentenceTower",
            "text through a CLAP of transformers",
            *("transformers", "clap"),
            reads=True,
        ),
        "open_clip_image": Known(
            f"{_ROOM}.contrastive:ImageTower",
            "pictures through a CLIP of open_clip",
            *("open_clip", "clip"),
        ),
        "open_clip_text": Known(
            f"{_ROOM}.contrastive:SentenceTower",
            "text through a CLIP of open_clip",
            *("open_clip", "clip"),
            reads=True,
        ),
    }
)


def modules_of(recipes: Iterable[Recipe]) -> tuple[str, ...]:
    """Modules of the towers that recipes name, as far as there are such towers.

    >>> modules_of([Recipe.parse("video=frames+motion/max"), Recipe.parse("audio=audio")])
    ('continual_mm.extraction.frames', 'continual_mm.extraction.log_mel')
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
        RefusedError: If there is no such tower or option, or it cannot be made.
    """
    place = f"tower {choice.tower!r}"
    known = TOWERS.get(choice.tower)
    if choice.tower == "open_clip_audio":
        problem = "open_clip has no network for sound"
        remedy = "clap_audio uses transformers' CLAP, audio makes spectrograms"
        raise RefusedError(Complaint(place, problem, remedy))
    if known is None:
        remedy = f"{suggestion(choice.tower, TOWERS)}the towers are {', '.join(TOWERS)}"
        raise RefusedError(Complaint(place, "there is none", remedy))
    if known.package and find_spec(known.package) is None:
        remedy = f"pip install 'continual-mm[{known.extra}]'"
        raise RefusedError(Complaint(place, f"needs {known.package}", remedy))
    maker = resolve_name(known.path)
    accepted = [
        name
        for name, parameter in signature(maker).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY and name != "device"
    ]
    if unknown := [name for name in choice.options if name not in accepted]:
        remedy = f"{suggestion(unknown[0], accepted)}its options are {', '.join(accepted)}"
        raise RefusedError(Complaint(place, f"has no option {unknown[0]!r}", remedy))
    given = {**choice.options, **({"device": device} if known.device else {})}
    try:
        tower: Tower = maker(*([vectors] if known.vectors else []), **given)
    except RefusedError:
        raise
    # AssertionError: torch, if it was built without the device.
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RefusedError(Complaint(place, told, "mend its options, or the device")) from error
    return tower
