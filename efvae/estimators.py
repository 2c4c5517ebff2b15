"""Estimators of E_q f(z) whose backward pass estimates the gradient.

All follow one protocol, so objectives and tests run through any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from efvae.families import ExponentialFamily, Gaussian, GaussianFixedVariance
from efvae.families.base import check_state_count

__all__ = ["Estimator", "Exact", "Reparameterized"]


@runtime_checkable
class Estimator(Protocol):
    """What every estimator offers.

    Paper: eq-1a
    """

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Estimate of E_q f(z), shape ``batch`` of q.

        Its gradient with respect to q's parameters and to all that f depends on estimates the gradient of the
        expectation; without bias unless the estimator says otherwise.

        Args:
            q: distribution of z.
            f: maps z of shape ``(s, *batch, *event)`` to values of shape ``(s, *batch)``.
            generator: source of randomness; the global one if None.
        """
        ...


@dataclass(frozen=True)
class Exact:
    """The expectation itself: a sum over all states, or Gauss–Hermite quadrature for few Gaussian coordinates.

    ::

        Σ_z q(z) f(z)          Σ_k w_k f(μ + σ ε_k)

    The sum is exact. The quadrature is exact for polynomials in z of degree up to 2·nodes − 1 in each coordinate.

    Args:
        nodes: quadrature nodes for each Gaussian coordinate.

    Paper: eq-1a
    """

    nodes: int = 32

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Estimator.expectation`; draws nothing.

        Raises:
            ValueError: q has neither a finite support nor few enough Gaussian coordinates.
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
        z = z.expand(-1, *q.batch_shape, *q.event_shape)
        weight, value = q.log_prob(z).exp(), f(z)
        # A state of probability zero contributes nothing, also where f is −inf there.
        return torch.where(weight > 0, weight * value, 0.0).sum(0)


@dataclass(frozen=True)
class Reparameterized:
    """Monte Carlo through z = μ + σ ε: unbiased for value and gradient.

    ::

        (1/S) Σ_s f(μ + σ ε_s),   ε_s ~ N(0, I)

    Args:
        samples: number S of draws for each batch element.

    Paper: eq-1a, sec-4-2
    """

    samples: int = 1

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Estimator.expectation`; draws ``samples`` values for each batch element.

        Raises:
            ValueError: q is not a Gaussian, so it has no such path.
        """
        if not isinstance(q, (Gaussian, GaussianFixedVariance)):
            raise ValueError(f"Reparameterized needs a Gaussian, {q!r} has no reparameterization: use Exact")
        return f(q.rsample((self.samples,), generator)).mean(0)


def gauss_hermite_nodes(nodes: int, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Product Gauss–Hermite rule for N(0, I).

    Args:
        nodes: number of nodes for each coordinate.
        dim: number of coordinates.
        like: tensor whose dtype and device are taken.

    Returns:
        Nodes of shape ``(nodes**dim, dim)`` and logarithms of their weights, which sum to one.
    """
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    node = torch.as_tensor(x, dtype=like.dtype, device=like.device)
    log_w = torch.as_tensor(np.log(w) - 0.5 * math.log(2 * math.pi), dtype=like.dtype, device=like.device)
    grid = torch.cartesian_prod(*[node] * dim).reshape(-1, dim)
    log_weights = torch.cartesian_prod(*[log_w] * dim).reshape(-1, dim).sum(-1)
    return grid, log_weights
