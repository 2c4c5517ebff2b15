"""A spiral with noise as ground truth, and a VAE on it whose encoder is a mixture of Gaussians from a network.

One latent coordinate and two observed ones, so that every integral is a sum over a grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efvae import exact
from efvae.experiments.spiral_encoder import Mixture
from efvae.networks import mlp

__all__ = ["BentDecoder", "SpiralVAE", "expectation_rule", "latent_line", "log_joint", "sample", "spiral"]

#: Draws from a single Gaussian, and from each component of several, while training.
DRAWS, DRAWS_EACH = 16, 8
#: Points of the latent grid on [−6, 6] and of each side of the grid of observations.
LATENT_POINTS, SIDE = 241, 41
#: How far the grid reaches beyond the curve, in standard deviations of the noise.
REACH = 6.0
#: Points of the grid with less weight are dropped: together below 1e-5 of the mass.
WEIGHT_FLOOR = 1e-8


def spiral(z: Tensor) -> Tensor:
    """The curve of the truth: one and a third turns, the ends slowed down so that it stays bounded.

    ::

        μ*(z) = (1.2 + 0.6 t) (cos 4.2 t, sin 4.2 t),   t = tanh(0.8 z)

    Args:
        z: shape ``(*batch, 1)``.

    Returns:
        Tensor of shape ``(*batch, 2)``.

    Own: own-spiral
    """
    t = torch.tanh(0.8 * z)
    return (1.2 + 0.6 * t) * torch.cat([torch.cos(4.2 * t), torch.sin(4.2 * t)], -1)


class BentDecoder(nn.Module):
    """Decoder mean μ_d(z) = μ*(z) + network(z); the network's last layer starts at zero, so it starts at the truth.

    Args:
        width: units in each of two hidden layers.

    Own: own-spiral
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = mlp((1, width, width, 2), nn.Tanh)
        last = self.network[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101 (as mlp builds it)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z: Tensor) -> Tensor:
        """μ_d(z) for z of shape ``(*batch, 1)``: shape ``(*batch, 2)``."""
        mean: Tensor = spiral(z) + self.network(z)
        return mean


class SpiralVAE(nn.Module):
    """z ~ N(0, 1), x | z ~ N(μ_d(z), σ_d² I), q(z | x) a mixture of K Gaussians with parameters from a network.

    Args:
        components: K; 1 is the paper's encoder, for which with one coordinate "diagonal" is no restriction.
        noise: σ_d at the start.
        width: units in each of the two hidden layers of decoder and encoder.

    Paper: sec-4-2
    Own: own-spiral
    """

    def __init__(self, components: int, noise: float, width: int) -> None:
        super().__init__()
        self.decoder = BentDecoder(width)
        self.encoder = mlp((2, width, width, 3 * components), nn.Tanh)
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))
        last = self.encoder[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101 (as mlp builds it)
        with torch.no_grad():  # components that start together stay together
            spread = torch.linspace(-1.5, 1.5, components) if components > 1 else torch.zeros(1)
            last.bias[components : 2 * components].copy_(spread)

    @property
    def noise(self) -> Tensor:
        """σ_d, scalar."""
        return self.log_noise.exp()

    def posterior(self, x: Tensor) -> Mixture:
        """q(z | x) for x of shape ``(batch, 2)``."""
        return Mixture.from_raw(self.encoder(x))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) in nats; x of shape ``(batch, 2)``, z of shape ``(*sample, batch)`` or ``(*sample, 1)``."""
        return log_joint(self.decoder(z[..., None]), self.log_noise, x, z)

    def elbo(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """E_q [log p(x, z) − log q(z | x)] in nats by stratified draws, unbiased with its gradient, shape ``(batch,)``.

        Paper: eq-1a
        """
        q = self.posterior(x)
        z, weight = q.draws(DRAWS if q.mean.shape[-1] == 1 else DRAWS_EACH, generator)
        return (weight * (self.log_joint(x, z) - q.log_prob(z))).sum(0)


def log_joint(mean: Tensor, log_noise: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """log N(z | 0, 1) + log N(x | μ_d(z), σ_d² I) in nats.

    Args:
        mean: μ_d(z), shape ``(*sample, batch or 1, 2)``.
        log_noise: log σ_d, scalar.
        x: shape ``(batch, 2)``.
        z: shape ``(*sample, batch or 1)``.

    Paper: sec-4-2
    """
    square = (x - mean).square().sum(-1)
    return -0.5 * square * torch.exp(-2 * log_noise) - 2 * log_noise - 0.5 * z.square() - 1.5 * math.log(2 * math.pi)


def sample(noise: float, n: int, generator: torch.Generator) -> Tensor:
    """n draws from the truth, columns x1, x2, z, shape ``(n, 3)``.

    Args:
        noise: σ of the truth.
        n: how many.
        generator: source of randomness.

    Own: own-spiral
    """
    z = torch.randn(n, 1, generator=generator)
    return torch.cat([spiral(z) + noise * torch.randn(n, 2, generator=generator), z], -1)


def latent_line(points: int = LATENT_POINTS) -> exact.Rule:
    """The trapezoid rule on [−6, 6] for integrals over z.

    Own: own-spiral
    """
    return exact.grid([-6.0], [6.0], points)


def expectation_rule(noise: float, side: int = SIDE, line: exact.Rule | None = None) -> tuple[exact.Rule, Tensor]:
    """Points and log-weights for expectations over x from the truth, and log p*(x) at the points in nats.

    Args:
        noise: σ of the truth.
        side: grid points along each side.
        line: rule for the integral over z.

    Own: own-spiral
    """
    line = line or latent_line()
    model = SpiralVAE(1, noise, 1).double().requires_grad_(requires_grad=False)
    curve = spiral(line.points)
    box = exact.grid((curve.amin(0) - REACH * noise).tolist(), (curve.amax(0) + REACH * noise).tolist(), side)
    log_p = _log_marginal(model, box.points, line)
    log_weights = box.log_weights + log_p
    keep = log_weights > math.log(WEIGHT_FLOOR)
    return exact.Rule(box.points[keep], log_weights[keep]), log_p[keep]


def _log_marginal(model: SpiralVAE, x: Tensor, line: exact.Rule) -> Tensor:
    return torch.logsumexp(model.log_joint(x, line.points) + line.log_weights[:, None], 0)
