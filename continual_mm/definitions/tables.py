"""TOML tables as typed values; each mistake in one becomes a problem with its remedy."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from continual_mm.definitions.rules import amount
from continual_mm.system.errors import InputError, Problem, Problems, suggestion
from continual_mm.system.notebook import html_table

MOST_UNKNOWN = 20  # unknown keys of a file that a problem each is about
LONGEST_SHOWN = 60  # characters of a wrong value that a problem repeats

_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "bool_type": "give true or false",
        "finite_number": "give a finite number",
        "float_type": "give a number",
        "greater_than": "give more than {gt}",
        "greater_than_equal": "give at least {ge}",
        "int_type": "give a whole number",
        "less_than_equal": "give at most {le}",
        "dict_type": "give a table, such as {example}",
        "literal_error": "give {expected}",
        "mapping_type": "give a table, such as {example}",
        "model_type": "make one with continual_mm.{class_name}(...), or give a table of its keys",
        "missing": "add {key} = {example}",
        "string_pattern_mismatch": "use letters, digits, _ and -, a letter or digit first",
        "string_type": "give a text in quotes",
        "too_short": "give at least {min_length}, such as {example}",
        "tuple_type": "give a list, such as {example}",
    }
)
"""What to do about a mistake, by pydantic's name for it."""


class Table(BaseModel):
    """A TOML table: unknown keys are errors, ``"1"`` and ``true`` are no numbers, nor is NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __init__(self, **given: Any) -> None:
        """Take values from Python; an InputError has a sentence for each that cannot be used."""
        try:
            super().__init__(**given)
        except ValidationError as error:
            reader = Reader(type(self).__name__)
            reader.mistakes(type(self), "", error)
            raise InputError(reader.problems) from error

    # Tables in tables are checked as one, and so are those of files.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let ``help`` show names and defaults alone: the docstring says what they are."""
        cls.__signature__ = Signature(
            [
                Parameter(name, Parameter.KEYWORD_ONLY, default=_default(info))
                for name, info in cls.model_fields.items()
            ]
        )

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What is not as it is by default."""
        for name, info in type(self).model_fields.items():
            value = getattr(self, name, None)
            if info.is_required() or value != info.get_default(call_default_factory=True):
                yield name, value

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, ("key", "value"), self.__repr_args__())


def _default(info: FieldInfo) -> Any:
    if info.is_required():
        return Parameter.empty
    return info.get_default(call_default_factory=True)


_Read = TypeVar("_Read", bound=Table)


@dataclass(slots=True)
class Reader:
    """Checks one file table by table and gathers the problems."""

    file: str
    problems: Problems = field(default_factory=Problems)
    _unknown: int = 0
    _rest: int = 0  # which problem counts the unknown keys that have none of their own

    def refuse(self, where: str, problem: str, remedy: str = "") -> None:
        """Add a problem at a place in the file."""
        self.problems.append(Problem(f"{self.file}, {where}", problem, remedy))

    def table(
        self, model: type[_Read], where: str, values: Any, *, tables: Iterable[str] = ()
    ) -> _Read:
        """Read a table as far as it can be read; an empty ``where`` is the top of the file.

        ``tables`` are keys that are read elsewhere. Faulty keys are left out; if there are any, the
        types of the others are not guaranteed.
        """
        if not isinstance(values, Mapping):
            self.refuse(where, f"{shown(values)} is not a table", f"write keys below {where}")
            return model.model_construct()
        try:
            return model.model_validate(dict(values))
        except ValidationError as error:
            faulty = self.mistakes(model, where, error, tables=tables)
        return model.model_construct(**{k: v for k, v in values.items() if k not in faulty})

    def mistakes(
        self,
        model: type[Table],
        where: str,
        error: ValidationError,
        *,
        tables: Iterable[str] = (),
    ) -> set[str]:
        """Add a problem for each mistake in a table; gives the keys that are faulty."""
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        faulty = set()
        for mistake in error.errors(include_url=False):
            key = str(mistake["loc"][0]) if mistake["loc"] else ""
            faulty.add(key)
            example = (key in fields and fields[key].examples) or ["..."]
            if mistake["type"] == "extra_forbidden" and len(mistake["loc"]) == 1:
                self.unknown(where, key, mistake["input"], [*fields, *tables])
            else:
                self.refuse(_inside(where, key), *_explained(mistake, key=key, example=example[0]))
        return faulty

    def unknown(self, where: str, key: str, value: Any, known: Iterable[str]) -> None:
        """Add the problem of a key that a table does not have; an empty ``where`` is the top.

        From the :data:`MOST_UNKNOWN`-th on they share one.
        """
        self._unknown += 1
        if self._unknown > MOST_UNKNOWN:
            if self._unknown == MOST_UNKNOWN + 1:
                self._rest = len(self.problems)
                self.problems.append(Problem(self.file, ""))
            count = self._unknown - MOST_UNKNOWN
            self.problems[self._rest] = Problem(self.file, f"{count:,} more unknown keys or tables")
            return
        remedy = f"{suggestion(key, known)}known are {', '.join(sorted(known)) or 'none'}"
        problem = "unknown table"
        if isinstance(value, Mapping):
            key = f"[{key}]"
        elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
            key = f"[[{key}]]"
        else:
            problem = f"unknown key with value {shown(value)}"
        self.refuse(_inside(where, key), problem, remedy)


def refusal(problem: str, remedy: str) -> PydanticCustomError:
    """What a validator raises, to become a problem with this remedy."""
    return PydanticCustomError("refused", "{problem}", {"problem": problem, "remedy": remedy})


def shown(value: Any) -> str:
    """A wrong value as its file might spell it, cut where it is long.

    >>> shown(True), shown("cosin")
    ('true', "'cosin'")
    """
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."


def _inside(where: str, key: str) -> str:
    return f"{where}, {key}" if where else key


def _explained(mistake: Any, **words: str) -> tuple[str, str]:
    """Problem and remedy of a mistake as pydantic gives it."""
    context = mistake.get("ctx", {})
    if "remedy" in context:
        return mistake["msg"], context["remedy"]
    numbers = {key: amount(value) for key, value in context.items() if key in ("gt", "ge", "le")}
    problem = "the key is missing"
    if mistake["type"] != "missing":
        problem = f"{shown(mistake['input'])} cannot be used"
    remedy = _REMEDIES.get(mistake["type"], mistake["msg"])
    return problem, remedy.format(**{**context, **numbers}, **words)
