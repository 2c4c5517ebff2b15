"""An exponential family on listed states with any statistic."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from efvae.families.base import ExponentialFamily, draw_states, refuted

__all__ = ["Tabular"]


class Tabular(ExponentialFamily):
    """A family on k listed states whose statistic and base measure are tables.

    ::

        ν(s_j) = statistic[j],   log h(s_j) = log_base[j],   A(η) = log Σ_j h(s_j) exp⟨ν(s_j), η⟩

    Any exponential family with finite support has this form: with all bit vectors as states, the bits alone give
    independent Bernoulli bits, bits and their products a Boltzmann machine.

    Args:
        eta: natural parameters, shape ``(*batch, d)``.
        states: the states, shape ``(k, n)``, pairwise different.
        statistic: ν of each state, shape ``(k, d)``.
        log_base: log h of each state in nats, shape ``(k,)``; default 0; −inf for a state that has none.

    Raises:
        ValueError: the tables do not fit each other; or (on the CPU) h is infinite or NaN somewhere, or zero
            everywhere.

    Paper: asm-1, eq-4a, eq-4b
    """

    discrete = True

    def __init__(self, eta: Tensor, states: Tensor, statistic: Tensor, log_base: Tensor | None = None) -> None:
        super().__init__(eta)
        self.states, self.statistic = states, statistic
        self.log_base = torch.zeros_like(statistic[:, 0]) if log_base is None else log_base
        if statistic.shape != (len(states), eta.shape[-1]) or self.log_base.shape != (len(states),):
            raise ValueError(
                f"Tabular: {len(states)} states and {eta.shape[-1]} parameters need a statistic of shape "
                f"({len(states)}, {eta.shape[-1]}) and a log_base of shape ({len(states)},), "
                f"got {tuple(statistic.shape)} and {tuple(self.log_base.shape)}"
            )
        if refuted(self.log_base, lambda base: (base < torch.inf).all() & (base > -torch.inf).any()):
            raise ValueError("Tabular: log_base must be below infinity, and finite for at least one state")

    @property
    def event_shape(self) -> torch.Size:
        return self.states.shape[1:]

    def with_eta(self, eta: Tensor) -> Tabular:
        return Tabular(eta, self.states, self.statistic, self.log_base)

    def _is_state(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) == self.states).all(-1)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        return self._is_state(x).to(self.statistic.dtype) @ self.statistic

    def log_base_measure(self, x: Tensor) -> Tensor:
        return torch.where(self._is_state(x), self.log_base, -torch.inf).amax(-1)  # −inf outside the list

    def _log_weight(self) -> Tensor:
        return self.eta @ self.statistic.T + self.log_base

    def log_partition(self) -> Tensor:
        return torch.logsumexp(self._log_weight(), -1)

    def mean(self) -> Tensor:
        return torch.softmax(self._log_weight(), -1) @ self.statistic

    def expected_log_base_measure(self) -> Tensor:
        probability = torch.softmax(self._log_weight(), -1)
        return torch.where(probability > 0, probability * self.log_base, 0.0).sum(-1)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            probs = torch.softmax(self._log_weight(), -1).reshape(-1, len(self.states))
            index = draw_states(probs, sample_shape, generator)
            return self.states[index.reshape(*sample_shape, *self.batch_shape)]

    def support(self) -> Tensor:
        return self.states[self.log_base != -torch.inf]
