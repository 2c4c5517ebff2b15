"""Each numbered step of the paper's proof of Proposition A.2, as two sides to compare.

The paper splits the observations by ``u(x) = |p − q|/α``: below u0 it bounds log² by a logarithm, above by concavity.
All steps are for one z and taken for all z at once; α is the floor at that z.

Paper: eq-43, eq-44, eq-45, eq-46, eq-47a, eq-47b, eq-47c, eq-48a, eq-48b, eq-48c, eq-49, eq-50a, eq-50b
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from efvae.bounds.scalars import PAPER_CONSTANT, bound_paper, bound_sharp, log_square_ratio
from efvae.bounds.steps_a1 import Step
from efvae.bounds.tables import Tables

__all__ = ["printed_52b", "steps_a2"]


def steps_a2(tables: Tables, u0: float = 2.0, subset: Tensor | None = None) -> list[Step]:
    """Every numbered step from Pinsker's inequality to the bound, for all z.

    Step ``eq-52b`` is the mended one; as printed it is false, see :func:`printed_52b`. What only defines or names is no
    step: (50a) and (50b) define the two parts of the observations, (53a) is the left side of (53b). The route ends in
    ``own-paper-total``; ``eq-42`` is the sharp bound.

    Args:
        tables: the VAE.
        u0: where the observations are split, in [√(e − 1), 5].
        subset: the X' of (46), a mask over x; all x if None.

    Raises:
        ValueError: u0 out of its range.

    Paper: prop-a2, eq-42, eq-51, eq-52a, eq-52d, eq-53a, eq-53b, eq-54, eq-55a, eq-55b, eq-55c, eq-56, eq-57a, eq-57b
    """
    if not math.sqrt(math.e - 1) <= u0 <= 5:
        raise ValueError(f"steps_a2: u0 must be in [√(e−1), 5] = [1.311, 5], got {u0}")
    t, data = tables, tables.data
    q, p, alpha = t.log_q.exp(), t.log_p.exp(), t.alpha_at[:, None]
    by_x, epsilon = t.divergence, t.epsilon
    gap, squared = (p - q).abs(), (t.log_p - t.log_q).square()
    supremum = (0.5 * gap.sum(0)).square()  # the best set S holds the states with q > p
    mask = torch.ones_like(data) if subset is None else subset.to(data)
    above = p > q
    one = torch.ones_like(q)
    ratio = torch.where(above, p / q, q / p)  # the larger over the smaller
    relative = torch.where(above, (p - q) / q, (q - p) / p)
    logs = {"eq-47": above, "eq-48": ~above}
    steps = [
        Step("eq-43", supremum, by_x / 2),
        Step("eq-44", gap.square(), by_x / 2),
        Step("eq-45", gap.square() @ data, epsilon / 2),
        Step("eq-46", gap.square() @ (data * mask), epsilon / 2),
    ]
    for name, case in logs.items():
        left, r, rel = (torch.where(case, value, 0.0 * one) for value in (squared, ratio.log().square(), relative))
        steps += [
            Step(f"{name}a", left, r, equal=True),
            Step(f"{name}b", r, torch.log1p(rel).square(), equal=True),
            Step(f"{name}c", torch.log1p(rel).square(), torch.log1p(torch.where(case, gap, 0.0) / alpha).square()),
        ]
    u = gap / alpha
    steps.append(Step("eq-49", squared, torch.log1p(u).square()))
    steps += _split_steps(data, u, u0, squared, epsilon / (2 * t.alpha_at.square()))
    total = bound_paper(epsilon, t.alpha_at)
    return [
        *steps,
        Step("own-paper-total", t.posterior_error, total),
        Step("own-paper-total", total, (1 + PAPER_CONSTANT) / 2 * epsilon / t.alpha_at.square()),
        Step("eq-42", t.posterior_error, bound_sharp(epsilon, t.alpha_at)),
    ]


def _split_steps(data: Tensor, u: Tensor, u0: float, squared: Tensor, bound: Tensor) -> list[Step]:
    """The two parts of the observations, steps 51 to 52d; ``bound`` is ε/(2α²)."""
    small, large = (u < u0).to(u), (u >= u0).to(u)
    value, u2 = torch.log1p(u).square(), u.square()
    mass = small @ data
    small_log = (small * torch.log1p(u2)) @ data
    small_mean = (small * u2) @ data
    outside = data.sum() - mass
    return [
        Step("eq-51", (small * squared) @ data, (small * value) @ data),
        Step("eq-51", (large * squared) @ data, (large * value) @ data),
        Step("eq-52a", (small * value) @ data, small_log),
        # Jensen's inequality needs total mass one: the observations outside of the part enter with the value log 1 = 0.
        Step("eq-52b", small_log, torch.log(outside + (small * (1 + u2)) @ data + (1 - data.sum()))),
        Step("eq-52c", (small * (1 + u2)) @ data, mass + small_mean, equal=True),
        Step("eq-52d", torch.log1p(small_mean), torch.log1p(bound)),
        Step("eq-52d", torch.log1p(bound), bound),
        *_large_steps(data, large, u2, value, bound, u0),
    ]


def _large_steps(data: Tensor, large: Tensor, u2: Tensor, value: Tensor, bound: Tensor, u0: float) -> list[Step]:
    """The part with u ≥ u0, steps 53b to 57b. Where it is empty every term is zero."""
    mass = large @ data
    some = mass > 0
    share = large * data / torch.where(some, mass, 1.0)[:, None]  # p_d(x | X2)
    conditional = mass * (share * value).sum(1)
    with_square = mass * (share * torch.log1p(u2).square()).sum(1)
    mean_inside = mass * torch.log((share * (1 + u2)).sum(1).clamp(min=1.0)).square()
    mean_of_square = mass * torch.log1p((share * u2).sum(1)).square()
    r = torch.where(some, bound / torch.where(some, mass, 1.0), 1.0)
    through_bound = mass * torch.log1p(r).square()
    return [
        Step("eq-53b", (large * value) @ data, conditional, equal=True),
        Step("eq-54", conditional, with_square),
        Step("eq-55a", with_square, mean_inside),
        Step("eq-55b", mean_inside, mean_of_square, equal=True),
        Step("eq-55c", mean_of_square, through_bound),
        Step("eq-56", u0**2 * mass, (large * u2) @ data),
        Step("eq-56", (large * u2) @ data, bound),
        Step("eq-57a", through_bound, torch.where(some, bound * log_square_ratio(r), 0.0), equal=True),
        Step("eq-57b", torch.where(some, bound * log_square_ratio(r), 0.0), PAPER_CONSTANT * bound),
    ]


def printed_52b(data: Tensor, u: Tensor, u0: float = 2.0) -> Step:
    """Step (52b) as the paper prints it, with Jensen's inequality over a part whose mass is less than one.

    ::

        Σ_{X1} p_d log(1 + u²)  ≤  log Σ_{X1} p_d (1 + u²)

    False: with p_d(X1) = 1/2 and u = 0 there, it says 0 ≤ log ½. The step after it, (52d), stays true.

    Args:
        data: p_d(x), shape ``(x,)``.
        u: ``|p − q|/α``, shape ``(..., x)``.
        u0: where the observations are split.

    Paper: eq-52b, eq-52c
    """
    small = (u < u0).to(u)
    return Step("eq-52b", (small * torch.log1p(u.square())) @ data, torch.log((small * (1 + u.square())) @ data))
