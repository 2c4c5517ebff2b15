"""Probabilistic PCA in closed form, the linear VAE that reaches it, and a trainer that runs to the optimum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efvae.descent import minimize
from efvae.estimators import Exact
from efvae.families import Gaussian, GaussianFixedVariance
from efvae.gaussian.joint import TightGaussian, average_log_likelihood
from efvae.models import VAE, Conditional, Prior
from efvae.objectives import elbo

__all__ = ["PPCA", "linear_vae", "loadings_of", "maximize_elbo", "principal_angles"]


@dataclass(frozen=True)
class PPCA:
    """Maximum-likelihood solution of x = M z + μ + ε, z ~ N(0, I_k), ε ~ N(0, σ² I_n) (Tipping and Bishop).

    ::

        M = U (Λ − σ² I)^½,   σ² = mean of the discarded eigenvalues,   (Λ, U) the k leading eigenpairs
        posterior   N(z | (Mᵀ(x − μ))_j / λ_j, σ²/λ_j),   coordinate-wise: the principal axes need no rotation

    Args:
        mean: μ, shape ``(n,)``.
        axes: U, orthonormal columns, shape ``(n, k)``.
        eigenvalues: λ, decreasing, shape ``(k,)``.
        noise: σ² > 0, scalar tensor.

    Own: own-ppca
    Paper: case-gaussian
    """

    mean: Tensor
    axes: Tensor
    eigenvalues: Tensor
    noise: Tensor

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor, k: int) -> PPCA:
        """The solution for data with the given mean and covariance.

        Raises:
            ValueError: k is not in 1 … n − 1, or nothing is left for the noise.
        """
        n = len(mean)
        if not 1 <= k < n:
            raise ValueError(f"PPCA: the number of components must be in 1 … {n - 1}, got {k}")
        values, vectors = torch.linalg.eigh(covariance)
        noise = values[: n - k].mean()
        if not noise > 1e-14 * values[-1]:
            raise ValueError(f"PPCA: the data lie in {k} dimensions, so the likelihood has no maximum: take fewer")
        return cls(mean, vectors[:, n - k :].flip(1), values[n - k :].flip(0), noise)

    @classmethod
    def fit(cls, x: Tensor, k: int) -> PPCA:
        """The solution for data x of shape ``(N, n)``, float64; covariance with 1/N."""
        mean = x.mean(0)
        return cls.from_moments(mean, (x - mean).T @ (x - mean) / len(x), k)

    @property
    def loadings(self) -> Tensor:
        """M with orthogonal columns, shape ``(n, k)``."""
        return self.axes * (self.eigenvalues - self.noise).clamp(min=0).sqrt()

    @property
    def covariance(self) -> Tensor:
        """M Mᵀ + σ² I, shape ``(n, n)``."""
        return self.loadings @ self.loadings.T + self.noise * torch.eye(len(self.mean), dtype=self.mean.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, shape ``(*batch)``: Gaussian coordinates along the axes and across them.

        ::

            −½ [n log 2π + Σ_j log λ_j + (n − k) log σ² + Σ_j y_j²/λ_j + (|x − μ|² − |y|²)/σ²],   y = Uᵀ(x − μ)
        """
        centred = x - self.mean
        y = centred @ self.axes
        n, k = self.axes.shape
        logdet = self.eigenvalues.log().sum() + (n - k) * self.noise.log()
        rest = (centred.square().sum(-1) - y.square().sum(-1)) / self.noise
        log_2pi = torch.log(2 * self.noise.new_tensor(torch.pi))
        return -0.5 * (n * log_2pi + logdet + (y.square() / self.eigenvalues).sum(-1) + rest)

    def log_likelihood(self, data_covariance: Tensor) -> Tensor:
        """Mean log-likelihood of data with the model's mean and a given covariance, in nats."""
        return average_log_likelihood(self.covariance, torch.zeros_like(self.mean), data_covariance)

    def posterior(self, x: Tensor) -> Gaussian:
        """p(z | x): mean (λ_j − σ²)^½ u_jᵀ(x − μ)/λ_j, variance σ²/λ_j, independent of x.

        Own: own-ppca
        """
        mean = (x - self.mean) @ self.loadings / self.eigenvalues
        return Gaussian.from_mean_variance(mean, self.noise / self.eigenvalues)

    def as_vae(self) -> VAE:
        """The tight VAE with prior N(0, I) that this model is.

        Paper: cor-2, eq-10
        """
        return TightGaussian.with_standard_prior(self.loadings, self.mean, self.noise).as_vae()


class _SharedVariance(nn.Module):
    """mean ↦ N(mean, σ² I) with one learned log σ²."""

    def __init__(self, log_variance: Tensor) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(log_variance.clone())

    def forward(self, mean: Tensor) -> GaussianFixedVariance:
        return GaussianFixedVariance.from_mean(mean, self.log_variance.exp())


class _ConstantVariance(nn.Module):
    """x ↦ (A x + d, log s) with s the same for all x."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.mean = nn.Linear(n, m)
        self.log_variance = nn.Parameter(torch.zeros(m))

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.mean(x)
        return torch.cat([mean, self.log_variance.expand_as(mean)], -1)


def linear_vae(n: int, m: int, seed: int) -> VAE:
    """A linear VAE at a random start, float64: affine means, learned constant variances, prior N(0, I).

    ::

        p(x | z) = N(M z + μ, σ_d² I),   q(z | x) = N(A x + d, diag s)

    Args:
        n, m: dimensions of x and z.
        seed: of the initial weights.

    Paper: case-gaussian, sec-3-1
    """
    generator = torch.Generator().manual_seed(seed)
    vae = VAE(
        Prior(Gaussian.from_mean_variance(torch.zeros(m), torch.ones(m)).eta, Gaussian),
        Conditional(nn.Linear(m, n), _SharedVariance(torch.zeros(()))),
        Conditional(_ConstantVariance(n, m), Gaussian.from_mean_log_variance),
    ).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / n**0.5)
    return vae


def loadings_of(vae: VAE) -> tuple[Tensor, Tensor, Tensor]:
    """(M, μ, σ_d²) of :func:`linear_vae`, without gradient."""
    layer, family = vae.decoder.network, vae.decoder.family
    if not isinstance(layer, nn.Linear) or not isinstance(family, _SharedVariance):
        raise ValueError("loadings_of: not a linear_vae")
    return layer.weight.detach(), layer.bias.detach(), family.log_variance.detach().exp()


def maximize_elbo(vae: VAE, x: Tensor) -> float:
    """Train a linear VAE on the whole data to the optimum of its ELBO, without sampling; returns it in nats.

    The ELBO of a Gaussian decoder with an affine mean is quadratic in z, so two quadrature nodes for each latent
    coordinate give it exactly.

    Paper: cor-2, case-gaussian
    """
    return -minimize(lambda: -elbo(vae, x, Exact(nodes=2)).mean(), vae.parameters(), 1000, rounds=6)


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles in radians between the column spaces of two matrices of shape ``(n, k)``, increasing.

    From the sines, which stay accurate at small angles where a cosine does not.

    Own: own-ppca
    """
    q1, _ = torch.linalg.qr(first)
    q2, _ = torch.linalg.qr(second)
    sines = torch.linalg.svdvals(q2 - q1 @ (q1.T @ q2))
    return torch.asin(sines.clamp(max=1.0)).flip(0)
