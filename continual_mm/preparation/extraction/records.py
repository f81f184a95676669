"""What a job extracted, as records and as what the modalities are."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.clip_files import ClipFiles
from continual_mm.preparation.extraction.job import CLIP_LIST, CLIPS, JOB, is_finished
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import read_json


@dataclass(frozen=True, slots=True)
class Extracted:
    """A modality that a job made.

    Attributes:
        kind: The kind of signal.
        features: Values of a vector, or of a step of a sequence.
        told: Which towers made it; says so if their weights were random.
    """

    kind: Kind
    features: int
    told: str


def contents(out: Path) -> dict[str, Extracted]:
    """By modality, what a job's folder holds.

    Raises:
        InputError: If it is no folder of a job.
    """
    modalities = _opened(out / JOB)["modalities"]
    return {
        name: Extracted(Kind(entry["kind"]), int(entry["features"]), str(entry["told"]))
        for name, entry in modalities.items()
    }


def records(out: Path) -> Iterator[dict[str, Any]]:
    """Every clip that has features, in the order of the manifest.

    Yields:
        ``ids``, ``split``, and where they are known ``group``, ``label`` and ``text_raw``; for each
        modality that the clip has an array, (features,) or (steps, features).

    Raises:
        InputError: If this is no folder of a job, or a file in it is damaged.
    """
    modalities = contents(out)
    files = ClipFiles(out / CLIPS)
    kept = files.kept()
    with (out / CLIP_LIST).open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if not is_finished(entry["files"], kept):
                continue
            features = {
                modality: values
                for name in entry["files"]
                for modality, values in files.features(name).items()
            }
            known = {"group": entry["group"], "label": entry["label"], "text_raw": entry["text"]}
            yield {
                "ids": entry["id"],
                "split": entry["split"],
                **{name: value for name, value in known.items() if value is not None},
                **{name: features[name] for name in modalities if name in features},
            }


def _opened(path: Path) -> Any:
    if not path.exists():
        problem = "is no folder that an extraction wrote"
        raise InputError(Problem(str(path.parent), problem, "extract into it first"))
    return read_json(path)
