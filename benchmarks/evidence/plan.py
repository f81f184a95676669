"""The plan as data: which strategy on which scenario with which seeds. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from continual_mm.definitions import catalog
from continual_mm.definitions.catalog import Entry
from continual_mm.definitions.scenario import Strategy
from continual_mm.runs.opening import open_scenario, open_strategy, read_settings
from continual_mm.runs.specification import OpenedScenario, Specification
from continual_mm.runs.specification import opened as worked_out
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.reading import reading

HERE = Path(__file__).parent
TABLES = ("group", "part", "dataset", "memory", "left_out")  # that every plan has


@dataclass(frozen=True, slots=True)
class Group:
    """Scenarios that share a table, and what is trained on them.

    Attributes:
        dataset: Its name in the plan.
        title: Of the table.
        part: ``full`` or ``extra``.
        files: Names of shipped scenarios, or of files beside the plan.
        suffix: What is added to a scenario's name, for a variant of it.
        settings: What the variant changes, as ``table.key=value``.
        seeds: How many, if not as many as in other groups of the part.
        total_dim: Numbers of an item's vector in the bounds; 0 trains no bound.
        strategies: Names of further ones, beside those of the part.
    """

    dataset: str
    title: str
    part: str
    files: tuple[str, ...]
    suffix: str = ""
    settings: tuple[str, ...] = ()
    seeds: int | None = None
    total_dim: int = 0
    strategies: tuple[str, ...] = ()

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios, as runs have them."""
        return tuple(f"{name}{self.suffix}" for name in self.files)


SEEDS_APART = 1000
"""Seeds of a bound's members are so far apart, so that no two bounds share a member."""


