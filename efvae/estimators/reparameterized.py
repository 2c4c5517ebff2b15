"""Draws that are a smooth function of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efvae.estimators.base import check_samples
from efvae.families import ExponentialFamily, Gaussian, GaussianFixedVariance

__all__ = ["Reparameterized"]


@dataclass(frozen=True)
class Reparameterized:
    """Monte Carlo through z = μ + σ ε: unbiased for value and gradient.

    ::

        (1/S) Σ_s f(μ + σ ε_s),   ε_s ~ N(0, I)

    Args:
        samples: number S of draws for each batch element.

    Raises:
        ValueError: ``samples`` < 1.

    Paper: eq-1a, sec-4-2
    """

    samples: int = 1
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_samples(self, self.samples, 1)

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Estimator.expectation <efvae.estimators.base.Estimator.expectation>`; draws ``samples`` values.

        Raises:
            ValueError: q is not a Gaussian, so it has no such path.
        """
        if not isinstance(q, (Gaussian, GaussianFixedVariance)):
            raise ValueError(
                f"Reparameterized needs a Gaussian, got {q!r}: use Exact for a finite support, else Reinforce"
            )
        return f(q.rsample((self.samples,), generator)).mean(0)
