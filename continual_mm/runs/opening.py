"""From what a user names to checked definitions; imports no torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from continual_mm.data import corpora
from continual_mm.definitions import arrivals, catalog
from continual_mm.definitions.catalog import SCENARIO_KEYS, Entry
from continual_mm.definitions.coverage import coverage_problems
from continual_mm.definitions.modality import Modality
from continual_mm.definitions.reading import draft_scenario, read_strategy
from continual_mm.definitions.scenario import NAME_REMEDY, Scenario, Strategy, name_problem
from continual_mm.evaluation.checks import cards_and_problems
from continual_mm.plugins.files import flattened
from continual_mm.plugins.registry import rules
from continual_mm.runs.origin import Origin, origin_of, weights_file
from continual_mm.runs.specification import OpenedScenario
from continual_mm.space import registry
from continual_mm.system.errors import InputError, Problem, Problems, suggestion
from continual_mm.system.reading import reads


def tower_problems(
    scenario: Scenario, modalities: Iterable[Modality], begun: Iterable[Modality], file: str
) -> list[Problem]:
    """Towers that cannot be had or do not read their modality; those ``begun`` are the origin's."""
    own = {modality.name for modality in begun}
    arriving = {modality.name: modality for modality in modalities if modality.name not in own}
    problems = Problems()
    for name, said in scenario.towers.items():
        if name in own:
            continue
        place = f"{file}, [tower.{name}]"
        problems += _about_kind(scenario, arriving[name], said.kind, place)
        if said.weights:
            with problems.collected(place):
                weights_file(scenario, said)
    return problems


def _about_kind(scenario: Scenario, modality: Modality, kind: str, place: str) -> Iterable[Problem]:
    known = [*registry.BUILT_IN]
    said = scenario.standardise
    standardised = said if isinstance(said, bool) else modality.name in said
    if kind and kind not in known and kind not in registry.outside():
        remedy = f"{suggestion(kind, known)}there are {', '.join(known)}"
        yield Problem(f"{place}, kind", f"there is no tower {kind!r}", remedy)
    elif problem := registry.tower_problem(kind, modality, scenario.space.dim):
        dim = scenario.space.dim
        fit = [each for each in known if not registry.tower_problem(each, modality, dim)]
        yield Problem(f"{place}, kind", f"{kind!r} {problem}", f"these fit: {', '.join(fit)}")
    elif kind == "identity" and standardised:
        problem = "'identity' takes features as they are, but they are standardised"
        remedy = "set standardise to the names of the other modalities, or to false"
        yield Problem(place, problem, remedy)


Settings = Sequence[tuple[str, str]]  # `--set` options as (dotted path, text)


