"""The ELBO's gradient from draws of the encoder alone, where not even its log-partition can be computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from efvae.families import ExponentialFamily

__all__ = ["covariance_surrogate"]


def covariance_surrogate(q: ExponentialFamily, f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """A number whose gradient estimates that of E_q f(z) + H(q), shape ``batch``; its value means nothing.

    ::

        ∇_η (E_q f + H(q)) = Cov_q(ψ(z), f(z) − log h'(z) − ⟨ψ(z), η⟩)

    The covariance is that of the draws. No log-partition occurs in it, so draws by block Gibbs sampling suffice. The
    estimate is unbiased for independent draws of q; chains that have not mixed make it biased, and nothing here tells.
    The gradient with respect to what f depends on is that of the mean of f over the draws.

    Args:
        q: distribution of z with live η.
        f: maps z of shape ``(s, *batch, *event)`` to values of shape ``(s, *batch)``, e.g. log p(x, z).
        z: draws of q, shape ``(s, *batch, *event)``, at least 2.

    Raises:
        ValueError: fewer than two draws.

    Own: own-score-covariance
    """
    if len(z) < 2:
        raise ValueError(f"covariance_surrogate: a covariance needs at least 2 draws, got {len(z)}")
    psi = q.sufficient_statistic(z)
    value = f(z)
    with torch.no_grad():
        reward = value - q.log_base_measure(z) - (psi * q.eta).sum(-1)
        gradient = ((psi - psi.mean(0)) * reward[..., None]).sum(0) / (len(z) - 1)
    mean = value.mean(0)
    return (gradient * q.eta).sum(-1) + mean - mean.detach()
