"""Fréchet distance of two Gaussians, and the moments of features while they stream by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments", "distance", "frechet_distance", "moments"]


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared 2-Wasserstein distance of N(μ₁, C₁) and N(μ₂, C₂), in float64.

    ::

        |μ₁ − μ₂|² + tr C₁ + tr C₂ − 2 tr (C₁^½ C₂ C₁^½)^½

    The square roots come from symmetric eigenvalue problems; small negative eigenvalues, which rank-deficient
    covariances give, count as zero.

    Args:
        mu1, mu2: shape ``(d,)``.
        cov1, cov2: shape ``(d, d)``, symmetric.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.

    Paper: tab-1, sec-4-2
    """
    a, b, first, second = (torch.as_tensor(part).double() for part in (mu1, mu2, cov1, cov2))
    shapes = [tuple(part.shape) for part in (a, b, first, second)]
    if a.ndim != 1 or shapes != [(len(a),)] * 2 + [(len(a), len(a))] * 2:
        raise ValueError(f"frechet_distance: expected means (d,) and covariances (d, d); got {shapes}")
    if not all(bool(part.isfinite().all()) for part in (a, b, first, second)):
        raise ValueError("frechet_distance: a mean or covariance is not finite")
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    product = root @ second @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    return float((a - b).square().sum() + first.trace() + second.trace() - 2 * cross)


@dataclass
class Moments:
    """Count, mean and scatter of features, updated batch by batch in float64.

    Merging by batch means keeps the digits that a sum of squares would lose.

    Args:
        count: number of rows so far.
        mean: shape ``(d,)``.
        scatter: Σ (f − mean)(f − mean)ᵀ, shape ``(d, d)``.

    Own: own-frechet
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, d: int, device: str | torch.device = "cpu") -> Moments:
        """Of nothing yet, d features."""
        zero = torch.zeros(d, dtype=torch.float64, device=device)
        return cls(0, zero, torch.zeros(d, d, dtype=torch.float64, device=device))

    def add(self, features: Tensor) -> None:
        """Take in a batch, shape ``(b, d)``."""
        rows = features.detach().double()
        mean = rows.mean(0)
        centred = rows - mean
        self._merge(len(rows), mean, centred.T @ centred)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        if not count:
            return
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self.scatter = self.scatter + scatter + torch.outer(step, step) * (self.count * count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Scatter over count − 1, shape ``(d, d)``.

        Raises:
            ValueError: fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}")
        return self.scatter / (self.count - 1)


def moments(images: Iterable[Tensor], features: Callable[[Tensor], Tensor]) -> Moments:
    """Moments of the features of batches of images, straight from their tensors: no file is written.

    Args:
        images: batches, shape ``(b, 3, h, w)``, values in [−1, 1]; what lies outside is clipped, as a file would do.
        features: maps a batch to shape ``(b, d)``.

    Raises:
        ValueError: no images.

    Own: own-frechet
    """
    found: Moments | None = None
    with torch.no_grad():
        for batch in images:
            rows = features(batch.clamp(-1, 1))
            found = found or Moments.empty(rows.shape[1], rows.device)
            found.add(rows)
    if found is None:
        raise ValueError("moments: no images were given")
    return found


def distance(a: Moments, b: Moments) -> float:
    """Fréchet distance of the Gaussians with these moments.

    Own: own-frechet
    """
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
