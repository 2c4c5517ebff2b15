"""The gap of an encoder in two parts, and fitting an encoder by either direction of the KL divergence.

Expectations are sums over a rule of points: finite latent spaces, or few continuous coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efvae.descent import minimize
from efvae.exact import COVERAGE, Rule, log_posterior, posterior_kl, require_weights
from efvae.harmonium import Harmonium
from efvae.models import VAE, Conditional, MakeFamily

__all__ = [
    "GapParts",
    "best_free_encoder",
    "forward_cross_entropy",
    "gap_parts",
    "posterior_table",
    "reverse_gap",
    "tied_elbo",
]


#: How far a least divergence may lie below zero, or above that of the encoder, in nats.
TOLERANCE = 1e-4


def _sum(weight: Tensor, value: Tensor) -> Tensor:
    """Σ_k weight_k value_k; a point of weight zero contributes nothing."""
    return (weight * torch.where(weight == 0, 0.0, value)).sum(0)  # NaN stays NaN, and a gradient of zero is none


def _require_shape(where: str, weights: Tensor, x: Tensor) -> None:
    if weights.shape != x.shape[:1]:  # it would broadcast
        raise ValueError(f"{where}: needs weights of shape ({len(x)},), got {tuple(weights.shape)}")


def reverse_gap(encoder: Conditional, x: Tensor, weights: Tensor, log_post: Tensor, rule: Rule) -> Tensor:
    """Σ_x w(x) KL(q(z | x) ‖ p(z | x)) in nats, a scalar: what the ELBO lacks to the likelihood.

    Args:
        encoder: q.
        x: observations, shape ``(batch, *event)``.
        weights: w, shape ``(batch,)``.
        log_post: log p(z_k | x), shape ``(k, batch)``, from :func:`efvae.exact.log_posterior`.
        rule: the points z_k.

    Raises:
        ValueError: weights of another shape.

    Paper: eq-1b
    """
    _require_shape("reverse_gap", weights, x)
    log_q = encoder(x).log_prob(rule.points[:, None])
    log_w = rule.log_weights[:, None]
    return (_sum((log_q + log_w).exp(), log_q - log_post) * weights).sum()


def forward_cross_entropy(encoder: Conditional, x: Tensor, weights: Tensor, log_post: Tensor, rule: Rule) -> Tensor:
    """−Σ_x w(x) E_{p(z|x)} log q(z | x) in nats, a scalar: up to a constant the KL divergence the other way round.

    ::

        Σ_x w(x) KL(p(z | x) ‖ q(z | x)) + Σ_x w(x) H(p(z | x))

    It is convex in natural parameters, hence in the weights of an affine encoder. With w = p(x) it is −E log q(z | x)
    over draws (x, z) of the model itself, and needs no posterior.

    Args:
        encoder, x, weights, log_post, rule: see :func:`reverse_gap`.

    Paper: app-b
    """
    _require_shape("forward_cross_entropy", weights, x)
    log_q = encoder(x).log_prob(rule.points[:, None])
    return -(_sum((log_post + rule.log_weights[:, None]).exp(), log_q) * weights).sum()


class _Rows(nn.Module):
    """One free vector for each row of a fixed batch."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(start.clone())

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def best_free_encoder(
    make: MakeFamily, log_post: Tensor, rule: Rule, starts: Tensor, max_evaluations: int = 2000
) -> tuple[Tensor, Tensor]:
    """The best member of a family for each x on its own, by L-BFGS on its parameters from several starts.

    ::

        min_η KL(q_η(z) ‖ p(z | x))

    The problem may have local minima; the best end point for each x is kept. So the value is attained, and an upper
    bound of the minimum, as far as the rule is exact. To q log(q/p) the terms p − q are added, which sum to zero: each
    term is then positive, and q does not gain by leaving the points of the rule. Each evaluation costs k · s · batch
    values of log q: with a grid of two coordinates take tens of observations, not thousands.

    Args:
        make: family from the parameters that are optimised, natural or not, e.g. ``Gaussian.from_mean_log_variance``.
        log_post: log p(z_k | x), shape ``(k, batch)``, float64.
        rule: the points z_k.
        starts: shape ``(s, batch, d)``, float64.
        max_evaluations: most values and gradients computed.

    Returns:
        The divergence in nats, shape ``(batch,)``, and the parameters, shape ``(batch, d)``.

    Raises:
        ValueError: starts or log_post of another shape; log_post is no posterior, whose mass is one; or at some x the
            rule sums no end point to one: it is too narrow or too coarse for the family.

    Own: own-gap-parts
    """
    if starts.ndim != 3 or log_post.shape != (len(rule.points), starts.shape[1]):
        raise ValueError(
            "best_free_encoder: needs starts of shape (s, batch, d), and log_post of shape (k, batch) at the rule's "
            f"{len(rule.points)} points; got {tuple(starts.shape)} and {tuple(log_post.shape)}"
        )
    mass = (log_post + rule.log_weights[:, None]).logsumexp(0).exp()
    if not bool(((mass - 1).abs() <= COVERAGE).all()):
        raise ValueError(
            f"best_free_encoder: the rule sums log_post to masses from {float(mass.min()):.6g} to "
            f"{float(mass.max()):.6g}, not 1: give log_posterior, not a joint law, on a rule that is wide enough"
        )
    s, batch, d = starts.shape
    target = log_post.repeat(1, s)
    encoder = Conditional(_Rows(starts.reshape(s * batch, d)), make)
    nothing = starts.new_zeros(s * batch)

    def parts() -> tuple[Tensor, Tensor]:
        log_q = encoder(nothing).log_prob(rule.points[:, None])
        weight = (log_q + rule.log_weights[:, None]).exp()
        return _sum(weight, log_q - target), weight.sum(0)

    def objective() -> Tensor:
        gap, mass = parts()
        return (gap + 1 - mass).sum()

    minimize(objective, encoder.parameters(), max_evaluations, max_eval=max_evaluations)
    with torch.no_grad():
        gap, mass = (part.reshape(s, batch) for part in parts())
        gap = torch.where((mass - 1).abs() <= COVERAGE, gap, torch.inf)
        missed = gap.amin(0).isinf()
        if bool(missed.any()):
            first = int(missed.nonzero()[0])
            nearest = float(mass[(mass[:, first] - 1).abs().argmin(), first])
            raise ValueError(
                f"best_free_encoder: at observation {first} the rule sums no q that was found to 1, the nearest to "
                f"{nearest:.8g}: take more points, a wider grid or other starts"
            )
        best = gap.argmin(0)
        at = torch.arange(batch)
        return gap[best, at], next(encoder.parameters()).reshape(s, batch, d)[best, at].clone()


