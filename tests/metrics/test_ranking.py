"""Ranks from blocks: the numbers of the whole matrix, which is never there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.metrics.ranking import Question, counted, same, spans


def by_definition(similarity, right):
    """Wrong answers that are more similar than the best right one, and those as similar."""
    greater, equal = [], []
    for row, correct in zip(similarity, right, strict=True):
        best = max(row[correct], default=-np.inf)
        greater.append(int((row[~correct] > best).sum()))
        equal.append(int((row[~correct] == best).sum()))
    return greater, equal


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 9999))
@settings(max_examples=80, deadline=None)
def test_both_directions_follow_the_definition_in_whatever_blocks(rows, columns, levels, seed):
    generator = np.random.default_rng(seed)
    similarity = generator.integers(levels, size=(rows, columns)).astype(np.float32)
    number, other = generator.integers(4, size=rows), generator.integers(4, size=columns)
    matrix = torch.from_numpy(similarity)
    shared = same(torch.from_numpy(number), torch.from_numpy(other))
    questions = [Question(shared), Question(shared, "columns")]
    right = number[:, None] == other
    for side in (1, 3, 5, 100):
        found = counted(lambda *at: matrix[at], matrix.shape, questions, side=side)
        for one, expected in zip(
            found,
            (by_definition(similarity, right), by_definition(similarity.T, right.T)),
            strict=True,
        ):
            assert (one.greater.tolist(), one.equal.tolist()) == expected


def test_each_block_is_computed_once_and_those_with_right_answers_twice():
    matrix, each, asked = torch.eye(90), torch.arange(90), []

    def block(rows, columns):
        asked.append((rows.start or 0, columns.start or 0))
        return matrix[rows, columns]

    questions = [Question(same(each, each)), Question(same(each, each), "columns")]
    counted(block, matrix.shape, questions, side=30)
    computed = {at: asked[1:].count(at) for at in asked}
    assert computed == {(a, b): 1 + (a == b) for a in (0, 30, 60) for b in (0, 30, 60)}


@pytest.mark.parametrize("count", [1, 1024, 1025, 4097, 9999])
def test_spans_follow_one_another_and_none_is_much_shorter(count):
    found = list(spans(count, 1024))
    assert [span.start for span in found] == [0, *(span.stop for span in found[:-1])]
    assert found[-1].stop == count
    sizes = [span.stop - span.start for span in found]
    assert max(sizes) <= 1024
    assert max(sizes) - min(sizes) <= 1
    assert list(spans(0, 1024)) == []


def test_nan_is_refused_naming_the_row_wherever_it_is():
    matrix, each = torch.zeros(50, 50), torch.arange(50)
    matrix[41, 7] = torch.nan
    with pytest.raises(ValueError, match="row 41: NaN"):
        counted(lambda *at: matrix[at], matrix.shape, [Question(same(each, each))], side=20)
