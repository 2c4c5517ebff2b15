"""What every estimator of E_q f(z) offers, so that objectives and tests run through any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from efvae.families import ExponentialFamily
from efvae.values import check_whole

__all__ = ["Estimator", "check_samples", "with_gradient"]


@runtime_checkable
class Estimator(Protocol):
    """What every estimator offers.

    Paper: eq-1a
    """

    #: Whether the expected gradient is the gradient of the expectation.
    unbiased: ClassVar[bool]

    def expectation(
        self,
        q: ExponentialFamily,
        f: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Estimate of E_q f(z), shape ``batch`` of q.

        Its gradient with respect to q's parameters and to all that f depends on estimates the gradient of the
        expectation; without bias if ``unbiased``.

        Args:
            q: distribution of z.
            f: maps z of shape ``(s, *batch, *event)`` to values of shape ``(s, *batch)``; called once.
            generator: source of randomness; the global one if None, as ``torch.compile`` requires.
        """
        ...


def with_gradient(value: Tensor, gradient: Tensor, eta: Tensor) -> Tensor:
    """The same value, to whose gradient with respect to η the given one is added.

    ::

        value + ⟨gradient, η − const(η)⟩

    The inner product is zero, so the value is kept bit for bit. No second derivatives.

    Args:
        value: shape ``batch``; what it carries for the backward pass stays.
        gradient: shape ``(*batch, d)``, taken as a constant.
        eta: finite natural parameters, shape ``(*batch, d)``.
    """
    return value + (gradient.detach() * (eta - eta.detach())).sum(-1)


def check_samples(estimator: object, samples: int, least: int) -> None:
    """Refuse a number of samples that gives no estimate.

    Raises:
        ValueError: ``samples`` is smaller than ``least``, or no whole number.
    """
    check_whole(type(estimator).__name__, "samples", samples, least)
