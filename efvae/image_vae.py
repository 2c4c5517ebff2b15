"""A Gaussian VAE on images, written for speed: no natural parameters, moments as the networks give them.

The same model in terms of the library's families is :meth:`ImageVAE.as_vae`; a test compares the two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from efvae.families import Gaussian, GaussianFixedVariance
from efvae.models import VAE, Conditional, Prior

__all__ = ["ENCODERS", "ImageVAE", "Posterior", "best_sigma", "entropy_bound", "outputs"]

#: Covariances of an encoder.
ENCODERS = ("diagonal", "full")
_LOG_2PI = math.log(2 * math.pi)


def outputs(latent: int, kind: str) -> int:
    """Number of values an encoder network gives: means and log-variances, or means and a triangular factor.

    Args:
        latent: n_z.
        kind: one of :data:`ENCODERS`.

    Raises:
        ValueError: another kind.

    Paper: sec-4-2
    """
    if kind not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}; got {kind!r}")
    return 2 * latent if kind == "diagonal" else latent + latent * (latent + 1) // 2


def entropy_bound(pixels: int, sigma: float) -> float:
    """The noise alone bounds what any model can reach on p*: L(θ*) ≤ −h(x | z), in nats per image.

    ::

        −n ½ log(2πe σ_d²)

    Args:
        pixels: n, number of values of an image: 12288 for 64 × 64 × 3.
        sigma: σ_d of the truth, > 0.

    Paper: sec-4-2
    """
    return -0.5 * pixels * (math.log(2 * math.pi * math.e) + 2 * math.log(sigma))


def best_sigma(reconstruction: float, sigma: float, pixels: int) -> tuple[float, float]:
    """The noise that is best for a decoder and encoder, from what they reach with another one.

    ::

        R(σ) = E log p(x | z) = −½ (E‖x − d(z)‖²/σ² + n log 2πσ²),    σ*² = E‖x − d(z)‖²/n,    R(σ*) − R(σ) ≥ 0

    Args:
        reconstruction: R(σ) in nats per image.
        sigma: σ > 0.
        pixels: n.

    Returns:
        σ*, and how many nats per image the ELBO rises with it.

    Paper: sec-4-2
    Own: own-best-noise
    """
    log_square = 2 * math.log(sigma)
    share = -(2 * reconstruction / pixels + _LOG_2PI + log_square)  # σ*²/σ²
    return sigma * math.sqrt(share), 0.5 * pixels * (share - 1 - math.log(share))


class Posterior(NamedTuple):
    """q(z | x) = N(μ, S Sᵀ), S lower triangular with a positive diagonal.

    Args:
        mean: μ, shape ``(b, n_z)``.
        log_scale: logarithm of the diagonal of S, shape ``(b, n_z)``.
        below: S without its diagonal, shape ``(b, n_z, n_z)``; None for independent coordinates.

    Paper: sec-4-2
    """

    mean: Tensor
    log_scale: Tensor
    below: Tensor | None = None

    def factor(self) -> Tensor:
        """S, shape ``(b, n_z, n_z)``."""
        diagonal = torch.diag_embed(self.log_scale.exp())
        return diagonal if self.below is None else diagonal + self.below

    def draw(self, noise: Tensor) -> Tensor:
        """μ + S ε, with gradient.

        Args:
            noise: ε ~ N(0, I), shape ``(b, n_z)``.
        """
        z = self.mean + self.log_scale.exp() * noise
        return z if self.below is None else z + (self.below @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x) in nats, shape ``(b,)``."""
        if self.below is None:
            whitened = (z - self.mean) * torch.exp(-self.log_scale)
        else:
            rest = (z - self.mean).unsqueeze(-1)
            whitened = torch.linalg.solve_triangular(self.factor(), rest, upper=False).squeeze(-1)
        return -(0.5 * (whitened.square() + _LOG_2PI) + self.log_scale).sum(-1)

    def kl_terms(self) -> Tensor:
        """KL(q(z | x) ‖ N(0, I)) by coordinate: its sum is the KL; of independent coordinates each term is one too.

        ::

            ½ (μ_i² + Σ_j S_ij² − 1) − log S_ii

        Returns:
            Tensor of shape ``(b, n_z)``, nats.
        """
        square = self.mean.square() + (2 * self.log_scale).exp()
        if self.below is not None:
            square = square + self.below.square().sum(-1)
        return 0.5 * (square - 1) - self.log_scale


