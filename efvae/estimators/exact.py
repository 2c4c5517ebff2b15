"""The expectation itself, by enumeration or quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from efvae.families import ExponentialFamily, Gaussian, GaussianFixedVariance
from efvae.families.base import check_state_count, refuted
from efvae.values import check_whole

__all__ = ["MAX_NODES", "Exact", "gauss_hermite_nodes"]

#: Most nodes of a Gauss–Hermite rule for one coordinate; beyond it NumPy's weights overflow.
MAX_NODES = 370


@dataclass(frozen=True)
class Exact:
    """The expectation itself: a sum over all states, or Gauss–Hermite quadrature for few Gaussian coordinates.

    ::

        Σ_z q(z) f(z)          Σ_k w_k f(μ + σ ε_k)

    The sum is exact. The quadrature is exact for polynomials in z of degree up to 2·nodes − 1 in each coordinate.

    Args:
        nodes: quadrature nodes for each Gaussian coordinate.

    Raises:
        ValueError: ``nodes`` is no whole number of at least 1.

    Paper: eq-1a
    """

    nodes: int = 32
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_whole("Exact", "nodes", self.nodes, 1)

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Estimator.expectation <efvae.estimators.base.Estimator.expectation>`; draws nothing.

        Raises:
            ValueError: q has neither a finite support nor few enough Gaussian coordinates; more nodes than
                :data:`MAX_NODES`; or (in float64, on a CPU) the support of q leaves values out.
        """
        if isinstance(q, (Gaussian, GaussianFixedVariance)):
            n = q.event_shape[0]
            check_state_count(self.nodes**n, f"Gauss–Hermite quadrature with {self.nodes} nodes in {n} coordinates")
            noise, log_weights = gauss_hermite_nodes(self.nodes, n, like=q.eta)
            lead = (-1, *[1] * len(q.batch_shape))
            z = q.location + q.variance.sqrt() * noise.reshape(*lead, n)
            return (log_weights.exp().reshape(lead) * f(z)).sum(0)
        states = q.support()
        z = states.reshape(len(states), *[1] * len(q.batch_shape), *q.event_shape)
        if q.eta.dtype == states.dtype == torch.float64:  # rounding of others may be as large as a state
            _require_all(q, z)
        z = z.expand(-1, *q.batch_shape, *q.event_shape)
        weight, value = q.log_prob(z).exp(), f(z)
        # A state of probability zero contributes nothing, also where f is −inf there.
        return (weight * torch.where(weight == 0, 0.0, value)).sum(0)  # NaN stays NaN, and a gradient of zero is none


def _require_all(q: ExponentialFamily, z: Tensor) -> None:
    """A support that leaves values out would give a part of the expectation; η = 0 tells, with the least rounding."""
    law = q.with_eta(torch.zeros(q.eta.shape[-1], dtype=q.eta.dtype, device=q.eta.device))

    def off(z: Tensor) -> Tensor:
        return (law.log_prob(z).exp().sum(0) - 1).abs()

    if refuted(z, lambda z: (off(z) < 1e-6).all()):
        raise ValueError(
            f"Exact: at η = 0 probabilities of the support of {type(q).__name__} miss 1 by {float(off(z).max()):.3g}"
            ": support() must list all values"
        )


def gauss_hermite_nodes(nodes: int, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Product Gauss–Hermite rule for N(0, I).

    Args:
        nodes: number of nodes for each coordinate.
        dim: number of coordinates.
        like: tensor whose dtype and device are taken.

    Returns:
        Nodes of shape ``(nodes**dim, dim)`` and logarithms of their weights, which sum to one.

    Raises:
        ValueError: no nodes, or more than :data:`MAX_NODES`.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"Gauss–Hermite quadrature takes 1 to {MAX_NODES} nodes in each coordinate, got {nodes}")
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    node = torch.as_tensor(x, dtype=like.dtype, device=like.device)
    log_w = torch.as_tensor(np.log(w) - 0.5 * math.log(2 * math.pi), dtype=like.dtype, device=like.device)
    grid = torch.cartesian_prod(*[node] * dim).reshape(-1, dim)
    log_weights = torch.cartesian_prod(*[log_w] * dim).reshape(-1, dim).sum(-1)
    return grid, log_weights
