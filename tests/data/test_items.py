"""Items that are dicts, as a dataset."""

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.system.errors import InputError


class Clips(torch.utils.data.Dataset):
    """Thirty clips; every third one lacks its text."""

    def __len__(self):
        return 30

    def __getitem__(self, number):
        item = {"video": torch.full((2, 3), float(number)), "ids": f"clip{number}", "label": 7}
        text = {"text": np.ones(4) * number} if number % 3 else {}
        return {**item, **text, "text_raw": None if number else "a dog"}


def test_items_of_torchs_datasets_become_columns_and_what_they_lack_is_absent():
    dataset = Dataset.from_items(Clips(), standardise=False, kinds={"video": "tokens"})
    assert [one.name for one in dataset.card.modalities] == ["video", "text"]
    assert dataset.columns["text"].present.tolist() == [bool(n % 3) for n in range(30)]
    values, _ = dataset.columns["video"].take(torch.tensor([4]))
    assert values.tolist() == [[[4.0] * 3] * 2]
    assert list(dataset.ids)[:2] == ["clip0", "clip1"]
    assert dataset.text[0] == "a dog"


def test_a_dataset_says_what_it_is_in_a_line():
    dataset = Dataset.from_items(Clips())
    assert repr(dataset) == (
        "Dataset('arrays', 24 training, 3 validation, 3 test; video tokens 2 x 3, text vector 4)"
    )
    assert "<td>20</td>" in dataset._repr_html_()


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([(1, 2)], "items 0: a tuple is no dict; let items be dicts"),
        ([{"a": [1.0]}, {"a": [1.0, 2.0]}], r"items 1, 'a': of shape \(2,\), the first one is"),
        ([{"a": "word"}], "items 0, 'a': no numbers"),
        ([{"a": None}], "items: none has 'a'"),
        ([{"label": 1}], "items: they have no modality"),
        ([], "items: they have no modality"),
    ],
)
def test_items_that_are_none_are_refused_by_number(items, problem):
    with pytest.raises(InputError, match=problem):
        Dataset.from_items(items)
