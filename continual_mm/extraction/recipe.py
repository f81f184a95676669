"""Which towers make which modality, as a user says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.schema import is_taken
from continual_mm.extraction.tower import Setting

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
            RefusedError: If the text is no recipe.
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
            raise RefusedError(Complaint(f"{text!r}", problem, remedy))
        return cls(modality, towers, chosen)


def check_recipes(recipes: tuple[Recipe, ...]) -> None:
    """Check what can be known of recipes without their towers.

    Raises:
        RefusedError: With everything that is wrong.
    """
    names = [recipe.modality for recipe in recipes]
    complaints = [] if names else [Complaint("recipes", "there is none", "name one modality")]
    for recipe in recipes:
        place = f"modality {recipe.modality!r}"
        if not _NAME.fullmatch(recipe.modality):
            remedy = "letters, digits and _ make one, a letter first"
            complaints.append(Complaint(place, "is no name for a modality", remedy))
        elif is_taken(recipe.modality):
            problem = "is what datasets call something else"
            complaints.append(Complaint(place, problem, "give another name"))
        if names.count(recipe.modality) > 1:
            complaints.append(Complaint(place, "is made more than once", "give another name"))
        if len(recipe.towers) > 1 and recipe.pool == "none":
            problem = "has several towers, which look at different moments"
            complaints.append(Complaint(place, problem, "pool them: max or mean"))
    if complaints:
        raise RefusedError(dict.fromkeys(complaints))


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
