"""A Gaussian VAE on a curve: as the decoder's variance falls, the posterior gap vanishes and the decoder stays bent.

One latent coordinate, data on a curve in the plane, so that every integral is a sum over a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from efvae.bounds import projected_harmonium, tabulate
from efvae.descent import minimize
from efvae.estimators import Exact, gauss_hermite_nodes
from efvae.exact import elbo, grid, posterior_kl
from efvae.experiments.spiral_measure import affine_residual
from efvae.families import Gaussian, GaussianFixedVariance
from efvae.models import VAE, Conditional, Prior
from efvae.networks import mlp
from efvae.objectives import elbo as elbo_by_estimator
from efvae.values import check_fields

__all__ = ["Config", "Stage", "bent_share", "curve", "ideal_gap", "rate", "run"]


@dataclass(frozen=True)
class Config:
    """Settings of :func:`run`.

    Args:
        variances: decoder variances σ_d², falling; each stage starts where the one before ended.
        points: number of observations on the curve, ≥ 8.
        hidden: width of the one hidden layer of both networks, ≥ 1.
        iterations: L-BFGS iterations of each stage, ≥ 1.
        seed: of the initial weights.

    Raises:
        ValueError: a value out of its range.
    """

    variances: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 0.003)
    points: int = 48
    hidden: int = 12
    iterations: int = 120
    seed: int = 0

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.variances, self.variances[1:], strict=False))
        if not self.variances or not falling or self.variances[-1] < 1e-4:
            raise ValueError(f"variances must fall and stay above 1e-4; got {self.variances}")
        check_fields(self, least={"points": 8, "hidden": 1, "iterations": 1, "seed": 0})


@dataclass(frozen=True)
class Stage:
    """What is known at the end of one stage; all by quadrature, none by sampling.

    Args:
        variance: σ_d².
        gap: E KL(q ‖ p(z | x)) in nats.
        least_gap: the same for the best Gaussian q of each x, with this decoder: what no encoder network could close.
        elbo: mean ELBO in nats.
        bent: share of the decoder's variance under the prior that no affine map explains.
        harmonium_error: E_q log²(p/p^) in nats² for the harmonium of Proposition A.1.
        decoder: μ(z) on ``z``, shape ``(k, 2)``.
        z: latent points of ``decoder``, shape ``(k,)``.
    """

    variance: float
    gap: float
    least_gap: float
    elbo: float
    bent: float
    harmonium_error: float
    decoder: Tensor
    z: Tensor


def curve(points: int) -> Tensor:
    """Observations c(t) = (1.2 t, sin 2t) at the normal quantiles t_i = Φ⁻¹((i − ½)/points), shape ``(points, 2)``.

    Args:
        points: how many.

    Paper: app-a2
    """
    return _on_curve(_quantiles(points))


def _quantiles(points: int) -> Tensor:
    t: Tensor = torch.special.ndtri((torch.arange(points, dtype=torch.float64) + 0.5) / points)
    return t


def _on_curve(t: Tensor) -> Tensor:
    return torch.stack([1.2 * t, torch.sin(2 * t)], -1)


def rate(points: int) -> float:
    """Slope of the least gap in σ_d² at σ_d = 0, where the decoder is the curve itself.

    ::

        ¾ E [ ⟨c′, c″⟩² / |c′|⁶ ]

    Args:
        points: how many observations the mean is taken over.

    Own: own-curve-rate
    """
    t = _quantiles(points)
    speed = 1.44 + 4 * torch.cos(2 * t).square()
    return float((0.75 * (4 * torch.sin(4 * t)).square() / speed**3).mean())


def ideal_gap(variance: float, points: int) -> float:
    """The least mean posterior gap in nats where the decoder is the curve itself: the best Gaussian q for each x.

    Args:
        variance: σ_d² > 0.
        points: how many observations.

    Own: own-curve-rate
    """
    t = _quantiles(points)
    speed = (1.44 + 4 * torch.cos(2 * t).square()).sqrt()
    return _least_gap(_on_curve, _on_curve(t), variance, t, -speed.log())


def _least_gap(mean: Callable[[Tensor], Tensor], x: Tensor, variance: float, location: Tensor, scale: Tensor) -> float:
    """The least E KL(q ‖ p(z | x)) over a Gaussian q for each x, searched from N(location, σ_d² exp(2 scale)) on."""
    noise_scale = variance**0.5
    nodes, log_weights = gauss_hermite_nodes(40, 1, like=x)
    # q = N(location + σ_d (a + e^b ε)): in these units its optimum stays put as σ_d falls.
    free = torch.stack([torch.zeros_like(location), scale]).requires_grad_()

    def log_joint(z: Tensor) -> Tensor:
        square = (mean(z) - x).square().sum(-1)
        return -0.5 * square / variance - math.log(2 * math.pi * variance) - 0.5 * (z * z + math.log(2 * math.pi))

    def negative_elbo() -> Tensor:
        z = location + noise_scale * (free[0] + free[1].exp() * nodes)
        entropy = free[1] + math.log(noise_scale) + 0.5 * math.log(2 * math.pi * math.e)
        return -(log_weights.exp() @ log_joint(z) + entropy).mean()

    minimize(negative_elbo, [free], 100, history_size=50, tolerance_grad=1e-7)
    rule = grid([-7.0], [7.0], 8001)
    with torch.no_grad():
        log_marginal = torch.logsumexp(log_joint(rule.points) + rule.log_weights[:, None], 0).mean()
        return float(log_marginal + negative_elbo())


def bent_share(vae: VAE) -> float:
    """Share of the variance of μ(z), z ~ N(0, 1), that is left after the best affine map; 0 for an affine decoder.

    Paper: app-a2
    """
    noise, log_weights = gauss_hermite_nodes(64, 1, like=torch.zeros(1, dtype=torch.float64))
    weight = log_weights.exp()
    with torch.no_grad():
        family = vae.decoder(noise)
        assert isinstance(family, GaussianFixedVariance)  # noqa: S101 - this experiment builds no other
    return affine_residual(family.location, noise[:, 0], weight)


def run(config: Config) -> list[Stage]:
    """Train at each variance to the optimum of the ELBO, by L-BFGS on the exact objective, and measure.

    Paper: app-a2, def-1
    """
    x = curve(config.points)
    prior = Gaussian.from_mean_variance(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        decoder, encoder = (mlp((i, config.hidden, 2), torch.nn.Tanh).double() for i in (1, 2))
    stages = []
    for variance in config.variances:
        vae = VAE(
            Prior(prior.eta, Gaussian),
            Conditional(decoder, partial(GaussianFixedVariance.from_mean, variance=variance)),
            Conditional(encoder, Gaussian.from_mean_log_variance),
        )
        loss = partial(_negative_elbo, vae, x)
        minimize(loss, vae.parameters(), config.iterations, history_size=50, tolerance_grad=1e-7)
        stages.append(_measure(vae, x, variance))
    return stages


def _negative_elbo(vae: VAE, x: Tensor) -> Tensor:
    return -elbo_by_estimator(vae, x, Exact(nodes=8)).mean()


def _measure(vae: VAE, x: Tensor, variance: float) -> Stage:
    rule = grid([-6.0], [6.0], 2401)
    tables = tabulate(vae, x, torch.full((len(x),), 1 / len(x), dtype=torch.float64), rule)
    off = (projected_harmonium(tables).log_joint - tables.log_joint).square()
    weight = (tables.log_q + rule.log_weights[:, None]).exp()
    z = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
    with torch.no_grad():
        mean = vae.decoder.network(z[:, None])
        gap, bound = posterior_kl(vae, x, rule).mean(), elbo(vae, x, rule).mean()
        location, log_variance = vae.encoder.network(x).T
    decoder = vae.decoder.network.requires_grad_(requires_grad=False)
    scale = 0.5 * (log_variance - math.log(variance))
    least = _least_gap(lambda t: decoder(t[..., None]), x, variance, location, scale)
    decoder.requires_grad_(requires_grad=True)
    error = float((weight * off).sum(0).mean())
    return Stage(variance, float(gap), least, float(bound), bent_share(vae), error, mean, z)
