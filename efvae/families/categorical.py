"""One distribution over finitely many labelled states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efvae.families.base import ExponentialFamily, draw_states

__all__ = ["Categorical"]


class Categorical(ExponentialFamily):
    """Any distribution on k listed states.

    ::

        ν(x) = (⟦x = s_1⟧, …, ⟦x = s_k⟧),   h(x) = ⟦x ∈ {s_1, …, s_k}⟧,   A(η) = log Σ_j exp η_j

    The statistic is not minimal: adding a constant to η changes nothing. Without ``states`` the values are the
    k one-hot vectors. With ``states`` set to all bit vectors this is the saturated family on {0, 1}^m, which
    contains every posterior of a binary code, and the prior of a harmonium.

    Args:
        eta: logits, shape ``(*batch, k)``. One of −∞ is a state of probability zero, a limit of the family.
        states: the states, shape ``(k, n)``, pairwise different (not checked here, see
            :class:`~efvae.models.CategoricalOver`); default the identity (one-hot vectors).

    Raises:
        ValueError: ``states`` does not have one row for each logit.

    Paper: sec-4-1, fig-2
    """

    discrete = True

    def __init__(self, eta: Tensor, states: Tensor | None = None) -> None:
        super().__init__(eta)
        k = eta.shape[-1]
        self.states = torch.eye(k, dtype=eta.dtype, device=eta.device) if states is None else states
        if self.states.ndim != 2 or self.states.shape[0] != k:
            raise ValueError(
                f"Categorical: states must have shape (k, n) with k = {k} logits, got {tuple(self.states.shape)}"
            )

    @property
    def event_shape(self) -> torch.Size:
        return self.states.shape[1:]

    def with_eta(self, eta: Tensor) -> Categorical:
        return Categorical(eta, self.states)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) == self.states).all(-1).to(self.eta.dtype)

    def log_base_measure(self, x: Tensor) -> Tensor:
        return self.sufficient_statistic(x).sum(-1).log()  # 0 on a listed state, −inf elsewhere

    def expected_log_base_measure(self) -> Tensor:
        return torch.zeros_like(self.eta[..., 0])

    def log_partition(self) -> Tensor:
        return torch.logsumexp(self.eta, -1)

    def mean(self) -> Tensor:
        return torch.softmax(self.eta, -1)

    # the general laws have products of zero and a logit of −∞

    def log_prob(self, x: Tensor) -> Tensor:
        self._refuse_another_event(x)
        statistic = self.sufficient_statistic(x)
        inner = torch.where(statistic > 0, self.eta, 0.0).sum(-1)
        return statistic.sum(-1).log() + inner - self.log_partition()

    def kl(self, other: ExponentialFamily) -> Tensor:
        self._refuse_another_family(other)
        p = self.mean()
        ratio = torch.log_softmax(self.eta, -1) - torch.log_softmax(other.eta, -1)
        return (p * torch.where(p > 0, ratio, 0.0)).sum(-1)

    def entropy(self) -> Tensor:
        p = self.mean()
        return -(p * torch.where(p > 0, torch.log_softmax(self.eta, -1), 0.0)).sum(-1)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            probs = torch.softmax(self.eta, -1).reshape(-1, self.eta.shape[-1])
            index = draw_states(probs, sample_shape, generator)
            return self.states[index.reshape(*sample_shape, *self.batch_shape)]

    def support(self) -> Tensor:
        return self.states
