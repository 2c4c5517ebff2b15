"""Gaussians with independent coordinates: both moments free, or the variance given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from efvae.families.base import ExponentialFamily, fits

__all__ = ["Gaussian", "GaussianFixedVariance"]

_LOG_2PI = math.log(2 * math.pi)


def _noise(mean: Tensor, sample_shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    shape = (*sample_shape, *mean.shape)
    return torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device)


def _log_normal(difference: Tensor, precision: Tensor) -> Tensor:
    """log N(x | μ, diag σ²) from x − μ and 1/σ²."""
    return 0.5 * (precision.log() - _LOG_2PI - difference.square() * precision).sum(-1)


class Gaussian(ExponentialFamily):
    """Diagonal Gaussian N(x | μ, diag σ²), x ∈ R^n.

    ::

        ν(x) = (x, x²),   η = (μ/σ², −1/(2σ²)),   h(x) = (2π)^{−n/2}
        A(η) = Σ_i −η1_i²/(4 η2_i) − ½ log(−2 η2_i)

    Args:
        eta: (η1, η2) along the last axis, shape ``(*batch, 2n)``, η2 < 0.

    Raises:
        ValueError: an odd last axis; on the CPU also a coordinate with η2 ≥ 0.

    Paper: eq-10, sec-3-1
    """

    discrete = False

    def __init__(self, eta: Tensor) -> None:
        super().__init__(eta)
        if eta.shape[-1] % 2:
            raise ValueError(f"Gaussian: eta holds (η1, η2) and needs an even last axis, got {eta.shape[-1]}")
        # On an accelerator this look at the values would stall every step; there NaN shows in the loss.
        if eta.device.type == "cpu" and bool((eta.detach().chunk(2, -1)[1] >= 0).any()):
            raise ValueError("Gaussian: the second half of eta is −1/(2σ²) and must be negative")

    @classmethod
    def from_mean_variance(cls, mean: Tensor, variance: Tensor | float) -> Gaussian:
        """From μ and σ² > 0, each broadcastable to ``(*batch, n)``.

        Raises:
            ValueError: a variance that is zero or infinite (looked at on the CPU only).
        """
        given = torch.as_tensor(variance, dtype=mean.dtype, device=mean.device)
        location, square = torch.broadcast_tensors(mean, given)
        if mean.device.type == "cpu" and bool(((square <= 0) | (square == torch.inf)).any()):
            raise ValueError(
                f"Gaussian: the variance must be positive and finite, got {float(square.min()):g} to "
                f"{float(square.max()):g}; of log-variances keep to what {mean.dtype} can hold"
            )
        return cls(torch.cat([location / square, -0.5 / square], -1))

    @classmethod
    def from_mean_log_variance(cls, raw: Tensor) -> Gaussian:
        """From a network's output (μ, log σ²) along the last axis, shape ``(*batch, 2n)``.

        Raises:
            ValueError: the number of outputs is odd.
        """
        if raw.shape[-1] % 2:
            raise ValueError(
                f"Gaussian: from_mean_log_variance needs (μ, log σ²), an even number of outputs, got {raw.shape[-1]}"
            )
        mean, log_variance = raw.chunk(2, -1)
        return cls.from_mean_variance(mean, log_variance.exp())

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size([self.eta.shape[-1] // 2])

    @property
    def location(self) -> Tensor:
        """μ, shape ``(*batch, n)``."""
        eta1, eta2 = self.eta.chunk(2, -1)
        return -0.5 * eta1 / eta2

    @property
    def variance(self) -> Tensor:
        """σ², shape ``(*batch, n)``."""
        return -0.5 / self.eta.chunk(2, -1)[1]

    def with_eta(self, eta: Tensor) -> Gaussian:
        return Gaussian(eta)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        return torch.cat([x, x * x], -1)

    def log_base_measure(self, x: Tensor) -> Tensor:
        return torch.full_like(x[..., 0], -0.5 * _LOG_2PI * x.shape[-1])

    def expected_log_base_measure(self) -> Tensor:
        return torch.full_like(self.eta[..., 0], -0.5 * _LOG_2PI * self.event_shape[0])

    def log_partition(self) -> Tensor:
        eta1, eta2 = self.eta.chunk(2, -1)
        return (-0.25 * eta1 * eta1 / eta2 - 0.5 * torch.log(-2 * eta2)).sum(-1)

    def mean(self) -> Tensor:
        location, variance = self.location, self.variance
        return torch.cat([location, location * location + variance], -1)

    # In η both log-partition and inner product grow with μ²/σ², and their difference loses its digits where the mean is
    # many standard deviations from zero: in float32 a hundredth of a nat at a thousand. So these three are in μ and σ².

    def log_prob(self, x: Tensor) -> Tensor:
        self._refuse_another_event(x)
        precision = -2 * self.eta.chunk(2, -1)[1]
        return _log_normal(x - self.location, precision)

    def kl(self, other: ExponentialFamily) -> Tensor:
        self._refuse_another_family(other)
        precision = -2 * other.eta.chunk(2, -1)[1]
        ratio = self.variance * precision
        shift = self.location + 0.5 * other.eta.chunk(2, -1)[0] / other.eta.chunk(2, -1)[1]
        return 0.5 * (ratio - 1 - ratio.log() + shift.square() * precision).sum(-1)

    def entropy(self) -> Tensor:
        return 0.5 * (1 + _LOG_2PI + self.variance.log()).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws μ + σ ε with ε ~ N(0, I): differentiable in η, shape ``sample + batch + event``."""
        location = self.location
        return location + self.variance.sqrt() * _noise(location, sample_shape, generator)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape, generator)


