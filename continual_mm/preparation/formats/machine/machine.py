"""The stack machine that a pickle is a program for, without what could run or exhaust anything.

Python's own machine lets a pickle set attributes of whatever lies on its stack, call every method
named ``append``, ``add`` or ``__setstate__``, and reserve memory for a memo of any size. This one
changes plain containers and nothing else, and calls nothing but :class:`~.notes.Name`.
"""

import mmap
import pickle
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from continual_mm.preparation.formats.machine.fault import Budget, FaultError, shown
from continual_mm.preparation.formats.machine.keys import elements, kind
from continual_mm.preparation.formats.machine.literals import LITERALS, WORD, Source, text
from continual_mm.preparation.formats.machine.notes import Name, Unfinished

_NEWEST = 5
Names = Mapping[tuple[str, str], Name]
"""What a pickle may name, by module and name inside it."""

Kept = Callable[[object], object]
"""What gives the objects that a pickle asks for because they are kept beside it."""

STUMBLES = (
    *(ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(AttributeError, EOFError),
)
"""Whatever damaged bytes are known to raise in the machine, in NumPy and in torch."""


class Machine:
    """Runs one pickle.

    Attributes:
        source: The pickle's bytes.
    """

    def __init__(
        self, data: bytes | mmap.mmap, names: Names, *, at: int = 0, kept: Kept | None = None
    ) -> None:
        """Prepare to run a pickle.

        Args:
            data: The pickle; what stands behind its end is ignored.
            names: All that it may name.
            at: Where it begins.
            kept: Gives what is kept beside it; without one, asking for it is refused.
        """
        self.source = Source(data, at)
        self._names = names
        self._kept = kept
        self._budget = Budget(len(data))
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """Run the pickle to its end.

        Returns:
            The object that it describes.

        Raises:
            FaultError: If it names what is not allowed, or makes no sense.
        """
        try:
            return self._run()
        except STUMBLES as error:
            problem = f"cannot be read behind byte {self.source.at} ({type(error).__name__})"
            raise FaultError(problem) from error

    def _run(self) -> object:
        source = self.source
        while (code := source.byte()) != pickle.STOP[0]:
            if read := LITERALS.get(code):
                self._stack.append(read(source))
            elif act := _ACTIONS.get(code):
                act(self)
            else:
                raise FaultError(_WHY_NOT.get(code, f"has an unknown instruction {code}"))
        return self._pop()

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> object:
        return self._stack.pop()

    def _above_mark(self) -> list[object]:
        """Take what was put on the stack since the last mark."""
        values, self._stack = self._stack, self._below.pop()
        return values

    def _protocol(self) -> None:
        if (number := self.source.byte()) > _NEWEST:
            raise FaultError(f"is of protocol {number}", f"write it with protocol {_NEWEST}")

    def _frame(self) -> None:
        self.source.take(8)

    def _forget(self) -> None:
        self._above_mark()

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_top(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._below.pop()

    def _remember(self, place: int) -> None:
        value = self._stack[-1]
        self._memo[place] = value
        if isinstance(value, Unfinished):
            value.memo.append(place)

    def _tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise FaultError("takes more from its stack than there is")
        values = tuple(self._stack[-length:])
        self._stack[-length:] = [values]

    def _append(self, values: list[object]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise FaultError(f"appends to a {kind(target)}")
        target.extend(values)

    def _set_items(self, values: list[object]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise FaultError(f"sets items of a {kind(target)}")
        target.update(_items(values))

    def _add_items(self) -> None:
        values = self._above_mark()
        target = self._stack[-1]
        if type(target) is not set:
            raise FaultError(f"adds to a {kind(target)}")
        target.update(elements(values))

    def _name(self, module: str, name: str) -> None:
        known = self._names.get((module, name))
        if known is None:
            raise FaultError(
                f"names {shown(f'{module}.{name}')}, which is not opened: it could run anything",
                "where the file is yours, load it yourself and save its arrays as .npz, its text"
                " as .json",
            )
        self._stack.append(known)

    def _named_by_lines(self) -> None:
        self._name(text(self.source.line()), text(self.source.line()))

    def _named_by_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not (type(module) is str and type(name) is str):
            raise FaultError("names something with what is no text")
        self._name(module, name)

    def _call(self, function: object, arguments: object) -> None:
        if not isinstance(function, Name):
            raise FaultError(f"calls a {kind(function)}")
        self._stack.append(function.called(self._budget, arguments))

    def _reduce(self) -> None:
        arguments = self._pop()
        self._call(self._pop(), arguments)

    def _new_with_keywords(self) -> None:
        keywords = self._pop()
        if type(keywords) is not dict or keywords:
            raise FaultError("makes an object with keywords")
        self._reduce()

    def _instance(self) -> None:
        arguments = tuple(self._above_mark())
        self._named_by_lines()
        self._call(self._pop(), arguments)

    def _object(self) -> None:
        function, *arguments = self._above_mark()
        self._call(function, tuple(arguments))

    def _keep(self) -> None:
        if self._kept is None:
            raise FaultError("asks for an object that is kept elsewhere")
        self._stack.append(self._kept(self._pop()))

    def _build(self) -> None:
        state, unfinished = self._pop(), self._pop()
        if not isinstance(unfinished, Unfinished):
            raise FaultError(f"sets the state of a {kind(unfinished)}")
        finished = unfinished.finish(self._budget, state)
        for place in unfinished.memo:
            if self._memo[place] is unfinished:
                self._memo[place] = finished
        unfinished.memo.clear()
        self._stack.append(finished)


def _items(values: list[object]) -> Iterable[tuple[object, object]]:
    return zip(elements(values[::2]), values[1::2], strict=True)


_ACTIONS: Mapping[int, Callable[[Machine], None]] = MappingProxyType(
    {
        pickle.PROTO[0]: Machine._protocol,
        pickle.FRAME[0]: Machine._frame,
        pickle.MARK[0]: Machine._mark,
        pickle.POP[0]: Machine._pop_top,
        pickle.POP_MARK[0]: Machine._forget,
        pickle.DUP[0]: lambda self: self._push(self._stack[-1]),
        pickle.PUT[0]: lambda self: self._remember(int(self.source.line())),
        pickle.BINPUT[0]: lambda self: self._remember(self.source.byte()),
        pickle.LONG_BINPUT[0]: lambda self: self._remember(self.source.number(WORD)),
        pickle.MEMOIZE[0]: lambda self: self._remember(len(self._memo)),
        pickle.GET[0]: lambda self: self._push(self._memo[int(self.source.line())]),
        pickle.BINGET[0]: lambda self: self._push(self._memo[self.source.byte()]),
        pickle.LONG_BINGET[0]: lambda self: self._push(self._memo[self.source.number(WORD)]),
        pickle.TUPLE[0]: lambda self: self._push(tuple(self._above_mark())),
        pickle.TUPLE1[0]: lambda self: self._tuple(1),
        pickle.TUPLE2[0]: lambda self: self._tuple(2),
        pickle.TUPLE3[0]: lambda self: self._tuple(3),
        pickle.LIST[0]: lambda self: self._push(self._above_mark()),
        pickle.DICT[0]: lambda self: self._push(dict(_items(self._above_mark()))),
        pickle.FROZENSET[0]: lambda self: self._push(frozenset(elements(self._above_mark()))),
        pickle.APPEND[0]: lambda self: self._append([self._pop()]),
        pickle.APPENDS[0]: lambda self: self._append(self._above_mark()),
        pickle.SETITEM[0]: lambda self: self._set_items([self._pop(), self._pop()][::-1]),
        pickle.SETITEMS[0]: lambda self: self._set_items(self._above_mark()),
        pickle.ADDITEMS[0]: Machine._add_items,
        pickle.GLOBAL[0]: Machine._named_by_lines,
        pickle.STACK_GLOBAL[0]: Machine._named_by_stack,
        pickle.REDUCE[0]: Machine._reduce,
        pickle.NEWOBJ[0]: Machine._reduce,
        pickle.NEWOBJ_EX[0]: Machine._new_with_keywords,
        pickle.INST[0]: Machine._instance,
        pickle.OBJ[0]: Machine._object,
        pickle.BUILD[0]: Machine._build,
        pickle.BINPERSID[0]: Machine._keep,
    }
)

_WHY_NOT: Mapping[int, str] = MappingProxyType(
    {pickle.PERSID[0]: "asks for an object that is kept elsewhere"}
    | dict.fromkeys(
        (pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]),
        "calls by a number of copyreg's extension registry, which is never looked at",
    )
    | dict.fromkeys(
        (pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0]), "keeps its arrays outside of the file"
    )
)
"""Instructions that are understood and not followed."""
