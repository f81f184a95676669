"""What is wrong with the protocols of a scenario, found without loading their items."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from continual_mm.data import registry as datasets
from continual_mm.data.cards import missing_published
from continual_mm.data.corpora import other_vectors
from continual_mm.definitions.modality import DatasetCard, Modality
from continual_mm.definitions.scenario import Protocol, Scenario, TowerSettings
from continual_mm.evaluation.annotations import annotations_of, read_annotations
from continual_mm.system.errors import InputError, Problem, Problems, suggestion
from continual_mm.system.files import checksum

SCORED = ("test",)  # the only split needed of a dataset that is used by protocols alone


def cards_and_problems(
    scenario: Scenario, card: DatasetCard, modalities: Iterable[Modality], file: str
) -> tuple[dict[str, DatasetCard], list[Problem]]:
    """Cards of protocols' datasets by protocol, and all problems; ``card`` is the scenario's."""
    known = tuple(modalities)
    cards: dict[str, DatasetCard] = {}
    problems = Problems()
    for number, protocol in enumerate(scenario.protocols, start=1):
        place = f"{file}, [[protocol]] {number}"
        with problems.collected(place):
            cards[protocol.name] = card_of(protocol, scenario, card)
        found = cards.get(protocol.name)
        problems += protocol_problems(protocol, found, known, place, trained=card)
        # Annotations of a published dataset come with it: a missing dataset is one problem.
        missing = not protocol.annotations and missing_published([protocol.dataset])
        if protocol.kind == "steps" and not missing:
            with problems.collected(f"{place}, annotations"):
                read_annotations(annotations_of(protocol, scenario.folder))
    return cards, problems


def card_of(protocol: Protocol, scenario: Scenario, own: DatasetCard) -> DatasetCard:
    """The card of the dataset that a protocol scores; an InputError if it has no test item."""
    if not protocol.dataset:
        if protocol.kind == "steps" and own.corpora:
            problem = "of several datasets it is not said which one's items are steps"
            raise InputError.at("dataset", problem, "name the one that it scores")
        return own
    return datasets.card(protocol.dataset, folder=Path(scenario.folder), splits=SCORED)


def protocol_problems(
    protocol: Protocol,
    card: DatasetCard | None,
    modalities: Iterable[Modality],
    place: str,
    *,
    trained: DatasetCard,
) -> Iterator[Problem]:
    """Problems with the modalities of a protocol, called ``place``.

    ``card`` is that of the dataset scored, None if not known; ``modalities`` are all that arrive.
    """
    if card is not None and "text" in protocol.modalities:
        yield from other_vectors(card, trained, f"{place}, dataset")
    arriving = {modality.name: modality for modality in modalities}
    for key in ("query", "gallery"):
        for name in getattr(protocol, key):
            where = f"{place}, {key}"
            if name not in arriving:
                remedy = f"{suggestion(name, arriving)}there are {', '.join(sorted(arriving))}"
                yield Problem(where, f"no stage adds a modality {name!r}", remedy)
            elif card is not None and name not in card.names:
                remedy = f"it has {', '.join(sorted(card.names))}"
                yield Problem(where, f"no modality {name!r} in dataset '{card.name}'", remedy)
            elif card is not None and _form(card[name]) != _form(arriving[name]):
                problem = f"dataset '{card.name}' has {_form(card[name])}"
                remedy = f"the scenario trains {_form(arriving[name])}: extract the same features"
                yield Problem(where, problem, remedy)
    if protocol.through:
        yield from _through_problems(protocol, card, arriving, place)


def _through_problems(
    protocol: Protocol, card: DatasetCard | None, arriving: Mapping[str, Modality], place: str
) -> Iterator[Problem]:
    """What is wrong with the tower that a gallery also goes through."""
    name, tower = protocol.through_features or protocol.gallery[0], protocol.through
    if tower not in arriving:
        remedy = f"{suggestion(tower, arriving)}there are {', '.join(sorted(arriving))}"
        yield Problem(f"{place}, through", f"no stage adds a modality {tower!r}", remedy)
    elif card is not None and name not in card.names:
        remedy = f"it has {', '.join(sorted(card.names))}"
        problem = f"no modality {name!r} in dataset '{card.name}'"
        yield Problem(f"{place}, through_features", problem, remedy)
    elif card is not None and not _same_form(card[name], arriving[tower]):
        problem = f"the tower of {_form(arriving[tower])} does not take {_form(card[name])}"
        remedy = f"name features of that kind and size: through_features = ..., as {tower} are"
        yield Problem(f"{place}, through", problem, remedy)


def _same_form(one: Modality, other: Modality) -> bool:
    return (one.kind, one.features) == (other.kind, other.features)


def _form(modality: Modality) -> str:
    return f"{modality.name} as {modality.kind} of {modality.features} features"


_REMEDIES = {
    "reference": "to come close to published numbers, convert it with --reference",
    "robust": "convert it without --reference to have it without the published mistakes",
}


def mode_mismatches(scenario: Scenario, cards: Iterable[DatasetCard]) -> Iterator[str]:
    """A sentence for each dataset of a scenario whose mode is not that of its space."""
    mode = scenario.space.mode
    for one in {each.fingerprint: each for each in cards}.values():
        if one.provenance and one.provenance.mode != mode:
            yield (
                f"dataset '{one.name}' was read in {one.provenance.mode} mode, but the space of"
                f" '{scenario.name}' is in {mode} mode; {_REMEDIES[mode]}"
            )


def unordered(scenario: Scenario, card: DatasetCard, names: Iterable[str]) -> Iterator[str]:
    """A sentence for each of some modalities whose rows, as many in every item, have no order."""
    for name in names:
        if name in card.all_rows and not scenario.towers.get(name, TowerSettings()).kind:
            yield card[name].about_order


def identity_of(protocol: Protocol, scenario: Scenario, card: DatasetCard) -> dict[str, Any]:
    """What a protocol's scores follow from: the content of its files, not where they lie."""
    through = set() if protocol.through else {"through", "through_features", "through_weight"}
    found = protocol.model_dump(mode="json", exclude={"dataset", "annotations", *through})
    found["data"] = {"name": card.name, "fingerprint": card.fingerprint}
    if protocol.kind == "steps":
        path = annotations_of(protocol, scenario.folder)
        try:
            found["annotations"] = checksum(path)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise InputError.at(path, problem, "give the file of annotations") from error
    return found
