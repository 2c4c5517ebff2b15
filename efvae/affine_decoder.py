"""Decoders that are affine in the code, under a fixed prior: the class for which the paper states Corollary 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.consistency import posterior_gap
from efvae.descent import maximize
from efvae.families import Bernoulli, ExponentialFamily, all_bits
from efvae.models import MakeFamily

__all__ = ["AffineDecoder", "BestBound", "best_bound", "harmonium_log_joint", "interaction"]


def interaction(visible: MakeFamily, theta: Tensor) -> Tensor:
    """For two bits, the part of A(Wz + u) that is not affine in the code, in nats, a scalar.

    ::

        A(u + w1 + w2) − A(u + w1) − A(u + w2) + A(u),   w1, w2 the columns of W

    Under a prior that factorizes over the two bits, an affine decoder is consistent exactly if this is zero. For
    Gaussian x it is ⟨w1, σ² w2⟩.

    Args:
        visible: family of x from its natural parameters.
        theta: columns w1, w2, u, shape ``(n, 3)``.

    Own: own-cor-2, own-parallelogram
    """
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=theta.dtype)
    return (sign * visible(AffineDecoder.eta(theta)).log_partition()).sum()


@dataclass(frozen=True)
class AffineDecoder:
    """All decoders that are affine in two or more bits, under one fixed prior.

    ::

        p_θ(x, z) = p(z) h(x) exp(⟨ν(x), W z + u⟩ − A(W z + u)),   θ = (W, u)

    Args:
        visible: family of x from its natural parameters.
        x: points of the observation space, shape ``(batch, *event)``, float64.
        log_prior: log p(z) of the codes in counting order in nats, shape ``(2**m,)``.

    Paper: cor-2
    """

    visible: MakeFamily
    x: Tensor
    log_prior: Tensor

    @staticmethod
    def eta(theta: Tensor) -> Tensor:
        """W z + u of all codes in counting order, shape ``(2**m, n)``, from θ of shape ``(n, m + 1)``."""
        bits = all_bits(theta.shape[1] - 1)
        return torch.cat([bits, torch.ones_like(bits[:, :1])], 1) @ theta.T

    def log_joint(self, theta: Tensor) -> Tensor:
        """log p_θ(x, z) in nats, shape ``(2**m, batch)``."""
        family: ExponentialFamily = self.visible(self.eta(theta)[:, None])
        return family.log_prob(self.x) + self.log_prior[:, None]


def harmonium_log_joint(visible: MakeFamily, x: Tensor, m: int) -> Callable[[Tensor], Tensor]:
    """The log-joint of all harmonia over m bits, as a function of their parameters: the same decoders, the prior tied.

    ::

        p(z) ∝ exp(⟨z, v⟩ + A(W z + u)),   θ = (W u; vᵀ ·), the last entry without effect

    Args:
        visible: family of x from its natural parameters.
        x: points of the observation space, shape ``(batch, *event)``, float64.
        m: number of bits.

    Returns:
        Function from θ of shape ``(n + 1, m + 1)`` to log p_θ(x, z) in nats, shape ``(2**m, batch)``.

    Paper: cor-2, eq-7
    Own: own-prior-pinned
    """
    bits = all_bits(m)

    def log_joint(theta: Tensor) -> Tensor:
        eta = AffineDecoder.eta(theta[:-1])
        log_prior = torch.log_softmax(bits @ theta[-1, :-1] + visible(eta).log_partition(), 0)
        return AffineDecoder(visible, x, log_prior).log_joint(theta[:-1])

    return log_joint


@dataclass(frozen=True)
class BestBound:
    """The best ELBO found over a class, where, and the likelihood there; in nats.

    Own: own-cor-2
    """

    elbo: float
    log_likelihood: float
    theta: Tensor


def best_bound(
    log_joint: Callable[[Tensor], Tensor],
    data: Tensor,
    n_bits: int,
    starts: Tensor,
    max_evaluations: int = 200,
    polish: int = 30,
) -> BestBound:
    """The largest ELBO over θ and over one free factorized q for each x.

    ::

        Σ_x p_d(x) ( E_q log p_θ(x, z) + H(q) ),   q(z | x) = Π_i q_i(z_i | x)

    No encoder network does better than these free q. L-BFGS over θ and all q runs from each start; the best end is
    polished over θ alone, with the best q for each θ. What comes out is attained, so it is a lower bound of the
    maximum; that the maximum is no larger is as sure as the starts are many.

    Args:
        log_joint: maps θ to log p_θ(x, z), codes in counting order, shape ``(2**n_bits, batch)``.
        data: p_d on the x, shape ``(batch,)``.
        n_bits: number of bits.
        starts: first values of θ, shape ``(s, *shape of θ)``; the q start near the posterior's marginals there.
        max_evaluations: most values and gradients for each start.
        polish: most values and gradients of the last step.

    Paper: cor-2, eq-1b, eq-2
    """
    if not len(starts):
        raise ValueError("best_bound: needs at least one start")
    bits, size, shape = all_bits(n_bits), starts[0].numel(), starts[0].shape
    # In η the curvature at x is proportional to p_d(x), which spans many orders: scaled, it is of order one.
    scale = data.clamp(min=1e-8).sqrt()[:, None]

    def bound(point: Tensor) -> Tensor:
        q = Bernoulli(point[size:].reshape(len(data), n_bits) / scale)
        log_q = q.log_prob(bits[:, None])
        return ((log_q.exp() * (log_joint(point[:size].reshape(shape)) - log_q)).sum(0) * data).sum()

    def envelope(theta: Tensor) -> Tensor:
        joint = log_joint(theta)
        return ((torch.logsumexp(joint, 0) - posterior_gap(joint, n_bits)) * data).sum()

    ends: list[tuple[float, Tensor]] = []
    for start in starts:
        marginals = torch.softmax(log_joint(start).detach(), 0).T @ bits
        first = torch.cat([start.flatten(), (torch.logit(marginals, 1e-3) * scale).flatten()])
        point = maximize(bound, first, max_evaluations)
        ends.append((float(bound(point)), point[:size].reshape(shape)))
    theta = maximize(envelope, max(ends, key=lambda end: end[0])[1], polish)
    return BestBound(float(envelope(theta)), float((torch.logsumexp(log_joint(theta), 0) * data).sum()), theta)
