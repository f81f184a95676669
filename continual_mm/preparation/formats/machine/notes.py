"""What a pickle handles instead of functions, classes and half-made objects."""

from collections.abc import Callable
from dataclasses import dataclass, field

from continual_mm.preparation.formats.machine.fault import Budget, FaultError

Make = Callable[[Budget, tuple[object, ...]], object]
"""Makes an object of the arguments in a pickle, all of which it has to doubt."""


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A function or class that a pickle may name; the function or class itself is out of reach.

    Attributes:
        text: The full name, for problems.
        make: What stands in for a call; None for what may only be named, as ``numpy.ndarray`` is.
    """

    text: str
    make: Make | None = None

    def called(self, budget: Budget, arguments: object) -> object:
        """What the pickle gets where it calls this.

        Raises:
            FaultError: If it cannot be called, or not with these arguments.
        """
        if self.make is None or not isinstance(arguments, tuple):
            raise FaultError(f"calls {self.text}, which is not allowed")
        return self.make(budget, arguments)


@dataclass(slots=True, eq=False)
class Unfinished:
    """An object of which the pickle has yet to give the state.

    Attributes:
        text: What it is, for problems.
        finish: Makes the object of its state.
        memo: Where the pickle remembers this, to find the finished object instead.
    """

    text: str
    finish: Callable[[Budget, object], object]
    memo: list[int] = field(default_factory=list)


def misused(name: str) -> FaultError:
    """The problem about a call, or a state, that no honest program writes."""
    return FaultError(f"gives {name} arguments that it never has")
