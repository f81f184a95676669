"""Names of classes as people would say them, for classification from words."""

import re

_BOUNDARY = re.compile(r"[_\s]+|(?<=[^A-Z_\s])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Between words: underscores, before a capital, and before the last of several capitals."""


def class_text(name: str, *, template: str = "{}") -> str:
    """The words in a class's name, in lower case.

    Args:
        name: Such as ``ApplyEyeMakeup`` or ``brush_hair``.
        template: A sentence with ``{}`` where the words go.

    >>> class_text("ApplyEyeMakeup"), class_text("brush_hair", template="a video of {}")
    ('apply eye makeup', 'a video of brush hair')
    """
    words = [word for word in _BOUNDARY.split(name) if word]
    return template.format(" ".join(words).lower())
