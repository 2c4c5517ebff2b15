"""The score-function gradient with a leave-one-out baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efvae.estimators.base import check_samples, with_gradient
from efvae.families import ExponentialFamily

__all__ = ["Reinforce"]


@dataclass(frozen=True)
class Reinforce:
    """Score function, each draw judged against the mean of the others: unbiased, for every family that can be sampled.

    ::

        (1/S) Σ_s (f(z_s) − (1/(S−1)) Σ_{t≠s} f(z_t)) ∇_η log q(z_s)
            = (1/(S−1)) Σ_s (f(z_s) − mean f)(ψ(z_s) − mean ψ)

    In an exponential family ∇_η log q(z) = ψ(z) − E ψ, and the estimate is the sample covariance of f and ψ, as the
    exact gradient is their covariance: E ψ drops out, and no log-partition is needed. Its variance in coordinate i is

    ::

        (E f²ψ_i² + (Var f Var ψ_i − (S−2) (Cov(f, ψ_i))²) / (S−1)) / S        f, ψ_i centered

    Where the base measure carries a gradient, as the given variance of
    :class:`~efvae.families.gaussian.GaussianFixedVariance` may, it gets ∇ log q(z_s) in the same way. The gradient with
    respect to what f depends on is the mean over the draws. The baseline is that of
    Kool, van Hoof & Welling (2019).

    Args:
        samples: number S of draws for each batch element.

    Raises:
        ValueError: ``samples`` < 2: nothing is left out of one draw.

    Paper: eq-1a
    """

    samples: int = 2
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_samples(self, self.samples, 2)

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Estimator.expectation <efvae.estimators.base.Estimator.expectation>`; draws ``samples`` values."""
        z = q.sample((self.samples,), generator)
        value = f(z)
        mean = value.mean(0)
        with torch.no_grad():
            psi = q.sufficient_statistic(z)
            product = (value - mean)[..., None] * (psi - psi.mean(0))
            gradient = product.sum(0) / (self.samples - 1)
        if q.log_base_measure(z[:1]).requires_grad:
            log_q = q.with_eta(q.eta.detach()).log_prob(z)
            judged = (value - mean).detach() / (self.samples - 1)
            mean = mean + (judged * (log_q - log_q.detach())).sum(0)
        return with_gradient(mean, gradient, q.eta)
