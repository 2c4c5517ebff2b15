"""Each numbered step of the proof of Proposition A.1, as two sides to compare.

Paper: eq-22, eq-24, eq-25, eq-26
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.bounds.projection import projected_harmonium
from efvae.bounds.tables import Tables

__all__ = ["Step", "steps_a1"]


@dataclass(frozen=True)
class Step:
    """One step of a proof: left = right, or left ≤ right, in every entry.

    Args:
        label: the paper's number, e.g. ``eq-36``.
        left, right: the two sides, broadcastable.
        equal: whether equality is claimed.

    Paper: app-a3
    """

    label: str
    left: Tensor
    right: Tensor
    equal: bool = False

    def violation(self) -> float:
        """The largest excess of left over right (or difference, for an equality), relative to the larger side.

        Sides below 1e-4 count as 1e-4: sums of logarithms of order ten carry roundings of 1e-15, also where the
        difference itself vanishes, as it does for a tight VAE.

        Paper: app-a3
        """
        difference = self.left - self.right
        difference = difference.abs() if self.equal else difference.clamp(min=0.0)
        scale = torch.maximum(self.left.abs(), self.right.abs()).amax().clamp(min=1e-4)
        return float(difference.amax() / scale)


def _project(tables: Tables, table: Tensor) -> Tensor:
    """P applied to the columns of an ``(x, k)`` table: by an orthonormal basis, with no use of W~."""
    root = tables.data.sqrt()[:, None]
    basis, singular, _ = torch.linalg.svd(root * tables.nu_extended, full_matrices=False)
    basis = basis[:, singular > 1e-11 * singular[0]]
    projected: Tensor = basis @ (basis.T @ (root * table)) / root
    return projected


def steps_a1(tables: Tables) -> list[Step]:
    """Every numbered step from the expansion of the two conditionals to the bound for the joint law, for all z.

    (25) only names the second part of (24) and is no step of its own; it is inserted into ``eq-24``.

    Paper: prop-a1, eq-31, eq-33a, eq-33b, eq-34, eq-35, eq-36, eq-37, eq-38a, eq-38b, eq-38c
    """
    t = tables
    p_x, p_z, A = t.log_marginal, t.log_prior[:, None], t.A[:, None]
    log_h, log_h_latent = t.log_h, t.log_h_latent[:, None]
    from_encoder, from_decoder = t.psi @ t.g.T, t.f @ t.nu.T  # ⟨ψ(z), g(x)⟩ and ⟨ν(x), f(z)⟩
    encoder_part, decoder_part = from_encoder - t.B + p_x - log_h, from_decoder + p_z - log_h_latent - A
    difference = t.log_q - t.log_p
    extended = t.psi_extended @ t.g_extended.T - t.f_extended @ t.nu_extended.T
    log_decoder = t.log_joint - p_z
    decoder_term = t.f_extended @ t.nu_extended.T
    approximation = projected_harmonium(t)
    return [
        Step("eq-23a", t.log_q, from_encoder - t.B + log_h_latent, equal=True),
        Step("eq-23b", t.log_p, from_decoder - A + log_h + p_z - p_x, equal=True),
        # One equation under two numbers: (25) is its second part, and the minus sign belongs to all of it.
        Step("eq-24", difference, encoder_part - decoder_part, equal=True),
        Step("eq-26", difference, extended, equal=True),
        Step("eq-31", extended.square() @ t.data, difference.square() @ t.data, equal=True),
        *_projection_steps(t),
        Step("eq-37", (decoder_term - t.psi_extended @ approximation.weight.T @ t.nu_extended.T).square() @ t.data,
             t.posterior_error),
        Step("eq-38a", decoder_term, from_decoder + p_z - A - log_h_latent, equal=True),
        Step("eq-38b", decoder_term, log_decoder + p_z - log_h - log_h_latent, equal=True),
        Step("eq-38c", decoder_term, t.log_joint - log_h - log_h_latent, equal=True),
        Step("eq-39", approximation.error, t.posterior_error),
        Step("eq-22", (approximation.log_joint - t.log_joint).square() @ t.data, difference.square() @ t.data),
    ]  # fmt: skip


def _projection_steps(t: Tables) -> list[Step]:
    """The residual ξ over x for each z, projected onto the range of V: steps 33a to 36."""
    V, G, f, psi = t.nu_extended, t.g_extended, t.f_extended.T, t.psi_extended.T
    residual = V @ f - G @ psi  # (x, z), ξ of each z
    squared_norm = t.data @ residual.square()
    projected = _project(t, residual)
    weight = projected_harmonium(t).weight
    return [
        Step("eq-33a", residual, (t.log_p - t.log_q).T, equal=True),
        Step("eq-33b", squared_norm, t.posterior_error, equal=True),
        Step("eq-34", _project(t, V @ f) - _project(t, G @ psi), projected, equal=True),
        Step("eq-35", V @ f - _project(t, G @ psi), projected, equal=True),
        Step("eq-36", (t.data @ (V @ f - V @ weight @ psi).square()).sqrt(), squared_norm.sqrt()),
    ]
