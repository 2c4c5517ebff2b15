"""Gradients for bits against enumeration: bias, exact variances, what is drawn and how often f is evaluated.

Labels: eq-1a, app-c2, own-disarm, own-straight-through. The z-scores of value and gradient of the unbiased estimators
for a smooth f with a parameter are in test_estimators.py; here f is a table of values, and what is broken is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from efvae.estimators import ARM, DisARM, Estimator, Exact, Reinforce, StraightThrough
from efvae.estimators.base import with_gradient
from efvae.families import Bernoulli, Gaussian, all_bits
from efvae.objectives import elbo
from tests.cases import Z_MAX
from tests.models import binary_vae, bits

N_BITS = 3
DRAWS = 40_000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Problem:
    """Logits and a function of the codes given by its values, with all that can be enumerated about them."""

    eta: Tensor
    table: Tensor

    @staticmethod
    def random(seed: int, n: int = N_BITS) -> Problem:
        eta, table = (torch.randn(size, generator=seeded(seed), dtype=torch.float64) for size in (n, 2**n))
        return Problem(1.5 * eta, 2.0 + table)  # away from zero, so that a missing baseline is dear

    def f(self, z: Tensor) -> Tensor:
        weights = 2 ** torch.arange(z.shape[-1] - 1, -1, -1)
        return self.table[(z.long() * weights).sum(-1)]

    def gradient(self) -> Tensor:
        """σ'(η_i) E[f(z with z_i = 1) − f(z with z_i = 0)], by enumeration."""
        p, codes = torch.sigmoid(self.eta), all_bits(len(self.eta))
        q = torch.where(codes > 0, p, 1 - p).prod(-1)
        out = []
        for i in range(len(p)):
            up, down = codes.clone(), codes.clone()
            up[:, i], down[:, i] = 1.0, 0.0
            out.append(p[i] * (1 - p[i]) * (q * (self.f(up) - self.f(down))).sum())
        return torch.stack(out)

    def covariance(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E f²z_i², Var f, Var z_i, Cov(f, z_i), all centered."""
        p, codes = torch.sigmoid(self.eta), all_bits(len(self.eta))
        q = torch.where(codes > 0, p, 1 - p).prod(-1)
        f = self.f(codes)
        f, z = (f - (q * f).sum())[:, None], codes - p
        return tuple((q[:, None] * moment).sum(0) for moment in (f**2 * z**2, f**2, z**2, f * z))  # type: ignore

    def antithetic(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and variance of one pair's ARM and DisARM gradient, by enumeration of the intervals of u.

        In each coordinate u lies below, between or above the two thresholds; in each interval its first two moments are
        integrals of a polynomial.
        """
        low, high = (torch.sigmoid(sign * self.eta.abs()).tolist() for sign in (-1, 1))
        ones = (self.eta > 0).double().tolist()
        moments = {name: torch.zeros(2, len(ones), dtype=torch.float64) for name in ("arm", "disarm")}
        for where in itertools.product(range(3), repeat=len(ones)):
            ends = [[(0, lo), (lo, hi), (hi, 1)][k] for k, lo, hi in zip(where, low, high, strict=True)]
            first = torch.tensor([[0, one, 1][k] for k, one in zip(where, ones, strict=True)])
            second = torch.tensor([[1, one, 0][k] for k, one in zip(where, ones, strict=True)])
            a, b = torch.tensor(ends, dtype=torch.float64).T
            difference = self.f(first) - self.f(second)
            mean = difference * ((a + b) / 2 - 0.5)
            square = difference**2 * ((b - 0.5) ** 3 - (a - 0.5) ** 3) / (3 * (b - a))
            moments["arm"] += (b - a).prod() * torch.stack([mean, square])
            moments["disarm"] += (b - a).prod() * torch.stack([mean, mean**2])
        return {name: (mean, square - mean**2) for name, (mean, square) in moments.items()}


def leave_one_out_variance(problem: Problem, s: int) -> Tensor:
    joint, var_f, var_z, cov = problem.covariance()
    return (joint + (var_f * var_z - (s - 2) * cov**2) / (s - 1)) / s


def draw(estimator: Estimator, eta: Tensor, f: Callable[[Tensor], Tensor], seed: int, n: int = DRAWS) -> Tensor:
    """Gradients in η of n independent estimates, (n, bits)."""
    many = eta.expand(n, *eta.shape).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(estimator.expectation(Bernoulli(many), f, seeded(seed)).sum(), many)
    return gradient


def z_mean(drawn: Tensor, truth: Tensor) -> float:
    return float(((drawn.mean(0) - truth) / (drawn.std(0) / len(drawn) ** 0.5)).abs().max())


def z_variance(drawn: Tensor, truth: Tensor) -> float:
    return z_mean((drawn - drawn.mean(0)) ** 2, truth)


# --- bias and variance ------------------------------------------------------------------------------------------


def variance_of(estimator: Estimator, problem: Problem) -> Tensor:
    if isinstance(estimator, Reinforce):
        return leave_one_out_variance(problem, estimator.samples)
    name = "disarm" if isinstance(estimator, DisARM) else "arm"
    return problem.antithetic()[name][1] / estimator.samples  # type: ignore[attr-defined]


UNBIASED = [Reinforce(2), Reinforce(5), ARM(), ARM(4), DisARM(), DisARM(4)]


@pytest.mark.parametrize("estimator", UNBIASED, ids=repr)
def test_gradient_has_the_enumerated_mean_and_variance(estimator: Estimator) -> None:
    for seed in range(3):
        problem = Problem.random(seed)
        drawn = draw(estimator, problem.eta, problem.f, seed)
        assert z_mean(drawn, problem.gradient()) < Z_MAX
        assert z_variance(drawn, variance_of(estimator, problem)) < Z_MAX


class Doubled(ARM):
    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return 2 * super().weight(eta, u, difference)


class WithoutAbs(DisARM):
    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return 0.5 * difference * torch.sigmoid(eta)


class WrongSign(DisARM):
    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return -super().weight(eta, u, difference)


class EqualBitsToo(DisARM):
    """Unbiased: where the bits are equal the sign of u − ½ is independent of the pair."""

    def weight(self, eta: Tensor, u: Tensor, difference: Tensor) -> Tensor:
        return 0.5 * (u - 0.5).sign() * torch.sigmoid(eta.abs())


@dataclass(frozen=True)
class ByHand(Reinforce):
    """Score function written out, with a chosen baseline."""

    baseline: str = "none"

    def expectation(self, q, f, generator=None):  # type: ignore[no-untyped-def]
        z = q.sample((self.samples,), generator)
        value = f(z)
        others = (value.sum(0) - value) / (self.samples - 1)
        centered = value - {"none": 0.0, "own": value.mean(0), "others": others}[self.baseline]
        return with_gradient(value.mean(0), (centered[..., None] * (z - q.mean())).mean(0), q.eta)


@pytest.mark.parametrize("broken", [Doubled(), WithoutAbs(), WrongSign(), ByHand(2, "own")], ids=repr)
def test_a_wrong_formula_is_noticed_by_its_mean(broken: Estimator) -> None:
    problem = Problem.random(0)
    assert z_mean(draw(broken, problem.eta, problem.f, 0), problem.gradient()) > 3 * Z_MAX


@pytest.mark.parametrize("wasteful", [ByHand(5, "none"), EqualBitsToo(5)], ids=repr)
def test_a_missing_baseline_and_needless_noise_are_noticed_by_the_variance(wasteful: Estimator) -> None:
    problem = Problem.random(0)
    truth = variance_of(wasteful, problem)
    drawn = draw(wasteful, problem.eta, problem.f, 0)
    assert z_mean(drawn, problem.gradient()) < Z_MAX
    assert z_variance(drawn, truth) > 3 * Z_MAX


class Given(Bernoulli):
    """Bernoulli whose draws are handed to it."""

    draws: Tensor

    def sample(self, sample_shape: object = (), generator: torch.Generator | None = None) -> Tensor:
        return self.draws


@pytest.mark.parametrize("s", [2, 3, 4])
def test_leave_one_out_over_all_possible_draws(s: int) -> None:
    """Mean and variance without sampling: each combination of s codes of two bits is one batch element."""
    problem = Problem.random(s, n=2)
    draws = torch.cartesian_prod(*[torch.arange(4)] * s).T
    draws = all_bits(2)[draws]  # (s, 4**s, 2)
    eta = problem.eta.expand(draws.shape[1], 2).clone().requires_grad_()
    q = Given(eta)
    q.draws = draws
    written_out = ByHand(s, "others").expectation(q, problem.f)
    (by_hand,) = torch.autograd.grad(written_out.sum(), eta)
    (gradient,) = torch.autograd.grad(Reinforce(s).expectation(q, problem.f).sum(), eta)
    torch.testing.assert_close(gradient, by_hand, rtol=0, atol=1e-12)
    weight = q.log_prob(draws).sum(0).exp().detach()[:, None]
    mean = (weight * gradient).sum(0)
    variance = (weight * (gradient - mean) ** 2).sum(0)
    torch.testing.assert_close(mean, problem.gradient(), rtol=1e-10, atol=0)
    torch.testing.assert_close(variance, leave_one_out_variance(problem, s), rtol=1e-10, atol=0)


def test_disarm_is_unbiased_and_never_varies_more_than_arm() -> None:
    """own-disarm, by enumeration: same mean, smaller variance in every coordinate, on 60 random functions."""
    for seed in range(60):
        problem = Problem.random(seed)
        moments = problem.antithetic()
        for mean, _ in moments.values():
            torch.testing.assert_close(mean, problem.gradient(), rtol=1e-9, atol=1e-12)
        assert bool((moments["disarm"][1] < moments["arm"][1]).all())


def test_disarm_is_arm_averaged_given_the_pair() -> None:
    """own-disarm: the same uniform variables give both, and within each pair of codes ARM averages to DisARM."""
    problem = Problem.random(7, n=2)
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z)
        return problem.f(z)

    arm, disarm = (draw(estimator, problem.eta, f, 5, 100_000) for estimator in (ARM(), DisARM()))
    assert torch.equal(*seen)
    pair = (torch.cat(list(seen[0]), -1).long() * torch.tensor([8, 4, 2, 1])).sum(-1)
    groups = [pair == k for k in pair.unique()]
    assert len(groups) == 9
    for group in groups:
        value = disarm[group][0]
        torch.testing.assert_close(disarm[group], value.expand(int(group.sum()), 2), rtol=0, atol=1e-12)
        if value.abs().max() < 1e-12:  # z = z': nothing to weigh
            assert float(arm[group].abs().max()) == 0
        else:
            assert z_mean(arm[group], value) < Z_MAX
            assert z_mean(arm[group], 1.1 * value) > Z_MAX


