"""The biased gradient that treats a drawn bit as if it were its probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efvae.estimators.base import check_samples
from efvae.families import Bernoulli, ExponentialFamily

__all__ = ["StraightThrough"]


@dataclass(frozen=True)
class StraightThrough:
    """Biased: the derivative of f at the drawn code, passed on to the probability (Bengio et al., 2013).

    ::

        value     (1/S) Σ_s f(z_s),   z_s ~ q
        ∇_η       (1/S) Σ_s ∂f/∂z (z_s) σ'(η)
        bias_i    σ'(η_i) E_q[∂f/∂z_i − (f(z with z_i = 1) − f(z with z_i = 0))]

    The value, and the gradient with respect to what f depends on, are unbiased. The gradient with respect to η is
    not: it depends on how f continues between the codes. It is unbiased where f is affine in each bit, the others held
    fixed; the log-likelihood of a decoder is not. f has to be differentiable in z.

    Args:
        samples: number S of draws for each batch element.

    Raises:
        ValueError: ``samples`` < 1.

    Own: own-straight-through
    """

    samples: int = 1
    unbiased: ClassVar[bool] = False

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
            ValueError: q is not a law of independent bits.
        """
        if not isinstance(q, Bernoulli):
            raise ValueError(f"StraightThrough needs independent bits, got {q!r}: use Exact or Reinforce")
        probability = torch.sigmoid(q.eta)
        # in this order the value of z stays exactly 0 or 1
        z = q.sample((self.samples,), generator) + (probability - probability.detach())
        return f(z).mean(0)