@dataclass(frozen=True)
class GapParts:
    """The posterior gap of an encoder in two parts, in nats, averaged over the data.

    ::

        E KL(q_φ(z | x) ‖ p(z | x)) = E min_{q in family} KL(q ‖ p(z | x)) + the rest

    Args:
        family: the first term: no network with this family does better.
        amortization: the rest: one network for all x, and its training.

    Own: own-gap-parts
    """

    family: float
    amortization: float

    @property
    def total(self) -> float:
        """Sum of both parts, which is log-likelihood − ELBO."""
        return self.family + self.amortization


def gap_parts(vae: VAE, x: Tensor, weights: Tensor, rule: Rule, free: Tensor) -> GapParts:
    """The two parts of the gap of a VAE's encoder as it is.

    Args:
        vae: float64.
        x: observations, shape ``(batch, *event)``.
        weights: w, which sum to one, shape ``(batch,)``.
        rule: points of the latent space.
        free: least divergence of the encoder's family for each x, shape ``(batch,)``.

    Raises:
        ValueError: weights or free of another shape; weights that do not sum to one; free that is no least divergence.

    Own: own-gap-parts
    """
    require_weights("gap_parts", weights, x)
    if free.shape != x.shape[:1]:
        raise ValueError(f"gap_parts: needs free of shape ({len(x)},), got {tuple(free.shape)}")
    with torch.no_grad():
        own = posterior_kl(vae, x, rule)
    if not bool(((free >= -TOLERANCE) & (free <= own + TOLERANCE)).all()):
        raise ValueError(
            "gap_parts: free must be ≥ 0 and not above the divergence of the encoder's own law, which is of the "
            "family: give that among the starts of best_free_encoder"
        )
    total = float((own * weights).sum())
    family = float((free * weights).sum())
    return GapParts(family, total - family)


def tied_elbo(model: Harmonium, encoder: Conditional, x: Tensor) -> Tensor:
    """ELBO of a harmonium with any encoder, per example in nats, shape ``(batch,)``; gradients in both.

    ::

        Σ_z q(z | x) (log p(x, z) − log q(z | x))

    The prior is the harmonium's own marginal, and moves with it: :meth:`~efvae.harmonium.Harmonium.as_vae` copies it.

    Args:
        model: harmonium with a latent space that can be enumerated.
        encoder: q, over the same latent space.
        x: observations, shape ``(batch, *event)``.

    Own: own-no-new-optima
    """
    z = model.latent(model.latent_bias).support()[:, None]
    log_q = encoder(x).log_prob(z)
    return _sum(log_q.exp(), model.log_joint(x, z) - log_q)


def posterior_table(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """log p(z_k | x) in nats without gradient, shape ``(k, batch)``: a target for the fits above."""
    with torch.no_grad():
        return log_posterior(vae, x, rule)