# --- straight-through -------------------------------------------------------------------------------------------

ETA = torch.tensor([0.4, -1.1], dtype=torch.float64)
AFFINE: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": lambda z: 3 * z[..., 0] - 2 * z[..., 1] + 1,
    "affine in each bit": lambda z: 3 * z[..., 0] - 2 * z[..., 1] + 4 * z[..., 0] * z[..., 1],
}


def slope(f: Callable[[Tensor], Tensor], eta: Tensor) -> Tensor:
    """σ'(η) E ∂f/∂z by enumeration: what straight-through estimates."""
    z = all_bits(2).requires_grad_()
    (derivative,) = torch.autograd.grad(f(z).sum(), z)
    p = torch.sigmoid(eta)
    return p * (1 - p) * (Bernoulli(eta).log_prob(z.detach()).exp()[:, None] * derivative).sum(0)


def exact_gradient(f: Callable[[Tensor], Tensor], eta: Tensor) -> Tensor:
    live = eta.clone().requires_grad_()
    return torch.autograd.grad(Exact().expectation(Bernoulli(live), f), live)[0]


def test_straight_through_is_biased_and_says_so() -> None:
    """own-straight-through"""
    assert not StraightThrough.unbiased
    assert (StraightThrough.__doc__ or "").startswith("Biased")

    def f(z: Tensor) -> Tensor:
        return torch.sin(2 * z[..., 0]) * (1 + z[..., 1]) ** 3

    drawn = draw(StraightThrough(2), ETA, f, 3)
    assert z_mean(drawn, slope(f, ETA)) < Z_MAX
    assert z_mean(drawn, exact_gradient(f, ETA)) > 10 * Z_MAX


