"""A scenario on a dataset: at each stage what arrives, what is available, what is trained."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from continual_mm.definitions.modality import SPLITS, DatasetCard, Modality, Pair, all_pairs
from continual_mm.definitions.scenario import Scenario, Stage, Training
from continual_mm.definitions.terms import term_problems
from continual_mm.system.errors import InputError, Problem, suggestion


@dataclass(frozen=True, slots=True)
class Start:
    """The space of an earlier run: its modalities, and the pairs that it was trained on."""

    modalities: tuple[Modality, ...]
    trained: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One stage of a scenario, worked out.

    A scenario that starts from an earlier run has one stage more than its file: the first, of no
    steps, in which that run's modalities arrive as they are. It is scored like any other.
    """

    stage: int
    added: tuple[Modality, ...]  # modalities that arrive now
    available: tuple[Modality, ...]  # all modalities that have arrived, in order of arrival
    # Pairs whose loss is used in this stage; none where a lone modality arrives first.
    trained: tuple[Pair, ...]
    # Optimisation settings, the stage's overrides applied, and steps worked out where epochs
    # are given; none, as long as the dataset is not there.
    training: Training
    # Pairs of the scenario that no stage trains and no item scored has both modalities of.
    unscored: tuple[Pair, ...] = ()
    dataset: str = ""  # which of several datasets the stage is trained on

    @property
    def trains(self) -> bool:
        """Whether it changes the space; a stage of no steps does not."""
        return bool(self.training.steps or self.training.epochs)

    @property
    def seen(self) -> tuple[str, ...]:
        """Modalities whose features the stage's items show: those added and those paired."""
        names = {modality.name for modality in self.added}
        names.update(name for pair in self.trained for name in (pair.first, pair.second))
        return tuple(modality.name for modality in self.available if modality.name in names)


ROLES = ("old", "new", "emergent")


@dataclass(frozen=True, slots=True)
class Roles:
    """The pairs of a scenario by what its last stage does to them."""

    old: tuple[Pair, ...]
    new: tuple[Pair, ...]
    emergent: tuple[Pair, ...]

    @property
    def by_pair(self) -> dict[Pair, str]:
        """Pair -> ``old``, ``new`` or ``emergent``, in this order."""
        return {pair: role for role in ROLES for pair in getattr(self, role)}


def plan(
    scenario: Scenario, card: DatasetCard, *, start: Start | None = None, file: str = ""
) -> tuple[Arrival, ...]:
    """Work a scenario out on a dataset, or raise all that :func:`problems_of` finds."""
    if problems := problems_of(scenario, card, start=start, file=file):
        raise InputError(problems)
    arrivals = [] if start is None else [_start_arrival(start, scenario, card)]
    for number, stage in enumerate(scenario.stages):
        added = tuple(card[name] for name in stage.add)
        available = (*(arrivals[-1].available if arrivals else ()), *added)
        complete = all_pairs(tuple(modality.name for modality in available))
        trained = [pair for pair in complete if any(name in pair for name in stage.add)]
        if stage.pairs is not None:
            trained = sorted(Pair.parse(text) for text in stage.pairs)
        arrivals.append(
            Arrival(
                stage=len(arrivals),
                added=added,
                available=available,
                trained=tuple(trained),
                training=scenario.training_of(number),
                dataset=stage.dataset or scenario.dataset,
            )
        )
    return scored_on(
        "test", [_with_steps(arrival, scenario, card, arrivals) for arrival in arrivals], card
    )


def scored_on(split: str, arrivals: Sequence[Arrival], card: DatasetCard) -> tuple[Arrival, ...]:
    """The stages, with the pairs that are not scored where results are of a split."""
    trained = {pair for arrival in arrivals if arrival.trains for pair in arrival.trained}
    others = (pair for pair in births(arrivals, all_of_them=True) if pair not in trained)
    counted = ((pair, card.having(pair.first, pair.second)) for pair in others)
    place = SPLITS.index(split)
    unscored = tuple(pair for pair, items in counted if items is not None and not items[place])
    return tuple(replace(arrival, unscored=unscored) for arrival in arrivals)


