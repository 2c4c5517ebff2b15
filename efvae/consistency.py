"""The consistent set and the posterior gap, for latent spaces small enough to enumerate.

The consistent set holds the decoders whose true posteriors lie in the encoder's family; there, and only there, can
the ELBO reach the likelihood. :class:`PixelPair` is a family with two free parameters in which all of this can be
seen: likelihood, gap, both maximisers and the consistent set.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn

from efvae.exact import Rule, log_posterior, mean_field, require_finite
from efvae.families import Bernoulli, all_bits
from efvae.minimal import extend, span
from efvae.models import VAE, Conditional, Prior

__all__ = ["PixelPair", "family_residual", "is_consistent", "posterior_gap"]


def family_residual(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """How far the true posterior of each x is from the encoder's exponential family, in nats, shape ``(batch,)``.

    ::

        max_z | log p(z | x) − log h'(z) − B − ⟨ψ(z), η⟩ |,   B and η by least squares

    It is zero exactly if some encoder parameter η gives p(z | x); how the encoder's network would produce that η is
    not asked. The largest residual over all x is zero exactly on the consistent set of the encoder's family. Of a
    continuous latent space only whether it is zero means something: the maximum is over the points of the rule.

    Args:
        vae: the model, float64; its encoder tells the family only.
        x: observations, shape ``(batch, *event)``, float64.
        rule: all states of the latent space, see :func:`efvae.exact.enumerate_states`.

    Returns:
        The residual; infinite where a state has posterior probability zero, which no member of the family gives.

    Paper: eq-3, thm-1
    """
    q = vae.encode(x)
    log_ratio = log_posterior(vae, x, rule) - q.log_base_measure(rule.points[:, None])
    statistic = q.sufficient_statistic(rule.points)
    basis = span(extend(statistic))  # of the rank's size: a statistic need not be minimal
    residual = log_ratio - basis @ (basis.T @ log_ratio)
    return torch.where(log_ratio.isfinite().all(0), residual.abs().amax(0), torch.inf)


def is_consistent(vae: VAE, x: Tensor, rule: Rule, tolerance: float = 1e-9) -> bool:
    """Whether the decoder is in the consistent set: every posterior lies in the encoder's family.

    Args:
        vae, x, rule: see :func:`family_residual`; x holds every observation that the data can give.
        tolerance: largest residual taken for zero, in nats.

    Raises:
        ValueError: no observation.

    Paper: eq-3
    """
    if not len(x):
        raise ValueError("is_consistent: no observation, so that nothing is shown")
    return bool((family_residual(vae, x, rule) <= tolerance).all())


def posterior_gap(log_joint: Tensor, n_bits: int) -> Tensor:
    """The least posterior gap of a factorized encoder over bits, in nats, shape ``batch``.

    ::

        min_q KL(q(z) ‖ p(z | x)),   q(z) = Π_i q_i(z_i)

    Its gradient is that of the KL at the fixed best q (envelope theorem), so differentiating needs no second search.

    Args:
        log_joint: log p(x, z) up to a constant for each x, codes in counting order, shape ``(2**n_bits, *batch)``;
            finite.
        n_bits: number of latent bits.

    Raises:
        ValueError: a code of probability zero, or something that is not finite.

    Paper: eq-1b, eq-3, fig-1
    """
    require_finite("posterior_gap", log_joint)
    batch = log_joint.shape[1:]
    if not log_joint.numel():
        return log_joint.sum(0)
    q = _best_factorized(log_joint.detach().flatten(1), n_bits)
    log_q = q.log_prob(all_bits(n_bits)[:, None]).reshape(-1, *batch)
    log_post = log_joint - torch.logsumexp(log_joint, 0)
    # The minimum is never negative; rounding may make it so where the posterior factorizes.
    return (log_q.exp() * (log_q - log_post)).sum(0).clamp(min=0.0)


def _best_factorized(table: Tensor, n_bits: int) -> Bernoulli:
    """Coordinate ascent to a rough optimum, then Newton steps on its fixed-point equation logit q_i = ∂E_q log p/∂q_i.

    Where two optima merge, coordinate ascent alone needs more than any number of sweeps for the last digits.
    """
    bits, column = all_bits(n_bits), table.T

    def derivative(mean: Tensor, *which: int) -> Tensor:
        """Of E_q log p with respect to some of the bits' means, of which it is an affine function each."""
        factors = torch.where(bits == 1, mean[:, None], 1 - mean[:, None])
        factors[..., which] = 2 * bits[:, which] - 1
        return (factors.prod(-1) * column).sum(-1)

    def slope(mean: Tensor) -> Tensor:
        return torch.stack([derivative(mean, i) for i in range(n_bits)], -1)

    eta = mean_field(table, n_bits, tolerance=1e-6, max_sweeps=100_000).eta
    residual = eta - slope(eta.sigmoid())
    for _ in range(8):
        mean = eta.sigmoid()
        jacobian = torch.eye(n_bits, dtype=table.dtype).repeat(len(eta), 1, 1)
        for i, j in permutations(range(n_bits), 2):
            jacobian[:, i, j] = -derivative(mean, i, j) * mean[:, j] * (1 - mean[:, j])
        trial = eta - torch.linalg.solve_ex(jacobian, residual)[0]
        trial_residual = trial - slope(trial.sigmoid())
        closer = (trial_residual.abs().amax(1) < residual.abs().amax(1))[:, None]  # false for a step that is not finite
        if not closer.any():
            break
        eta, residual = torch.where(closer, trial, eta), torch.where(closer, trial_residual, residual)
    return Bernoulli(eta)


