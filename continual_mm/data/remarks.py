"""What deserves a thought before a dataset is trained on, in sentences."""

from collections.abc import Iterator

from continual_mm.data.inspected import Inspection, ModalityReport
from continual_mm.data.repeats import Repeats
from continual_mm.data.sizes import FAR, Sizes
from continual_mm.modality import SPLITS

SHIFTED = 10.0
"""Times that norms in a split may differ from those in training before it is told."""

_OUTLYING = 10.0
"""Times that a value may be larger than a whole step usually is, if it has many features."""


def remarks(found: Inspection) -> Iterator[str]:
    """Give them, what concerns the whole first."""
    empty = [split for split, items in zip(SPLITS, found.card.items, strict=True) if not items]
    yield from (f"there is no {split} item" for split in empty)
    yield from _magnitudes(found, trained="training" not in empty)
    for one in found.modalities:
        yield from _on_presence(one, empty)
        yield from _on_sizes(one)
    yield from _on_repeats(found)
    yield from _on_groups(found)


def _magnitudes(found: Inspection, *, trained: bool) -> Iterator[str]:
    sized = sorted(
        (one for one in found.modalities if one.sizes.usual), key=lambda one: one.sizes.usual
    )
    if not sized or sized[-1].sizes.usual <= FAR * sized[0].sizes.usual:
        return
    small, large = sized[0], sized[-1]
    advice = ": keep standardise = true, or one of them has no say" if trained else ""
    yield (
        f"values of {large.modality.name} are"
        f" {large.sizes.usual / small.sizes.usual:,.0f} times as large as those of"
        f" {small.modality.name} (usually {large.sizes.usual:.3g} and"
        f" {small.sizes.usual:.3g}){advice}"
    )


def _on_presence(one: ModalityReport, empty: list[str]) -> Iterator[str]:
    name = one.modality.name
    for split, count in zip(SPLITS, one.present, strict=True):
        if not count and split not in empty:
            yield f"no {split} item has {name}"


def _on_sizes(one: ModalityReport) -> Iterator[str]:
    name, sizes = one.modality.name, one.sizes
    if sizes.broken:
        items = _items(sizes.broken)
        yield f"{items} {_have(sizes.broken)} values of {name} that are not finite: it is damaged"
    if sizes.constant:
        features = one.modality.features
        verb = "changes" if sizes.constant == 1 else "change"
        yield f"{sizes.constant:,} of {features:,} features of {name} never {verb}"
    if sizes.zero:
        items = _items(sizes.zero)
        yield (
            f"{items} {_have(sizes.zero)} nothing but zeros as {name}: is that a missing {name}?"
        )
    yield from _shifts(name, sizes) if _shifted(sizes) else _outliers(one)


def _shifted(sizes: Sizes) -> dict[str, float]:
    """How many times the norm of training items it is in other splits, where that is far off."""
    training, *others = sizes.norms
    if not training:
        return {}
    ratios = {
        split: norm / training for split, norm in zip(SPLITS[1:], others, strict=True) if norm
    }
    return {split: r for split, r in ratios.items() if not 1 / SHIFTED <= r <= SHIFTED}


def _shifts(name: str, sizes: Sizes) -> Iterator[str]:
    for split, ratio in _shifted(sizes).items():
        yield (
            f"the norm of {name} in {split} is {_times(ratio)} that in training: standardising by"
            " training items does not mend that"
        )


def _outliers(one: ModalityReport) -> Iterator[str]:
    name, sizes = one.modality.name, one.sizes
    if sizes.faint > 1:
        yield (
            f"{_items(sizes.faint)} have less than a {FAR:.0f}th of the usual norm of {name}: are"
            " they silent, or in other units?"
        )
    if sizes.loud > 1:
        yield (
            f"{_items(sizes.loud)} have more than {FAR:.0f} times the usual norm of {name}: are"
            " they in other units?"
        )
    elif sizes.furthest > max(FAR * sizes.usual, _OUTLYING * sizes.norm) > 0:
        ratio = sizes.furthest / sizes.usual
        yield (
            f"the largest value of {name}, {sizes.furthest:.3g} in item {one.furthest!r}, is"
            f" {ratio:,.0f} times as large as usual: is it damaged?"
        )


