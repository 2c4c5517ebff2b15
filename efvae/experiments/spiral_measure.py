"""What is measured on the spiral, all by quadrature: likelihood, gap, bend, and what a perfect encoder could reach."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from efvae import exact
from efvae.experiments.spiral_encoder import best_gaussians
from efvae.experiments.spiral_model import SpiralVAE, latent_line, log_joint
from efvae.gaussian.ppca import PPCA

__all__ = ["affine_residual", "evaluate", "least_gap", "linear_optimum", "summarize"]


def affine_residual(mean: Tensor, z: Tensor, weight: Tensor) -> float:
    """Share of the variance of μ(z) that the best affine map of z leaves: 0 for an affine decoder, at most 1.

    ::

        1 − |Cov(z, μ)|² / (Var z · tr Cov μ)

    Args:
        mean: μ at the points, shape ``(k, n)``.
        z: the points, shape ``(k,)``.
        weight: their probabilities up to a factor, shape ``(k,)``.

    Own: own-affine-residual
    """
    weight = weight / weight.sum()
    centred, z = mean - weight @ mean, z - weight @ z
    slope = (weight * z) @ centred
    explained = slope.square().sum() / (weight @ z.square())
    return float(1 - explained / (weight @ centred.square()).sum())


def evaluate(vae: SpiralVAE, rule: exact.Rule, line: exact.Rule | None = None) -> dict[str, float]:
    """What is known of a model, in expectation under the truth, by quadrature in float64.

    ::

        elbo = log_likelihood − gap                 in nats, gap = E KL(q(z | x) ‖ p(z | x))
        bent                                        affine_residual of the decoder under the prior
        bent_encoder                                the same under E q(z | x), where the encoder puts its codes
        noise                                       σ_d

    Args:
        vae: any float type; a float64 copy is evaluated.
        rule: from :func:`~efvae.experiments.spiral_model.expectation_rule`.
        line: rule for the integral over z.

    Paper: sec-4-2, eq-1b, def-1
    Own: own-affine-residual
    """
    line = line or latent_line()
    vae = copy.deepcopy(vae).double().requires_grad_(requires_grad=False)
    log_q = vae.posterior(rule.points).log_prob(line.points)
    return summarize(vae.decoder(line.points), vae.log_noise, log_q, rule, line)


def summarize(mean: Tensor, log_noise: Tensor, log_q: Tensor, rule: exact.Rule, line: exact.Rule) -> dict[str, float]:
    """The numbers of :func:`evaluate`, from tables on the grid.

    Args:
        mean: μ_d on the line, shape ``(k, 2)``, float64.
        log_noise: log σ_d, scalar.
        log_q: log q(z | x), shape ``(k, batch)``.
        rule: from :func:`~efvae.experiments.spiral_model.expectation_rule`.
        line: rule for the integral over z.

    Paper: sec-4-2, eq-1b, def-1
    """
    weight, z = rule.log_weights.exp(), line.points
    joint = log_joint(mean[:, None], log_noise, rule.points, z) + line.log_weights[:, None]
    log_p, log_mass = torch.logsumexp(joint, 0), log_q + line.log_weights[:, None]
    q = log_mass.exp()
    gap = float(torch.where(q > 0, q * (log_mass - joint + log_p), 0.0).sum(0) @ weight)
    prior = (line.log_weights - 0.5 * z[:, 0].square()).exp()
    likelihood = float(weight @ log_p)
    return {
        "elbo": likelihood - gap,
        "log_likelihood": likelihood,
        "gap": gap,
        "bent": affine_residual(mean, z[:, 0], prior),
        "bent_encoder": affine_residual(mean, z[:, 0], q @ weight),
        "noise": float(log_noise.exp()),
    }


def least_gap(vae: SpiralVAE, rule: exact.Rule, line: exact.Rule | None = None) -> float:
    """The mean of min_q KL(q ‖ p(z | x)) over all Gaussians q, searched for each x: no network of K = 1 does better.

    Args:
        vae: its decoder is used; any float type.
        rule: from :func:`~efvae.experiments.spiral_model.expectation_rule`.
        line: rule for the integral over z.

    Paper: eq-1b, sec-4-2
    Own: own-spiral
    """
    line = line or latent_line()
    vae = copy.deepcopy(vae).double().requires_grad_(requires_grad=False)
    table = vae.log_joint(rule.points, line.points)
    log_p = torch.logsumexp(table + line.log_weights[:, None], 0)
    return float(rule.log_weights.exp() @ (log_p - best_gaussians(table, line)[1]))


def linear_optimum(rule: exact.Rule) -> tuple[PPCA, float]:
    """The best tight linear VAE for the same data, and its likelihood, which is its ELBO, in nats.

    Args:
        rule: from :func:`~efvae.experiments.spiral_model.expectation_rule`.

    Paper: case-gaussian, sec-4-2
    """
    weight = rule.log_weights.exp() / rule.log_weights.exp().sum()
    mean = weight @ rule.points
    centred = rule.points - mean
    covariance = (weight[:, None] * centred).T @ centred
    ppca = PPCA.from_moments(mean, covariance, 1)
    return ppca, float(ppca.log_likelihood(covariance))