@dataclass(frozen=True)
class PixelPair:
    """Two latent bits behind a few binary pixels, with two free decoder weights θ = (θ1, θ2).

    ::

        p(z) = 1/4,   logit p(x_i = 1 | z) = ⟨w_i, s⟩,   s = 2z − 1 ∈ {−1, 1}²

    The first pixels have fixed weights w_i; the others, ``copies`` of them, all have w_i = θ.

    Args:
        fixed: weights of the first pixels, shape ``(k, 2)``, float64.
        copies: number of pixels with weights θ, at least 1.

    Paper: sec-2, fig-1
    """

    fixed: Tensor
    copies: int

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return len(self.fixed) + self.copies

    def vae(self, theta: Tensor, encoder_network: nn.Module) -> VAE:
        """The VAE at one θ of shape ``(2,)``; θ is a parameter of its decoder."""
        prior = Prior(torch.zeros(2, dtype=self.fixed.dtype), Bernoulli)
        decoder = Conditional(_PixelLogits(self.fixed, theta, self.copies), Bernoulli)
        return VAE(prior, decoder, Conditional(encoder_network, Bernoulli))

    def log_joint(self, theta: Tensor) -> Tensor:
        """log p(x, z) for all codes and images in counting order, shape ``(4, 2**n_pixels, *batch)``.

        Args:
            theta: shape ``(*batch, 2)``, float64.
        """
        lead = theta.shape[:-1]
        free = theta[..., None, :].expand(*lead, self.copies, 2)
        weight = torch.cat([self.fixed.expand(*lead, -1, 2), free], -2)
        logit = (2 * all_bits(2) - 1) @ weight.mT  # (*lead, 4, n)
        x = all_bits(self.n_pixels)
        table = logit @ x.T + Bernoulli(logit).log_partition()[..., None].neg() - torch.log(theta.new_tensor(4.0))
        return table.movedim((-2, -1), (0, 1))

    def data(self, theta: Tensor) -> Tensor:
        """p(x) of all images at one θ, shape ``(2**n_pixels,)``: the data distribution of a known truth."""
        with torch.no_grad():
            return torch.logsumexp(self.log_joint(theta), 0).exp()

    def log_likelihood(self, theta: Tensor, data: Tensor) -> Tensor:
        """L(θ) = Σ_x p_d(x) log p_θ(x) in nats, shape ``batch``.

        Paper: sec-2, eq-2
        """
        return torch.einsum("x,x...->...", data, torch.logsumexp(self.log_joint(theta), 0))

    def gap(self, theta: Tensor, data: Tensor) -> Tensor:
        """F(θ) = Σ_x p_d(x) min_q KL(q ‖ p_θ(z | x)) in nats, shape ``batch``; factorized q.

        Paper: eq-1b, eq-2, fig-1
        """
        return torch.einsum("x,x...->...", data, posterior_gap(self.log_joint(theta), 2))

    def interaction(self, theta: Tensor) -> Tensor:
        """Coefficient of s1 s2 in log p(z | x), shape ``batch``; the same for every x, zero on the consistent set.

        ::

            −Σ_i artanh(tanh(w_i1 / 2) · tanh(w_i2 / 2))

        Paper: eq-3, fig-1
        """
        return -_pull(self.fixed).sum() - self.copies * _pull(theta)

    def consistent_curve(self, u: Tensor, sign: float) -> Tensor:
        """The consistent set as a curve, shape ``(*batch, 2)``; one of two branches.

        ::

            tanh(θ1 / 2) = ± |k|^σ(u),   tanh(θ2 / 2) = k / tanh(θ1 / 2),   artanh k = −Σ_fixed artanh(…) / copies

        Args:
            u: place on the branch, any real numbers, shape ``batch``.
            sign: +1 for the branch with θ1 > 0, −1 for the one with θ1 < 0.

        Raises:
            ValueError: the fixed pixels alone have no interaction, so the set is the pair of axes θ1 = 0 and θ2 = 0.

        Paper: eq-3, fig-1
        """
        k = torch.tanh(-_pull(self.fixed).sum() / self.copies)
        if k == 0:
            raise ValueError("consistent_curve: the fixed weights have no interaction, the set is the two axes")
        t1 = sign * k.abs() ** torch.sigmoid(u)
        return 2 * torch.atanh(torch.stack([t1, k / t1], -1))


def _pull(weight: Tensor) -> Tensor:
    """artanh(tanh(a/2) tanh(b/2)) as ½ log(cosh((a + b)/2) / cosh((a − b)/2)), which cannot overflow."""
    same, other = weight.sum(-1), weight[..., 0] - weight[..., 1]
    return 0.5 * (torch.logaddexp(same / 2, -same / 2) - torch.logaddexp(other / 2, -other / 2))


class _PixelLogits(nn.Module):
    def __init__(self, fixed: Tensor, theta: Tensor, copies: int) -> None:
        super().__init__()
        self.fixed: Tensor
        self.register_buffer("fixed", fixed.clone())
        self.theta = nn.Parameter(theta.detach().clone())
        self.copies = copies

    def forward(self, z: Tensor) -> Tensor:
        weight = torch.cat([self.fixed, self.theta.expand(self.copies, 2)])
        return (2 * z - 1) @ weight.T
