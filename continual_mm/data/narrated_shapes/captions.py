"""A caption: what is seen and what is heard, with synonyms, omissions and a free order."""

import numpy as np

from continual_mm.data.narrated_shapes.attributes import LEVELS, OMISSION, Attributes, pick

SYNONYMS: dict[str, tuple[str, ...]] = {
    "size 0": ("tiny", "minute"),
    "size 1": ("small", "little"),
    "size 2": ("middling", "average"),
    "size 3": ("big", "large"),
    "size 4": ("huge", "giant"),
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "golden", "lemon"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "navy", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid", "wedge"),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop", "loop"),
    "moves": ("moves", "drifts", "slides"),
    "up": ("up", "upwards", "skywards"),
    "down": ("down", "downwards"),
    "left": ("left", "leftwards", "west"),
    "right": ("right", "rightwards", "east"),
    "soft": ("soft", "faint", "gentle"),
    "moderate": ("moderate", "medium"),
    "loud": ("loud", "booming", "noisy"),
    "flute": ("flute", "recorder"),
    "trumpet": ("trumpet", "horn"),
    "violin": ("violin", "fiddle"),
    "bell": ("bell", "chime"),
    "drum": ("drum", "tom"),
    "organ": ("organ", "harmonium"),
    "plays": ("plays", "sounds"),
    "2 beats": ("two", "a pair of"),
    "3 beats": ("three", "a trio of"),
    "4 beats": ("four", "a quartet of"),
    "5 beats": ("five", "a quintet of"),
    "short": ("short", "staccato", "clipped"),
    "long": ("long", "sustained"),
    "trembling": ("trembling", "quivering"),
    "notes": ("notes", "tones"),
}
"""Words for each value of an attribute, and for the verbs and nouns that carry no attribute."""

STOP_WORDS = frozenset({"a", "an", "and", "of", "something", "while"})
"""Words that are written but not embedded, as pipelines for instructional video do."""


def caption(item: Attributes, rng: np.random.Generator) -> str:
    """Describe an item: ``a big red disc drifts up while a soft flute plays two short notes``."""
    clauses = [_seen(item, rng), _heard(item, rng)]
    rng.shuffle(clauses)
    return f" {pick(('while', 'and'), rng)} ".join(clauses)


def content_words(sentence: str) -> list[str]:
    """Split a caption into its words, without the stop words."""
    return [word for word in sentence.split() if word not in STOP_WORDS]


def _word(meaning: str, rng: np.random.Generator) -> str:
    return pick(SYNONYMS[meaning], rng)


def _maybe(meaning: str, rng: np.random.Generator) -> list[str]:
    """Give a word, or nothing as often as phrases are omitted."""
    return [] if rng.random() < OMISSION else [_word(meaning, rng)]


def _with_article(words: list[str]) -> list[str]:
    return ["an" if words[0][0] in "aeiou" else "a", *words]


def _seen(item: Attributes, rng: np.random.Generator) -> str:
    size = f"size {round(item.size * (LEVELS - 1))}"
    subject = [*_maybe(size, rng), *_maybe(item.colour, rng), _word(item.shape, rng)]
    return " ".join([*_with_article(subject), *_moving(item, rng)])


def _moving(item: Attributes, rng: np.random.Generator) -> list[str]:
    if rng.random() < OMISSION:
        return []
    right, up = item.course
    ways = {1: ["up"], 0: [], -1: ["down"]}[up] + {1: ["right"], 0: [], -1: ["left"]}[right]
    rng.shuffle(ways)
    return [_word(meaning, rng) for meaning in ["moves", *ways]]


def _heard(item: Attributes, rng: np.random.Generator) -> str:
    loudness, instrument = _maybe(item.loudness, rng), _maybe(item.instrument, rng)
    named = [*loudness, *instrument]
    player = _with_article(named) if instrument else ["something", *named]
    notes = [
        *_maybe(f"{len(item.beats)} beats", rng),
        *_maybe(item.articulation, rng),
        _word("notes", rng),
    ]
    return " ".join([*player, _word("plays", rng), *notes])
