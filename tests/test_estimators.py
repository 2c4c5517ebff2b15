"""Every estimator through one protocol: value and gradient against an oracle, bias judged by z-scores. eq-1a."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from efvae.estimators import ARM, DisARM, Estimator, Exact, Reinforce, Reparameterized
from efvae.families import Bernoulli, Categorical, ExponentialFamily, Gaussian, GaussianFixedVariance, all_bits
from tests.cases import Z_MAX


def f(z: Tensor, theta: Tensor) -> Tensor:
    """A function without symmetry that depends on a parameter and couples the coordinates."""
    return torch.sin(z[..., 0] + 2 * theta * z[..., 1]) + (z[..., 0] - theta) ** 2 * z[..., 1]


@dataclass(frozen=True)
class Setting:
    estimator: Estimator
    make: object
    eta: Tensor
    draws: int


ETA_BITS = torch.tensor([[0.4, -1.1], [2.0, 0.3], [-0.6, 0.9]], dtype=torch.float64)
ETA_STATES = torch.tensor([[0.3, -1.0, 0.8, 0.1]], dtype=torch.float64)
ETA_GAUSS = Gaussian.from_mean_variance(
    torch.tensor([[0.4, -1.1], [0.2, 0.3]]).double(), torch.tensor([[0.5, 0.2], [1.5, 0.7]]).double()
).eta

SETTINGS = {
    "exact-bernoulli": Setting(Exact(), Bernoulli, ETA_BITS, 0),
    "exact-categorical": Setting(Exact(), lambda eta: Categorical(eta, all_bits(2)), ETA_STATES, 0),
    "exact-gaussian": Setting(Exact(nodes=40), Gaussian, ETA_GAUSS, 0),
    "exact-gaussian-fixed": Setting(Exact(nodes=40), lambda eta: GaussianFixedVariance(eta, 0.6), ETA_BITS, 0),
    "reparameterized-1": Setting(Reparameterized(), Gaussian, ETA_GAUSS, 1),
    "reparameterized-3": Setting(Reparameterized(3), Gaussian, ETA_GAUSS, 3),
    "reinforce-2": Setting(Reinforce(), Bernoulli, ETA_BITS, 2),
    "reinforce-5": Setting(Reinforce(5), lambda eta: Categorical(eta, all_bits(2)), ETA_STATES, 5),
    "reinforce-gaussian": Setting(Reinforce(20), Gaussian, ETA_GAUSS, 20),
    "arm-1": Setting(ARM(), Bernoulli, ETA_BITS, 2),
    "arm-3": Setting(ARM(3), Bernoulli, ETA_BITS, 6),
    "disarm-1": Setting(DisARM(), Bernoulli, ETA_BITS, 2),
    "disarm-3": Setting(DisARM(3), Bernoulli, ETA_BITS, 6),
    "reparameterized-fixed": Setting(Reparameterized(2), lambda eta: GaussianFixedVariance(eta, 0.6), ETA_BITS, 2),
}
each_setting = pytest.mark.parametrize("name", SETTINGS)


def oracle(family: ExponentialFamily, theta: float) -> Tensor:
    """E f by a sum over the four codes or a fine grid, sharing no code with the estimators."""
    if isinstance(family, (Gaussian, GaussianFixedVariance)):
        axis = torch.linspace(-11, 11, 601, dtype=torch.float64)
        points, cell = torch.cartesian_prod(axis, axis)[:, None], float(axis[1] - axis[0]) ** 2
    else:
        points, cell = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).double()[:, None], 1.0
    return (family.log_prob(points).exp() * f(points, torch.tensor(theta, dtype=torch.float64))).sum(0) * cell


def oracle_gradient(setting: Setting, theta: float) -> tuple[Tensor, Tensor]:
    """Central differences of the oracle in every natural parameter and in θ."""
    step = 1e-5
    grad = torch.zeros_like(setting.eta)
    for index in torch.cartesian_prod(*map(torch.arange, setting.eta.shape)).tolist():
        shift = torch.zeros_like(setting.eta)
        shift[tuple(index)] = step
        up, down = (oracle(setting.make(setting.eta + s), theta) for s in (shift, -shift))
        grad[tuple(index)] = ((up - down) / (2 * step)).sum()
    up, down = (oracle(setting.make(setting.eta), theta + s).sum() for s in (step, -step))
    return grad, (up - down) / (2 * step)


def estimate(setting: Setting, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient in η and gradient in θ of n independent estimates, stacked along the first axis."""
    eta = setting.eta.expand(n, *setting.eta.shape).clone().requires_grad_()
    theta = torch.full((n, *setting.eta.shape[:-1]), 0.7, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(seed)
    value = setting.estimator.expectation(setting.make(eta), lambda z: f(z, theta), generator)
    grad_eta, grad_theta = torch.autograd.grad(value.sum(), (eta, theta))
    return value.detach(), grad_eta, grad_theta


@each_setting
def test_follows_the_protocol(name: str) -> None:
    setting = SETTINGS[name]
    assert isinstance(setting.estimator, Estimator)
    assert setting.estimator.unbiased
    value, _, _ = estimate(setting, 2, 0)
    assert value.shape == (2, *setting.eta.shape[:-1])


@each_setting
def test_value_and_gradient_are_unbiased(name: str) -> None:
    setting = SETTINGS[name]
    true_value = oracle(setting.make(setting.eta), 0.7)
    true_eta, true_theta = oracle_gradient(setting, 0.7)
    n = 40_000 if setting.draws else 1
    value, grad_eta, grad_theta = estimate(setting, n, 1)
    pairs = [(value, true_value), (grad_eta, true_eta), (grad_theta.flatten(1).sum(1), true_theta)]
    for drawn, truth in pairs:
        if setting.draws:
            z = (drawn.mean(0) - truth) / (drawn.std(0) / n**0.5)
            assert float(z.abs().max()) < Z_MAX
            assert float((drawn.std(0) / n**0.5).max()) < 0.05, "too few draws to notice a bias"
        else:
            torch.testing.assert_close(drawn[0], truth, rtol=1e-7, atol=1e-7)


@each_setting
def test_uses_the_number_of_draws_it_was_given(name: str) -> None:
    setting = SETTINGS[name]
    seen: list[int] = []

    def counting(z: Tensor) -> Tensor:
        seen.append(len(z))
        return z[..., 0]

    setting.estimator.expectation(setting.make(setting.eta), counting, torch.Generator().manual_seed(0))
    assert seen == [setting.draws] if setting.draws else seen[0] in (4, 40**2)


def test_more_samples_lower_the_variance_as_they_should() -> None:
    one, three = (estimate(SETTINGS[f"reparameterized-{k}"], 20_000, 2)[0].var(0) for k in (1, 3))
    torch.testing.assert_close(one / three, torch.full_like(one, 3.0), rtol=0.1, atol=0)


def test_a_state_of_probability_zero_may_have_minus_infinity() -> None:
    q = Bernoulli(torch.tensor([-800.0, 0.0]).double())
    value = Exact().expectation(q, lambda z: torch.where(z[..., 0] > 0, -torch.inf, z[..., 1]))
    assert value.item() == pytest.approx(0.5)


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"needs a family with rsample, as Gaussian is, got Bernoulli.*use Exact"):
        Reparameterized().expectation(Bernoulli(torch.zeros(2)), lambda z: z[..., 0])
    with pytest.raises(ValueError, match="enumeration stops"):
        Exact().expectation(Gaussian(-torch.ones(20)), lambda z: z[..., 0])
    with pytest.raises(ValueError, match="enumeration stops"):
        Exact().expectation(Bernoulli(torch.zeros(50)), lambda z: z[..., 0])
