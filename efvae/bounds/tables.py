"""A VAE as tables over finite observations and latent states: what the proof of Theorem 2 works with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.exact import Rule, common_log_base_measure, log_joint, log_marginal, require_weights
from efvae.models import VAE

__all__ = ["Tables", "tabulate"]


@dataclass(frozen=True)
class Tables:
    """Encoder, joint law and extended statistics of a VAE; rows are latent states, columns observations.

    Args:
        data: p_d(x) > 0, shape ``(x,)``, sum at most one.
        log_weights: log-weights of the latent states, zero for a sum, shape ``(z,)``.
        log_q: log q(z | x), shape ``(z, x)``.
        log_joint: log p(x, z) of the decoder, shape ``(z, x)``.
        log_marginal: log p(x), shape ``(x,)``.
        log_prior: log p(z), shape ``(z,)``.
        log_h: log h(x), shape ``(x,)``.
        log_h_latent: log h'(z), shape ``(z,)``.
        nu: ν(x), shape ``(x, n)``.
        psi: ψ(z), shape ``(z, m)``.
        f: f(z), shape ``(z, n)``.
        g: g(x), shape ``(x, m)``.
        A: log-partition of the decoder, shape ``(z,)``.
        B: log-partition of the encoder, shape ``(x,)``.

    Paper: def-1, eq-23a, eq-23b
    """

    data: Tensor
    log_weights: Tensor
    log_q: Tensor
    log_joint: Tensor
    log_marginal: Tensor
    log_prior: Tensor
    log_h: Tensor
    log_h_latent: Tensor
    nu: Tensor
    psi: Tensor
    f: Tensor
    g: Tensor
    A: Tensor
    B: Tensor

    @property
    def log_p(self) -> Tensor:
        """log p(z | x), shape ``(z, x)``."""
        return self.log_joint - self.log_marginal

    @property
    def divergence(self) -> Tensor:
        """KL(q(z | x) ‖ p(z | x)) in nats, shape ``(x,)``.

        ::

            Σ_z q (exp(−t) − 1 + t),   t = log(q/p)

        Term by term not negative, so a divergence near zero keeps its digits; both laws sum to one. Where q is far
        below p it is p − q + q t, since exp(−t) overflows.
        """
        q, p = ((log + self.log_weights[:, None]).exp() for log in (self.log_q, self.log_p))
        t = self.log_q - self.log_p
        near = q * (torch.expm1(-t.clamp(min=-1)) + t)
        far = p - q + torch.where(q > 0, q * t, 0.0)
        return torch.where(t < -1, far, near).sum(0)

    @property
    def epsilon(self) -> Tensor:
        """The smallest ε for which the VAE is ε-tight, E KL(q ‖ p) in nats, a scalar.

        Paper: def-1, eq-41
        """
        return self.data @ self.divergence

    @property
    def alpha(self) -> Tensor:
        """The largest α of Theorem 2, the smallest of all q(z | x) and p(z | x), a scalar.

        Paper: thm-2
        """
        return self.alpha_at.amin()

    @property
    def alpha_at(self) -> Tensor:
        """The same for each z alone, as Proposition A.2 needs it, shape ``(z,)``.

        Paper: prop-a2
        """
        return torch.minimum(self.log_q, self.log_p).amin(1).exp()

    @property
    def posterior_error(self) -> Tensor:
        """Δ²(z) = Σ_x p_d(x) log²(q(z | x)/p(z | x)) in nats², shape ``(z,)``.

        Paper: eq-32, eq-42
        """
        return (self.log_q - self.log_p).square() @ self.data

    @property
    def nu_extended(self) -> Tensor:
        """V, with rows ν~(x) = (ν(x), 1), shape ``(x, n + 1)``.

        Paper: eq-28
        """
        return torch.cat([self.nu, torch.ones_like(self.nu[:, :1])], 1)

    @property
    def psi_extended(self) -> Tensor:
        """Rows ψ~(z) = (ψ(z), 1), shape ``(z, m + 1)``.

        Paper: eq-27
        """
        return torch.cat([self.psi, torch.ones_like(self.psi[:, :1])], 1)

    @property
    def g_extended(self) -> Tensor:
        """G, with rows g~(x) = (g(x), log p(x) − B(x) − log h(x)), shape ``(x, m + 1)``.

        Paper: eq-29
        """
        return torch.cat([self.g, (self.log_marginal - self.B - self.log_h)[:, None]], 1)

    @property
    def f_extended(self) -> Tensor:
        """Rows f~(z) = (f(z), log p(z) − A(z) − log h'(z)), shape ``(z, n + 1)``.

        Paper: eq-30
        """
        return torch.cat([self.f, (self.log_prior - self.A - self.log_h_latent)[:, None]], 1)


def tabulate(vae: VAE, x: Tensor, data: Tensor, rule: Rule) -> Tables:
    """The tables of a VAE at finitely many observations.

    Args:
        vae: the model, float64; base measures of both families do not depend on the condition.
        x: observations, pairwise different, shape ``(x, *event)``, float64.
        data: p_d(x) > 0, shape ``(x,)``; its sum may be less than one where x is a part of the data.
        rule: all states of the latent space.

    Raises:
        ValueError: a weight is not positive, their sum is above one, or there is not one for each observation; or
            h(x) depends on the code.

    Paper: asm-1, eq-23a, eq-23b
    """
    if data.shape != x.shape[:1] or not bool((data > 0).all()):
        raise ValueError(f"tabulate: needs p_d(x) > 0 for each of {len(x)} observations: drop those without mass")
    require_weights("tabulate", data, x, part=True)
    with torch.no_grad():
        q, p, z = vae.encode(x), vae.decoder(rule.points), rule.points
        return Tables(
            data=data,
            log_weights=rule.log_weights,
            log_q=q.log_prob(z[:, None]),
            log_joint=log_joint(vae, x, rule),
            log_marginal=log_marginal(vae, x, rule),
            log_prior=vae.prior().log_prob(z),
            log_h=common_log_base_measure(p, x),
            log_h_latent=q.with_eta(q.eta[0]).log_base_measure(z),
            nu=p.sufficient_statistic(x),
            psi=q.sufficient_statistic(z),
            f=p.eta,
            g=q.eta,
            A=p.log_partition(),
            B=q.log_partition(),
        )
