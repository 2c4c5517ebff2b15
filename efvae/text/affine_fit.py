"""Least squares of many functions of the code on the bits, in one pass over the codes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["AffineFit", "posterior_residual"]


def _design(codes: Tensor) -> Tensor:
    return torch.cat([codes - 0.5, torch.ones_like(codes[:, :1])], 1)


def _explained(normal: Tensor, moment: Tensor) -> Tensor:
    """Mᵀ G⁺ M for each row: bits that never vary under the weights take no part."""
    explained: Tensor = (
        moment * (torch.linalg.pinv(normal, rtol=1e-11, hermitian=True) @ moment[..., None])[..., 0]
    ).sum(-1)
    return explained


class AffineFit:
    """The mean square that the best affine function of the code leaves of each of n functions.

    ::

        min over c, b of Σ_z w(z) (g(z) − c − ⟨b, z⟩)² / Σ_z w(z)

    Args:
        bits: length of the code.

    Own: own-text-distance
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._n = 0
        self._first: Tensor | None = None

    def add(self, codes: Tensor, weight: Tensor, values: Tensor) -> None:
        """Some codes.

        Args:
            codes: shape ``(c, bits)``, float64.
            weight: w ≥ 0, shape ``(c,)``.
            values: g, shape ``(n, c)``, float64.
        """
        design = _design(codes)
        if self._first is None:  # any constant may be subtracted; a value is one of the right size
            self._first = values[:, :1].clone()
            self._normal = design.new_zeros(self.bits + 1, self.bits + 1)
            self._moment = values.new_zeros(len(values), self.bits + 1)
            self._square = values.new_zeros(len(values))
        weighted, centred = weight[:, None] * design, values - self._first
        self._n += len(codes)
        self._normal += design.T @ weighted
        self._moment += centred @ weighted
        self._square += centred.square() @ weight

    def residual(self, *, sampled: bool = False) -> Tensor:
        """The mean squares, shape ``(n,)``.

        Args:
            sampled: the codes are a sample with equal weights; then the freedom of the fit is divided out.
        """
        rest = (self._square - _explained(self._normal, self._moment)).clamp(min=0.0) / self._normal[-1, -1]
        if not sampled:
            return rest
        rank = int(torch.linalg.matrix_rank(self._normal, rtol=1e-11, hermitian=True))
        return rest * self._n / (self._n - rank)


def posterior_residual(table: Tensor, codes: Tensor) -> Tensor:
    """How far each document's log-posterior is from affine where its own posterior lies, shape ``(documents,)``.

    ::

        min over c, b of Σ_z p(z | x) (log p(x, z) − c − ⟨b, z⟩)²      in nats²

    Half of it is the least KL(q ‖ p(z | x)) over factorized q to second order in the deviation.

    Args:
        table: log p(x, z), shape ``(documents, 2**m)``, float64.
        codes: all of them, shape ``(2**m, m)``.

    Own: own-text-distance
    """
    design = _design(codes.to(table))
    log_post = table - table.logsumexp(1, keepdim=True)
    post, m = log_post.exp(), design.shape[1]
    product = (design[:, :, None] * design[:, None]).flatten(1)
    normal = (post @ product).unflatten(1, (m, m))
    moment = (post * log_post) @ design
    # a code of probability zero has log-probability −∞ at worst, and no weight
    square = torch.where(post > 0, post * log_post.square(), 0.0).sum(1)
    return (square - _explained(normal, moment)).clamp(min=0.0)