@pytest.mark.parametrize("name", AFFINE)
def test_straight_through_has_no_bias_where_f_is_affine_in_each_bit(name: str) -> None:
    f = AFFINE[name]
    torch.testing.assert_close(slope(f, ETA), exact_gradient(f, ETA), rtol=1e-10, atol=0)
    drawn = draw(StraightThrough(), ETA, f, 4)
    if name == "affine":
        torch.testing.assert_close(drawn, exact_gradient(f, ETA).expand_as(drawn), rtol=1e-10, atol=0)
    else:
        assert z_mean(drawn, exact_gradient(f, ETA)) < Z_MAX


def test_straight_through_value_and_parameter_gradient_have_no_bias() -> None:
    theta = torch.full((DRAWS,), 0.7, dtype=torch.float64, requires_grad=True)
    q = Bernoulli(ETA.expand(DRAWS, 2))

    def f(z: Tensor, theta: Tensor = theta) -> Tensor:
        return torch.sin(z[..., 0] + 2 * theta * z[..., 1])

    value = StraightThrough(2).expectation(q, f, seeded(1))
    (grad,) = torch.autograd.grad(value.sum(), theta)
    true_theta = theta.detach()[:1].requires_grad_()
    truth = Exact().expectation(Bernoulli(ETA[None]), lambda z: f(z, true_theta))
    assert z_mean(value.detach(), truth.detach()) < Z_MAX
    assert z_mean(grad, torch.autograd.grad(truth.sum(), true_theta)[0]) < Z_MAX


# --- all four ---------------------------------------------------------------------------------------------------

ALL = {Reinforce(3): 3, ARM(2): 4, DisARM(2): 4, StraightThrough(3): 3}
each = pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)


