"""How probable a softmax over similarities makes the right answers, row by row."""

from math import inf

from torch import Tensor
from torch.nn.functional import log_softmax

TEMPERATURES = tuple(0.01 * 1.3**power for power in range(25))
"""Where the temperature is looked for: 0.01 to 5.4, in steps of 30 %."""


def row_log_likelihood(
    similarity: Tensor, temperature: float, right: Tensor | None = None
) -> Tensor:
    r"""Log-likelihood of each row's right answer, both directions averaged.

    .. math::
        \ell_i = \tfrac12 \log \frac{e^{S_{ii}/\tau}}{\sum_j e^{S_{ij}/\tau}}
               + \tfrac12 \log \frac{e^{S_{ii}/\tau}}{\sum_j e^{S_{ji}/\tau}}

    Args:
        similarity: S, (n, n); row i and column i belong together.
        temperature: :math:`\tau`.
        right: (n, n) which answers are right, if others than the diagonal are: it is then the
            likelihood that one of these is given.

    Returns:
        (n,) at most 0, in nats; ``-log(n)`` means chance.
    """
    logits = similarity.double() / temperature
    rows, columns = log_softmax(logits, dim=1), log_softmax(logits, dim=0)
    if right is not None:
        rows, columns = (each.masked_fill(~right.to(each.device), -inf) for each in (rows, columns))
        return (rows.logsumexp(1) + columns.logsumexp(0)) / 2
    return (rows.diagonal() + columns.diagonal()) / 2


def fitted_log_likelihood(similarity: Tensor, right: Tensor | None = None) -> Tensor:
    """(n,) :func:`row_log_likelihood` at the temperature of :data:`TEMPERATURES` that is best.

    Fitted so, similarities of different spread can be compared (temperature scaling, Guo et al.
    2017, "On calibration of modern neural networks").
    """
    found = [row_log_likelihood(similarity, temperature, right) for temperature in TEMPERATURES]
    return max(found, key=lambda values: float(values.mean()))


def gain(after: Tensor, before: Tensor) -> tuple[float, float]:
    """Mean of ``after - before``, (n,) each, and its standard error; infinite for a single row."""
    difference = after - before
    count = len(difference)
    error = float(difference.std()) / count**0.5 if count > 1 else float("inf")
    return float(difference.mean()), error
