"""The spiral without networks: the best Gaussian for each observation and the best decoder for it, in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.exact import Rule
from efvae.experiments.spiral_encoder import Mixture, best_gaussians
from efvae.experiments.spiral_measure import summarize
from efvae.experiments.spiral_model import latent_line, log_joint, spiral
from efvae.train import Curve

__all__ = ["Ascent", "ascend", "decoder_step"]

#: Halvings of the step in the search for each Gaussian while ascending, and from where that gains no more.
COARSE, FINE = 4, 7


@dataclass(frozen=True)
class Ascent:
    """Where the ascent ended.

    Args:
        mean: μ_d on the latent line, shape ``(k, 2)``.
        log_noise: log σ_d, scalar.
        curve: metrics over the iterations.
    """

    mean: Tensor
    log_noise: Tensor
    curve: Curve


def decoder_step(q: Tensor, x: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    """The decoder of largest ELBO for given encoders: at each z the mean of the observations that are sent there.

    ::

        μ_d(z) = E_{p*(x)} [q(z | x) x] / E_{p*(x)} q(z | x)

    Args:
        q: mass of each q(z | x) at the points of the line, shape ``(k, batch)``.
        x: shape ``(batch, 2)``.
        weight: probabilities of x, shape ``(batch,)``.
        mean: kept where no observation is sent, shape ``(k, 2)``.

    Own: own-spiral-oracle
    """
    mass = q @ weight
    return torch.where(mass[:, None] > 1e-12, (q * weight) @ x / mass[:, None].clamp(min=1e-300), mean)


def ascend(
    rule: Rule, noise: float, *, learn_noise: bool, iterations: int, tolerance: float = 1e-6, line: Rule | None = None
) -> Ascent:
    """Maximise the ELBO over all decoders and all Gaussian q(z | x), from the truth; no step lowers it but by the grid.

    Args:
        rule: expectation under the truth.
        noise: σ of the truth.
        learn_noise: whether σ_d follows, by ``σ_d² = ½ E_q |x − μ_d(z)|²``.
        iterations: most of them; with 0 only the encoders are found.
        tolerance: when an iteration gains less, in nats, go on with the fine search; when one of those does, stop.
        line: rule for the integral over z.

    Own: own-spiral-oracle
    """
    line = line or latent_line()
    x, weight = rule.points, rule.log_weights.exp()
    mean, log_noise = spiral(line.points), torch.tensor(math.log(noise), dtype=torch.float64)
    curve: Curve = {}
    fine = False
    for iteration in range(iterations + 1):
        joint = log_joint(mean[:, None], log_noise, x, line.points)
        last = iteration == iterations
        fine = fine or last  # so the last entry is always by the fine search
        best = best_gaussians(joint, line, FINE if fine else COARSE)[0]
        log_q = Mixture(best.new_zeros(len(best), 1), best[:, :1], best[:, 1:]).log_prob(line.points)
        entry = {"step": float(iteration)} | summarize(mean, log_noise, log_q, rule, line)
        gained = entry["elbo"] - curve["elbo"][-1] if curve else math.inf
        for name, value in entry.items():
            curve.setdefault(name, []).append(value)
        if last or (fine and gained < tolerance):
            break
        fine = fine or gained < tolerance  # a small gain, or a drop, may be the grid's of the coarse search
        q = (log_q + line.log_weights[:, None]).exp()
        mean = decoder_step(q, x, weight, mean)
        if learn_noise:
            square = (x - mean[:, None]).square().sum(-1)
            log_noise = 0.5 * torch.log(0.5 * (q * square).sum(0) @ weight / (q.sum(0) @ weight))
    return Ascent(mean, log_noise, curve)
