"""What an inspection finds: of each modality, and of the whole dataset."""

from dataclasses import dataclass

from continual_mm.data.repeats import Repeats
from continual_mm.data.sizes import Sizes
from continual_mm.modality import DatasetCard, Modality


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """One modality.

    Attributes:
        modality: Name, kind of signal and shape.
        present: Items of the whole dataset that have it: training, validation, test.
        lengths: Shortest, median and longest valid time steps; None for a vector.
        sizes: Of the items that were looked at, not standardised.
        furthest: The name of the item with the value farthest from 0; empty if there is none.
        repeats: What several items have.
    """

    modality: Modality
    present: tuple[int, int, int]
    lengths: tuple[int, int, int] | None
    sizes: Sizes
    furthest: str
    repeats: Repeats


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a dataset.

    Attributes:
        card: Names, kinds, sizes.
        looked_at: Items whose sizes were taken.
        compared: Items that were searched for repeats.
        modalities: One report each, in the dataset's order.
        complete: Items of the whole dataset that have every modality.
        whole: Repeats of items in everything they have.
        groups: Groups (long videos, speakers); None where the dataset has none.
        straddling: Groups with items in more than one split.
        captions: Repeats among captions; None where there are none.
        classes: Whether the captions are names of classes, one for each label.
        remarks: What deserves a thought before training, in sentences.
    """

    card: DatasetCard
    looked_at: int
    compared: int
    modalities: tuple[ModalityReport, ...]
    complete: int
    whole: Repeats
    groups: int | None
    straddling: int
    captions: Repeats | None
    classes: bool
    remarks: tuple[str, ...] = ()
