"""A strategy's file in its own words."""

import tomllib

import pytest

from continual_mm.definitions import catalog
from continual_mm.definitions.reading import read_strategy
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.plugins.registry import rules
from continual_mm.runs.opening import open_strategy
from continual_mm.runs.tuning.plan import valued
from continual_mm.runs.tuning.result import TUNED, as_toml, rewritten

TEXT = """\
# Tuned on elsewhere: best of 3 trials.
# Plans are kept.
description = "Two [words] # and more."  # Shown in lists.

[memory]
items = 128  # About a tenth.

# The plan.
[transport]
weight = 3.0 # from a few runs

# Its end.
[interpolate]
towards_old = 0.3
"""

MINE = Strategy(
    name="mine",
    description="Two [words] # and more.",
    memory=MemorySettings(items=128),
    plugins={"transport": {"weight": 3.0}, "interpolate": {"towards_old": 0.3}},
)


def test_numbers_change_and_comments_stay():
    tuned = valued(MINE, {"transport.weight": 0.25, "transport.epsilon": 0.125})
    assert rewritten(TEXT, tuned) == TEXT.split("\n", 1)[1].replace(
        "weight = 3.0 # from a few runs\n", "weight = 0.25 # from a few runs\nepsilon = 0.125\n"
    )


def test_what_the_file_lacks_is_added():
    text = TEXT.replace("[interpolate]\ntowards_old = 0.3\n", "").replace(
        "[memory]", '[ "memory" ]'
    )
    kept = rewritten(text, MINE)
    assert "# About a tenth." in kept
    assert tomllib.loads(kept) == tomllib.loads(TEXT)


def test_tables_in_other_forms_are_kept():
    text = "memory.items = 128\ntransport = { weight = 3.0 }\ninterpolate.towards_old = 0.3\n"
    assert rewritten(text, valued(MINE, {"transport.weight": 0.25})) == text.replace("3.0", "0.25")
    more = rewritten(text, valued(MINE, {"transport.epsilon": 0.125}))
    assert tomllib.loads(more) == {
        **tomllib.loads(text),
        "transport": {"weight": 3.0, "epsilon": 0.125},
    }


@pytest.mark.parametrize("entry", catalog.shipped("strategies"), ids=lambda entry: entry.name)
def test_shipped_files_are_kept_to_the_letter_but_for_what_changes(entry):
    lines = entry.path.read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(TUNED))
    strategy = open_strategy(entry)
    assert rewritten(text, strategy) == text
    for plugin, values in strategy.plugins.items():
        for key in values:
            changed = rewritten(text, valued(strategy, {f"{plugin}.{key}": 0.0625}))
            assert tomllib.loads(changed)[plugin][key] == 0.0625
            assert len(changed.splitlines()) == len(text.splitlines())


@pytest.mark.parametrize("bound", ["joint", "cumulative"])
def test_a_bound_written_from_scratch_is_still_a_bound(bound):
    strategy = Strategy(name="x", plugins={"match": {"weight": 2.0}}, **{bound: True})
    read = read_strategy(
        tomllib.loads(as_toml(strategy)), name="x", file="x", rules=rules(["match"])
    )
    assert read == strategy
