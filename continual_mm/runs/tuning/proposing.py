"""The values that a search tries next, as a function of its trials until then."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import GPSampler
from optuna.trial import TrialState, create_trial

from continual_mm.runs.tuning.plan import Searched

SPREAD = 4
"""Trials before a model of the others chooses, the strategy's own values among them.

On noisy curves with one peak and 1, 2 or 3 parameters the best of 8 trials is this far below the
peak on average: random, as Optuna's TPE draws its first ten, 0.02, 0.17, 0.23; even spread 0.01,
0.08, 0.19; from the fifth trial on TPE 0.02, 0.06, 0.16, or a Gaussian process 0.003, 0.03, 0.09.
"""

CLOSE = 0.01
"""Part of every range within which two trials are as good as the same. Runs are
deterministic, so a repetition would add nothing."""

Values = Mapping[str, float]


def proposal(
    searched: Sequence[Searched],
    ended: Sequence[tuple[Values, float | None]],
    under_way: Sequence[Values] = (),
    *,
    seed: int,
) -> dict[str, float]:
    """The values of the next trial: ``plugin.parameter`` -> value in its range.

    First the strategy's own, then a :func:`spread` from there, then a Gaussian process proposes
    where it expects the largest improvement. Where it repeats an earlier trial, the spread goes on.
    A trial that ended without a score, pruned or diverged, counts as if it were the worst.
    """
    number = len(ended) + len(under_way)
    finished = [score for _, score in ended if score is not None]
    if number < SPREAD or not finished:
        return spread(searched, number)
    scratch = optuna.create_study(
        direction="maximize", sampler=GPSampler(seed=seed, n_startup_trials=1)
    )
    ranges = {str(one): _distribution(one) for one in searched}
    for values, score in ended:
        value = min(finished) if score is None else score
        scratch.add_trial(create_trial(params=dict(values), distributions=ranges, value=value))
    for values in under_way:
        scratch.add_trial(
            create_trial(state=TrialState.RUNNING, params=dict(values), distributions=ranges)
        )
    before = [*(values for values, _ in ended), *under_way]
    further = (spread(searched, later) for later in range(number, 2 * number + 1))
    candidates = chain([dict(scratch.ask(ranges).params)], further)
    new = (one for one in candidates if not any(_same(searched, one, old) for old in before))
    return next(new, spread(searched, number))


def _same(searched: Sequence[Searched], one: Values, other: Values) -> bool:
    return all(
        abs(_place(each, one[str(each)]) - _place(each, other[str(each)])) < CLOSE
        for each in searched
    )


def spread(searched: Sequence[Searched], number: int) -> dict[str, float]:
    """The ``number``-th of points that fill the ranges evenly, however many of them are taken.

    Number 0 is where the strategy begins; each further one is a step onwards, wrapped at the ends
    of the range. The steps of d parameters are the powers of 1 / g with g ** (d + 1) = g + 1
    (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences").
    """
    if not number:
        return {str(one): one.start for one in searched}
    ratio = 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (len(searched) + 1))
    return {
        str(one): _at(one, (_place(one, one.start) + number * ratio**-power) % 1)
        for power, one in enumerate(searched, start=1)
    }


def _place(one: Searched, value: float) -> float:
    """Where a value is, as part of the way from the low end of the range to the high end."""
    low, high = _scaled(one, one.range.low), _scaled(one, one.range.high)
    return (_scaled(one, value) - low) / (high - low) if high > low else 0.0


def _at(one: Searched, place: float) -> float:
    low, high = _scaled(one, one.range.low), _scaled(one, one.range.high)
    scaled = low + place * (high - low)
    value = math.exp(scaled) if one.range.log else scaled
    inside = min(max(value, one.range.low), one.range.high)
    return round(inside) if one.whole else inside


def _scaled(one: Searched, value: float) -> float:
    return math.log(value) if one.range.log else value


def _distribution(one: Searched) -> BaseDistribution:
    low, high, log = one.range.low, one.range.high, one.range.log
    if one.whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)
