"""How an embedding space moves: the shared rotation, the rest, and where modalities lie.

A rotation that all modalities share changes no similarity between them; the movement that is left
without it does. Everything is computed in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Movement:
    """How the embeddings of the same items differ between two states of a space."""

    # Angle in radians, in [0, pi], by which the shared orthogonal map turns the earlier
    # embeddings: root mean square over all items of all modalities.
    rotation: float
    # Modality -> distance between earlier and later embeddings, root mean square over items; at
    # most 2 for unit embeddings.
    moved: dict[str, float]
    # Modality -> the same, once the earlier embeddings were turned by the shared map.
    residual: dict[str, float]


def modality_gap(first: Tensor, second: Tensor) -> float:
    """Distance between the mean embeddings of two modalities, (n, D) and (m, D) unit vectors.

    0 if both lie around the same point; 2 if each is a point, opposite each other (Liang et al.,
    Mind the gap, arXiv 2203.02053).

    >>> modality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    1.0
    """
    return float((first.double().mean(0) - second.double().mean(0)).norm())


def movement(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Movement:
    """Split the movement of some modalities into a rotation that they share and the rest.

    The shared map is the orthogonal one, reflections included, that brings all earlier embeddings
    together, stacked, nearest to the later ones. It is fitted to the items that it is evaluated on:
    with few items in many dimensions, unrelated embeddings too are nearly a rotation of each other.
    Compare residuals of the same number of items and dimensions.

    Args:
        before: Modality -> (n, D) earlier embeddings.
        after: The same modalities and shapes, the same items in the same order, later.

    Returns:
        NaN everywhere if a number is not finite. The residual may exceed what moved in a single
        modality, but not over all of them.
    """
    shapes, others = (
        {name: tuple(rows.shape) for name, rows in m.items()} for m in (before, after)
    )
    if not shapes or shapes != others:
        problem = f"embeddings of shapes {shapes} before and {others} after"
        raise ValueError(f"{problem}; movement compares the same items of at least one modality")
    earlier = torch.cat(list(before.values())).double()
    later = torch.cat([after[name] for name in before]).double()
    if bool(earlier.isfinite().all() & later.isfinite().all()):
        turned = aligned(earlier, later)
    else:
        earlier = later = turned = torch.full_like(earlier, torch.nan)
    sizes = [len(rows) for rows in before.values()]
    moved = torch.split((later - earlier).square().sum(1), sizes)
    residual = torch.split((later - turned).square().sum(1), sizes)
    return Movement(
        rotation=_root_mean(_angles(earlier, turned).square()),
        moved={name: _root_mean(part) for name, part in zip(before, moved, strict=True)},
        residual={name: _root_mean(part) for name, part in zip(before, residual, strict=True)},
    )


def change_between(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> float:
    r"""How far the similarities of two modalities are from what they were, in [0, 1].

    With (n, m) similarities :math:`S = H A B^\top H`, where H takes out the means of rows and
    columns, it is the sine of the angle between S then and now. What orders nothing is no change: a
    rotation that both share, a common factor, a shift of all. 0 is as it was, 1 has nothing in
    common with it. The number of dimensions may have grown.

    Args:
        before: (n, D) and (m, D) embeddings of the two.
        after: (n, D') and (m, D') of the same items, later.

    Returns:
        NaN if all similarities were or are the same.
    """
    old, new = (_centred(first.double() @ second.double().T) for first, second in (before, after))
    if not float(old.norm()) or not float(new.norm()):
        return float("nan")
    # Of the two unit vectors' sum and difference, exact for small angles.
    old, new = old / old.norm(), new / new.norm()
    half = torch.atan2((old - new).norm(), (old + new).norm())
    return float((2 * half).clamp(max=torch.pi / 2).sin())


def change_inside(before: Tensor, after: Tensor) -> float:
    """The same of the similarities within one modality: 0 where it turned as a whole."""
    return change_between((before, before), (after, after))


def linear_cka(before: Tensor, after: Tensor) -> float:
    """Linear centred kernel alignment of (n, D) and (n, D') features of the same items, in [0, 1].

    1 where one is a rotation and scaling of the other (Kornblith et al. 2019, arXiv 1905.00414).
    """
    old, new = (rows.double() - rows.double().mean(0) for rows in (before, after))
    across = (old.T @ new).square().sum()
    return _ratio(across, (old.T @ old).norm() * (new.T @ new).norm())


def _centred(values: Tensor) -> Tensor:
    rows, columns = values.mean(1, keepdim=True), values.mean(0, keepdim=True)
    return values - rows - columns + values.mean()


def _ratio(value: Tensor, whole: Tensor) -> float:
    return float(value / whole) if float(whole) > 0 else float("nan")


def aligned(before: Tensor, after: Tensor) -> Tensor:
    r"""Earlier embeddings under the orthogonal map Q that minimises ``|before Q - after|``.

    With the singular value decomposition :math:`B^\top A = U \Sigma V^\top` it is :math:`Q = U
    V^\top` (Schoenemann 1966, the orthogonal Procrustes problem). More dimensions than items are
    first reduced to the span of the items (:math:`B = R_B^\top Z_B^\top`, likewise A), so that
    nothing is larger than (n, D), and what is decomposed last is min(n, D) wide. Both are (n, D),
    finite, of the same items; the result is float64, as long and at the same angles to each other
    as before.
    """
    old, new = before.double(), after.double()
    basis = None
    if old.shape[0] < old.shape[1]:
        old = torch.linalg.qr(old.T).R.T
        basis, new = torch.linalg.qr(new.T)
        new = new.T
    left, _, right = torch.linalg.svd(old.T @ new)
    turned: Tensor = old @ (left @ right)
    return turned if basis is None else turned @ basis.T


def _angles(first: Tensor, second: Tensor) -> Tensor:
    """(n,) angles between rows, exact for tiny ones and for opposite rows (Kahan's formula)."""
    a, b = (torch.nn.functional.normalize(rows, dim=1) for rows in (first, second))
    return 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))


def _root_mean(squares: Tensor) -> float:
    return float(squares.mean().sqrt())
