"""Exponential-family harmonium: the joint model to which a tight VAE is confined."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from efvae.families.bernoulli import require_bits
from efvae.models import VAE, CategoricalOver, Conditional, MakeFamily, Prior

__all__ = ["Harmonium"]


class _AffineInStatistic(nn.Module):
    """value ↦ weight · statistic(value) + bias. The parameters are shared with the harmonium, not copied."""

    def __init__(
        self,
        condition: MakeFamily,
        weight: nn.Parameter,
        bias: nn.Parameter,
        condition_bias: nn.Parameter,
        *,
        transpose: bool,
    ) -> None:
        super().__init__()
        self.condition = condition
        self.weight, self.bias, self.condition_bias = weight, bias, condition_bias
        self.transpose = transpose

    def forward(self, value: Tensor) -> Tensor:
        statistic = self.condition(self.condition_bias).sufficient_statistic(value)
        return statistic @ (self.weight if self.transpose else self.weight.T) + self.bias


class Harmonium(nn.Module):
    """Joint distribution whose logarithm is bilinear in the sufficient statistics.

    ::

        log p(x, z) = log h(x) + log h'(z) + ⟨ν(x), W ψ(z)⟩ + ⟨ν(x), u⟩ + ⟨ψ(z), v⟩ − log Z

    Both conditionals are members of the given families, with parameters W ψ(z) + u and Wᵀ ν(x) + v. With Bernoulli
    units on both sides it is the restricted Boltzmann machine. Z is a sum over the states of one side, which must be
    finite; the other side may be large or continuous.

    Args:
        visible: family of x from its natural parameters (n of them), e.g. ``Bernoulli``.
        latent: family of z from its natural parameters (m of them), with a finite support.
        weight: W, shape ``(n, m)``.
        visible_bias: u, shape ``(n,)``.
        latent_bias: v, shape ``(m,)``.
        sum_over: the side whose states are summed for Z: the smaller one.

    Raises:
        ValueError: the shapes do not match, or ``sum_over`` names no side.

    Paper: eq-7, eq-5, eq-6, eq-12, thm-1, fig-2
    """

    def __init__(
        self,
        visible: MakeFamily,
        latent: MakeFamily,
        weight: Tensor,
        visible_bias: Tensor,
        latent_bias: Tensor,
        *,
        sum_over: Literal["latent", "visible"] = "latent",
    ) -> None:
        super().__init__()
        if sum_over not in ("latent", "visible"):
            raise ValueError(f"Harmonium: sum_over must be 'latent' or 'visible', got {sum_over!r}")
        if visible_bias.ndim != 1 or latent_bias.ndim != 1:
            raise ValueError(
                f"Harmonium: the biases must have the shapes (n,) and (m,), got {tuple(visible_bias.shape)} and "
                f"{tuple(latent_bias.shape)}"
            )
        if weight.shape != (*visible_bias.shape, *latent_bias.shape):
            raise ValueError(
                f"Harmonium: weight must have shape (n, m) = ({visible_bias.numel()}, {latent_bias.numel()}), "
                f"got {tuple(weight.shape)}"
            )
        self.visible = visible
        self.latent = latent
        self.sum_over = sum_over
        self.weight = nn.Parameter(weight.clone())
        self.visible_bias = nn.Parameter(visible_bias.clone())
        self.latent_bias = nn.Parameter(latent_bias.clone())
        u, v = self.visible_bias, self.latent_bias
        self._to_visible = _AffineInStatistic(latent, self.weight, bias=u, condition_bias=v, transpose=False)
        self._to_latent = _AffineInStatistic(visible, self.weight, bias=v, condition_bias=u, transpose=True)

    def visible_eta(self, z: Tensor) -> Tensor:
        """W ψ(z) + u, shape ``(*batch, n)``."""
        eta: Tensor = self._to_visible(z)
        return eta

    def latent_eta(self, x: Tensor) -> Tensor:
        """Wᵀ ν(x) + v, shape ``(*batch, m)``."""
        eta: Tensor = self._to_latent(x)
        return eta

    def latent_log_weight(self, z: Tensor) -> Tensor:
        """log of the unnormalised marginal of z in nats, shape ``(*batch)``.

        ::

            log h'(z) + ⟨ψ(z), v⟩ + A(W ψ(z) + u)
        """
        latent = self.latent(self.latent_bias)
        inner = (latent.sufficient_statistic(z) * self.latent_bias).sum(-1)
        return latent.log_base_measure(z) + inner + self.visible(self.visible_eta(z)).log_partition()

    def visible_log_weight(self, x: Tensor) -> Tensor:
        """log of the unnormalised marginal of x in nats, shape ``(*batch)``.

        ::

            log h(x) + ⟨ν(x), u⟩ + B(Wᵀ ν(x) + v)
        """
        visible = self.visible(self.visible_bias)
        inner = (visible.sufficient_statistic(x) * self.visible_bias).sum(-1)
        return visible.log_base_measure(x) + inner + self.latent(self.latent_eta(x)).log_partition()

    def log_partition(self) -> Tensor:
        """log Z in nats, a scalar: a sum over the states of one side, the other is summed in closed form.

        Raises:
            ValueError: that side cannot be enumerated; :func:`efvae.gibbs.annealed_log_partition` estimates instead.
        """
        if self.sum_over == "visible":
            return torch.logsumexp(self.visible_log_weight(self.visible(self.visible_bias).support()), 0)
        return torch.logsumexp(self.latent_log_weight(self.latent(self.latent_bias).support()), 0)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) in nats, shape ``sample + batch``; the leading axes of x and z broadcast."""
        return self.visible(self.visible_eta(z)).log_prob(x) + self.latent_log_weight(z) - self.log_partition()

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x) in nats, shape ``(*batch)``, with live gradients: maximum likelihood needs no sampling.

        ::

            log h(x) + ⟨ν(x), u⟩ + B(Wᵀ ν(x) + v) − log Z

        Raises:
            ValueError: the visible units are bits, and x has other values.
        """
        require_bits(self.visible(self.visible_bias), x, "x")
        return self.visible_log_weight(x) - self.log_partition()

    def as_vae(self) -> VAE:
        """The same joint distribution as a VAE: its prior is the harmonium's marginal of z, and its ELBO is tight.

        Decoder and encoder share the harmonium's parameters; the prior is a fixed copy of the present marginal.

        Paper: thm-1
        """
        states = self.latent(self.latent_bias).support().detach()
        with torch.no_grad():
            eta = self.latent_log_weight(states)
        return VAE(
            Prior(eta, CategoricalOver(states)),
            Conditional(self._to_visible, self.visible),
            Conditional(self._to_latent, self.latent),
        )
