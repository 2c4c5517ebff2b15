"""The posterior gap of a curved Gaussian decoder: exact by quadrature, and to leading order in the curvature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.descent import minimize
from efvae.estimators import Exact
from efvae.exact import COVERAGE, Rule
from efvae.families import ExponentialFamily, Gaussian, GaussianFixedVariance

__all__ = ["CurveFit", "best_gaussian", "curve_log_joint", "fit_curve", "gap_curvature", "gap_of_curve", "powers"]


def powers(z: Tensor, degree: int) -> Tensor:
    """(1, z, z², …, z^degree) for z of shape ``(..., 1)``: shape ``(..., degree + 1)``."""
    return torch.cat([z**k for k in range(degree + 1)], -1)


def curve_log_joint(coefficients: Tensor, log_noise: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) in nats for one standard normal code and a polynomial curve with isotropic noise.

    ::

        z ~ N(0, 1),   p(x | z) = N(Σ_k b_k z^k, σ² I)

    Args:
        coefficients: b, one row for each coordinate of x, shape ``(n, degree + 1)``.
        log_noise: log σ², scalar.
        x: shape ``(*batch, n)``.
        z: shape ``(*sample, *batch, 1)``; the leading axes broadcast.

    Paper: eq-4a, case-gaussian
    """
    mean = powers(z, coefficients.shape[1] - 1) @ coefficients.T
    prior = Gaussian.from_mean_variance(torch.zeros_like(z[..., :1]), torch.ones_like(z[..., :1]))
    return prior.log_prob(z) + GaussianFixedVariance.from_mean(mean, log_noise.exp()).log_prob(x)


def _starts(log_joint: Tensor, rule: Rule) -> Tensor:
    """Means and log-variances of the posterior, of its lower and of its upper half, shape ``(3, N, 2)``."""
    # A curve's posterior can have two modes, and the best Gaussian may sit on one of them.
    weight = torch.softmax(log_joint + rule.log_weights[:, None], 0)
    z = rule.points[:, :1]
    centre = (weight * z).sum(0)
    found = []
    for part in (torch.ones_like(weight), (z <= centre).to(weight), (z >= centre).to(weight)):
        share = weight * part / (weight * part).sum(0).clamp(min=1e-300)
        mean = (share * z).sum(0)
        variance = (share * (z - mean).square()).sum(0).clamp(min=1e-6)
        found.append(torch.stack([mean, variance.log()], -1))
    return torch.stack(found)


def best_gaussian(coefficients: Tensor, log_noise: Tensor, x: Tensor, rule: Rule, nodes: int = 10) -> Gaussian:
    """The Gaussian of largest ELBO for each x, each found by itself: no encoder network can do better.

    Each search runs from three starts, and the best end is kept.

    Args:
        coefficients, log_noise: see :func:`curve_log_joint`, float64.
        x: shape ``(N, n)``.
        rule: quadrature over z, for the starting points.
        nodes: of the Gauss–Hermite rule; the log-joint has degree 2·degree in z, so degree + 1 are exact.

    Own: own-curved-gap
    """
    with torch.no_grad():
        starts = _starts(curve_log_joint(coefficients, log_noise, x, rule.points[:, None]), rule)
    ends = starts.flatten(0, 1).requires_grad_()
    repeated = x.repeat(len(starts), 1)
    minimize(lambda: -_curve_elbo(coefficients, log_noise, repeated, ends, nodes).sum(), [ends], 1000, rounds=6)
    with torch.no_grad():
        value = _curve_elbo(coefficients, log_noise, repeated, ends, nodes).reshape(len(starts), -1)
        chosen = ends.reshape(len(starts), -1, 2)[value.argmax(0), torch.arange(len(x))]
    return Gaussian.from_mean_log_variance(chosen)


def _curve_elbo(coefficients: Tensor, log_noise: Tensor, x: Tensor, raw: Tensor, nodes: int) -> Tensor:
    # A line search may try absurd variances; beyond e^±30 they change nothing but overflow.
    q = Gaussian.from_mean_log_variance(torch.cat([raw[:, :1], raw[:, 1:].clamp(-30, 30)], -1))
    return Exact(nodes).expectation(q, lambda z: curve_log_joint(coefficients, log_noise, x, z)) + q.entropy()