@dataclass(frozen=True)
class Bound(Specification):
    """A run made of others, its members: the vector of an item is theirs, one behind the other.

    Attributes:
        members: What is trained.
        share: Of the scenario's steps that each member is trained for.
    """

    members: tuple[Specification, ...] = ()
    share: float = 1.0

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of any run; beside the strategy stands what the members differ in."""
        usual = super().identity
        made_of = {
            "members": len(self.members),
            "member_dim": self.members[0].scenario.space.dim,
            "member_share_of_steps": self.share,
            "member_seeds_apart": SEEDS_APART,
        }
        return {**usual, "strategy": {**usual["strategy"], **made_of}}


def _group(table: Mapping[str, Any]) -> Group:
    return Group(
        dataset=table["dataset"],
        title=table["title"],
        part=table["part"],
        files=tuple(table["scenarios"]),
        suffix=table.get("suffix", ""),
        settings=tuple(table.get("set", ())),
        seeds=table.get("seeds"),
        total_dim=table.get("total_dim", 0),
        strategies=tuple(table.get("strategies", ())),
    )


class Plan:
    """The plan, read from a file.

    Args:
        path: The TOML file.

    Attributes:
        groups: What is compared, in the order of the tables.
    """

    def __init__(self, path: Path = HERE / "plan.toml") -> None:
        self._folder = path.parent
        self._document = catalog.open_definition("scenarios", path).document
        if lacking := [key for key in TABLES if key not in self._document]:
            problem = f"is no plan: it has no {', '.join(lacking)}"
            raise InputError.at(path, problem, f"see {HERE / 'plan.toml'}")
        with reading(path):
            self.groups = tuple(map(_group, self._document["group"]))

    def missing(self, data: Path | None) -> dict[str, str]:
        """Dataset -> why nothing can be trained on it, for those whose pack is not in a folder."""
        packs = {name: table.get("pack") for name, table in self._document["dataset"].items()}
        return {
            name: f"there is no {pack} in {data}" if data else f"no folder with {pack} is given"
            for name, pack in packs.items()
            if pack and not (data and (data / pack).is_file())
        }

    def runs(self, part: str, data: Path | None) -> list[Specification]:
        """All runs of a part, or of ``all`` parts: seed 0 of everything first, then seed 1.

        Raises:
            InputError: If a definition cannot be used, or a strategy is named that is not there.
        """
        strategies = {one.name: one for one in self._strategies()}
        missing = self.missing(data)
        groups = [
            group
            for group in self.groups
            if part in (group.part, "all") and group.dataset not in missing
        ]
        found = [
            Specification(opened, strategies[name], seed)
            for group in groups
            for opened in self._opened(group, data)
            for name in self._named(group, list(strategies))
            for seed in self._seeds(group)
        ]
        found += [
            bound(opened, strategies[table["strategy"]], seed, name, table, group.total_dim)
            for group in groups
            for opened in self._opened(group, data)
            for name, table in self._document.get("bound", {}).items()
            for seed in self._seeds(group)
            if group.total_dim
        ]
        return sorted(found, key=lambda run: run.seed)

    def _seeds(self, group: Group) -> range:
        usual = self._document["part"][group.part]["seeds"]
        return range(usual if group.seeds is None else group.seeds)

    @property
    def strategies(self) -> list[str]:
        """Names of the files that take part."""
        left_out = self._document["left_out"]
        return [entry.name for entry in catalog.shipped("strategies") if entry.name not in left_out]

    @property
    def trials(self) -> int:
        """Sets of values that are tried of each strategy."""
        return int(self._document["tuning"]["trials"])

    def for_tuning(self, data: Path | None) -> tuple[OpenedScenario, ...]:
        """Scenarios whose validation items choose the strategies' numbers.

        Raises:
            InputError: If the pack of one is not there: other scenarios choose other numbers.
        """
        if missing := self.missing(data):
            remedy = "give the folder with --data"
            raise InputError(Problem(name, why, remedy) for name, why in missing.items())
        wanted = self._document["tuning"]["scenarios"]
        found = {
            opened.scenario.name: opened
            for group in self.groups
            for opened in self._opened(group, data)
        }
        return tuple(found[name] for name in wanted)

    def _named(self, group: Group, known: Sequence[str]) -> Sequence[str]:
        part = group.part
        named: list[str] = self._document["part"][part].get("strategies", list(known))
        named = list(dict.fromkeys([*named, *group.strategies]))
        if absent := [name for name in named if name not in known]:
            remedy = f"there are {', '.join(known)}"
            raise InputError(
                Problem(f"plan.toml, [part.{part}]", f"no strategy {name!r}", remedy)
                for name in absent
            )
        return named

    def _strategies(self) -> Iterator[Strategy]:
        for entry in catalog.shipped("strategies"):
            if entry.name in self._document["left_out"]:
                continue
            if "memory" not in entry.document:
                yield open_strategy(entry)
                continue
            for items in self._document["memory"]:
                strategy = open_strategy(entry, [("memory.items", f"{items}")])
                yield strategy.model_copy(update={"name": f"{entry.name}_{items}"})

    def _opened(self, group: Group, data: Path | None) -> Iterator[OpenedScenario]:
        for file, name in zip(group.files, group.scenarios, strict=True):
            opened = open_scenario(self._entry(group, file, data), read_settings(group.settings))
            scenario = opened.scenario.model_copy(update={"name": name})
            yield replace(opened, scenario=scenario)

    def _entry(self, group: Group, file: str, data: Path | None) -> Entry:
        """A scenario; a pack that its file names is looked for in the folder with the data."""
        if "pack" not in self._document["dataset"][group.dataset]:
            return catalog.find("scenarios", file)
        path = self._folder / "scenarios" / f"{file}.toml"
        entry = catalog.open_definition("scenarios", path)
        return replace(entry, path=(data or path.parent) / path.name)


def bound(
    opened: OpenedScenario,
    strategy: Strategy,
    seed: int,
    name: str,
    table: Mapping[str, Any],
    total_dim: int,
) -> Bound:
    """A bound on a scenario.

    Args:
        opened: The scenario.
        strategy: What the members are trained with.
        seed: Of the first member.
        name: Of the bound.
        table: How many ``members`` it has, and which share of the scenario's ``steps`` each has.
        total_dim: Numbers of a vector, those of all members.
    """
    count, share = table.get("members", 1), table.get("steps", 1.0)
    usual = opened.scenario
    space = usual.space.model_copy(update={"dim": total_dim // count})
    stages = tuple(
        stage.model_copy(update={"steps": stage.steps and shortened(stage.steps, share)})
        for stage in usual.stages
    )
    training = usual.training.model_copy(
        update={
            "steps": shortened(usual.training.steps, share),
            "warmup_steps": round(share * usual.training.warmup_steps),
        }
    )
    changed = {"space": space, "stages": stages, "training": training}
    smaller = worked_out(usual.model_copy(update=changed), opened.card)
    members = tuple(
        Specification(smaller, strategy, seed + number * SEEDS_APART) for number in range(count)
    )
    return Bound(
        opened, strategy.model_copy(update={"name": name}), seed, members=members, share=share
    )


def shortened(steps: int, share: float) -> int:
    """A share of some steps, at least one."""
    return max(1, round(share * steps))