class ImageVAE(nn.Module):
    """p(z) = N(0, I), p(x | z) = N(d(z), σ_d² I), q(z | x) Gaussian with moments from a network.

    Args:
        decoder: d, shape ``(b, n_z)`` to ``(b, *image)``.
        encoder: shape ``(b, *image)`` to ``(b, outputs(latent, kind))``.
        latent: n_z.
        sigma: first value of σ_d, > 0; no parameter, since its optimum is known, see :meth:`elbo`.
        kind: of the encoder, one of :data:`ENCODERS`.

    Raises:
        ValueError: σ_d ≤ 0, or another kind.

    Paper: sec-4-2
    """

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        latent: int,
        sigma: float,
        kind: str = "diagonal",
    ) -> None:
        super().__init__()
        outputs(latent, kind)
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma, the pixel noise σ_d, must be a positive number; got {sigma}")
        self.decoder, self.encoder, self.latent, self.kind = decoder, encoder, latent, kind
        self.log_sigma: Tensor
        self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))

    @property
    def sigma(self) -> float:
        """Present value of σ_d; infinite if its training exploded."""
        try:
            return math.exp(float(self.log_sigma.detach().double()))
        except OverflowError:
            return math.inf

    def posterior(self, x: Tensor) -> Posterior:
        """q(z | x) of images of shape ``(b, *image)``, in float32 or better whatever the networks run in."""
        raw = self.encoder(x)
        raw = raw if raw.dtype == torch.float64 else raw.float()
        mean, scale = raw[:, : self.latent], raw[:, self.latent : 2 * self.latent]
        if self.kind == "diagonal":
            return Posterior(mean, 0.5 * scale)  # the network gives log-variances
        below = raw.new_zeros(len(raw), self.latent, self.latent)
        rows, columns = torch.tril_indices(self.latent, self.latent, -1, device=raw.device)
        # small at the first weights: the inverse of a triangle of n_z rows of size one grows exponentially in n_z
        below[:, rows, columns] = raw[:, 2 * self.latent :] / self.latent
        return Posterior(mean, 0.5 * scale, below)

    def log_likelihood(self, x: Tensor, z: Tensor, *, set_sigma: bool = False) -> Tensor:
        """log p(x | z) in nats, shape ``(b,)``.

        Args:
            x: images.
            z: their codes, shape ``(b, n_z)``.
            set_sigma: see :meth:`elbo`.
        """
        image, pixels = self.decoder(z), x[0].numel()
        error = (x - (image if image.dtype == torch.float64 else image.float())).square().flatten(1).sum(-1)
        if set_sigma:
            self.log_sigma.copy_(0.5 * torch.log(error.detach().mean() / pixels))
        found: Tensor = -0.5 * (error * torch.exp(-2 * self.log_sigma) + pixels * (_LOG_2PI + 2 * self.log_sigma))
        return found

    def elbo(self, x: Tensor, noise: Tensor, *, set_sigma: bool = False) -> Tensor:
        """One-draw estimate of the ELBO in nats, shape ``(b,)``: unbiased, reparameterized.

        ::

            log p(x | z) − KL(q(z | x) ‖ N(0, I)),   z = μ(x) + S(x) ε

        Args:
            x: images.
            noise: ε ~ N(0, I), shape ``(b, n_z)``.
            set_sigma: first set σ_d to its optimum for these images and codes, σ_d² = mean ‖x − d(z)‖²/n. The gradient
                is then that of the maximum over σ_d, by the envelope theorem; the value is not unbiased, but its error
                is of the order of one over the number of images.

        Paper: eq-1a, sec-4-2
        Own: own-best-noise
        """
        q = self.posterior(x)
        return self.log_likelihood(x, q.draw(noise), set_sigma=set_sigma) - q.kl_terms().sum(-1)

    def as_vae(self) -> VAE:
        """The same model by the library's families, on flattened images; encoders with independent coordinates only.

        Raises:
            ValueError: the encoder has a full covariance.

        Paper: sec-4-2
        """
        if self.kind != "diagonal":
            raise ValueError("as_vae: the library's Gaussian has independent coordinates; this encoder has not")
        variance = torch.exp(2 * self.log_sigma)
        zero = torch.zeros(self.latent, dtype=self.log_sigma.dtype, device=self.log_sigma.device)
        prior = Prior(torch.cat([zero, zero - 0.5]), Gaussian)
        image = tuple(self.decoder(zero[None]).shape[1:])
        decoder = Conditional(
            nn.Sequential(self.decoder, nn.Flatten()),
            lambda mean: GaussianFixedVariance.from_mean(mean, variance),
            event_axes=1,
        )
        encoder = Conditional(
            nn.Sequential(nn.Unflatten(1, image), self.encoder), Gaussian.from_mean_log_variance, event_axes=1
        )
        return VAE(prior, decoder, encoder)
