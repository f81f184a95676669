"""A run as a folder that sentence-transformers loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from continual_mm.definitions.modality import Modality
from continual_mm.integrations.sentence_transformers import Space
from continual_mm.preparation.extraction.texts import TEXT, reader_of
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.run import open_run
from continual_mm.runs.start import plugins_with_adapters
from continual_mm.runs.trained_on import dataset_of, named_datasets
from continual_mm.space.space import JointSpace
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, first_line
from continual_mm.system.files import new_folder

CARD = """---
library_name: sentence-transformers
tags: [sentence-transformers, multimodal, continual-mm]
---

# A joint space of {modalities}

Trained by continual_mm: scenario `{scenario}`, strategy `{strategy}`, seed {seed}. Vectors have
{size} numbers; similarity is the inner product.

```python
import continual_mm as cm

model = cm.open_sentence_transformer("folder")
# or: SentenceTransformer("folder", trust_remote_code=True), with continual_mm installed
vectors = model.encode([{{"{first}": features}}])
```

| modality | kind | one item |
|:--|:--|:--|
{rows}
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; ``notes`` say what the model cannot do, and why."""

    modalities: tuple[Modality, ...]
    size: int
    notes: tuple[str, ...]


@checked_arguments
def export_sentence_transformer(
    run: str | Path,
    folder: str | Path,
    *,
    dataset: str | Sequence[str] = "",
    vectors: str | Path | None = None,
    encoder: str = "",
    pair: str = "",
) -> Exported:
    """Write the space of a run, as it is after the last finished stage, for sentence-transformers.

    Args:
        run: ``.../<scenario>/<strategy>/seed-<n>``.
        folder: A new folder.
        dataset: Of a run of an earlier version, its dataset, by name or path, where it does not lie
            where the run found it: what its features were standardised by goes into the folder.
        vectors: The file of word vectors that the texts of the dataset were made of; those of a
            built-in dataset are known.
        encoder: The ``SentenceTransformer`` that its texts were made of, by folder or name.
        pair: A pair to see the space as, as for :func:`~continual_mm.runs.run.open_run`.

    Raises:
        InputError: If the run, the folder or what is given cannot be used, or a tower of the space
            is a module from Python.
    """
    run, folder = Path(run), Path(folder)
    space = open_run(run, pair=pair)
    opened = RunFolder(run)
    definition, last = opened.definition, opened.checkpoint(opened.finished_stages()[-1])
    notes: list[str] = []
    if not pair and plugins_with_adapters(last):
        notes.append("pairs have adapters of their own, which are not in it: --pair has one pair's")
    _complete_statistics(space, definition, dataset, notes)
    text = {modality.name: modality for modality in space.modalities}.get(TEXT)
    named = named_datasets(definition["scenario"])
    mode = space.settings.mode
    reader = reader_of(text, named, mode=mode, vectors=vectors, encoder=encoder)
    if text and not reader.known:
        notes.append("strings cannot be encoded: --vectors or --encoder gives what made text")
    module = Space(space, reader)
    model = SentenceTransformer(modules=[module], similarity_fn_name="dot")
    with new_folder(folder) as temporary:
        model.save(str(temporary), create_model_card=False)
        (temporary / "README.md").write_text(_card(space, definition), encoding="utf-8")
    return Exported(space.modalities, space.size, tuple(notes))


def _complete_statistics(
    space: JointSpace, definition: Mapping[str, Any], given: str | Sequence[str], notes: list[str]
) -> None:
    """Find out by what a run of an earlier version, which did not keep it, was standardised."""
    unknown = [one.name for one in space.modalities if one.name not in space.statistics]
    if not unknown and not given:
        return
    try:
        loaded = dataset_of(definition, given)
    except InputError as error:
        if given:
            raise
        notes.append(f"{first_line(error)}; else features have to be standardised")
        return
    space.statistics |= {name: loaded.statistics.get(name) for name in unknown}


def _card(space: JointSpace, definition: Mapping[str, Any]) -> str:
    rows = (f"| {one.name} | {one.kind} | {one.shape} |" for one in space.modalities)
    return CARD.format(
        modalities=", ".join(one.name for one in space.modalities),
        scenario=definition["scenario"]["name"],
        strategy=definition["strategy"]["name"],
        seed=definition["seed"],
        size=space.size,
        first=space.modalities[0].name,
        rows="\n".join(rows),
    )