def _on_repeats(found: Inspection) -> Iterator[str]:
    whole, rows = found.whole, sum(found.card.items)
    least = "at least " if found.compared < rows else ""
    several = len(found.modalities) > 1
    if several:
        where = " in every modality"
        yield from _on_leaks(whole, "the same as", where, least)
        if whole.repeated:
            yield (
                f"{least}{_items(whole.repeated)} {_are(whole.repeated)} there more than once, the"
                f" same{where}"
            )
    for one in found.modalities:
        yield from _on_modality(found, one, least, whole if several else Repeats(0, 0, 0, 0, 0))
    yield from _on_captions(found, least)
    if least:
        yield f"repeats were looked for among {found.compared:,} of {rows:,} items"


def _on_modality(
    found: Inspection, one: ModalityReport, least: str, told: Repeats
) -> Iterator[str]:
    """What is repeated in one modality and was not told of whole items."""
    name, repeats = one.modality.name, one.repeats
    if _few(repeats):
        if repeats.different == 1:
            yield f"all {_items(repeats.compared)} have the same {name}"
        elif not _captions_tell(found, name):
            yield (
                f"{name} has only {repeats.different:,} different values in"
                f" {_items(repeats.compared)}: as a query, {_advice(found)}"
            )
        return
    if (repeats.leaked, repeats.crossed) != (told.leaked, told.crossed):
        yield from _on_leaks(repeats, f"the {name} of", "", least)
    elif repeats.repeated > told.repeated and not _captions_tell(found, name):
        items = _items(repeats.repeated)
        yield f"{least}{items} {_have(repeats.repeated)} the {name} of another item"


def _on_leaks(repeats: Repeats, same: str, where: str, least: str) -> Iterator[str]:
    verb = _are if same == "the same as" else _have
    if repeats.leaked:
        items = _items(repeats.leaked, "validation or test item")
        yield f"{least}{items} {verb(repeats.leaked)} {same} a training item{where}"
    if repeats.crossed:
        items = _items(repeats.crossed, "test item")
        yield f"{least}{items} {verb(repeats.crossed)} {same} a validation item{where}"


def _on_captions(found: Inspection, least: str) -> Iterator[str]:
    captions = found.captions
    if captions is None or not captions.repeated:
        return
    if captions.different == 1:
        yield f"all {_items(captions.compared)} have the same caption"
    elif found.classes:
        yield (
            f"captions are the names of {captions.different:,} classes, one for each label: set"
            ' positives = "label", or most right answers count as wrong'
        )
    else:
        yield (
            f"{least}{_items(captions.repeated)} {_have(captions.repeated)} the caption of another"
            ' item: set positives = "duplicates", or right answers count as wrong'
        )


def _on_groups(found: Inspection) -> Iterator[str]:
    if found.straddling and found.groups == 1:
        yield "the only group has items in more than one split: nothing shows how others would do"
    elif found.straddling:
        groups = "1 group has" if found.straddling == 1 else f"{found.straddling:,} groups have"
        yield f"{groups} items in more than one split: scores may be too good"


def _captions_tell(found: Inspection, name: str) -> bool:
    """Whether what is repeated in a modality is told of the captions that it was made of."""
    return name == "text" and found.captions is not None and found.captions.repeated > 0


def _few(repeats: Repeats) -> bool:
    """Whether values are those of classes rather than of items: ten items for each, or more."""
    return 0 < 10 * repeats.different <= repeats.compared


def _advice(found: Inspection) -> str:
    positives = "label" if found.card.has_labels else "duplicates"
    return f'set positives = "{positives}"'


def _items(count: int, what: str = "item") -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _times(ratio: float) -> str:
    """As a factor, or a part where it is below one."""
    return f"{ratio:,.0f} times" if ratio > 1 else f"1/{1 / ratio:,.0f} of"
