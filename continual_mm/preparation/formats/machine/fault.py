"""Why a pickle is not read to its end, and how much memory one may ask for."""

REFERENCE = 8
"""Bytes that a place in a container takes; what lies there stands in the file by itself."""

_SHOWN = 200
"""Characters of a name that a problem repeats."""

_AMPLE = 8
_SLACK = 1 << 20


class FaultError(Exception):
    """A pickle that is damaged, hostile, or asks for what is not allowed.

    Attributes:
        problem: What is wrong with it.
        remedy: What to do about it.
    """

    def __init__(self, problem: str, remedy: str = "it is damaged, or was made to mislead") -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}; {remedy}")


class Budget:
    """How much a pickle may still have copied.

    Every value stands in the file at least once, so that only a file that copies the same values
    again and again needs more than a small multiple of its own size.
    """

    def __init__(self, size: int) -> None:
        """Begin with what a file of so many bytes may need."""
        self._left = _AMPLE * size + _SLACK

    def charge(self, amount: int) -> None:
        """Take so many bytes from what is left.

        Raises:
            FaultError: If that is more than there is.
        """
        self._left -= amount
        if self._left < 0:
            raise FaultError("asks for far more memory than its size explains")


def shown(name: str) -> str:
    r"""A name out of a file, fit to be told: on one line, without what could steer a terminal.

    >>> print(shown("red: \x1b[31m\n"))
    red: \x1b[31m\n
    """
    plain = (one if one.isprintable() else ascii(one)[1:-1] for one in name[:_SHOWN])
    return "".join(plain) + ("..." if len(name) > _SHOWN else "")
