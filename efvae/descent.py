"""Smooth functions of few parameters brought to a local optimum: L-BFGS, as the exact fits here use it.

Own: own-gap-parts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["maximize", "minimize"]


def minimize(
    loss: Callable[[], Tensor],
    parameters: Iterable[Tensor],
    steps: int = 500,
    *,
    rounds: int = 1,
    rtol: float = 1e-12,
    **settings: Any,
) -> float:
    """Minimise in place by L-BFGS with a strong Wolfe line search; returns the value reached.

    Args:
        loss: a scalar with gradient, deterministic.
        parameters: what is changed, leaves with ``requires_grad``; float64 if the optimum is to be sharp.
        steps: most iterations of a round.
        rounds: most starts from where the last one ended; each forgets the curvature, which frees a stalled search.
        rtol: no further round after one that gained less than this part of the loss, or of 1.
        settings: further ones of ``torch.optim.LBFGS``; by default a round ends at a gradient of 1e-10, however small
            its steps become.

    Own: own-gap-parts
    """
    leaves = list(parameters)
    settings = {"tolerance_grad": 1e-10, "tolerance_change": 0.0, **settings}
    value = math.inf
    for _ in range(rounds):
        optimizer = torch.optim.LBFGS(leaves, max_iter=steps, line_search_fn="strong_wolfe", **settings)

        def closure(optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            current = loss()
            current.backward()
            return current

        optimizer.step(closure)
        with torch.no_grad():
            previous, value = value, float(loss())
        if previous - value < rtol * max(1.0, abs(value)):
            break
    return value


def maximize(objective: Callable[[Tensor], Tensor], start: Tensor, max_evaluations: int = 500) -> Tensor:
    """A local maximiser of a function of few variables.

    Args:
        objective: maps a float64 tensor of the shape of ``start`` to a scalar, with gradient.
        start: where to begin.
        max_evaluations: most values and gradients computed.

    Own: own-balance
    """
    theta = start.detach().clone().requires_grad_()
    minimize(lambda: -objective(theta), [theta], max_evaluations, max_eval=max_evaluations)
    return theta.detach()
