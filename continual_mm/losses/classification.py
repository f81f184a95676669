"""Classification by several modalities together: the cross-entropy of the mean of their logits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def mean_logit_cross_entropy(
    logits: Sequence[Tensor], rows: Sequence[Tensor], labels: Tensor
) -> Tensor:
    r"""Cross-entropy of the mean, over the modalities that an item has, of their logits.

    .. math::
        z_i = \frac{1}{|M_i|} \sum_{m \in M_i} z_{m,i}, \qquad
        L = \frac1N \sum_i \mathrm{CE}(z_i, y_i), \qquad
        \frac{\partial L}{\partial z_{m,i}} = \frac{\mathrm{softmax}(z_i) - e_{y_i}}{|M_i|\, N}

    with :math:`M_i` the modalities of item i. All branches get the same residual, that of the item,
    so that one which is right already does not go on where another has to learn; the mean of the
    modalities' own cross-entropies has no such residual. ``log K`` is chance.

    Args:
        logits: For each modality (n_m, K), of the items that have it.
        rows: For each modality (n_m,) which items these are, each once, on the CPU.
        labels: (N,) the class of each item, -1 for none, on the CPU.

    Returns:
        The loss in float32 or better, a scalar. Items without a class or without any of the
        modalities are left out; 0 where none remains.

    Raises:
        ValueError: If there is no modality, or shapes do not go together.

    References:
        MMLoRA; see ``docs/adapters.md``.

    >>> image, sound = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> both = mean_logit_cross_entropy([image, sound], [torch.tensor([0])] * 2, torch.tensor([1]))
    >>> round(both.item(), 4)  # the two contradict each other: log 2
    0.6931
    """
    if not logits or len({each.shape[-1] for each in logits}) > 1 or len(logits) != len(rows):
        shapes = [tuple(each.shape) for each in logits]
        raise ValueError(f"logits of shapes {shapes} for {len(rows)} modalities; give (n, K) each")
    counts = torch.zeros(len(labels))
    for each in rows:
        counts[each] += 1
    chosen = ((counts > 0) & (labels >= 0)).nonzero().squeeze(1)
    device, kind = logits[0].device, torch.promote_types(logits[0].dtype, torch.float32)
    total = torch.zeros(len(labels), logits[0].shape[1], dtype=kind, device=device)
    for part, where in zip(logits, rows, strict=True):
        total = total.index_add(0, where.to(device, non_blocking=True), part.to(kind))
    there = chosen.to(device, non_blocking=True)
    mean = total[there] / counts[chosen, None].to(total, non_blocking=True)
    right = labels[chosen].to(device, non_blocking=True)
    return cross_entropy(mean, right, reduction="sum") / max(len(chosen), 1)
