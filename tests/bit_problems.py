"""Expectations over bits with all that can be enumerated about them, and draws of an estimator to compare with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.estimators import Estimator
from efvae.families import Bernoulli, all_bits

N_BITS = 3
DRAWS = 40_000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Problem:
    """Logits and a function of the codes given by its values, with all that can be enumerated about them."""

    eta: Tensor
    table: Tensor

    @staticmethod
    def random(seed: int, n: int = N_BITS) -> Problem:
        eta, table = (torch.randn(size, generator=seeded(seed), dtype=torch.float64) for size in (n, 2**n))
        return Problem(1.5 * eta, 2.0 + table)  # away from zero, so that a missing baseline is dear

    def f(self, z: Tensor) -> Tensor:
        weights = 2 ** torch.arange(z.shape[-1] - 1, -1, -1)
        return self.table[(z.long() * weights).sum(-1)]

    def gradient(self) -> Tensor:
        """σ'(η_i) E[f(z with z_i = 1) − f(z with z_i = 0)], by enumeration."""
        p, codes = torch.sigmoid(self.eta), all_bits(len(self.eta))
        q = torch.where(codes > 0, p, 1 - p).prod(-1)
        out = []
        for i in range(len(p)):
            up, down = codes.clone(), codes.clone()
            up[:, i], down[:, i] = 1.0, 0.0
            out.append(p[i] * (1 - p[i]) * (q * (self.f(up) - self.f(down))).sum())
        return torch.stack(out)

    def covariance(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E f²z_i², Var f, Var z_i, Cov(f, z_i), all centered."""
        p, codes = torch.sigmoid(self.eta), all_bits(len(self.eta))
        q = torch.where(codes > 0, p, 1 - p).prod(-1)
        f = self.f(codes)
        f, z = (f - (q * f).sum())[:, None], codes - p
        return tuple((q[:, None] * moment).sum(0) for moment in (f**2 * z**2, f**2, z**2, f * z))  # type: ignore

    def antithetic(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and variance of one pair's ARM and DisARM gradient, by enumeration of the intervals of u.

        In each coordinate u lies below, between or above the two thresholds; in each interval its first two moments are
        integrals of a polynomial.
        """
        low, high = (torch.sigmoid(sign * self.eta.abs()).tolist() for sign in (-1, 1))
        ones = (self.eta > 0).double().tolist()
        moments = {name: torch.zeros(2, len(ones), dtype=torch.float64) for name in ("arm", "disarm")}
        for where in itertools.product(range(3), repeat=len(ones)):
            ends = [[(0, lo), (lo, hi), (hi, 1)][k] for k, lo, hi in zip(where, low, high, strict=True)]
            first = torch.tensor([[0, one, 1][k] for k, one in zip(where, ones, strict=True)])
            second = torch.tensor([[1, one, 0][k] for k, one in zip(where, ones, strict=True)])
            a, b = torch.tensor(ends, dtype=torch.float64).T
            difference = self.f(first) - self.f(second)
            mean = difference * ((a + b) / 2 - 0.5)
            square = difference**2 * ((b - 0.5) ** 3 - (a - 0.5) ** 3) / (3 * (b - a))
            moments["arm"] += (b - a).prod() * torch.stack([mean, square])
            moments["disarm"] += (b - a).prod() * torch.stack([mean, mean**2])
        return {name: (mean, square - mean**2) for name, (mean, square) in moments.items()}


def leave_one_out_variance(problem: Problem, s: int) -> Tensor:
    joint, var_f, var_z, cov = problem.covariance()
    return (joint + (var_f * var_z - (s - 2) * cov**2) / (s - 1)) / s


def draw(estimator: Estimator, eta: Tensor, f: Callable[[Tensor], Tensor], seed: int, n: int = DRAWS) -> Tensor:
    """Gradients in η of n independent estimates, (n, bits)."""
    many = eta.expand(n, *eta.shape).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(estimator.expectation(Bernoulli(many), f, seeded(seed)).sum(), many)
    return gradient


def z_mean(drawn: Tensor, truth: Tensor) -> float:
    return float(((drawn.mean(0) - truth) / (drawn.std(0) / len(drawn) ** 0.5)).abs().max())


def z_variance(drawn: Tensor, truth: Tensor) -> float:
    return z_mean((drawn - drawn.mean(0)) ** 2, truth)
