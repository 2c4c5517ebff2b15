"""Theorems 1 and A.1 as linear algebra: whether a joint law is log-bilinear, with which W, u, v, or how far off.

All of it works on one table, t(x, z) = log p(x, z) − log h(x) − log h'(z), at listed points x and z. For a VAE with
exponential-family decoder and encoder the table is a product of three matrices exactly if the VAE is consistent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.exact import Rule, common_log_base_measure, log_joint, log_marginal, require_finite, require_weights
from efvae.harmonium import Harmonium
from efvae.minimal import RANK_TOLERANCE, anchors, extend, independent_columns, span
from efvae.models import VAE, MakeFamily

__all__ = [
    "JointTable",
    "LogBilinear",
    "distance",
    "fit",
    "from_decoder",
    "from_encoder",
    "interpolate",
    "joint_table",
    "prior_residual",
]


@dataclass(frozen=True)
class JointTable:
    """The log-joint without its base measures at listed points, and the statistics there.

    Args:
        values: log p(x, z) − log h(x) − log h'(z) in nats, rows by z, columns by x, shape ``(k, batch)``.
        nu: ν(x), shape ``(batch, n)``.
        psi: ψ(z), shape ``(k, m)``.

    Paper: thm-a1
    """

    values: Tensor
    nu: Tensor
    psi: Tensor

    def minimal(self) -> JointTable:
        """The same table with statistics from which dependent components are struck out."""
        return JointTable(
            self.values, self.nu[:, independent_columns(self.nu)], self.psi[:, independent_columns(self.psi)]
        )


@dataclass(frozen=True)
class LogBilinear:
    """A log-bilinear function of (x, z): extended statistics around one matrix.

    ::

        t(x, z) = ⟨ν~(x), W~ ψ~(z)⟩ = ⟨ν, W ψ⟩ + ⟨ν, u⟩ + ⟨ψ, v⟩ + c,   W~ = (W u; vᵀ c)

    Args:
        extended: W~, shape ``(n + 1, m + 1)``.

    Paper: eq-7, thm-a1, eq-17
    """

    extended: Tensor

    @property
    def weight(self) -> Tensor:
        """W, shape ``(n, m)``."""
        return self.extended[:-1, :-1]

    @property
    def visible_bias(self) -> Tensor:
        """u, shape ``(n,)``."""
        return self.extended[:-1, -1]

    @property
    def latent_bias(self) -> Tensor:
        """v, shape ``(m,)``."""
        return self.extended[-1, :-1]

    @property
    def constant(self) -> Tensor:
        """c, minus the log-partition where the function is a log-density, in nats."""
        return self.extended[-1, -1]

    def values(self, nu: Tensor, psi: Tensor) -> Tensor:
        """The function at all pairs, shape ``(k, batch)``."""
        return extend(psi) @ self.extended.T @ extend(nu).T

    def harmonium(self, visible: MakeFamily, latent: MakeFamily) -> Harmonium:
        """The harmonium with these W, u, v; its constant is its own.

        Paper: eq-7
        """
        return Harmonium(visible, latent, self.weight, self.visible_bias, self.latent_bias)


def joint_table(vae: VAE, x: Tensor, rule: Rule) -> JointTable:
    """The table of a VAE; its encoder tells ψ and h' only.

    Args:
        vae: the model, float64.
        x: observations with h(x) > 0, shape ``(batch, *event)``, float64.
        rule: points of the latent space with h'(z) > 0; its weights are not used.

    Raises:
        ValueError: the decoder's h(x) depends on the code; prior, decoder or encoder give a point no probability; or
            see :func:`efvae.exact.log_joint`.

    Paper: asm-1, thm-a1
    """
    decoder, encoder = vae.decoder(rule.points), vae.encode(x)
    base = common_log_base_measure(decoder, x) + encoder.log_base_measure(rule.points)[:, None]
    values = log_joint(vae, x, rule) - base
    require_finite("joint_table", values)
    return JointTable(values, decoder.sufficient_statistic(x), encoder.sufficient_statistic(rule.points))


def fit(table: JointTable, x_weights: Tensor | None = None, z_weights: Tensor | None = None) -> LogBilinear:
    """The log-bilinear function nearest to the table, by least squares.

    ::

        min over W~ of Σ_x Σ_z w(x) w'(z) (t(x, z) − ⟨ν~(x), W~ ψ~(z)⟩)²,     W~ᵀ = Ψ~⁺ T (N~⁺)ᵀ

    Where the statistics are not minimal, the solution of least norm among many.

    Args:
        table: see :func:`joint_table`.
        x_weights: w > 0, shape ``(batch,)``; default 1. For a VAE's table the solution does not depend on them.
        z_weights: w' > 0, shape ``(k,)``; default 1.

    Raises:
        ValueError: weights of another shape, or negative ones.

    Paper: thm-1, eq-7
    Own: own-projection
    """
    for name, weights, n in zip(("z_weights", "x_weights"), (z_weights, x_weights), table.values.shape, strict=True):
        if weights is not None and (weights.shape != (n,) or not bool((weights >= 0).all())):
            raise ValueError(f"fit: needs {name} ≥ 0 of shape ({n},), got the shape {tuple(weights.shape)}")
    nu, psi, values = extend(table.nu), extend(table.psi), table.values
    if x_weights is not None:
        root = x_weights.sqrt()
        nu, values = nu * root[:, None], values * root
    if z_weights is not None:
        root = z_weights.sqrt()
        psi, values = psi * root[:, None], values * root[:, None]
    inverse_psi, inverse_nu = (torch.linalg.pinv(s, rtol=RANK_TOLERANCE) for s in (psi, nu))
    return LogBilinear((inverse_psi @ values @ inverse_nu.T).T)


def distance(table: JointTable, x_weights: Tensor | None = None, z_weights: Tensor | None = None) -> Tensor:
    """Distance of a VAE to the consistent set in the space of log-joints, in nats, a scalar.

    ::

        min over W~ of ( Σ_x w(x) Σ_z w'(z) (t(x, z) − ⟨ν~(x), W~ ψ~(z)⟩)² )^½

    It is zero exactly if the VAE is consistent on the x with w(x) > 0 and the z with w'(z) > 0. With equal w' the k
    latent states should be all there are: of a continuous latent space the value would be that of the chosen points,
    and grow with their range. There take the prior's mass at the points of a rule,
    ``(vae.prior().log_prob(rule.points) + rule.log_weights).softmax(0)``: it is an integral then, which finer rules
    give as well.

    Args:
        table: see :func:`joint_table`.
        x_weights: w, summing to one, shape ``(batch,)``; default the same for all.
        z_weights: w', summing to one, shape ``(k,)``; default the same for all.

    Raises:
        ValueError: no observation, weights of another shape, or that do not sum to one.

    Paper: thm-1
    Own: own-projection
    """
    n = table.values.shape[1]
    if not n:
        raise ValueError("distance: no observation, so that nothing is shown")
    if x_weights is not None:
        require_weights("distance", x_weights, table.values.T)
    if z_weights is not None:
        require_weights("distance", z_weights, table.values)
    residual = table.values - fit(table, z_weights=z_weights).values(table.nu, table.psi)
    square = residual.square().mean(0) if z_weights is None else z_weights @ residual.square()
    return (square.mean() if x_weights is None else (square * x_weights).sum()).sqrt()


def interpolate(table: JointTable) -> LogBilinear:
    """W~ from (n + 1)(m + 1) entries of the table, exact at a consistent VAE: what the proof leaves to compute.

    ::

        W~ = N⁻¹ T₀ᵀ M⁻ᵀ,   rows of N: ν~(x_i), rows of M: ψ~(z_j), T₀: the table at these x_i and z_j

    Args:
        table: see :func:`joint_table`; minimal statistics.

    Raises:
        ValueError: a statistic is not minimal.

    Paper: thm-a1, eq-17
    """
    i, j = anchors(table.nu), anchors(table.psi)
    half = torch.linalg.solve(extend(table.psi)[j], table.values[j][:, i])
    return LogBilinear(torch.linalg.solve(extend(table.nu)[i], half.T))


def from_encoder(vae: VAE, x: Tensor, rule: Rule) -> LogBilinear:
    """W~ = N⁻¹ G of the proof, from the encoder's network at n + 1 observations; exact if the VAE is tight.

    ::

        rows of G: g~(x_i) = (g(x_i), log p(x_i) − log h(x_i) − B(x_i))

    Args:
        vae, x, rule: see :func:`joint_table`; the weights of ``rule`` are used, for p(x). ν must be minimal on x.

    Paper: thm-a1, eq-16b, eq-17
    """
    decoder, encoder = vae.decoder(rule.points), vae.encoder(x)
    last = log_marginal(vae, x, rule) - decoder.log_base_measure(x) - encoder.log_partition()
    g = torch.cat([encoder.eta, last[:, None]], 1)
    nu = decoder.sufficient_statistic(x)
    i = anchors(nu)
    return LogBilinear(torch.linalg.solve(extend(nu)[i], g[i]))


def from_decoder(vae: VAE, x: Tensor, rule: Rule) -> LogBilinear:
    """The same matrix from the decoder's network and the prior, at m + 1 codes.

    ::

        rows of F: f~(z_j) = (f(z_j), log p(z_j) − log h'(z_j) − A(f(z_j))),     W~ᵀ = M⁻¹ F

    Args:
        vae, x, rule: see :func:`joint_table`. ψ must be minimal on the points; ν must be minimal for the result to be
            the only one.

    Paper: thm-a1, eq-16a, eq-17
    """
    psi = vae.encoder(x).sufficient_statistic(rule.points)
    j = anchors(psi)
    f = torch.cat([vae.decoder(rule.points).eta, _prior_term(vae, x, rule)[:, None]], 1)
    return LogBilinear(torch.linalg.solve(extend(psi)[j], f[j]).T)


def prior_residual(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """How far the prior is from the one that its decoder asks for, in nats at each point, shape ``(k,)``.

    ::

        r(z) = log p(z) − log h'(z) − A(f(z)),    r minus its best fit by 1, ψ_1(z), …, ψ_m(z)

    With a decoder of the form W ψ(z) + u the VAE is consistent exactly if this is zero.

    Args:
        vae, x, rule: see :func:`joint_table`.

    Own: own-prior-pinned
    """
    basis = span(extend(vae.encoder(x).sufficient_statistic(rule.points)))
    r = _prior_term(vae, x, rule)
    return r - basis @ (basis.T @ r)


def _prior_term(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    base = vae.encoder(x).log_base_measure(rule.points)
    return vae.prior().log_prob(rule.points) - base - vae.decoder(rule.points).log_partition()
