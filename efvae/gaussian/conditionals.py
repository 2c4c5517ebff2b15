"""Harmonia with continuous codes, and the bivariate laws whose two conditionals are Gaussian but that are not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efvae.exact import Rule
from efvae.families import Categorical, ExponentialFamily, Gaussian
from efvae.harmonium import Harmonium
from efvae.models import VAE, Conditional, MakeFamily, Prior

__all__ = [
    "ContinuousHarmonium",
    "TiedPrior",
    "gelman_meng",
    "gelman_meng_modes",
    "is_normalisable",
    "normal_conditionals",
]


class ContinuousHarmonium(Harmonium):
    """A harmonium whose codes are continuous: sums over z become a quadrature rule.

    Args:
        visible, latent, weight, visible_bias, latent_bias: as for :class:`efvae.harmonium.Harmonium`.
        rule: points and weights over the latent space, wide and fine enough for the marginal of z.

    Paper: eq-7, eq-10
    """

    def __init__(
        self,
        visible: MakeFamily,
        latent: MakeFamily,
        weight: Tensor,
        visible_bias: Tensor,
        latent_bias: Tensor,
        rule: Rule,
    ) -> None:
        super().__init__(visible, latent, weight, visible_bias, latent_bias)
        self.rule = rule

    def log_partition(self) -> Tensor:
        """log Z in nats by the rule, a scalar."""
        return torch.logsumexp(self.latent_log_weight(self.rule.points) + self.rule.log_weights, 0)

    def as_vae(self) -> VAE:
        """The same joint as a VAE: the prior is :class:`TiedPrior`, decoder and encoder share the parameters.

        Paper: thm-1
        """
        encoder, decoder = self._to_latent, self._to_visible
        prior = Prior(self.latent_bias.detach(), lambda eta: TiedPrior(eta, self))
        return VAE(prior, Conditional(decoder, self.visible), Conditional(encoder, self.latent))


class TiedPrior(ExponentialFamily):
    """The prior that a tight VAE must have: the harmonium's marginal of z, as an exponential family in v.

    ::

        p(z) ∝ h'(z) exp(A(W ψ(z) + u)) · exp⟨ψ(z), v⟩

    Its base measure carries the decoder's log-partition; its own log-partition is a quadrature.

    Args:
        eta: v, shape ``(m,)``.
        harmonium: gives h', ψ, W, u and the rule.

    Paper: eq-5, eq-7
    """

    discrete = False

    def __init__(self, eta: Tensor, harmonium: ContinuousHarmonium) -> None:
        super().__init__(eta)
        self.harmonium = harmonium

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one code z."""
        return self.harmonium.rule.points.shape[1:]

    def _latent(self) -> ExponentialFamily:
        return self.harmonium.latent(self.eta)

    def with_eta(self, eta: Tensor) -> TiedPrior:
        """The tied prior at another v (same W and u)."""
        return TiedPrior(eta, self.harmonium)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        """ψ(z)."""
        return self._latent().sufficient_statistic(x)

    def log_base_measure(self, x: Tensor) -> Tensor:
        """log h'(z) + A(W ψ(z) + u) in nats."""
        harmonium = self.harmonium
        return self._latent().log_base_measure(x) + harmonium.visible(harmonium.visible_eta(x)).log_partition()

    def log_partition(self) -> Tensor:
        """Log of the integral by the harmonium's rule, in nats."""
        points, log_weights = self.harmonium.rule.points, self.harmonium.rule.log_weights
        inner = (self.sufficient_statistic(points) * self.eta).sum(-1)
        return torch.logsumexp(self.log_base_measure(points) + inner + log_weights, 0)

    def same_base_measure(self, other: ExponentialFamily) -> bool:
        """Whether both come from harmonia with the same families, W, u and rule, on which the base measure depends."""
        if not isinstance(other, TiedPrior):
            return False
        one, two = self.harmonium, other.harmonium
        return one is two or (
            (one.visible, one.latent) == (two.visible, two.latent)
            and all(
                torch.equal(a, b)
                for a, b in (
                    (one.weight, two.weight),
                    (one.visible_bias, two.visible_bias),
                    (one.rule.points, two.rule.points),
                    (one.rule.log_weights, two.rule.log_weights),
                )
            )
        )

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws from the points of the rule, so rounded to its spacing."""
        rule = self.harmonium.rule
        with torch.no_grad():
            logits = self.log_prob(rule.points) + rule.log_weights
            return Categorical(logits, rule.points).sample(sample_shape, generator)


def is_normalisable(table: Tensor) -> bool:
    """Whether exp(Σ_ij m_ij x^i z^j), i, j ∈ {0, 1, 2}, has a finite integral over the plane.

    ::

        either   m22 = m12 = m21 = 0,   m20 < 0,   m11² < 4 m20 m02          (bivariate Gaussian)
        or       m22 < 0,   m12² < 4 m22 m02,   m21² < 4 m22 m20             (both conditionals Gaussian, the joint not)

    Args:
        table: m, rows by the power of x, columns by the power of z, shape ``(3, 3)``; m00 does not matter.

    Own: own-normal-conditionals
    """
    m = table.tolist()
    m11, m12, m21, m22, m20, m02 = m[1][1], m[1][2], m[2][1], m[2][2], m[2][0], m[0][2]
    if m22 == 0:
        return bool(m12 == 0 and m21 == 0 and m20 < 0 and m11**2 < 4 * m20 * m02)
    return bool(m22 < 0 and m12**2 < 4 * m22 * m02 and m21**2 < 4 * m22 * m20)


def normal_conditionals(table: Tensor, rule: Rule) -> ContinuousHarmonium:
    """The law exp(Σ_ij m_ij x^i z^j) on the plane as a harmonium of two Gaussians: ν = (x, x²), ψ = (z, z²).

    Args:
        table: m as for :func:`is_normalisable`, float64.
        rule: quadrature over z.

    Raises:
        ValueError: the law has no finite integral.

    Own: own-normal-conditionals
    Paper: case-gaussian
    """
    if not is_normalisable(table):
        raise ValueError("normal_conditionals: exp(Σ m_ij x^i z^j) has no finite integral, see is_normalisable")
    return ContinuousHarmonium(Gaussian, Gaussian, table[1:, 1:], table[1:, 0], table[0, 1:], rule)


def gelman_meng(pull: float) -> Tensor:
    """Table m of the law exp(−½ (x²z² + x² + z²) + C (x + z)): both conditionals Gaussian, two modes if C > 2.

    ::

        p(x | z) = N(C/(1 + z²), 1/(1 + z²)),   and the same with x and z exchanged

    Args:
        pull: C.

    Own: own-bimodal
    """
    return torch.tensor([[0.0, pull, -0.5], [pull, 0.0, 0.0], [-0.5, 0.0, -0.5]], dtype=torch.float64)


def gelman_meng_modes(pull: float) -> Tensor:
    """All local maxima of the law of :func:`gelman_meng`, C ≥ 0, shape ``(1 or 2, 2)``.

    ::

        C > 2:   (t, 1/t) and (1/t, t),   t = (C + √(C² − 4))/2          C ≤ 2:   (s, s),   s³ + s = C

    Raises:
        ValueError: C is negative (mirror the law instead).

    Own: own-bimodal
    """
    c = torch.tensor(pull, dtype=torch.float64)
    if c < 0:
        raise ValueError(f"gelman_meng_modes: C must not be negative, got {pull}")
    if c > 2:
        t = (c + (c * c - 4).sqrt()) / 2
        return torch.stack([torch.stack([t, 1 / t]), torch.stack([1 / t, t])])
    # s³ + s = C by hyperbolic functions: one real root
    s = 2 / 3**0.5 * torch.sinh(torch.asinh(c * 1.5 * 3**0.5) / 3)
    return torch.stack([s, s])[None]
