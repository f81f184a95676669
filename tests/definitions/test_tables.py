"""TOML tables as typed values, and what is said of the wrong ones."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from continual_mm.definitions.tables import LONGEST_SHOWN, Reader, Table, shown


class Engine(Table):
    """A table for these tests."""

    cylinders: Annotated[int, Field(ge=2, le=12)] = 4
    volume: Annotated[float, Field(gt=0.0)] = 1.5
    fuel: Literal["petrol", "diesel"] = "petrol"
    fast: bool = False
    name: str = ""
    parts: tuple[str, ...] = Field(default=(), strict=False, examples=['["piston"]'])
    plate: int = Field(default=0, examples=["17"])


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("cylinders", 1, "1 cannot be used; give at least 2"),
        ("cylinders", 13, "13 cannot be used; give at most 12"),
        ("cylinders", 4.0, "4.0 cannot be used; give a whole number"),
        ("cylinders", True, "true cannot be used; give a whole number"),
        ("volume", 0, "0 cannot be used; give more than 0"),
        ("volume", "2", "'2' cannot be used; give a number"),
        ("volume", float("nan"), "nan cannot be used; give a finite number"),
        ("fuel", "deisel", "'deisel' cannot be used; give 'petrol' or 'diesel'"),
        ("fast", 1, "1 cannot be used; give true or false"),
        ("name", 3, "3 cannot be used; give a text in quotes"),
        ("parts", "piston", """'piston' cannot be used; give a list, such as ["piston"]"""),
        ("parts", ["piston", 3], "3 cannot be used; give a text in quotes"),
    ],
)
def test_a_wrong_value_is_told_with_file_table_key_and_remedy(key, value, told):
    reader = Reader("car.toml")
    reader.table(Engine, "[engine]", {key: value})
    assert [str(problem) for problem in reader.problems] == [f"car.toml, [engine], {key}: {told}"]


@pytest.mark.parametrize(
    ("key", "value", "place", "problem"),
    [
        ("fule", "diesel", "fule", "unknown key with value 'diesel'"),
        ("fule", {"a": 1}, "[fule]", "unknown table"),
        ("fule", [{"a": 1}], "[[fule]]", "unknown table"),
    ],
)
def test_an_unknown_key_or_table_is_told_with_what_was_probably_meant(key, value, place, problem):
    reader = Reader("car.toml")
    reader.table(Engine, "", {key: value}, tables=["wheels"])
    (told,) = reader.problems
    assert (told.place, told.message) == (f"car.toml, {place}", problem)
    assert told.remedy.startswith("did you mean 'fuel'? known are cylinders, fast, fuel")
    assert told.remedy.endswith("volume, wheels")


def test_long_values_are_cut():
    assert shown("x" * 500) == "'" + "x" * (LONGEST_SHOWN - 1) + " ..."
    assert shown([1, 2]) == "[1, 2]"
