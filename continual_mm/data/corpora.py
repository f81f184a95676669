"""One dataset, or several as one: stages of a scenario may be trained on different ones.

Imports no numpy, so that scenarios can be checked without loading what they are trained on.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING

from continual_mm.data import registry
from continual_mm.definitions.modality import SPLITS, DatasetCard, Modality, Presence
from continual_mm.system.errors import Problem, Problems

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset
    from continual_mm.space.statistics import Statistics

    Known = Mapping[str, Statistics | None]
    """What modalities of a space are standardised by; None of those that are taken as they are."""

NOTHING: "Known" = MappingProxyType({})


def card(names: Sequence[str], *, folder: Path | None = None) -> DatasetCard:
    """The card of a dataset, or of several as one; names as :func:`registry.card` takes them."""
    if len(names) == 1:
        return registry.card(names[0], folder=folder)
    problems, cards = Problems(), {}
    for name in names:
        with problems.collected():
            cards[name] = registry.card(name, folder=folder, splits=())
    problems.check()
    return joined_card(cards)


def load(
    names: Sequence[str],
    *,
    folder: Path | None = None,
    standardise: bool | Collection[str] = True,
    known: "Known" = NOTHING,
) -> "Dataset":
    """Load a dataset, or several as one.

    Of several, a modality that more than one has is standardised by the training items of the first
    of them that has any. ``known`` are statistics of modalities that a space was trained on, which
    are standardised by these whatever ``standardise`` says.
    """
    if len(names) == 1 and not known:
        return registry.load(names[0], folder=folder, standardise=standardise)
    whole = card(names, folder=folder)
    cards, known = dict(whole.corpora) or {names[0]: whole}, dict(known)
    loaded: dict[str, Dataset] = {}
    needed = SPLITS if len(names) == 1 else ()
    # What only scores comes last: it has no training items.
    for name in sorted(names, key=lambda name: not cards[name].items[0]):
        given = cards[name].names
        wanted = given if standardise is True else {*given} & {*(standardise or ())}
        by = {one: known.get(one, True) for one in given if one in known or one in wanted}
        settled = {one: each for one, each in by.items() if each is not None}
        loaded[name] = registry.load(name, folder=folder, standardise=settled, splits=needed)
        known |= {one: loaded[name].statistics.get(one) for one in given if one in by}
    return together({name: loaded[name] for name in names})


def together(datasets: "Mapping[str, Dataset]") -> "Dataset":
    """Several datasets as one, items of the first before those of the second, and so on.

    Modalities of one name are one modality. Nothing is copied: features are taken from where they
    are. Ids begin with the name of their dataset, and groups of different datasets are different
    ones; labels mean the same in all.

    Raises:
        InputError: If a modality of one name is another kind of signal, has other features, or was
            standardised by something else.
    """
    joined: Dataset = resolve_name("continual_mm.data.joined:joined")(datasets)
    return joined


def joined_card(cards: Mapping[str, DatasetCard]) -> DatasetCard:
    """The card of several datasets as one, by the names that stages call them."""
    problems = Problems()
    known: dict[str, tuple[str, Modality]] = {}
    for name, card in cards.items():
        for modality in card.modalities:
            first, other = known.setdefault(modality.name, (name, modality))
            problems += _differing(other, modality, first, name)
            longest = max(other.shape, modality.shape)  # equal but for the time
            known[modality.name] = first, replace(other, shape=longest)
    texts = [card for card in cards.values() if "text" in card.names and card.provenance]
    problems += [one for card in texts[1:] for one in other_vectors(card, texts[0], "dataset")]
    problems.check()
    every = tuple(cards.values())
    sums = (sum(each) for each in zip(*(card.items for card in every), strict=True))
    training, validation, test = sums
    grouped = any(card.groups for card in every)
    return DatasetCard(
        name="+".join(card.name for card in every),
        modalities=tuple(modality for _, modality in known.values()),
        items=(training, validation, test),
        fingerprint=sha256("\n".join(card.fingerprint for card in every).encode()).hexdigest(),
        has_labels=any(card.has_labels for card in every),
        groups=sum(card.groups or card.items[0] for card in every) if grouped else 0,
        all_rows=tuple(name for name in known if _all_rows(name, every)),
        on_disk=all(card.on_disk for card in every),
        presence=_presence(every, tuple(known)),
        corpora=tuple(cards.items()),
    )


def other_vectors(card: DatasetCard, trained: DatasetCard, place: str) -> Iterator[Problem]:
    """A problem if texts are made of other word vectors than those that are trained on."""
    mine, theirs = card.provenance, trained.provenance
    if mine and theirs and mine.vectors != theirs.vectors:
        problem = (
            f"texts of '{card.name}' are made of other word vectors ({mine.vectors[:8]}) than"
            f" those of '{trained.name}' ({theirs.vectors[:8]})"
        )
        yield Problem(place, problem, "convert both with the same --vectors")


def _differing(first: Modality, other: Modality, where: str, here: str) -> Iterator[Problem]:
    free = 1 if first.kind.has_length else 0
    if (first.kind, first.shape[free:]) != (other.kind, other.shape[free:]):
        problem = f"{first.name} is {other.kind} of shape {other.shape}"
        remedy = f"in dataset '{where}' it is {first.kind} of shape {first.shape}: give one of them"
        yield Problem(f"dataset '{here}'", problem, f"{remedy} another name, or the same features")


def _all_rows(name: str, cards: tuple[DatasetCard, ...]) -> bool:
    return all(name in card.all_rows for card in cards if name in card.names)


def _presence(cards: tuple[DatasetCard, ...], names: tuple[str, ...]) -> Presence | None:
    counted: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for card in cards:
        if card.presence is None:
            return None
        for own, (training, validation, test) in card.presence or ((card.names, card.items),):
            key = tuple(name for name in names if name in own)
            before = counted.get(key, (0, 0, 0))
            counted[key] = (before[0] + training, before[1] + validation, before[2] + test)
    return () if set(counted) == {names} else tuple(sorted(counted.items()))