class GaussianFixedVariance(ExponentialFamily):
    """Gaussian N(x | μ, diag σ²) whose variance is given, not part of η.

    ::

        ν(x) = x,   η = μ/σ²,   h(x) = N(x | 0, σ²),   A(η) = ½ Σ_i σ_i² η_i²

    Args:
        eta: μ/σ², shape ``(*batch, n)``.
        variance: σ² > 0, a number or a tensor broadcastable to ``(*batch, n)``; it may carry a gradient.

    Raises:
        ValueError: a variance of another shape, or not positive (a tensor's is looked at on the CPU only).

    Paper: sec-3-1, sec-4-1
    """

    discrete = False

    def __init__(self, eta: Tensor, variance: float | Tensor) -> None:
        super().__init__(eta)
        self.variance = torch.as_tensor(variance, dtype=eta.dtype, device=eta.device)
        if not fits(self.variance.shape, eta.shape):
            raise ValueError(
                f"GaussianFixedVariance: the variance must be broadcastable to the shape of eta, {tuple(eta.shape)}, "
                f"got {tuple(self.variance.shape)}"
            )
        if self.variance.device.type == "cpu" and not bool((self.variance.detach() > 0).all()):
            raise ValueError(f"GaussianFixedVariance: the variance must be positive, got {variance}")

    @classmethod
    def from_mean(cls, mean: Tensor, variance: float | Tensor) -> GaussianFixedVariance:
        """From μ, shape ``(*batch, n)``, and σ²."""
        return cls(mean / variance, variance)

    @property
    def event_shape(self) -> torch.Size:
        return self.eta.shape[-1:]

    @property
    def location(self) -> Tensor:
        """μ, shape ``(*batch, n)``."""
        return self.eta * self.variance

    def with_eta(self, eta: Tensor) -> GaussianFixedVariance:
        return GaussianFixedVariance(eta, self.variance)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        return x

    def _log_h(self, second_moment: Tensor) -> Tensor:
        return -0.5 * (_LOG_2PI + self.variance.log() + second_moment / self.variance).sum(-1)

    def log_base_measure(self, x: Tensor) -> Tensor:
        return self._log_h(x * x)

    def expected_log_base_measure(self) -> Tensor:
        return self._log_h(self.location.square() + self.variance)

    def log_partition(self) -> Tensor:
        return 0.5 * (self.variance * self.eta * self.eta).sum(-1)

    def mean(self) -> Tensor:
        return self.location

    # in μ and σ², as for Gaussian

    def log_prob(self, x: Tensor) -> Tensor:
        self._refuse_another_event(x)
        return _log_normal(x - self.location, 1 / self.variance)

    def kl(self, other: ExponentialFamily) -> Tensor:
        self._refuse_another_family(other)
        return 0.5 * (self.variance * (other.eta - self.eta).square()).sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 * (1 + _LOG_2PI + self.variance.log())).expand_as(self.eta).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws μ + σ ε with ε ~ N(0, I): differentiable in η and σ², shape ``sample + batch + event``."""
        location = self.location
        return location + self.variance.sqrt() * _noise(location, sample_shape, generator)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape, generator)
