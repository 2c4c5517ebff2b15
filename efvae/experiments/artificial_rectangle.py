"""The consistent models with the prior of the artificial example: centers on a rectangle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from efvae import exact
from efvae.descent import minimize
from efvae.experiments.artificial_truth import N_BITS, codes
from efvae.families import GaussianFixedVariance, all_bits

__all__ = ["fit_rectangle", "rectangle_defect"]

#: Optimiser runs from random rectangles.
RANDOM_STARTS = 8


def rectangle_defect(centers: Tensor) -> tuple[float, float]:
    """How far four centers are from a rectangle; both numbers are zero exactly for rectangles.

    ::

        ‖μ00 + μ11 − μ01 − μ10‖,   |‖μ00 − μ11‖ − ‖μ01 − μ10‖|

    Args:
        centers: centers of the codes 00, 01, 10, 11, shape ``(4, 2)``.

    Own: own-four-centers
    """
    sides = centers[0] + centers[3] - centers[1] - centers[2]
    diagonals = (centers[0] - centers[3]).norm() - (centers[1] - centers[2]).norm()
    return float(sides.norm()), abs(float(diagonals))


def fit_rectangle(rule: exact.Rule, sigma: float, seed: int = 0) -> tuple[Tensor, float]:
    """Maximum likelihood among the decoders that are tight under the uniform prior.

    ::

        max over rectangles μ of E log Σ_z ¼ N(x | μ(z), σ² I),   by L-BFGS from random starts, the best end

    Args:
        rule: expectation under the truth.
        sigma: standard deviation σ.
        seed: of the random starts.

    Returns:
        Centers of the codes 00, 01, 10, 11, shape ``(4, 2)``, and their expected log-likelihood in nats.

    Own: own-four-centers
    """
    generator = torch.Generator().manual_seed(seed)
    expectation = rule.log_weights.exp()
    mean = expectation @ rule.points
    spread = (expectation @ (rule.points - mean).square()).sum().sqrt()
    signs = 2 * all_bits(N_BITS) - 1

    def corners(parameters: Tensor) -> Tensor:  # middle, direction of the first side, half the sides
        direction = torch.stack([parameters[2].cos(), parameters[2].sin()])
        across = torch.stack([-direction[1], direction[0]])
        return parameters[:2] + (signs[:, :1] * parameters[3]) * direction + (signs[:, 1:] * parameters[4]) * across

    def likelihood(centers: Tensor) -> Tensor:
        law = GaussianFixedVariance.from_mean(centers[:, None], variance=sigma**2)
        return expectation @ (law.log_prob(rule.points).logsumexp(0) - math.log(len(codes().points)))

    best, value = mean.expand(len(signs), 2), -math.inf
    for _ in range(RANDOM_STARTS):
        start = torch.cat([mean, torch.randn(3, generator=generator, dtype=mean.dtype) * spread])
        parameters = start.requires_grad_()

        def loss(parameters: Tensor = parameters) -> Tensor:
            return -likelihood(corners(parameters))

        reached = -minimize(loss, [parameters], 300, tolerance_grad=1e-9, tolerance_change=1e-9)
        if reached > value:
            best, value = corners(parameters).detach(), reached
    return best, value
