"""Theorem 2 with a floor under one law only: under the posterior it is enough, under the encoder it is not."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from efvae.bounds.tables import Tables
from efvae.exact import Rule
from efvae.families import Bernoulli, all_bits
from efvae.models import VAE, CategoricalOver, Conditional, MakeFamily, Prior

__all__ = ["base_floor", "bound_posterior_floor", "contrast_vae", "guarded", "tabled_vae"]


def base_floor(tables: Tables) -> Tensor:
    """α0 = min_z h'(z) / Σ_z h'(z), the floor of the encoder family's member with natural parameter 0.

    Own: own-posterior-floor
    """
    return torch.softmax(tables.log_h_latent, 0).amin()


def guarded(tables: Tables) -> Tables:
    """The VAE with the encoder's network set to 0 at each x where KL(q ‖ p) > α²/2, α the floor of the posterior.

    Decoder, prior and posterior stay. The new encoder is at least min(α/2, α0), whatever the old one was.

    Args:
        tables: a VAE on a finite latent space, plain sums (all ``log_weights`` zero).

    Own: own-posterior-floor
    """
    alpha = tables.log_p.amin().exp()
    bad = tables.divergence > alpha.square() / 2
    B = torch.where(bad, tables.log_h_latent.logsumexp(0), tables.B)
    g = torch.where(bad[:, None], 0.0, tables.g)
    log_q = torch.where(bad, tables.log_h_latent[:, None] - B, tables.log_q)
    return replace(tables, g=g, B=B, log_q=log_q)


def bound_posterior_floor(epsilon: Tensor, alpha: Tensor, alpha0: Tensor) -> Tensor:
    """A bound for some harmonium's error that needs no floor under the encoder, linear in ε (nats²).

    ::

        max( 4/α,  2 log²(1/min(α, α0)) / α² ) ε

    Args:
        epsilon: ε ≥ 0 in nats.
        alpha: floor of the posterior, in (0, 1).
        alpha0: :func:`base_floor`.

    Own: own-posterior-floor
    """
    log_square = torch.minimum(alpha, alpha0).log().square()
    return torch.maximum(4 / alpha, 2 * log_square / alpha.square()) * epsilon


class _Table(nn.Module):
    """A network on bits that is any function: a row of values for each of the 2^k inputs."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows: Tensor
        self.register_buffer("rows", rows)

    def forward(self, bits: Tensor) -> Tensor:
        place = 2 ** torch.arange(bits.shape[-1]).flip(0)
        return self.rows[(bits.long() * place).sum(-1)]


def tabled_vae(p_x: Tensor, posterior: Tensor, eta: Tensor, latent: MakeFamily = Bernoulli) -> tuple[VAE, Tensor, Rule]:
    """The VAE of one visible bit and m latent bits that has a given marginal, posterior and encoder.

    Args:
        p_x: p(x) > 0 for x = 0, 1.
        posterior: p(z | x) > 0, shape ``(2, 2^m)``, codes in the order of :func:`~efvae.families.bernoulli.all_bits`.
        eta: the encoder's natural parameters g(x), shape ``(2, m)``.
        latent: the encoder's family.

    Returns:
        The VAE in float64, both observations, all codes.

    Own: own-encoder-floor-only
    """
    z, x = all_bits(eta.shape[-1]), all_bits(1)
    joint = p_x[:, None] * posterior
    vae = VAE(
        Prior(joint.sum(0).log(), CategoricalOver(z)),
        Conditional(_Table((joint[1] / joint[0]).log()[:, None]), Bernoulli),
        Conditional(_Table(eta), latent),
    )
    return vae, x, Rule(z, torch.zeros(len(z), dtype=torch.float64))


def contrast_vae(epsilon: float, t: float) -> tuple[VAE, Tensor, Tensor, Rule]:
    """A VAE with a uniform encoder and a gap of at most ε; the error of every harmonium grows like ε t/4.

    ::

        z in {0, 1}²,   q(z | x) = 1/4,   p(z | 0) = 1/4,   p(z | 1) ∝ exp(−t z1 z2),   p_d(1) = λ = min(½, 4ε/t)

    Args:
        epsilon: ε > 0 in nats.
        t: t > 0.

    Returns:
        The VAE, both observations, p_d, all four codes.

    Raises:
        ValueError: ε or t not positive.

    Own: own-encoder-floor-only
    """
    if not (epsilon > 0 and math.isfinite(t) and t > 0):
        raise ValueError(f"contrast_vae: needs epsilon > 0 and t > 0, got {epsilon} and {t}")
    z = all_bits(2)
    posterior = torch.stack([torch.full((4,), 0.25, dtype=torch.float64), torch.softmax(-t * z.prod(-1), 0)])
    share = min(0.5, 4 * epsilon / t)
    data = torch.tensor([1 - share, share], dtype=torch.float64)
    vae, x, rule = tabled_vae(data, posterior, torch.zeros(2, 2, dtype=torch.float64))
    return vae, x, data, rule
