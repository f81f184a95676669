"""A caption: what is seen and what is heard, with synonyms, omissions and a free order."""

import numpy as np

from continual_mm.data.narrated_shapes.attributes import OMISSION, Attributes, pick

SYNONYMS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid", "wedge"),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop", "loop"),
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "golden", "lemon"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "navy", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "plain": ("plain", "blank", "empty"),
    "stripes": ("stripes", "pinstripes"),
    "bars": ("bars", "shelves"),
    "checks": ("checks", "chessboard"),
    "waves": ("diagonals", "slants"),
    "up": ("up", "upwards", "skywards"),
    "down": ("down", "downwards"),
    "left": ("left", "leftwards", "west"),
    "right": ("right", "rightwards", "east"),
    "moves": ("moves", "drifts", "slides"),
    "2": ("two", "pair"),
    "3": ("three", "trio"),
    "4": ("four", "quartet"),
    "5": ("five", "quintet"),
    "flute": ("flute", "recorder"),
    "clarinet": ("clarinet", "oboe"),
    "trumpet": ("trumpet", "horn"),
    "violin": ("violin", "fiddle"),
    "bell": ("bell", "chime"),
    "organ": ("organ", "harmonium"),
    "drum": ("drum", "tom"),
    "buzzer": ("buzzer", "kazoo"),
    "short": ("short", "staccato", "clipped"),
    "long": ("long", "sustained"),
    "trembling": ("trembling", "quivering"),
    "soft": ("soft", "faint", "gentle"),
    "moderate": ("moderate", "medium"),
    "loud": ("loud", "booming", "noisy"),
    "quiet": ("silence", "stillness"),
    "rain": ("rain", "drizzle", "downpour"),
    "wind": ("wind", "breeze", "gale"),
    "engine": ("engine", "motor"),
    "murmur": ("murmur", "chatter"),
    "plays": ("plays", "sounds"),
    "notes": ("notes", "tones"),
}
"""The words for each value of an attribute, and for the verbs and nouns that carry no attribute."""

STOP_WORDS = frozenset({"a", "and", "in", "over", "the", "while"})
"""Words that are written but not embedded, as instructional-video pipelines do."""


def caption(item: Attributes, dice: np.random.Generator) -> str:
    """Tell an item in one sentence, such as ``a red disc drifts up left over checks while ...``."""
    clauses = [_seen(item, dice), _heard(item, dice)]
    dice.shuffle(clauses)
    return f" {pick(('while', 'and'), dice)} ".join(clauses)


def content_words(sentence: str) -> list[str]:
    """Split a caption into words without the stop words."""
    return [word for word in sentence.split() if word not in STOP_WORDS]


def _word(value: str, dice: np.random.Generator) -> str:
    return pick(SYNONYMS[value], dice)


def _maybe(value: str, dice: np.random.Generator, phrase: str = "{}") -> list[str]:
    """Give a phrase with its word, or nothing as often as phrases are omitted."""
    return [] if dice.random() < OMISSION else [phrase.format(_word(value, dice))]


def _seen(item: Attributes, dice: np.random.Generator) -> str:
    subject = ["a", *_maybe(item.colour, dice), _word(item.shape, dice)]
    return " ".join(
        subject + _shuffled([_moving(item, dice), _maybe(item.pattern, dice, "over {}")], dice)
    )


def _moving(item: Attributes, dice: np.random.Generator) -> list[str]:
    if dice.random() < OMISSION:
        return []
    right, up = item.course
    upright = {1: ["up"], 0: [], -1: ["down"]}[up]
    sideways = {1: ["right"], 0: [], -1: ["left"]}[right]
    return [_word(value, dice) for value in ["moves", *upright, *sideways]]


def _heard(item: Attributes, dice: np.random.Generator) -> str:
    player = ["a", *_maybe(item.loudness, dice), *_maybe(item.instrument, dice)]
    notes = [
        *_maybe(str(len(item.beats)), dice),
        *_maybe(item.articulation, dice),
        _word("notes", dice),
    ]
    played = [_word("plays", dice), *notes]
    return " ".join(player + played + _maybe(item.ambience, dice, "in the {}"))


def _shuffled(phrases: list[list[str]], dice: np.random.Generator) -> list[str]:
    dice.shuffle(phrases)
    return [word for phrase in phrases for word in phrase]
