"""Draws that are a smooth function of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efvae.estimators.base import check_samples
from efvae.families import ExponentialFamily

__all__ = ["Reparameterized"]


@dataclass(frozen=True)
class Reparameterized:
    """Monte Carlo through z = μ + σ ε: unbiased for value and gradient.

    ::

        (1/S) Σ_s f(μ + σ ε_s),   ε_s ~ N(0, I)

    So for Gaussians; another family takes part by a method ``rsample(sample_shape, generator)`` whose draws have the
    gradient with respect to its η.

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
            ValueError: q has no such draws.
        """
        draw = getattr(q, "rsample", None)
        if draw is None:
            raise ValueError(
                f"Reparameterized needs a family with rsample, as Gaussian is, got {q!r}: use Exact for a finite "
                "support, else Reinforce"
            )
        return f(draw((self.samples,), generator)).mean(0)
