"""Frozen features of pairs that share a hub: two edges to train on, and a test beside them.

They were published with Hub-Spectral Activation (Guo et al. 2026, arXiv 2609.17094), as
``Rowance/HSA-features`` on the Hugging Face Hub. An archive ``retrieval/<backbone>/<relation>.npz``
is about two modalities A and B: training rows of A and of B, each beside the hub's (text for
LanguageBind, the image for ImageBind), and test rows of A and B, which are never trained together.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.data.schema import Record
from continual_mm.data.splits import HeldOut
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError, first_few, printable, suggestion

REPOSITORY = "Rowance/HSA-features"

HUBS: Mapping[str, str] = MappingProxyType({"languagebind": "text", "imagebind": "image"})
"""Backbone -> the modality that it binds all others to."""

_ARRAYS = ("a_train", "h_a_train", "b_train", "h_b_train", "a_test", "b_test")
_GROUPS = "positive_labels"
_TRAINING, _TEST = 0, 2
_STEM = re.compile(r"([a-z]+)[-_]([a-z]+)(__.*)?")


@dataclass(frozen=True, slots=True)
class Relation:
    """An archive, its two modalities and their hub."""

    path: Path
    first: str
    second: str
    hub: str

    @property
    def name(self) -> str:
        """As it is called in the published tables, such as ``image-video``."""
        return self.path.stem


def patterns(backbone: str, wanted: Sequence[str]) -> list[str]:
    """Which files of the repository are needed."""
    return [f"*retrieval*/{backbone}/{name}.npz" for name in wanted or ("*",)]


def relations(folder: Path, backbone: str, wanted: Sequence[str] = ()) -> list[Relation]:
    """The relations of a backbone below a folder, in the order of their names.

    Raises:
        InputError: If there is none, one of ``wanted`` is not there, or one is there twice or does
            not relate two modalities besides the hub.
    """
    found: dict[str, Relation] = {}
    for path in sorted(folder.rglob("*.npz")):
        inside = path.relative_to(folder).parts[:-1]
        names = _STEM.fullmatch(path.stem)
        if backbone in inside and "classification" not in inside and names:
            one = Relation(path, names[1], names[2], HUBS[backbone])
            if (other := found.setdefault(path.stem, one)) != one:
                remedy = "give a folder with one archive of each relation"
                raise InputError.at(path, f"is there twice, as {other.path} too", remedy)
    if not found:
        problem = f"holds no retrieval/{backbone}/<relation>.npz"
        raise InputError.at(folder, problem, f"download {REPOSITORY} and give its folder")
    for name in wanted:
        if name not in found:
            remedy = f"{suggestion(name, found)}there are {', '.join(found)}"
            raise InputError.at(folder, f"has no relation {name!r}", remedy)
    return [_besides_hub(found[name]) for name in dict.fromkeys(wanted or found)]


def unread(folder: Path, backbone: str) -> Iterator[str]:
    """A sentence for the archives of each reason for which some are no relation of a backbone.

    Those of classification, and of the other backbone, are no concern of it.
    """
    reasons: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.npz")):
        inside = path.relative_to(folder).parts[:-1]
        if ({"classification", *HUBS} - {backbone}) & {*inside}:
            continue
        if backbone not in inside:
            reason = f"is in no folder {backbone}"
        elif not _STEM.fullmatch(path.stem):
            reason = "is not called as two modalities, such as image-video or image-video__name"
        else:
            continue
        reasons.setdefault(reason, []).append(printable(str(path.relative_to(folder))))
    for reason, names in reasons.items():
        yield f"left unread: {first_few(names)}: {reason}"


def _besides_hub(one: Relation) -> Relation:
    if len({one.first, one.second, one.hub}) < 3:
        problem = f"does not relate two modalities besides the hub, {one.hub}"
        raise InputError.at(one.path, problem, "name others with --relation")
    return one


def layout(these: Sequence[Relation]) -> tuple[Modality, ...]:
    """All that some relations have, the hubs first, as large as in the first archive that has it.

    Raises:
        InputError: If an archive is damaged or of another form.
    """
    sizes = dict.fromkeys((one.hub for one in these), 0)
    for one in these:
        findings = Findings(str(one.path))
        with Archive(one.path, findings) as archive:
            shapes = _shapes(archive, findings)
        for name, key in ((one.hub, "h_a_train"), (one.first, "a_train"), (one.second, "b_train")):
            sizes[name] = sizes.get(name) or shapes[key][1]
    return tuple(Modality(name, Kind.VECTOR, (size,)) for name, size in sizes.items())


def records(these: Sequence[Relation], *, validation: float, test: float) -> Iterator[Record]:
    """An item for each row: of A and the hub, of B and the hub, and for the test of A and B.

    Shares of the training rows are held out for validation and test, and of the published test rows
    one for validation, since every pair of a run is scored on both. ``label`` says which test items
    answer each other, where an archive says so; every other item has one of its own. Features are
    as they are in the archives, not brought to length 1.
    """
    labels = count()
    for relation in these:
        arrays = _read(relation.path)
        edges = (
            (relation.first, relation.hub, "a_train", "h_a_train"),
            (relation.second, relation.hub, "b_train", "h_b_train"),
            (relation.first, relation.second, "a_test", "b_test"),
        )
        groups: dict[str, int] = {}
        for one, other, key, beside in edges:
            published = key == "a_test"
            names = [f"{relation.name}/{one}-{other}/{row}" for row in range(len(arrays[key]))]
            share = HeldOut(validation=validation, test=0.0 if published else test).among(names)
            named = arrays[_GROUPS] if published and _GROUPS in arrays else None
            for row, name in enumerate(names):
                label, split = next(labels), share.split(name)
                if named is not None:
                    label = groups.setdefault(str(named[row]), label)
                yield {
                    "ids": name,
                    "split": _TEST if published and split == _TRAINING else split,
                    "label": label,
                    one: arrays[key][row],
                    other: arrays[beside][row],
                }


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive."""
    findings = Findings(str(path))
    with Archive(path, findings) as archive:
        _shapes(archive, findings)
        wanted = [*_ARRAYS, *([_GROUPS] if _GROUPS in archive.headers else [])]
        found = {key: archive.read(key) for key in wanted}
    findings.refuse()
    return {key: np.asarray(array) for key, array in found.items()}


def _shapes(archive: Archive, findings: Findings) -> dict[str, tuple[int, ...]]:
    """The shapes of an archive's arrays, checked to be matrices with corresponding rows."""
    shapes = {key: archive.headers[key].shape for key in _ARRAYS if key in archive.headers}
    for key in _ARRAYS:
        if key not in shapes and key not in findings.faulty:
            findings.about(key, "is missing", f"a relation has {', '.join(_ARRAYS)}")
        elif key in shapes and len(shapes[key]) != 2:
            findings.about(key, f"has shape {shapes[key]}", "a matrix is needed")
    findings.refuse()
    for one, other in zip(_ARRAYS[::2], _ARRAYS[1::2], strict=True):
        if shapes[one][0] != shapes[other][0]:
            problem = f"has {shapes[one][0]} rows, {other!r} has {shapes[other][0]}"
            findings.about(one, problem, "rows must correspond")
    groups = archive.headers.get(_GROUPS)
    if groups is not None and groups.shape != shapes["a_test"][:1]:
        findings.about(_GROUPS, f"has shape {groups.shape}", "one for each test row is needed")
    findings.refuse()
    return shapes
