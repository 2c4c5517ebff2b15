"""Minimal statistics: with the constant added, no component is a combination of the others."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RANK_TOLERANCE", "anchors", "extend", "independent_columns", "span"]

#: Relative size below which a column or row counts as a combination of the others, in double precision.
RANK_TOLERANCE = 1e-9


def _tolerance(values: Tensor) -> float:
    """The same for the precision of the values: in float32 rounding alone is larger."""
    return max(RANK_TOLERANCE, 100 * torch.finfo(values.dtype).eps)


def extend(statistic: Tensor) -> Tensor:
    """The statistic with a last component 1, shape ``(k, d + 1)``.

    Paper: thm-a1, eq-17
    """
    return torch.cat([statistic, torch.ones_like(statistic[:, :1])], 1)


def span(columns: Tensor) -> Tensor:
    """Orthonormal basis of what the columns span, shape ``(k, rank)``.

    Args:
        columns: shape ``(k, d)``, dependent or not.

    Paper: thm-a1
    """
    basis, size, _ = torch.linalg.svd(columns, full_matrices=False)
    kept: Tensor = basis[:, size > _tolerance(columns) * size[0]]
    return kept


def anchors(statistic: Tensor) -> Tensor:
    """Indices of d + 1 points whose extended statistics are linearly independent, well conditioned.

    Greedy: each next point has the largest component orthogonal to those of the points before it.

    Args:
        statistic: shape ``(k, d)``.

    Raises:
        ValueError: there are no such points: the statistic is not minimal on these points.

    Paper: thm-a1
    """
    rest = extend(statistic)
    scale = rest.norm(dim=1).max()
    chosen: list[int] = []
    for _ in range(rest.shape[1]):
        best = int(rest.norm(dim=1).argmax())
        length = rest[best].norm()
        if length <= _tolerance(statistic) * scale:
            raise ValueError(
                f"anchors: the statistic of dimension {statistic.shape[1]} is not minimal on these points: with a "
                f"constant added its rank is {len(chosen)}; use JointTable.minimal(), or more points"
            )
        direction = rest[best] / length
        rest = rest - (rest @ direction)[:, None] * direction
        chosen.append(best)
    return torch.tensor(chosen)


def independent_columns(statistic: Tensor) -> list[int]:
    """Components that with the constant are linearly independent and span the same functions; the first ones win.

    Paper: thm-a1
    """
    basis = torch.ones_like(statistic[:, :1]) / len(statistic) ** 0.5
    kept: list[int] = []
    for i in range(statistic.shape[1]):
        column = statistic[:, i]
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)  # twice: rounding of the first pass
        if rest.norm() > _tolerance(statistic) * column.norm().clamp(min=1e-300):
            basis = torch.cat([basis, (rest / rest.norm())[:, None]], 1)
            kept.append(i)
    return kept
