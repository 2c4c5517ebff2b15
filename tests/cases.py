"""Families, shapes and tolerances as data: a new family adds a row here and inherits every law in test_families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.exact import Rule, grid
from efvae.families import (
    Bernoulli,
    BipartiteIsing,
    Categorical,
    ExponentialFamily,
    Gaussian,
    GaussianFixedVariance,
    Multinomial,
    Tabular,
    all_bits,
)

#: Sums of exactly represented terms in float64: a few hundred roundings.
EXACT = 1e-10
#: Trapezoid rules on boxes of nine standard deviations and more.
QUADRATURE = 1e-8
#: A Monte Carlo mean may be this many standard errors off: one false alarm in 10^5 comparisons at a fixed seed.
Z_MAX = 4.5

#: Batch shapes: none, one axis, two axes of different length (so that swapped axes fail).
BATCHES = [(), (3,), (2, 3)]


@dataclass(frozen=True)
class Case:
    """One family with parameters away from 0 and 1, and a rule that sums or integrates over its values."""

    name: str
    make: Callable[[Tensor], ExponentialFamily]
    d: int
    rule: Callable[[], Rule]
    tolerance: float
    eta: Callable[[Tensor], Tensor] = lambda raw: raw

    def draw(self, batch: tuple[int, ...], seed: int) -> ExponentialFamily:
        generator = torch.Generator().manual_seed(seed)
        raw = torch.randn((*batch, self.d), generator=generator, dtype=torch.float64)
        return self.make(self.eta(raw))


def _finite(states: Tensor) -> Rule:
    return Rule(states.double(), torch.zeros(len(states), dtype=torch.float64))


def _negative_second_half(raw: Tensor) -> Tensor:
    eta1, eta2 = raw.chunk(2, -1)
    return torch.cat([eta1, -0.5 / (0.4 + 0.3 * torch.sigmoid(eta2))], -1)


LABELLED = torch.tensor([[0.0, 2.0], [1.5, 2.0], [-1.0, 0.0], [3.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
TABLE = torch.tensor([[0.3, -1.0], [1.0, 0.2], [-0.4, 0.9], [0.0, 2.0], [0.7, 0.7]], dtype=torch.float64)
LOG_BASE = torch.tensor([0.1, -0.6, 0.4, 0.0, 1.1], dtype=torch.float64)
VARIANCE = torch.tensor([0.7, 1.6], dtype=torch.float64)

CASES = [
    Case("bernoulli", Bernoulli, 3, lambda: _finite(all_bits(3)), EXACT),
    Case("categorical", Categorical, 4, lambda: _finite(torch.eye(4)), EXACT),
    Case("categorical-states", lambda eta: Categorical(eta, LABELLED), 5, lambda: _finite(LABELLED), EXACT),
    Case("tabular", lambda eta: Tabular(eta, LABELLED, TABLE, LOG_BASE), 2, lambda: _finite(LABELLED), EXACT),
    Case("ising-2-1", lambda eta: BipartiteIsing(eta, (2, 1)), 5, lambda: _finite(all_bits(3)), EXACT),
    Case("ising-2-3", lambda eta: BipartiteIsing(eta, (2, 3)), 11, lambda: _finite(all_bits(5)), EXACT),
    Case("gaussian", Gaussian, 4, lambda: grid([-12, -12], [12, 12], 401), QUADRATURE, _negative_second_half),
    Case(
        "gaussian-fixed-variance",
        lambda eta: GaussianFixedVariance(eta, VARIANCE),
        2,
        lambda: grid([-16, -16], [16, 16], 401),
        QUADRATURE,
    ),
    Case(
        "multinomial",
        lambda eta: Multinomial(eta, 5),
        3,
        lambda: _finite(Multinomial(torch.zeros(3, dtype=torch.float64), 5).support()),
        EXACT,
    ),
]
