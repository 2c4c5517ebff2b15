"""Estimators for bits: bias of straight-through, what is drawn, how often f is evaluated, limits of precision.

Labels: eq-1a, own-straight-through. The z-scores of the unbiased estimators for a smooth f with a parameter are in
test_estimators.py, their variances in test_estimators_variance.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from efvae.estimators import ARM, DisARM, Estimator, Exact, Reinforce, StraightThrough
from efvae.families import Bernoulli, Gaussian, all_bits
from efvae.objectives import elbo
from tests.bit_problems import DRAWS, Problem, draw, seeded, z_mean, z_variance
from tests.cases import Z_MAX
from tests.models import binary_vae, bits

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


def slope_variance(f: Callable[[Tensor], Tensor], eta: Tensor) -> Tensor:
    """σ'(η)² Var ∂f/∂z by enumeration: of one draw."""
    z = all_bits(2).requires_grad_()
    (derivative,) = torch.autograd.grad(f(z).sum(), z)
    q, p = Bernoulli(eta).log_prob(z.detach()).exp()[:, None], torch.sigmoid(eta)
    return (p * (1 - p)).square() * ((q * derivative.square()).sum(0) - (q * derivative).sum(0).square())


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
    assert z_variance(drawn, slope_variance(f, ETA) / 2) < Z_MAX
    assert z_variance(drawn, slope_variance(f, ETA)) > 3 * Z_MAX


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
        with pytest.raises(
            ValueError, match=f"{make.__name__}: samples must be a whole number of at least {least}, got {least - 1}"
        ):
            make(least - 1)
    for estimator in (ARM(), DisARM(), StraightThrough()):
        with pytest.raises(ValueError, match="needs independent bits, got Gaussian"):
            estimator.expectation(Gaussian(-torch.ones(4)), lambda z: z[..., 0])
