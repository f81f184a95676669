"""Forgetting of pairs that were aligned earlier, by several definitions from the literature.

A *pair* is born at the first stage at which both of its modalities exist. Its scores before are
undefined, and stored as NaN rather than zero. Scores are higher-is-better: of a median rank, pass
the negative, or forgetting comes out as progress.

Below, :math:`s_l` is a pair's score after stage l, b the stage of its birth and T the last stage,
all counted from 0. With the scores 60; 70, 50; 65, 40, 55 of three stages, backward transfer is
-2.5 on average and forgetting 7.5; what other libraries call forgetting ranges from 2.5 to 7.5.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def backward_transfer(scores: npt.ArrayLike, birth: npt.ArrayLike) -> Floats:
    """Change of every pair since its birth, s_T - s_b; negative means forgotten.

    Args:
        scores: (stages, pairs), higher is better, NaN exactly before a pair's birth.
        birth: (pairs,), the stage at which each pair was born, counted from 0.

    Returns:
        (pairs,) in units of the score; NaN for pairs born at the last stage.

    References:
        Lopez-Paz and Ranzato, GEM (arXiv 1706.08840), per pair instead of averaged.

    >>> backward_transfer([[60, np.nan], [70, 50], [65, 40]], [0, 1])
    array([  5., -10.])
    """
    table, born = _read(scores, birth)
    return np.where(born < len(table) - 1, table[-1] - _at_birth(table, born), np.nan)


def forgetting(scores: npt.ArrayLike, birth: npt.ArrayLike) -> Floats:
    """Loss of every pair from its best earlier score, max over b <= l < T of s_l, minus s_T.

    Negative when the last score is the best, which maxima that include the last stage conceal
    (Chaudhry et al., Riemannian walk, arXiv 1801.10112, per pair instead of averaged). Arguments
    and result are those of :func:`backward_transfer`.

    >>> forgetting([[60, np.nan], [70, 50], [65, 40]], [0, 1])
    array([ 5., 10.])
    """
    table, born = _read(scores, birth)
    earlier = np.where(np.isnan(table[:-1]), -np.inf, table[:-1])
    best = earlier.max(axis=0, initial=-np.inf)
    return np.where(born < len(table) - 1, best - table[-1], np.nan)


def retention(scores: npt.ArrayLike, birth: npt.ArrayLike, *, chance: npt.ArrayLike) -> Floats:
    """Share of what a pair had learned above chance that is left, (s_T - c) / (s_b - c), (pairs,).

    1 is kept, 0 is lost, above 1 is improved, below 0 is worse than chance; NaN for pairs born at
    the last stage, or at chance. Pairs with different ceilings can be compared. ``chance``, c, is
    one number or (pairs,): K/N for the recall at K in a gallery of N. For the other arguments see
    :func:`backward_transfer`.

    >>> retention([[0.9], [0.5]], [0], chance=0.1)
    array([0.5])
    """
    table, born = _read(scores, birth)
    floor = _per_pair(chance, table, "chance", or_one=True)
    learned = _at_birth(table, born) - floor
    defined = (born < len(table) - 1) & (learned != 0)
    share = np.full(table.shape[1], np.nan)
    np.divide(table[-1] - floor, learned, out=share, where=defined)
    return share


def intransigence(scores: npt.ArrayLike, birth: npt.ArrayLike, joint: npt.ArrayLike) -> Floats:
    """What learning late cost a pair at its birth, joint - s_b; positive means a worse start.

    ``joint``, (pairs,), are the scores of a model of the same size, trained for as many steps on
    everything available at the pair's birth at once; NaN where there is none. For the other
    arguments see :func:`backward_transfer`. Defined for pairs born at the last stage too (Chaudhry
    et al., Riemannian walk, arXiv 1801.10112).

    >>> intransigence([[60, np.nan], [70, 50]], [0, 1], [60, 58])
    array([0., 8.])
    """
    table, born = _read(scores, birth)
    return _per_pair(joint, table, "joint") - _at_birth(table, born)


def harmonic_mean(old: float, new: float) -> float:
    """Harmonic mean of the old and the new pairs' scores: high only if both are.

    0 when either is 0, NaN when either is NaN. A ValueError if either is negative: scores are
    averaged, not differences of scores.

    >>> harmonic_mean(0.75, 0.25)
    0.375
    """
    if old < 0 or new < 0:
        raise ValueError(f"harmonic mean of {old} and {new}; give scores that are not negative")
    total = old + new
    return total if total == 0 else float(2 * old * new / total)


def _read(scores: npt.ArrayLike, birth: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Check the arguments that all definitions share."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"scores of shape {table.shape}; they must be (stages, pairs)")
    born = np.asarray(birth)
    stages, pairs = table.shape
    if born.shape != (pairs,) or not np.issubdtype(born.dtype, np.integer):
        raise ValueError(
            f"birth of shape {born.shape} and type {born.dtype} for scores of shape "
            f"{table.shape}; give one stage, an integer from 0, per pair"
        )
    outside = np.flatnonzero((born < 0) | (born >= stages))
    if outside.size:
        pair = outside[0]
        raise ValueError(
            f"pair {pair}: birth at stage {born[pair]}, but stages are 0..{stages - 1}"
        )
    unborn = np.arange(stages)[:, None] < born
    wrong = np.argwhere(np.isnan(table) != unborn)
    if wrong.size:
        stage, pair = wrong[0]
        found = "NaN after" if np.isnan(table[stage, pair]) else "a score before"
        raise ValueError(
            f"scores, stage {stage}, pair {pair}: {found} its birth at stage {born[pair]}; "
            "store NaN exactly before birth"
        )
    return table, born.astype(np.intp)


def _at_birth(table: Floats, born: npt.NDArray[np.intp]) -> Floats:
    first: Floats = np.take_along_axis(table, born[None, :], axis=0)[0]
    return first


def _per_pair(values: npt.ArrayLike, table: Floats, name: str, *, or_one: bool = False) -> Floats:
    """One number per pair; with ``or_one`` a single number counts for all."""
    numbers = np.asarray(values, dtype=np.float64)
    pairs = table.shape[1:]
    if numbers.shape != pairs and not (or_one and numbers.shape == ()):
        raise ValueError(f"{name} of shape {numbers.shape} for scores of shape {table.shape}")
    return np.broadcast_to(numbers, pairs)


def worst_score(within: npt.ArrayLike) -> Floats:
    """Lowest score of every pair during a stage, its end included.

    The lowest of several noisy scores lies below the true one, the more so the more there are:
    compare only stages that were evaluated equally often.

    Args:
        within: (evaluations, pairs) scores during the stage, higher is better, its end last.

    Returns:
        (pairs,); NaN where a score is, and everywhere if only the end is known.

    References:
        De Lange, van de Ven and Tuytelaars (arXiv 2205.13452): min-ACC, per pair.

    >>> worst_score([[0.2, 0.5], [0.4, 0.6]])
    array([0.2, 0.5])
    """
    table = np.asarray(within, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores of shape {table.shape}; they must be (evaluations, pairs)")
    if len(table) < 2:
        return np.full(table.shape[1], np.nan)
    lowest: Floats = table.min(axis=0)
    return lowest


def stability_gap(before: npt.ArrayLike, within: npt.ArrayLike) -> Floats:
    """Largest fall of every pair during a stage, whether it recovered or not, (pairs,).

    From the (pairs,) scores at the end of the stage ``before`` to the :func:`worst_score` within
    it. At least the loss from one stage's end to the next. Negative only for a pair that was better
    throughout the stage.

    >>> stability_gap([0.5, 0.5], [[0.25, 0.5], [0.375, 0.75]])
    array([0.25, 0.  ])
    """
    start, worst = np.asarray(before, dtype=np.float64), worst_score(within)
    if start.shape != worst.shape:
        raise ValueError(f"{start.shape} scores before a stage with {worst.shape} during it")
    gap: Floats = start - worst
    return gap