@each
def test_value_and_parameter_gradient_average_over_all_evaluated_codes(estimator: Estimator) -> None:
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return (theta * z[..., 0] + z[..., 1]) ** 2

    eta = torch.randn(2, 5, 2, generator=seeded(1), dtype=torch.float64).requires_grad_()
    value = estimator.expectation(Bernoulli(eta), f, seeded(0))
    (z,) = seen  # called once
    assert z.shape == (ALL[estimator], 2, 5, 2)
    assert bool(((z == 0) | (z == 1)).all())
    torch.testing.assert_close(value, f(z).mean(0), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), theta)
    torch.testing.assert_close(gradient, torch.autograd.grad(f(z).mean(0).sum(), theta)[0])


@each
def test_the_generator_decides_the_draws_and_nothing_else_is_touched(estimator: Estimator) -> None:
    problem = Problem.random(1)

    def f(z: Tensor) -> Tensor:
        return problem.f(z.detach()) + z[..., 0]

    before = torch.get_rng_state()
    first, again, other = (draw(estimator, problem.eta, f, seed, 50) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    if estimator.unbiased:  # the straight-through gradient of this f is a constant
        assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@each
def test_saturated_logits_stay_finite(estimator: Estimator) -> None:
    eta = torch.tensor([[30.0, -30.0, 0.2], [-30.0, 88.0, 30.0]]).requires_grad_()
    value = estimator.expectation(Bernoulli(eta), lambda z: 1e3 * z.sum(-1) ** 2, seeded(0))
    (gradient,) = torch.autograd.grad(value.sum(), eta)
    assert value.dtype == gradient.dtype == torch.float32
    assert bool(gradient.isfinite().all())
    assert bool(value.isfinite().all())
    assert float(gradient[1].abs().max()) < 1e-6, "a code that is certain has no gradient"


@each
def test_a_function_that_depends_on_the_logits_itself(estimator: Estimator) -> None:
    """E_q ⟨η, z⟩ = ⟨η, p⟩: its gradient has the part of the law and the part of the function."""
    eta = ETA.expand(DRAWS, 2).clone().requires_grad_()
    value = estimator.expectation(Bernoulli(eta), lambda z: (eta * z).sum(-1), seeded(2))
    p = torch.sigmoid(ETA)
    assert z_mean(torch.autograd.grad(value.sum(), eta)[0], p + ETA * p * (1 - p)) < Z_MAX


@each
def test_gradient_reaches_the_networks_through_the_elbo(estimator: Estimator) -> None:
    """Sums over 100 passes of 200 copies of the data, against the exact gradient of each parameter."""
    vae, x, copies = binary_vae(3), bits(4, 3), 200
    parameters = list(vae.parameters())
    exact = torch.autograd.grad(elbo(vae, x, Exact()).sum(), parameters)
    truth = torch.cat([g.flatten() for g in exact])
    generator, drawn = seeded(5), []
    for _ in range(100):
        total = elbo(vae, x.expand(copies, *x.shape), estimator, generator).sum() / copies
        drawn.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)]))
    z = z_mean(torch.stack(drawn), truth)
    if estimator.unbiased:
        assert z < Z_MAX
    else:
        assert z > 2 * Z_MAX


@each
def test_compiles_into_one_graph(estimator: Estimator) -> None:
    """A host round trip or a shape that depends on data would break the graph."""

    def step(eta: Tensor, theta: Tensor) -> Tensor:
        return estimator.expectation(Bernoulli(eta), lambda z: (theta * z).sum(-1) ** 2).sum()

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    theta = torch.ones(3, requires_grad=True)
    for batch in (4, 7):  # the second makes the batch a symbol
        eta = torch.zeros(batch, 3, requires_grad=True)
        results = []
        for run in (step, compiled):
            torch.manual_seed(0)
            value = run(eta, theta)
            results.append((value, *torch.autograd.grad(value, (eta, theta))))
        assert bool((results[0][1] != 0).any())
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("estimator", [Reinforce(), ARM(), DisARM(), StraightThrough()], ids=repr)
def test_bits_of_half_precision_logits_have_their_probability(estimator: Estimator) -> None:
    eta = torch.full((200_000, 1), -7.0, dtype=torch.bfloat16)
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z.double())
        return z[..., 0]

    estimator.expectation(Bernoulli(eta), f, seeded(0))
    assert z_mean(seen[0].mean(0), torch.sigmoid(torch.tensor(-7.0)).double()) < Z_MAX


def test_refuses_what_it_cannot_do() -> None:
    for make, least in ((Reinforce, 2), (ARM, 1), (DisARM, 1), (StraightThrough, 1)):
        with pytest.raises(ValueError, match=f"{make.__name__}: samples must be at least {least}, got {least - 1}"):
            make(least - 1)
    for estimator in (ARM(), DisARM(), StraightThrough()):
        with pytest.raises(ValueError, match="needs independent bits, got Gaussian"):
            estimator.expectation(Gaussian(-torch.ones(4)), lambda z: z[..., 0])
