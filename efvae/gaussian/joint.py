"""The tight diagonal Gaussian VAE in closed form: joint law (10), what its prior asks for, and the gap without it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efvae.families import Gaussian, GaussianFixedVariance
from efvae.models import VAE, Conditional, Prior

__all__ = [
    "TightGaussian",
    "average_log_likelihood",
    "diagonal_gap",
    "posterior_precision",
    "rotate_latent",
]


@dataclass(frozen=True)
class TightGaussian:
    """The joint law (10) with V = 0: the only one left to a tight diagonal Gaussian VAE.

    ::

        log p(x, z) = log N(x | 0, σ_d² I) + ⟨x, W z + a⟩ + ⟨b, z⟩ + ⟨c, z²⟩ − log Z
        decoder   μ_d(z) = σ_d² (W z + a)
        encoder   σ_e² = −1/(2c),   μ_e(x) = −(Wᵀ x + b)/(2c)
        prior     N(Λ⁻¹ (b + σ_d² Wᵀ a), Λ⁻¹),   Λ = −2 diag(c) − σ_d² Wᵀ W

    Args:
        weight: W, shape ``(n, m)``.
        visible_bias: a, shape ``(n,)``.
        latent_bias: b, shape ``(m,)``.
        latent_square: c, shape ``(m,)``, < 0: else the integral over z is infinite.
        noise: σ_d², a scalar tensor > 0.

    Raises:
        ValueError: c or σ_d² of the wrong sign.

    Paper: eq-10, case-gaussian, sec-3-1
    """

    weight: Tensor
    visible_bias: Tensor
    latent_bias: Tensor
    latent_square: Tensor
    noise: Tensor

    def __post_init__(self) -> None:
        if not bool((self.latent_square < 0).all()):
            raise ValueError("TightGaussian: every c must be negative, else the joint has no integral over z")
        if not bool(self.noise > 0):
            raise ValueError(f"TightGaussian: the noise variance must be positive, got {float(self.noise)}")

    @classmethod
    def with_standard_prior(cls, loadings: Tensor, mean: Tensor, noise: Tensor) -> TightGaussian:
        """The joint of x = M z + μ + noise, z ~ N(0, I), where the posterior is diagonal.

        Args:
            loadings: M = σ_d² W with orthogonal columns, shape ``(n, m)``; see :func:`rotate_latent`.
            mean: μ, shape ``(n,)``.
            noise: σ_d² > 0, a scalar tensor.

        Raises:
            ValueError: MᵀM is not diagonal, so no diagonal encoder gives the posterior.

        Paper: eq-10
        Own: own-standard-prior
        """
        gram = loadings.T @ loadings
        off = gram - torch.diag(gram.diagonal())
        if float(off.abs().max()) > 1e-9 * float(gram.diagonal().max().clamp(min=1e-300)):
            raise ValueError("the columns of the loadings are not orthogonal: rotate_latent(loadings) makes them so")
        return cls(
            weight=loadings / noise,
            visible_bias=mean / noise,
            latent_bias=-(loadings.T @ mean) / noise,
            latent_square=-0.5 * (1 + gram.diagonal() / noise),
            noise=noise,
        )

    @property
    def prior_precision(self) -> Tensor:
        """Λ = −2 diag(c) − σ_d² Wᵀ W, shape ``(m, m)``."""
        return torch.diag(-2 * self.latent_square) - self.noise * self.weight.T @ self.weight

    @property
    def prior_mean(self) -> Tensor:
        """Λ⁻¹ (b + σ_d² Wᵀ a), shape ``(m,)``."""
        linear = self.latent_bias + self.noise * self.weight.T @ self.visible_bias
        mean: Tensor = torch.linalg.solve(self.prior_precision, linear)
        return mean

    @property
    def joint_precision(self) -> Tensor:
        """Precision of (x, z), shape ``(n + m, n + m)``."""
        eye = torch.eye(len(self.weight), dtype=self.weight.dtype) / self.noise
        lower = torch.cat([-self.weight.T, torch.diag(-2 * self.latent_square)], 1)
        return torch.cat([torch.cat([eye, -self.weight], 1), lower])

    def is_normalisable(self) -> bool:
        """Whether the joint has a finite integral: −2 diag(c) ≻ σ_d² Wᵀ W.

        Paper: eq-10
        Own: own-normalisable
        """
        return bool(torch.linalg.eigvalsh(self.prior_precision).min() > 0)

    def log_partition(self) -> Tensor:
        """log Z in nats; infinite where the joint is not normalisable.

        ::

            ½ σ_d² |a|² + ½ βᵀ Λ⁻¹ β + (m/2) log 2π − ½ log det Λ,   β = b + σ_d² Wᵀ a
        """
        if not self.is_normalisable():
            return self.noise.new_tensor(math.inf)
        beta = self.latent_bias + self.noise * self.weight.T @ self.visible_bias
        square = self.noise * self.visible_bias.square().sum() + beta @ self.prior_mean
        m = len(self.latent_bias)
        return 0.5 * (square + m * math.log(2 * math.pi) - torch.logdet(self.prior_precision))

    def log_unnormalised(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) + log Z in nats, shape ``(*batch)``; the leading axes of x and z broadcast."""
        base = GaussianFixedVariance(torch.zeros_like(x), self.noise).log_base_measure(x)
        inner = (x * (z @ self.weight.T + self.visible_bias)).sum(-1)
        return base + inner + (z * self.latent_bias + z * z * self.latent_square).sum(-1)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) in nats, shape ``(*batch)``."""
        return self.log_unnormalised(x, z) - self.log_partition()

    def decoder(self, z: Tensor) -> GaussianFixedVariance:
        """p(x | z), natural parameter W z + a."""
        return GaussianFixedVariance(z @ self.weight.T + self.visible_bias, self.noise)

    def encoder(self, x: Tensor) -> Gaussian:
        """q(z | x) = p(z | x), natural parameters Wᵀ x + b and c."""
        eta1 = x @ self.weight + self.latent_bias
        return Gaussian(torch.cat([eta1, self.latent_square.expand_as(eta1)], -1))

    def as_vae(self) -> VAE:
        """The same joint as a VAE with a Gaussian prior; its ELBO is tight.

        Raises:
            ValueError: not normalisable, or the prior's coordinates are dependent and no diagonal Gaussian gives it.

        Paper: thm-1, eq-10
        """
        precision = self.prior_precision
        diagonal = precision.diagonal()
        if not self.is_normalisable():
            raise ValueError("as_vae: the joint is not normalisable, −2 diag(c) must exceed σ_d² WᵀW")
        if float((precision - torch.diag(diagonal)).abs().max()) > 1e-9 * float(diagonal.max()):
            raise ValueError("as_vae: the prior of this joint has dependent coordinates (WᵀW is not diagonal)")
        prior = Gaussian.from_mean_variance(self.prior_mean, 1 / diagonal)
        noise = self.noise
        return VAE(
            Prior(prior.eta, Gaussian),
            Conditional(_affine(self.weight, self.visible_bias), lambda eta: GaussianFixedVariance(eta, noise)),
            Conditional(
                _affine(
                    torch.cat([self.weight.T, torch.zeros_like(self.weight.T)]),
                    torch.cat([self.latent_bias, self.latent_square]),
                ),
                Gaussian,
            ),
        )


def _affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def rotate_latent(loadings: Tensor) -> Tensor:
    """M R with an orthogonal R that makes (MR)ᵀ(MR) diagonal and decreasing: the same law of x under z ~ N(0, I).

    Of more latent dimensions than observed ones the last columns are zero.

    Own: own-rotation
    """
    left, singular, _ = torch.linalg.svd(loadings, full_matrices=False)
    turned = torch.zeros_like(loadings)
    turned[:, : len(singular)] = left * singular
    return turned


def posterior_precision(loadings: Tensor, noise: Tensor | float) -> Tensor:
    """Precision of p(z | x) for x = M z + μ + noise, z ~ N(0, I): P = I + MᵀM/σ_d², the same for every x.

    Own: own-standard-prior
    """
    gram = loadings.mT @ loadings
    return torch.eye(gram.shape[-1], dtype=gram.dtype) + gram / noise


def diagonal_gap(precision: Tensor) -> Tensor:
    """Least KL of a diagonal Gaussian to N(m, P⁻¹), in nats, shape ``batch``.

    ::

        min_q KL(q ‖ N(m, P⁻¹)) = ½ (Σ_j log P_jj − log det P),   reached at the mean m and the variances 1/P_jj

    Args:
        precision: P, positive definite, shape ``(*batch, m, m)``.

    Own: own-diag-gap
    """
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    return 0.5 * (diagonal.log().sum(-1) - torch.logdet(precision))


def average_log_likelihood(covariance: Tensor, shift: Tensor, data_covariance: Tensor) -> Tensor:
    """E log N(x | μ, C) over data with given moments, in nats, shape ``batch``.

    ::

        −½ (n log 2π + log det C + tr C⁻¹ (S + δ δᵀ)),   δ = data mean − μ

    Args:
        covariance: C, shape ``(*batch, n, n)``.
        shift: δ, shape ``(*batch, n)``.
        data_covariance: S about the data's own mean, shape ``(n, n)``.

    Paper: sec-2, case-gaussian
    """
    n = covariance.shape[-1]
    second = data_covariance + shift[..., :, None] * shift[..., None, :]
    trace: Tensor = torch.linalg.solve(covariance, second).diagonal(dim1=-2, dim2=-1).sum(-1)
    return -0.5 * (n * math.log(2 * math.pi) + torch.logdet(covariance) + trace)
