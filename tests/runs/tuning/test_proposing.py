"""What is tried next: evenly at first, then where most is to be gained."""

import math

import numpy as np
import pytest

from continual_mm.definitions.rules import Range
from continual_mm.runs.tuning.plan import Searched
from continual_mm.runs.tuning.proposing import SPREAD, proposal, spread

WEIGHT = Searched("ewc", "weight", 10.0, Range(0.1, 1000.0, log=True), whole=False)
SHARE = Searched("warmup", "share", 0.3, Range(0.0, 1.0), whole=False)
ROWS = Searched("replay", "rows", 64, Range(4, 256, log=True), whole=True)


def tried(score, searched, trials, seed=0):
    ended = []
    for number in range(trials):
        values = proposal(searched, ended, seed=seed + number)
        ended.append((values, score(values)))
    return [value for _, value in ended if value is not None]


def test_the_first_values_are_the_strategys_own():
    assert proposal((WEIGHT, ROWS), [], seed=5) == {"ewc.weight": 10.0, "replay.rows": 64}


def test_one_parameter_steps_on_by_the_golden_ratio_of_its_range():
    golden = (math.sqrt(5) - 1) / 2
    for number in range(1, 9):
        expected = (0.5 + number * golden) % 1
        found = spread((WEIGHT,), number)["ewc.weight"]
        assert math.log10(found) == pytest.approx(-1 + 4 * expected)
        assert spread((SHARE,), number)["warmup.share"] == pytest.approx(
            (0.3 + number * golden) % 1
        )


def test_whole_numbers_stay_whole_and_in_their_range():
    values = [spread((ROWS,), number)["replay.rows"] for number in range(40)]
    assert all(isinstance(value, int) and 4 <= value <= 256 for value in values)
    assert min(values) < 6
    assert max(values) > 200


def peak(values):
    return math.exp(
        -0.5 * math.log10(values["ewc.weight"]) ** 2 - 4 * (values["warmup.share"] - 0.8) ** 2
    )


def test_eight_trials_of_two_parameters_find_the_peak_that_random_ones_miss():
    assert max(tried(peak, (WEIGHT, SHARE), 8)) > 0.97  # random ones: below 0.85 on average


def test_values_that_diverged_are_avoided_like_the_worst():
    # The score rises with the weight until it diverges: values near there are not tried again.
    ended = []
    for number in range(10):
        values = proposal((WEIGHT,), ended, seed=number)
        place = math.log10(values["ewc.weight"])
        ended.append((values, place if place < 2 else None))
    model = [score for _, score in ended[SPREAD:]]
    assert sum(score is None for score in model) <= 3
    assert max(score for score in model if score is not None) > 1.5


def test_no_trial_repeats_another_where_all_come_to_the_same():
    ended = []
    for number in range(10):
        ended.append((proposal((SHARE,), ended, seed=number), 0.5))
    places = sorted(values["warmup.share"] for values, _ in ended)
    assert np.diff(places).min() > 0.009


def test_where_nothing_was_finished_the_spread_goes_on():
    ended = [(spread((WEIGHT,), number), None) for number in range(SPREAD + 1)]
    assert proposal((WEIGHT,), ended, seed=0) == spread((WEIGHT,), SPREAD + 1)


def test_trials_under_way_are_not_proposed_again():
    ended = [
        (spread((SHARE,), n), peak({"ewc.weight": 0.5, **spread((SHARE,), n)})) for n in range(5)
    ]
    first = proposal((SHARE,), ended, seed=0)
    second = proposal((SHARE,), ended, [first], seed=0)
    assert abs(first["warmup.share"] - second["warmup.share"]) > 0.01
