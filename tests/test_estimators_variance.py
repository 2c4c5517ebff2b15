"""Bias and variance of the gradients for bits against enumeration, for random tables of values; broken ones are seen.

Labels: app-c2, own-disarm.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from efvae.estimators import ARM, DisARM, Estimator, Reinforce
from efvae.estimators.base import with_gradient
from efvae.families import Bernoulli, all_bits
from tests.bit_problems import Problem, draw, leave_one_out_variance, z_mean, z_variance
from tests.cases import Z_MAX


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
