"""Weights of independent chains or draws, whose mean is an unbiased estimate of a sum over all states."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["LogWeights"]


@dataclass(frozen=True)
class LogWeights:
    """Log-weights in nats of independent chains or samples.

    ::

        E w = Z,    Z a partition function, or p(x) as a sum over codes

    Args:
        values: log w, shape ``(s, *batch)``.

    Own: own-text-annealed, own-ais
    """

    values: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of log w, shape ``batch``; for samples of the encoder an unbiased estimate of the ELBO."""
        return self.values.mean(0)

    @property
    def log_mean(self) -> Tensor:
        """log of the mean weight, shape ``batch``: in expectation a lower bound of log Z."""
        return self.values.logsumexp(0) - math.log(len(self.values))

    @property
    def standard_error(self) -> Tensor:
        """Monte Carlo error of :attr:`log_mean`, to first order, shape ``batch``."""
        weights = (self.values - self.values.amax(0)).exp()
        return weights.std(0) / weights.mean(0) / math.sqrt(len(weights))

    @property
    def effective_samples(self) -> Tensor:
        """(Σ w)² / Σ w², from 1 to s, shape ``batch``; where it is small the error is unreliable."""
        return (2 * self.values.logsumexp(0) - (2 * self.values).logsumexp(0)).exp()
