"""Gradients for bits from pairs of codes that one uniform variable makes opposite: ARM and DisARM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efvae.estimators.base import check_samples, with_gradient
from efvae.families import Bernoulli, ExponentialFamily
from efvae.families.base import uniform

__all__ = ["ARM", "AntitheticPairs", "DisARM"]


@dataclass(frozen=True)
class AntitheticPairs(ABC):
    """What ARM and DisARM share: pairs (z, z') of codes, each distributed as q, and a gradient of differences.

    ::

        u ~ Uniform(0, 1)^n,   z_i = [u_i > σ(−η_i)],   z'_i = [u_i < σ(η_i)]
        value     mean over the pairs of (f(z) + f(z')) / 2
        ∇_η       mean over the pairs of (f(z) − f(z')) w(u, z, z')

    Both evaluations enter the value, and both are differentiated with respect to what f depends on: since z and z' are
    distributed as q, this is unbiased, at no further evaluation. f is called once, on all 2S codes.

    Args:
        samples: number S of pairs for each batch element; f is evaluated 2S times.

    Raises:
        ValueError: ``samples`` < 1.

    Paper: eq-1a, app-c2
    """

    samples: int = 1
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_samples(self, self.samples, 1)

    @abstractmethod
    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        """The factor w of f(z) − f(z'), shape ``(S, *batch, n)``.

        Args:
            eta: logits, shape ``(*batch, n)``.
            u: the uniform variables, shape ``(S, *batch, n)``.
            difference: z − z', of the same shape.
        """

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Estimator.expectation <efvae.estimators.base.Estimator.expectation>`; draws ``samples`` pairs.

        Raises:
            ValueError: q is not a law of independent bits.
        """
        if not isinstance(q, Bernoulli):
            raise ValueError(f"{type(self).__name__} needs independent bits, got {q!r}: use Exact or Reinforce")
        with torch.no_grad():
            u = uniform(q.eta, (self.samples,), generator)
            eta = q.eta.to(u.dtype)
            z, opposite = (u > torch.sigmoid(-eta)).to(eta.dtype), (u < torch.sigmoid(eta)).to(eta.dtype)
            weight = self.weight(eta, u, z - opposite)
        value = f(torch.cat([z, opposite]).to(q.eta.dtype))
        with torch.no_grad():
            first, second = value.chunk(2)
            gradient = ((first - second)[..., None] * weight).mean(0)
        return with_gradient(value.mean(0), gradient, q.eta)


@dataclass(frozen=True)
class ARM(AntitheticPairs):
    """Augment, REINFORCE, merge (Yin & Zhou, 2019), the paper's estimator for bits: unbiased.

    ::

        w = u − ½

    Value and pairs are those of :class:`~efvae.estimators.antithetic.AntitheticPairs`.

    Args:
        samples: number S of pairs for each batch element; f is evaluated 2S times.

    Paper: app-c2
    """

    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        """See the class."""
        return u - 0.5


@dataclass(frozen=True)
class DisARM(AntitheticPairs):
    """ARM averaged over what the pair does not show (Dong, Mnih & Tucker, 2020): unbiased.

    ::

        w = E[u − ½ | z, z'] = ½ (z − z') σ(|η|)

    Given the pair, u_i is uniform between 1 and the larger of σ(η_i), σ(−η_i) where z_i − z'_i = 1, on the mirrored
    interval where it is −1, and on an interval around ½ where the two are equal. As the conditional expectation of ARM
    given (z, z') it has at most ARM's variance, in every coordinate and for every f, from the same evaluations. It is
    the U2G estimator that Yin, Ho, Yan, Qian & Zhou (2020) found independently.

    Args:
        samples: number S of pairs for each batch element; f is evaluated 2S times.

    Own: own-disarm
    """

    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        """See the class."""
        return 0.5 * difference * torch.sigmoid(eta.abs())
