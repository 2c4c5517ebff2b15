"""Encoders of the spiral: mixtures of Gaussians on the line, and the best Gaussian for each observation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae import exact

__all__ = ["Mixture", "best_gaussians"]

#: Bounds of a component's log standard deviation, approached smoothly: wider than the prior at the top; at the bottom
#: the trapezoid rule of the latent grid is off by 1.5e-3 in mass and 2 % in variance, from -3.2 on by less than 1e-5.
LOG_STD = (-3.5, 1.5)


@dataclass(frozen=True)
class Mixture:
    """A mixture of K Gaussians on the line for each observation; not an exponential family unless K = 1.

    Args:
        log_weight: normalised, shape ``(batch, K)``.
        mean: shape ``(batch, K)``.
        log_std: shape ``(batch, K)``.

    Own: own-spiral
    """

    log_weight: Tensor
    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor) -> Mixture:
        """From a network's output, shape ``(batch, 3K)``: logits, means, log standard deviations before bounding."""
        logits, mean, free = raw.chunk(3, -1)
        middle, reach = (LOG_STD[1] + LOG_STD[0]) / 2, (LOG_STD[1] - LOG_STD[0]) / 2
        return cls(torch.log_softmax(logits, -1), mean, middle + reach * torch.tanh((free - middle) / reach))

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x) in nats for z of shape ``(*sample, batch)``."""
        standard = (z[..., None] - self.mean) * torch.exp(-self.log_std)
        each = self.log_weight - self.log_std - 0.5 * standard.square()
        return torch.logsumexp(each, -1) - 0.5 * math.log(2 * math.pi)

    def draws(self, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws and weights for expectations under q, unbiased and differentiable: one draw in each of equal strata.

        ::

            E_q f(z) = Σ_k w_k E f(μ_k + σ_k ε),   ε_j = Φ⁻¹((j + u)/n), j = 0 … n − 1, one u for each x and k

        Fixed nodes would not do: a trained decoder would learn to bend between them.

        Args:
            each: n, draws from each component.
            generator: source of u.

        Returns:
            Two tensors of shape ``(n * K, batch)``; the weights of each observation sum to one.
        """
        u = torch.rand(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        stratum = torch.arange(each, dtype=u.dtype)[:, None, None]
        noise = torch.special.ndtri(((stratum + u) / each).clamp(1e-6, 1 - 1e-6))
        z = self.mean + self.log_std.exp() * noise
        weight = (self.log_weight.exp() / each).expand_as(z)
        return z.movedim(-1, 1).flatten(0, 1), weight.movedim(-1, 1).flatten(0, 1)


def best_gaussians(log_joint: Tensor, line: exact.Rule, halvings: int = 7) -> tuple[Tensor, Tensor]:
    """For each x the Gaussian of largest ELBO: the best of a table, then of its neighbours at half the step, and so on.

    Args:
        log_joint: log p(x, z) on the line, shape ``(k, batch)``, float64.
        line: rule for the integral over z.
        halvings: of the steps 0.1 in the mean and 0.2 in the log standard deviation.

    Returns:
        Mean and log standard deviation, shape ``(batch, 2)``; the ELBO in nats, shape ``(batch,)``.

    Own: own-spiral
    """
    step = log_joint.new_tensor([0.1, 0.2])
    best = torch.cartesian_prod(
        torch.arange(-3.5, 3.55, 0.1, dtype=torch.float64), torch.arange(-3.2, 0.5, 0.2, dtype=torch.float64)
    )
    log_q, entropy = _gaussians(best, line)
    value, chosen = (log_q.exp().T @ log_joint + entropy[:, None]).max(0)
    best = best[chosen]
    offsets = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 2)
    for _ in range(halvings):
        step = step / 2
        near = best + step * offsets[:, None]  # nine neighbours of each best, itself among them
        log_q, entropy = _gaussians(near.flatten(0, 1), line)
        bound = (log_q.exp().reshape(len(log_joint), len(offsets), -1) * log_joint[:, None]).sum(0)
        value, chosen = (bound + entropy.reshape(bound.shape)).max(0)
        best = near[chosen, torch.arange(len(best))]
    return best, value


def _gaussians(table: Tensor, line: exact.Rule) -> tuple[Tensor, Tensor]:
    """Gaussians given by (mean, log std) in rows: log-mass at each point of the line, and entropy in nats."""
    q = Mixture(table.new_zeros(len(table), 1), table[:, :1], table[:, 1:])
    entropy = table[:, 1] + 0.5 * math.log(2 * math.pi * math.e)
    return q.log_prob(line.points) + line.log_weights[:, None], entropy
