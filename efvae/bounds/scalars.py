"""The bounds of Theorem 2 as functions of ε and α, and the exact worst case that they bound.

All bound Σ_x p_d(x) log²(q(z|x) / p(z|x)) for one z, where E KL(q ‖ p) ≤ ε nats and q, p ≥ α.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "PAPER_CONSTANT",
    "binary_kl",
    "bound_half_alpha_squared",
    "bound_paper",
    "bound_sharp",
    "bound_two_over_alpha",
    "log_square_ratio",
    "saturation",
    "worst_case",
]


def log_square_ratio(r: Tensor) -> Tensor:
    """log²(1 + r) / r for r > 0; its supremum 0.6476 at r ≈ 3.92 is the constant printed as 0.64.

    Paper: eq-57a, eq-57b
    """
    return torch.log1p(r).square() / r


def _paper_supremum() -> float:
    # Stationary where 2 r / (1 + r) = log(1 + r): the left side is the larger one before, the smaller one after.
    low, high = 1.0, 10.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 2 * middle / (1 + middle) > math.log1p(middle) else (low, middle)
    return math.log1p(low) ** 2 / low


#: sup log²(1 + r)/r = 0.6476…, reached at r = 3.92….
PAPER_CONSTANT = _paper_supremum()


def bound_paper(epsilon: Tensor, alpha: Tensor) -> Tensor:
    """The bound that the paper's proof gives, with its constants worked out: 0.824 ε/α² to first order.

    ::

        log(1 + ε/(2α²)) + 0.6476 ε/(2α²)

    Args:
        epsilon: ε ≥ 0 in nats.
        alpha: α in (0, 1/2], broadcastable.

    Paper: eq-52d, eq-57b, own-paper-total
    """
    half = epsilon / (2 * alpha.square())
    return torch.log1p(half) + PAPER_CONSTANT * half


def bound_half_alpha_squared(epsilon: Tensor, alpha: Tensor) -> Tensor:
    """ε/(2α²), by Pinsker's inequality and the mean value theorem for the logarithm on [α, 1].

    Own: own-bound-half-alpha-squared
    """
    return epsilon / (2 * alpha.square())


def bound_two_over_alpha(epsilon: Tensor, alpha: Tensor) -> Tensor:
    """2ε/α, from KL(q ‖ p) ≥ ½ Σ_z min(q, p) log²(q/p), without Pinsker's inequality.

    Own: own-bound-two-over-alpha
    """
    return 2 * epsilon / alpha


def bound_sharp(epsilon: Tensor, alpha: Tensor) -> Tensor:
    """2(1 − α)ε/α, the best bound that is linear in ε; at most the minimum of the other two.

    Paper: eq-9, eq-42, own-bound-sharp
    """
    return 2 * (1 - alpha) * epsilon / alpha


def binary_kl(a: Tensor, b: Tensor) -> Tensor:
    """kl(a ‖ b) in nats between two coins with probabilities a and b, both in (0, 1).

    ::

        a log(a/b) + (1 − a) log((1 − a)/(1 − b))

    Own: own-bound-sharp
    """
    d = b - a
    # log1p keeps the digits of a small difference, the plain quotient those of a tiny b.
    log_ratio = torch.where(d.abs() < 0.5 * a, torch.log1p(d / a), torch.log(b / a))
    return -a * log_ratio - (1 - a) * torch.log1p(-d / (1 - a))


def saturation(alpha: Tensor, n_states: int = 2) -> Tensor:
    """The ε in nats from which the worst case no longer grows: kl(α ‖ 1 − (K − 1)α).

    Args:
        alpha: α in (0, 1/K).
        n_states: number K of latent states.

    Own: own-worst-case
    """
    return binary_kl(alpha, 1 - (n_states - 1) * alpha)


def worst_case(epsilon: Tensor, alpha: Tensor, n_states: int = 2) -> Tensor:
    """The largest Σ_x p_d log²(q/p) at one z among all VAEs that meet the hypotheses of Theorem 2 (nats²).

    ::

        T²  with  kl(α ‖ α exp T) = ε,   at most log²((1 − (K − 1)α) / α)

    Args:
        epsilon: ε ≥ 0 in nats.
        alpha: α in (0, 1/K), broadcastable.
        n_states: number K of latent states, all with probability at least α.

    Raises:
        ValueError: α not in (0, 1/K).

    Own: own-worst-case
    """
    if n_states < 2 or not bool(((alpha > 0) & (alpha < 1 / n_states)).all()):
        raise ValueError(f"worst_case: needs 0 < alpha < 1/K with K = {n_states} states, got alpha = {alpha}")
    epsilon, alpha = torch.broadcast_tensors(epsilon, alpha)
    high = torch.log((1 - (n_states - 1) * alpha) / alpha)
    low = torch.zeros_like(high)
    for _ in range(200):  # a bit each, relative to the interval; the left end never passes the root
        middle = 0.5 * (low + high)
        below = _kl_from_floor(middle, alpha) <= epsilon
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(saturation(alpha, n_states) <= epsilon, high, low).square()


def _kl_from_floor(t: Tensor, alpha: Tensor) -> Tensor:
    """kl(α ‖ α e^t)."""
    return -alpha * t - (1 - alpha) * torch.log1p(-alpha * torch.expm1(t) / (1 - alpha))
