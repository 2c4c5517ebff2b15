"""Two groups of bits with interactions between the groups: the encoder of the Bernoulli-MRF VAE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efvae.families.base import ExponentialFamily, draw_states, uniform
from efvae.families.bernoulli import all_bits

__all__ = ["BipartiteIsing"]


class BipartiteIsing(ExponentialFamily):
    """Bits z = (z1, z2) in two groups, with an interaction for each pair across the groups.

    ::

        ψ(z) = (z1, z2, z1 ⊗ z2),   η = (b1, b2, V),   ⟨ψ(z), η⟩ = ⟨b1, z1⟩ + ⟨b2, z2⟩ + z1ᵀ V z2
        A(η) = log Σ_{z1} exp(⟨b1, z1⟩ + Σ_k log(1 + exp(b2_k + (Vᵀ z1)_k)))       where z1 is the smaller group

    Either group is independent given the other: a restricted Boltzmann machine over the code. So all sums have
    2^min(m1, m2) terms, and beyond that block Gibbs sampling is left.

    Args:
        eta: b1, b2 and the rows of V one after the other, shape ``(*batch, m1 + m2 + m1 m2)``.
        sizes: m1 and m2, at least 1 each.

    Raises:
        ValueError: ``eta`` is not that long.

    Paper: case-mrf, eq-11, eq-4b
    """

    discrete = True

    def __init__(self, eta: Tensor, sizes: tuple[int, int]) -> None:
        super().__init__(eta)
        m1, m2 = self.sizes = sizes
        if m1 < 1 or m2 < 1 or eta.shape[-1] != m1 + m2 + m1 * m2:
            raise ValueError(
                f"BipartiteIsing: groups of {m1} and {m2} bits, at least 1 each, need m1 + m2 + m1 m2 = "
                f"{m1 + m2 + m1 * m2} parameters, got {eta.shape[-1]}"
            )

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size([sum(self.sizes)])

    def with_eta(self, eta: Tensor) -> BipartiteIsing:
        return BipartiteIsing(eta, self.sizes)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """b1, b2 and V, shapes ``(*batch, m1)``, ``(*batch, m2)`` and ``(*batch, m1, m2)``."""
        m1, m2 = self.sizes
        b1, b2, v = self.eta.split([m1, m2, m1 * m2], -1)
        return b1, b2, v.unflatten(-1, (m1, m2))

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        z1, z2 = x.split(list(self.sizes), -1)
        return torch.cat([x, (z1[..., :, None] * z2[..., None, :]).flatten(-2)], -1)

    def log_base_measure(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    def expected_log_base_measure(self) -> Tensor:
        return torch.zeros_like(self.eta[..., 0])

    def support(self) -> Tensor:
        return all_bits(sum(self.sizes), self.eta)

    # -- sums over the smaller group ---------------------------------------------------------------------------

    def _small(self) -> tuple[Tensor, Tensor, Tensor]:
        """States of the smaller group (k, s), their log-weights (*batch, k), logits of the other (*batch, k, l)."""
        b1, b2, v = self.parts()
        if self.sizes[0] > self.sizes[1]:
            b1, b2, v = b2, b1, v.mT
        states = all_bits(b1.shape[-1], self.eta)
        logits = b2[..., None, :] + states @ v
        # log1p(exp) by logaddexp: torch's softplus is 2e-9 off beyond 20.
        log_weight = b1 @ states.T + torch.logaddexp(logits, torch.zeros_like(logits)).sum(-1)
        return states, log_weight, logits

    def log_partition(self) -> Tensor:
        return torch.logsumexp(self._small()[1], -1)

    def mean(self) -> Tensor:
        states, log_weight, logits = self._small()
        weight = torch.softmax(log_weight, -1)
        joint = weight[..., None] * torch.sigmoid(logits)  # p(small state, large bit = 1)
        small, large, cross = weight @ states, joint.sum(-2), states.T @ joint
        if self.sizes[0] > self.sizes[1]:
            return torch.cat([large, small, cross.mT.flatten(-2)], -1)
        return torch.cat([small, large, cross.flatten(-2)], -1)

    # -- sampling ----------------------------------------------------------------------------------------------

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        generator: torch.Generator | None = None,
        *,
        sweeps: int | None = None,
    ) -> Tensor:
        """Draws of shape ``sample + batch + event``; no gradient.

        Args:
            sample_shape: leading shape.
            generator: source of randomness.
            sweeps: None draws exactly and independently: the smaller group from its 2^min(m1, m2) states, then the
                other given it. A number makes that many sweeps of block Gibbs from uniform bits, one chain for each
                draw: for groups too large to enumerate, and exact only in the limit.

        Raises:
            ValueError: exact draws from groups that are too large.
        """
        shape = (*sample_shape, *self.batch_shape, sum(self.sizes))
        with torch.no_grad():
            if sweeps is not None:
                half = torch.full(shape, 0.5, dtype=self.eta.dtype, device=self.eta.device)
                return self.gibbs(_bits(half, generator), sweeps, generator)
            states, log_weight, logits = self._small()
            probs = torch.softmax(log_weight, -1).reshape(-1, len(states))
            index = draw_states(probs, sample_shape, generator).T  # (batch, n)
            rows = torch.arange(len(index), device=index.device)[:, None]
            chosen = logits.reshape(-1, *logits.shape[-2:])[rows, index]
            groups = [states[index], _bits(torch.sigmoid(chosen), generator)]
            if self.sizes[0] > self.sizes[1]:
                groups.reverse()
            return torch.cat(groups, -1).transpose(0, 1).reshape(shape)

    def gibbs(self, z: Tensor, sweeps: int, generator: torch.Generator | None = None) -> Tensor:
        """Block Gibbs sampling: all of z1 given z2, then all of z2 given z1.

        ::

            z1 ~ p(z1 | z2) = sigmoid(b1 + V z2),   z2 ~ p(z2 | z1) = sigmoid(b2 + Vᵀ z1)

        One sweep leaves the distribution unchanged.

        Args:
            z: where the chains stand, shape ``sample + batch + event``.
            sweeps: number of sweeps, at least 0.
            generator: source of randomness.

        Own: own-code-gibbs
        """
        with torch.no_grad():
            b1, b2, v = self.parts()
            z1, z2 = z.split(list(self.sizes), -1)
            for _ in range(sweeps):
                z1 = _bits(torch.sigmoid(b1 + (v @ z2[..., None])[..., 0]), generator)
                z2 = _bits(torch.sigmoid(b2 + (v.mT @ z1[..., None])[..., 0]), generator)
            return torch.cat([z1, z2], -1)


def _bits(probability: Tensor, generator: torch.Generator | None) -> Tensor:
    return (uniform(probability, (), generator) < probability).to(probability.dtype)
