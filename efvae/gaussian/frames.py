"""A linear Gaussian VAE whose decoder cannot be rotated: fixed oblique directions, free lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.descent import minimize
from efvae.gaussian.joint import average_log_likelihood, diagonal_gap, posterior_precision

__all__ = ["FrameFit", "fit_frame", "oblique_frame"]


@dataclass(frozen=True)
class FrameFit:
    """A decoder M = F diag(s) with noise σ², and what it reaches in nats.

    Args:
        scales: s, shape ``(m,)``.
        noise: σ².
        likelihood: L.
        gap: posterior gap of the best diagonal encoder; the ELBO is ``likelihood - gap``.
    """

    scales: Tensor
    noise: float
    likelihood: float
    gap: float


def oblique_frame(n: int, degrees: float) -> Tensor:
    """Two unit columns in R^n with the given angle between them, shape ``(n, 2)``, float64."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    frame = torch.zeros(n, 2, dtype=torch.float64)
    frame[0, 0] = 1
    frame[0, 1], frame[1, 1] = torch.cos(angle), torch.sin(angle)
    return frame


def _parts(frame: Tensor, log_scales: Tensor, log_noise: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    # A line search may try absurd lengths; the bounds are far outside any optimum and keep the matrices regular.
    loadings, noise = frame * log_scales.clamp(-15, 8).exp(), log_noise.clamp(-10, 10).exp()
    covariance = loadings @ loadings.T + noise * torch.eye(len(frame), dtype=frame.dtype)
    likelihood = average_log_likelihood(covariance, torch.zeros_like(frame[:, 0]), data)
    return likelihood, diagonal_gap(posterior_precision(loadings, noise))


def fit_frame(frame: Tensor, data_covariance: Tensor, beta: float, starts: Sequence[Tensor]) -> FrameFit:
    """Maximise L − β · gap over lengths and noise: β = 0 is maximum likelihood, β = 1 the ELBO with its best encoder.

    ::

        M = F diag(s),   L(s, σ²) = E log N(x | μ, M Mᵀ + σ² I),   gap = ½ (Σ_j log P_jj − log det P),   P = I + MᵀM/σ²

    Args:
        frame: F, fixed, shape ``(n, m)``, float64.
        data_covariance: of the data, shape ``(n, n)``; the mean μ is free and optimal.
        beta: weight of the gap.
        starts: lengths s > 0 to start from; the best end is kept.

    Paper: eq-2, cor-2
    Own: own-oblique-frame
    """
    best: tuple[float, Tensor, Tensor] | None = None
    for start in starts:
        log_scales = start.log().clone().requires_grad_()
        log_noise = torch.zeros((), dtype=frame.dtype, requires_grad=True)

        def loss(log_scales: Tensor = log_scales, log_noise: Tensor = log_noise) -> Tensor:
            likelihood, gap = _parts(frame, log_scales, log_noise, data_covariance)
            return beta * gap - likelihood

        value = minimize(loss, [log_scales, log_noise], 100, rounds=6, rtol=1e-11)
        if best is None or value < best[0]:
            best = (value, log_scales.detach(), log_noise.detach())
    if best is None:
        raise ValueError("fit_frame: needs at least one start")
    _, log_scales, log_noise = best
    likelihood, gap = _parts(frame, log_scales, log_noise, data_covariance)
    return FrameFit(log_scales.exp(), float(log_noise.exp()), float(likelihood), float(gap))