def _with_steps(
    arrival: Arrival, scenario: Scenario, card: DatasetCard, arrivals: Sequence[Arrival]
) -> Arrival:
    """The arrival with epochs converted to steps; 0 while the number of items is unknown."""
    training, clips, card = arrival.training, scenario.space.clips, card.corpus(arrival.dataset)
    if not training.epochs:
        return arrival
    together = clips > 1 and card.groups > 0
    shown = card.groups if together else card.items[0]
    rows = training.batch_size // min(clips, training.batch_size) if together else None
    if scenario.items == "split":
        # As the stream splits them: the remainder goes to the first stages.
        sharing = [each.stage for each in arrivals if each.dataset == arrival.dataset]
        share, rest = divmod(shown, len(sharing))
        shown = share + (sharing.index(arrival.stage) < rest)
    # What remains at the end of a pass is left out of it.
    steps = training.epochs * max(1, shown // (rows or training.batch_size)) if shown else 0
    return replace(arrival, training=training.model_copy(update={"steps": steps}))


def _start_arrival(start: Start, scenario: Scenario, card: DatasetCard) -> Arrival:
    """The stage in which an earlier run's modalities arrive."""
    known = tuple(card[m.name] for m in start.modalities if m.name in card.names)
    names = {modality.name for modality in known}
    return Arrival(
        stage=0,
        added=known,
        available=known,
        trained=tuple(p for p in start.trained if {p.first, p.second} <= names),
        training=scenario.training.model_copy(update={"steps": 0, "epochs": 0}),
        dataset=next(iter(scenario.corpora), ""),
    )


def problems_of(
    scenario: Scenario, card: DatasetCard | None, *, start: Start | None = None, file: str = ""
) -> tuple[Problem, ...]:
    """Everything that is wrong with a scenario's order of arrivals, in a ``file`` of this name.

    A scenario of which not all could be read, or without a card, is checked as far as possible.
    """
    place = file or f"scenario '{scenario.name}'"
    problems = [] if start is None or card is None else [*_start_problems(start, card, place)]
    begun = () if start is None else start.modalities
    added = dict.fromkeys((m.name for m in begun if card is None or m.name in card.names), 0)
    for number, stage in enumerate(scenario.stages, start=1):
        where = f"{place}, [[stage]] {number}"
        for name in stage.add:
            problems += _name_problems(name, card, added, f"{where}, add")
            added.setdefault(name, number)
        problems += _pair_problems(stage, card, added, f"{where}, pairs")
    problems += _idle_names(scenario, added, place)
    problems += term_problems(scenario.space, added, place)
    problems += _dataset_problems(scenario, card, place)
    if scenario.items == "paired" and any(
        scenario.training_of(number).epochs for number in range(len(scenario.stages))
    ):
        problem = "'paired' does not say how many items a pass over them has"
        problems.append(Problem(f"{place}, items", problem, "give steps instead of epochs"))
    if card is not None:
        known = {"label": card.has_labels, "group": card.groups > 0}
        if not known.get(scenario.positives, True):
            asked = scenario.positives
            problem = f"'{asked}' asks for {asked}s, but dataset '{card.name}' has none"
            remedy = "use 'paired' or 'duplicates'"
            problems.append(Problem(f"{place}, positives", problem, remedy))
    return tuple(problems)


def _dataset_problems(
    scenario: Scenario, card: DatasetCard | None, place: str
) -> Iterator[Problem]:
    """Problems with the datasets that stages name, and with what is given instead of them."""
    names = scenario.corpora
    for number, stage in enumerate(scenario.stages, start=1):
        if names and not (stage.dataset or scenario.dataset):
            where = f"{place}, [[stage]] {number}, dataset"
            yield Problem(where, "no dataset is named", "name one here, or at the top for all")
        elif card is not None and any(card.items) and not card.corpus(stage.dataset).items[0]:
            problem = f"dataset '{card.corpus(stage.dataset).name}' has no training item"
            yield Problem(f"{place}, [[stage]] {number}", problem, "name another dataset")
    given = [name for name, _ in card.corpora] if card is not None else []
    if card is not None and (given or len(names) > 1) and set(given) != set(names):
        named = f"stages name {', '.join(names) or 'no dataset'}"
        problem = f"{named}, but given is {', '.join(given) or card.name}"
        yield Problem(place, problem, "give each dataset that a stage names, {name: dataset}")


def _start_problems(start: Start, card: DatasetCard, place: str) -> Iterator[Problem]:
    """A problem if the dataset shares no modality with the start, and for each of another form."""
    shared = [modality for modality in start.modalities if modality.name in card.names]
    if not shared:
        names = ", ".join(modality.name for modality in start.modalities)
        problem = f"dataset '{card.name}' has none of the start's modalities ({names})"
        yield Problem(f"{place}, start", problem, "start from a run on such data")
    for known in shared:
        offered = card[known.name]
        if (known.kind, known.features) != (offered.kind, offered.features):
            problem = f"the start's {_form(known)}, but dataset '{card.name}' has {_form(offered)}"
            yield Problem(f"{place}, start", problem, "extract the same features as for the start")


def _form(modality: Modality) -> str:
    return f"{modality.name} is {modality.kind} of {modality.features} features"


def _idle_names(scenario: Scenario, added: Iterable[str], place: str) -> Iterator[Problem]:
    """A problem for each tower or standardised modality that no stage adds."""
    known = list(added)
    listed = () if isinstance(scenario.standardise, bool) else scenario.standardise
    named = [(f"[tower.{name}]", name) for name in scenario.towers]
    named += [("standardise", name) for name in listed]
    for where, name in named:
        if name not in known:
            problem = f"no stage adds a modality {name!r}"
            remedy = f"{suggestion(name, known)}there are {', '.join(sorted(known)) or 'none'}"
            yield Problem(f"{place}, {where}", problem, remedy)


def _name_problems(
    name: str, card: DatasetCard | None, added: Mapping[str, int], place: str
) -> Iterator[Problem]:
    """A problem if a modality is added twice or missing; ``added``: stages of earlier ones."""
    if name in added:
        problem = f"modality {name!r} is added a second time"
        remedy = f"name it once, at stage {added[name]}" if added[name] else "the start has it"
        yield Problem(place, problem, remedy)
    elif card is not None and name not in card.names:
        problem = f"no modality {name!r} in dataset '{card.name}'"
        remedy = f"{suggestion(name, card.names)}it has {', '.join(sorted(card.names))}"
        yield Problem(place, problem, remedy)


def _pair_problems(
    stage: Stage, card: DatasetCard | None, added: Iterable[str], place: str
) -> Iterator[Problem]:
    """A problem for each pair of a stage that cannot be trained; ``added`` has arrived by then."""
    offered = sorted(name for name in added if card is None or name in card.names)
    choices = ", ".join("-".join(two) for two in combinations(offered, 2)) or "none"
    possible = f"possible at this stage: {choices}"
    named: set[Pair] = set()
    for text in stage.pairs or ():
        try:
            pair = Pair.parse(text)
        except ValueError as error:
            yield Problem(place, str(error), possible)
            continue
        # A modality that the dataset lacks is a problem of the stage that adds it.
        missing = [name for name in (pair.first, pair.second) if name not in added]
        if missing:
            problem = f"pair {text!r} is not available yet: {' and '.join(missing)} did not arrive"
            yield Problem(place, problem, possible)
        elif pair in named:
            yield Problem(place, f"pair {text!r} is named twice", "name each pair once")
        named.add(pair)


def births(arrivals: Sequence[Arrival], *, all_of_them: bool = False) -> dict[Pair, int]:
    """The stage (0-based) at which each pair first has both its modalities, sorted by pair.

    Pairs that are not scored are left out, unless ``all_of_them`` are asked for.
    """
    born: dict[Pair, int] = {}
    for arrival in arrivals:
        for pair in all_pairs(tuple(modality.name for modality in arrival.available)):
            if all_of_them or pair not in arrival.unscored:
                born.setdefault(pair, arrival.stage)
    return dict(sorted(born.items()))


def roles(arrivals: Sequence[Arrival]) -> Roles:
    """Pairs trained before the last stage (old), first in it (new), and never (emergent)."""
    *earlier, last = arrivals
    known = {pair for arrival in earlier for pair in arrival.trained}
    born = births(arrivals)
    return Roles(
        old=tuple(pair for pair in born if pair in known),
        new=tuple(pair for pair in born if pair in last.trained and pair not in known),
        emergent=tuple(pair for pair in born if pair not in known and pair not in last.trained),
    )
