"""The harmonium of Proposition A.1: the encoder network, regressed on the decoder's statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.bounds.tables import Tables

__all__ = ["Projection", "projected_harmonium"]


@dataclass(frozen=True)
class Projection:
    """An unnormalised harmonium near a VAE.

    ::

        log p^(x, z) = log h(x) + log h'(z) + ⟨ν~(x), W~ ψ~(z)⟩,      W~ = [[W, u], [vᵀ, c]]

    Args:
        weight: W~, shape ``(n + 1, m + 1)``.
        log_joint: log p^(x, z), shape ``(z, x)``.
        error: Σ_x p_d(x) log²(p(x, z)/p^(x, z)) in nats², shape ``(z,)``.

    Paper: eq-8, eq-21, eq-40
    """

    weight: Tensor
    log_joint: Tensor
    error: Tensor


def projected_harmonium(tables: Tables) -> Projection:
    """The harmonium that the proof of Proposition A.1 constructs.

    ::

        W~ = argmin_M Σ_x p_d(x) ‖ Mᵀ ν~(x) − g~(x) ‖²

    Not the harmonium of least error, which least squares over W~ in log p itself would give: it follows the encoder,
    however far that is from the posterior. Each column is a least-squares regression, weighted by p_d, of one
    coordinate of g~ on ν~: V W~ = P G with P the projection onto the range of V in the inner product of p_d. Of several
    solutions the one of least norm is taken.

    Args:
        tables: the VAE.

    Returns:
        W~, the log-joint and its error, which is at most Δ²(z) for every z.

    Paper: prop-a1, eq-21, eq-22, eq-39, eq-40
    """
    root = tables.data.sqrt()[:, None]
    weight = torch.linalg.pinv(root * tables.nu_extended) @ (root * tables.g_extended)
    bilinear = (tables.nu_extended @ weight @ tables.psi_extended.T).T
    log_joint = tables.log_h + tables.log_h_latent[:, None] + bilinear
    return Projection(weight, log_joint, (log_joint - tables.log_joint).square() @ tables.data)