def read_settings(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Take ``--set`` options apart; a problem for each that is not ``table.key=value``.

    >>> read_settings(["training.steps=50"])
    [('training.steps', '50')]
    """
    parts = [(text, *text.partition("=")) for text in texts]
    remedy = "write --set table.key=value, such as training.steps=50"
    wrong = [text for text, path, equals, _ in parts if not (path.strip() and equals)]
    if wrong:
        problem = "no key and value with '=' between them"
        raise InputError(Problem(f"--set {text}", problem, remedy) for text in wrong)
    return [(path.strip(), value.strip()) for _, path, _, value in parts]


@reads
def open_scenario(entry: Entry, settings: Settings = ()) -> OpenedScenario:
    """Check a scenario file against its dataset; settings that are not a scenario's are ignored."""
    mine = [_from_here(*setting) for setting in settings if _top(setting[0]) in SCENARIO_KEYS]
    file = _label(entry, mine)
    document = _one_length(catalog.overridden(entry.document, mine), mine)
    # A path given on the command line starts where the user stands, not where the file lies.
    given = any(path == "dataset" for path, _ in mine)
    folder = Path.cwd() if given else entry.path.parent
    draft = draft_scenario(document, name=entry.name, folder=str(folder), file=file)
    scenario, problems = draft.scenario, Problems(draft.problems)
    origin = card = None
    if scenario.start:
        with problems.collected(file):
            origin = origin_of(scenario)
    if scenario.corpora:
        with problems.collected(file):
            card = corpora.card(scenario.corpora, folder=folder)
    start = origin.start if origin else None
    if origin or not scenario.start:
        problems += arrivals.problems_of(scenario, card, start=start, file=file)
    if origin is not None:
        problems += _another_mode(scenario, origin, file)
    if card is None or problems:
        raise InputError(problems)
    if origin is not None:
        own = {key: getattr(scenario.space, key) for key in document.get("space", {})}
        scenario = scenario.model_copy(update={"space": origin.settings(own)})
        problems += origin.problems_of(scenario, file)
    stages = arrivals.plan(scenario, card, start=start, file=file)
    arriving = stages[-1].available
    problems += tower_problems(scenario, arriving, start.modalities if start else (), file)
    problems += coverage_problems(scenario, stages, card, file)
    scored, wrong = cards_and_problems(scenario, card, arriving, file)
    problems += wrong
    problems.check()
    return OpenedScenario(scenario, card, stages, origin, scored)


def open_scenarios(entries: Sequence[Entry], settings: Settings = ()) -> tuple[OpenedScenario, ...]:
    """Check scenario files whose results lie side by side; settings are applied to each of them."""
    names = [entry.name for entry in entries]
    problems = Problems(
        Problem(f"scenario '{name}'", "is named twice", "name each once; copy a file to rename it")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    )
    scenarios = []
    for entry in entries:
        with problems.collected():
            scenarios.append(open_scenario(entry, settings))
    problems.check()
    return tuple(scenarios)


def _from_here(path: str, text: str) -> tuple[str, str]:
    """A setting; a file or run that it names is looked for where the user stands."""
    ends = _top(path), path.rpartition(".")[2]
    file = path == "start" or ends in (("tower", "weights"), ("protocol", "annotations"))
    # What a protocol scores, or a stage is trained on, may be a name as well.
    there = ends in (("protocol", "dataset"), ("stage", "dataset")) and (Path.cwd() / text).exists()
    return path, str(Path.cwd() / text) if text and (file or there) else text


def _one_length(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The document with steps that are set in the place of its epochs, and the other way round."""
    changed = {path for path, _ in settings}
    for path in changed:
        table, _, key = path.rpartition(".")
        other = {"steps": "epochs", "epochs": "steps"}.get(key, "")
        if other and f"{table}.{other}" not in changed:
            _table(document, table).pop(other, None)
    return document


def _table(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The table at ``training`` or ``stage.2``; another one, where there is none."""
    name, _, number = path.partition(".")
    found = document.get(name)
    if isinstance(found, list) and number.isdigit():
        found = found[int(number) - 1]
    return found if isinstance(found, dict) else {}


def _another_mode(scenario: Scenario, origin: Origin, file: str) -> list[Problem]:
    """What is wrong with kind and mode; they decide what every key means that is left out."""
    known = origin.settings({})
    return [
        Problem(
            f"{file}, [space], {key}",
            f"is {mine!r}, but the run that it starts from has {own!r}",
            f'write {key} = "{own}"',
        )
        for key in ("kind", "mode")
        if (mine := getattr(scenario.space, key)) != (own := getattr(known, key))
    ]


def open_strategies(entries: Sequence[Entry], settings: Settings = ()) -> tuple[Strategy, ...]:
    """Check strategy files; a setting must change one or more that have its table."""
    theirs = [setting for setting in settings if _top(setting[0]) not in SCENARIO_KEYS]
    problems = Problems(_idle(theirs, entries))
    strategies = []
    for entry in entries:
        fitting = [setting for setting in theirs if _top(setting[0]) in entry.document]
        with problems.collected():
            strategies.append(open_strategy(entry, fitting))
    problems.check()
    return tuple(strategies)


def renamed(strategies: Sequence[Strategy], name: str) -> tuple[Strategy, ...]:
    """The only one of some strategies under another name, that of its folder and its rows."""
    if len(strategies) != 1:
        problem = f"names one strategy, but {len(strategies)} are given"
        raise InputError.at(f"--name {name}", problem, "run them one by one")
    if problem := name_problem(name):
        raise InputError.at("--name", problem, NAME_REMEDY)
    return (strategies[0].model_copy(update={"name": name}),)


def _idle(settings: Settings, entries: Sequence[Entry]) -> list[Problem]:
    """Problems with settings whose table no strategy has."""
    tables = {key for entry in entries for key in entry.document} - SCENARIO_KEYS
    known = sorted(SCENARIO_KEYS | tables)
    names = ", ".join(entry.name for entry in entries) or "none"
    return [
        Problem(
            f"--set {path}",
            f"there is no {_top(path)!r} in the scenario or in a strategy ({names})",
            f"{suggestion(_top(path), known)}there are {', '.join(known)}",
        )
        for path, _ in settings
        if _top(path) not in tables
    ]


@reads
def open_strategy(entry: Entry, settings: Settings = ()) -> Strategy:
    """Check one strategy file with settings applied."""
    document = flattened(catalog.overridden(entry.document, settings))
    file = _label(entry, settings)
    return read_strategy(document, name=entry.name, file=file, rules=rules(document))


def _top(path: str) -> str:
    return path.partition(".")[0]


def _label(entry: Entry, settings: Iterable[tuple[str, str]]) -> str:
    """What to call a definition in problems; what is wrong may come from the command line."""
    changed = ", ".join(path for path, _ in settings)
    return f"{entry.path} with --set {changed}" if changed else str(entry.path)
