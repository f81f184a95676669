"""What a job extracted, as records and as what the modalities are."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.clip_files import (
    CLIP_LIST,
    CLIPS,
    JOB,
    ClipFiles,
    is_finished,
)
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import read_json


@dataclass(frozen=True, slots=True)
class Extracted:
    """A modality that a job made: features of a vector or time step, and which towers made it."""

    kind: Kind
    features: int
    description: str


def contents(out: Path) -> dict[str, Extracted]:
    """By modality, what a job's folder holds.

    Raises:
        InputError: If it is no folder of a job.
    """
    if not (out / JOB).exists():
        problem = "is no folder that an extraction wrote"
        raise InputError(Problem(str(out), problem, "extract into it first"))
    return {
        name: Extracted(Kind(entry["kind"]), int(entry["features"]), str(entry["told"]))
        for name, entry in read_json(out / JOB)["modalities"].items()
    }


def records(out: Path) -> Iterator[dict[str, Any]]:
    """Every clip that has features, in the order of the manifest, as items of a dataset.

    For each modality that a clip has there is an array, (features,) or (steps, features).

    Raises:
        InputError: If this is no folder of a job, or a file in it is damaged.
    """
    modalities = contents(out)
    files = ClipFiles(out / CLIPS)
    stored = files.stored()
    with (out / CLIP_LIST).open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if not is_finished(entry["files"], stored):
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