def gap_of_curve(coefficients: Tensor, log_noise: Tensor, x: Tensor, rule: Rule) -> Tensor:
    """min_q KL(q ‖ p(z | x)) over Gaussians, in nats, shape ``(N,)``; by quadrature at the best q.

    Raises:
        ValueError: the rule does not sum the best q to one within :data:`efvae.exact.COVERAGE`: too coarse or narrow.

    Paper: eq-1b
    Own: own-curved-gap
    """
    q = best_gaussian(coefficients, log_noise, x, rule)
    joint = curve_log_joint(coefficients, log_noise, x, rule.points[:, None])
    log_post = joint - torch.logsumexp(joint + rule.log_weights[:, None], 0)
    log_q = q.log_prob(rule.points[:, None])
    weight = (log_q + rule.log_weights[:, None]).exp()
    off = (weight.sum(0) - 1).abs().amax()
    if off > COVERAGE:
        raise ValueError(f"gap_of_curve: the rule misses 1 by {off:.1g} in the mass of some q: take more points")
    gap: Tensor = (weight * (log_q - log_post)).sum(0)
    return gap


def gap_curvature(q: ExponentialFamily, perturbation: Tensor, rule: Rule) -> Tensor:
    """Half the variance of what a perturbation adds outside the family: the t² coefficient of the least gap.

    ::

        log p_t = log q + t r + o(t) + const   ⇒   min_{q' in the family} KL(q' ‖ p_t) = t²/2 · Var_q(r − Π r) + o(t²)

    Π projects onto the span of 1 and the sufficient statistics in L²(q).

    Args:
        q: the unperturbed posterior, one member of an exponential family (no batch).
        perturbation: r at the points of the rule, shape ``(k,)``.
        rule: sum or quadrature over z.

    Own: own-gap-curvature
    """
    weight = (q.log_prob(rule.points) + rule.log_weights).exp()
    statistic = q.sufficient_statistic(rule.points)
    design = torch.cat([torch.ones_like(statistic[:, :1]), statistic], 1)
    root = weight.sqrt()[:, None]
    solution = torch.linalg.lstsq(root * design, root * perturbation[:, None]).solution
    residual = perturbation - (design @ solution)[:, 0]
    coefficient: Tensor = 0.5 * (weight * residual.square()).sum()
    return coefficient


@dataclass(frozen=True)
class CurveFit:
    """A fitted curve: coefficients b (n, degree + 1), log σ², and the value reached in nats."""

    coefficients: Tensor
    log_noise: Tensor
    value: float


def fit_curve(start: CurveFit, x: Tensor, weights: Tensor, rule: Rule, *, objective: str, nodes: int = 8) -> CurveFit:
    """Maximise likelihood or ELBO (best Gaussian for each x) over the curve and the noise.

    Args:
        start: where the search begins.
        x: points of the data distribution, shape ``(N, n)``, float64.
        weights: their probabilities, shape ``(N,)``.
        rule: quadrature over z.
        objective: ``"likelihood"`` or ``"elbo"``.
        nodes: of the Gauss–Hermite rule under q.

    Raises:
        ValueError: an unknown objective.

    Paper: eq-2
    Own: own-curved-gap
    """
    if objective not in ("likelihood", "elbo"):
        raise ValueError(f"fit_curve: objective must be 'likelihood' or 'elbo', got {objective!r}")
    b = start.coefficients.clone().requires_grad_()
    log_noise = start.log_noise.clone().requires_grad_()

    def likelihood() -> Tensor:
        joint = curve_log_joint(b, log_noise, x, rule.points[:, None])
        return -(weights * torch.logsumexp(joint + rule.log_weights[:, None], 0)).sum()

    if objective == "likelihood":
        value = -minimize(likelihood, [b, log_noise], 100, rounds=6, rtol=1e-10)
        return CurveFit(b.detach(), log_noise.detach(), value)
    value = -float("inf")
    for _ in range(10):  # curve and encoders together, then each encoder anew from all its starts
        q = best_gaussian(b.detach(), log_noise.detach(), x, rule, nodes)
        raw = torch.cat([q.location, q.variance.log()], -1).requires_grad_()

        def bound(raw: Tensor = raw) -> Tensor:
            return -(weights * _curve_elbo(b, log_noise, x, raw, nodes)).sum()

        previous, value = value, -minimize(bound, [b, log_noise, raw], 100, rounds=6, rtol=1e-8)
        if value - previous < 1e-6:
            break
    return CurveFit(b.detach(), log_noise.detach(), value)
